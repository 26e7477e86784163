//! An HTTP server in front of a log's directory, and beside it everything a server can do wrong.

use std::collections::HashSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves until the test's runtime ends.
pub(crate) struct Server {
    address: SocketAddr,
}

/// What was asked for before.
type Seen = Arc<Mutex<HashSet<String>>>;

impl Server {
    pub(crate) async fn start(log: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let log = log.to_owned();
        let seen = Seen::default();
        drop(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(tokio::spawn(answer(stream, log.clone(), address, Arc::clone(&seen))));
            }
        }));
        Self { address }
    }

    pub(crate) fn url(&self, prefix: &str) -> String {
        format!("http://{}{prefix}", self.address)
    }
}

async fn answer(mut stream: TcpStream, log: PathBuf, address: SocketAddr, seen: Seen) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let request = String::from_utf8_lossy(&request);
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (prefix, key) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
    let length = |n: usize| format!("content-length: {n}");
    let not_found = || ("404 Not Found", length(0), Vec::new());
    let plain = || match std::fs::read(log.join(key)) {
        Ok(body) => ("200 OK", length(body.len()), body),
        Err(_) => not_found(),
    };
    let is_new = || seen.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
    let (status, header, body) = match prefix {
        // Compressed without being asked, as C2SP tlog-tiles allows.
        "gzip" if key.starts_with("tile/entries/") => {
            let (status, _, body) = plain();
            let body = gzip(&body);
            (status, format!("content-encoding: gzip\r\n{}", length(body.len())), body)
        }
        // 64 MiB of zeros in 64 KiB.
        "bomb" if key.starts_with("tile/entries/") => {
            let body = gzip(&vec![0; 64 << 20]);
            ("200 OK", format!("content-encoding: gzip\r\n{}", length(body.len())), body)
        }
        "flaky" if is_new() => ("503 Service Unavailable", format!("retry-after: 0\r\n{}", length(0)), Vec::new()),
        "busy" => ("429 Too Many Requests", format!("retry-after: 0\r\n{}", length(0)), Vec::new()),
        "no-tiles" if key != "checkpoint" => not_found(),
        // One tile in place of every other one.
        "swapped" if key.starts_with("tile/") => {
            let body = std::fs::read(log.join("tile/0/000"))?;
            ("200 OK", length(body.len()), body)
        }
        // A cache that holds an old checkpoint, and gives it to all who do not ask for a fresh one; and one that always does.
        "cached" | "replayed"
            if key == "checkpoint" && (prefix == "replayed" || !request.contains("cache-control: no-cache")) =>
        {
            let body = std::fs::read(log.join("old-checkpoint"))?;
            ("200 OK", length(body.len()), body)
        }
        "html" => ("200 OK", length(15), b"<html>hi</html>".to_vec()),
        "log" | "gzip" | "bomb" | "flaky" | "no-tiles" | "swapped" | "slow" | "cached" | "replayed" => plain(),
        "moved" => ("302 Found", format!("location: /log/{key}\r\n{}", length(0)), Vec::new()),
        // The same server by another name: still another host.
        "elsewhere" => {
            let location = format!("location: http://localhost:{}/log/{key}\r\n{}", address.port(), length(0));
            ("302 Found", location, Vec::new())
        }
        "broken" => ("503 Service Unavailable", length(0), Vec::new()),
        "forever" => ("200 OK", "content-type: text/plain".to_owned(), Vec::new()),
        "endless" => ("200 OK", length(1 << 20), vec![b'x'; 1 << 20]),
        "cut" => ("200 OK", length(100), b"log.example/test\n".to_vec()),
        _ => ("404 Not Found", length(0), Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\n{header}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    if prefix == "slow" {
        // Byte by byte.
        stream.set_nodelay(true)?;
        for byte in body {
            stream.write_all(&[byte]).await?;
            tokio::task::yield_now().await;
        }
    } else if prefix == "forever" {
        // Until the client has had enough.
        loop {
            stream.write_all(&[b'x'; 1 << 12]).await?;
        }
    } else {
        stream.write_all(&body).await?;
    }
    stream.shutdown().await
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory takes every write");
    encoder.finish().expect("memory takes every write")
}
