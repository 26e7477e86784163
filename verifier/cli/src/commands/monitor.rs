//! `monitor`: follow a log, remember it, raise alerts.

mod args;
mod contradiction;
mod growth;
mod others;
mod report;
mod round;
mod state_dir;
mod textfile;

use std::collections::BTreeSet;
use std::pin::pin;

use anyhow::bail;
use fanlight_auditlog::Policy;
use fanlight_protocol::UnixTime;
use fanlight_verifier::monitor::State;

pub(crate) use self::args::MonitorArgs;
use self::report::Report;
use self::round::{Round, Seen};
use self::state_dir::StateDir;
use crate::durable;
use crate::outcome::Outcome;

/// Looks once, or until interrupted. `clock` is read at the start and the end of each look; every outcome but the last,
/// which is returned, goes to `print`.
pub(crate) async fn run(
    args: &MonitorArgs,
    clock: impl Fn() -> UnixTime,
    print: impl Fn(&Outcome) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let policy = args.trust.policy()?;
    let dir = StateDir::open(&args.state)?;
    let now = clock();
    let mut state = dir.load(&policy)?.unwrap_or_else(|| State::new(now));
    acknowledge(args, &mut state, now)?;
    let looked = look(args, &policy, &dir, &mut state, &clock).await;
    let Some(interval) = args.interval else { return looked };
    let mut outcome = told(looked);
    let mut interrupt = pin!(interrupted());
    loop {
        print(&outcome)?;
        // Files are replaced as a whole and between two waits, so that an interrupt loses a look and nothing else.
        let next = async {
            tokio::time::sleep(interval).await;
            look(args, &policy, &dir, &mut state, &clock).await
        };
        tokio::select! {
            looked = next => outcome = told(looked),
            () = &mut interrupt => return Ok(outcome),
        }
    }
}

/// A look that failed is told like every other: the next may not fail.
fn told(looked: anyhow::Result<Outcome>) -> Outcome {
    looked.unwrap_or_else(|error| {
        eprintln!("fanlight-verify: {error:#}");
        Outcome::unchecked(&error)
    })
}

async fn look(
    args: &MonitorArgs,
    policy: &Policy,
    dir: &StateDir,
    state: &mut State,
    clock: &impl Fn() -> UnixTime,
) -> anyhow::Result<Outcome> {
    let now = clock();
    let mut round = Round {
        args,
        policy,
        dir,
        state,
        now,
        observations: Vec::new(),
        looked_for: BTreeSet::new(),
        unread: BTreeSet::new(),
        shown: None,
        seen: Seen::default(),
    };
    round.look().await?;
    let Round { state, mut seen, .. } = round;
    let duration_millis = clock().as_millis().saturating_sub(now.as_millis());
    if let Some(path) = &args.textfile {
        let metrics = textfile::metrics(&Report { args, state, seen: &seen, now, duration_millis });
        // Readers see the old file or this one.
        if let Err(error) = durable::replace(path, metrics.as_bytes()) {
            seen.unusable.push((path.display().to_string(), format!("it was not written: {error}")));
        }
    }
    Ok(Report { args, state, seen: &seen, now, duration_millis }.outcome())
}

fn acknowledge(args: &MonitorArgs, state: &mut State, now: UnixTime) -> anyhow::Result<()> {
    for id in &args.acknowledge {
        if !state.alerts.acknowledge(id, now) {
            bail!("no alert {id} is open; --json lists the ids of those that are");
        }
    }
    Ok(())
}

async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminated) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    tokio::signal::ctrl_c().await.ok();
}
