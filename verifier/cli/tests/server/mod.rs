//! An HTTP server in front of a log's directory, and beside it everything a server can do wrong.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves until the test's runtime ends.
pub(crate) struct Server {
    address: SocketAddr,
}

impl Server {
    pub(crate) async fn start(log: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let log = log.to_owned();
        drop(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(tokio::spawn(answer(stream, log.clone(), address)));
            }
        }));
        Self { address }
    }

    pub(crate) fn url(&self, prefix: &str) -> String {
        format!("http://{}{prefix}", self.address)
    }
}

async fn answer(mut stream: TcpStream, log: PathBuf, address: SocketAddr) -> std::io::Result<()> {
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
    let (status, header, body) = match prefix {
        "log" => match std::fs::read(log.join(key)) {
            Ok(body) => ("200 OK", length(body.len()), body),
            Err(_) => ("404 Not Found", length(0), Vec::new()),
        },
        "moved" => ("302 Found", format!("location: /log/{key}\r\n{}", length(0)), Vec::new()),
        // The same server by another name: still another host.
        "elsewhere" => {
            let location = format!("location: http://localhost:{}/log/{key}\r\n{}", address.port(), length(0));
            ("302 Found", location, Vec::new())
        }
        "broken" => ("503 Service Unavailable", length(0), Vec::new()),
        "endless" => ("200 OK", length(1 << 20), vec![b'x'; 1 << 20]),
        "cut" => ("200 OK", length(100), b"log.example/test\n".to_vec()),
        _ => ("404 Not Found", length(0), Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\n{header}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}
