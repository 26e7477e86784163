//! `monitor`: follow a log, remember it, raise alerts.

mod args;
mod contradiction;
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
    let mut outcome = look(args, &policy, &dir, &mut state, &clock).await?;
    let Some(interval) = args.interval else { return Ok(outcome) };
    let mut interrupt = pin!(interrupted());
    loop {
        print(&outcome)?;
        // Files are replaced as a whole and between two waits, so that an interrupt loses a look and nothing else.
        let next = async {
            tokio::time::sleep(interval).await;
            look(args, &policy, &dir, &mut state, &clock).await
        };
        tokio::select! {
            looked = next => outcome = looked?,
            () = &mut interrupt => return Ok(outcome),
        }
    }
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
        shown: None,
        seen: Seen::default(),
    };
    round.look().await?;
    let Round { state, seen, .. } = round;
    let duration_millis = clock().as_millis().saturating_sub(now.as_millis());
    let report = Report { args, state, seen: &seen, now, duration_millis };
    if let Some(path) = &args.textfile {
        state_dir::write_whole(path, textfile::metrics(&report).as_bytes())?;
    }
    Ok(report.outcome())
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
