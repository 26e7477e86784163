//! Entries on their way into the log, when it is busy.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanlight_gateway::metrics::Counter;
use fanlight_gateway::{Host, LogError};
use fanlight_protocol::response::{Frame, FrameType};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::app::App;
use crate::relay::Piece;

/// How long an entry is offered again to a log that is at its capacity.
const RETRY_FOR: Duration = Duration::from_mins(1);
/// Pause before the first further attempt; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// Longest wait of a client, whose answer is whole, for the proof that its receipt is logged.
const INCLUSION_WAIT: Duration = Duration::from_secs(10);

/// Appends an entry, and keeps trying for a minute while the log is at its capacity.
pub(crate) async fn append_patiently(app: &App, entry: Bytes) -> Result<String, LogError> {
    let (started, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        match app.append(entry.clone()).await {
            Err(LogError::Overloaded) if started.elapsed() < RETRY_FOR && !app.killed.is_cancelled() => {}
            answer => return answer,
        }
        let _ = app.killed.run_until_cancelled(tokio::time::sleep(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Appends a receipt, and ends its client's answer with the proof of it, or without one when that takes too long.
pub(crate) async fn log_receipt(app: Arc<App>, entry: Bytes, client: Option<mpsc::UnboundedSender<Piece>>) {
    let mut append = pin!(append_patiently(&app, entry));
    let in_time = tokio::time::timeout(INCLUSION_WAIT, append.as_mut()).await;
    if let Some(client) = client {
        if let Ok(Ok(proof)) = &in_time {
            let frame = Frame { frame_type: FrameType::Inclusion, payload: proof.as_bytes() }.to_bytes();
            // The client may have left with its receipt.
            let _ = client.send(Piece::Part { bytes: frame.into(), sealed: false });
        }
        let _ = client.send(Piece::Finished);
    }
    let outcome = match in_time {
        Ok(Ok(_)) => "logged",
        Ok(Err(_)) => "failed",
        // Without the client, for whom it is too late.
        Err(_) => append.await.map_or("failed", |_| "late"),
    };
    app.metrics().add(Counter::ReceiptsLogged, outcome, 1);
}

#[cfg(test)]
mod tests {
    use fanlight_auditlog::{Config, DirStore, Log, Sequencer, Signer, TokioTimer};
    use futures_util::FutureExt;
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// An app whose log takes one entry for a round, and the sequencer that is not running yet.
    async fn app(dir: &std::path::Path) -> (App, Sequencer<DirStore>) {
        let store = DirStore::open_writer(dir).unwrap();
        let signer = Signer::new("log.example/append", &[1; 32]).unwrap();
        fanlight_auditlog::create(&store, &signer).await.unwrap();
        let pace = Config { max_delay: Duration::from_millis(1), max_pool_entries: 1, ..Config::default() };
        let (log, sequencer) = Log::open(store, signer, pace).await.unwrap();
        (App::new(log, CancellationToken::new()), sequencer)
    }

    #[tokio::test]
    async fn an_entry_waits_for_a_log_at_its_capacity() {
        let dir = tempfile::tempdir().unwrap();
        let (app, sequencer) = app(dir.path()).await;
        let mut fills = Box::pin(app.append("first".into()));
        assert!(fills.as_mut().now_or_never().is_none());
        assert_eq!(app.append("second".into()).await, Err(LogError::Overloaded));
        let mut waits = Box::pin(append_patiently(&app, "second".into()));
        assert!(waits.as_mut().now_or_never().is_none());
        let running = tokio::spawn(sequencer.run(TokioTimer::new()));
        assert!(fills.await.is_ok());
        assert!(waits.await.is_ok());
        app.stop().await;
        running.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_log_that_answers_nothing_does_not_keep_the_gateway() {
        let dir = tempfile::tempdir().unwrap();
        let (app, _never_runs) = app(dir.path()).await;
        let app = Arc::new(app);
        let mut logs = Box::pin(log_receipt(Arc::clone(&app), "receipt".into(), None));
        assert!(logs.as_mut().now_or_never().is_none());
        app.killed.cancel();
        logs.await;
        assert_eq!(app.metrics().value(Counter::ReceiptsLogged, "failed"), 1);
        app.stop().await;
    }
}
