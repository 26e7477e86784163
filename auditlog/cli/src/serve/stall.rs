//! A connection that ends when its client does not take what it is sent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Bytes that a client must take in the time that it has, or all that there are: with 30 s, some 17 kbit/s.
const MIN_PROGRESS: usize = 64 * 1024;

/// A stream whose writes fail once they waited for `patience` without enough progress. Reads have limits of their own.
#[derive(Debug)]
pub(super) struct Unstalled<S> {
    stream: S,
    patience: Duration,
    // Since a write had to wait, until enough was written or nothing is left to write.
    overdue: Option<Pin<Box<Sleep>>>,
    written: usize,
}

impl<S> Unstalled<S> {
    pub(super) fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, overdue: None, written: 0 }
    }

    fn progress(&mut self) {
        self.overdue = None;
        self.written = 0;
    }

    fn judge(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(n)) => {
                self.written = self.written.saturating_add(*n);
                if self.written >= MIN_PROGRESS {
                    self.progress();
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                let patience = self.patience;
                if self.overdue.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Comes once all is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.progress();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_reader_that_is_silent_or_drips_is_given_up() {
        for drips in [false, true] {
            let (ours, mut theirs) = tokio::io::duplex(16);
            let mut ours = Unstalled::new(ours, PATIENCE);
            let reading = tokio::spawn(async move {
                let mut byte = [0];
                while drips && theirs.read_exact(&mut byte).await.is_ok() {
                    sleep(Duration::from_millis(1)).await;
                }
                if !drips {
                    std::future::pending::<()>().await;
                }
            });
            let sent = ours.write_all(&vec![7; 4 * MIN_PROGRESS]).await;
            assert_eq!(sent.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut), "drips: {drips}");
            reading.abort();
        }
    }
}
