//! What comes over the network: paths, methods, sizes, slowness.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::process::{Witness, client, init};
use crate::tree::{Tree, request};

#[tokio::test]
async fn the_surface() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::new("log.example/test", 1, 30);
    init(dir.path(), "witness.example/w1");
    let witness = Witness::start(dir.path(), [&tree.key()]);
    assert_eq!(witness.checkpoint(tree.origin()).await, None);
    let (status, lines) = witness.add(tree.request(0, 20)).await;
    assert_eq!((status, lines.lines().count()), (200, 2));
    let served = witness.checkpoint(tree.origin()).await.unwrap();
    assert_eq!(served, tree.note(20) + &lines);

    let stranger = Tree::new("log.example/stranger", 1, 5);
    let impostor = Tree::new("log.example/test", 2, 30);
    for (expected, request) in [
        (400, "nonsense".to_owned()),
        (403, impostor.request(20, 30)),
        (404, stranger.request(0, 5)),
        (422, request(20, &[], &tree.note(30))),
    ] {
        let (status, body) = witness.add(request).await;
        assert_eq!((status, body.ends_with('\n')), (expected, true), "{body}");
    }
    let conflict = client().post(format!("{}/add-checkpoint", witness.url)).body(tree.request(0, 30)).send().await.unwrap();
    assert_eq!(conflict.status(), 409);
    assert_eq!(conflict.headers()["content-type"], "text/x.tlog.size");
    assert_eq!(conflict.text().await.unwrap(), "20\n");

    for (path, status) in [
        ("/add-checkpoint", 405),
        ("/sign-subtree", 404),
        ("/", 404),
        ("/private/witness-keys", 404),
        ("/private/checkpoint", 404),
        ("/%2e%2e/checkpoint", 404),
        ("/healthz", 200),
    ] {
        assert_eq!(witness.get(path).await.0, status, "{path}");
    }
    let (status, metrics) = witness.get("/metrics").await;
    assert_eq!(status, 200);
    for (outcome, count) in [("cosigned", 1), ("unknown_log", 1), ("not_signed", 1), ("inconsistent", 1), ("other_old_size", 1)] {
        let line = format!("fanlight_witness_requests_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    let checkpoint = format!("{}/{}/checkpoint", witness.url, fanlight_protocol::Digest::of(tree.origin().as_bytes()));
    let answer = client().get(checkpoint).send().await.unwrap();
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");

    // The longest request that makes sense, and longer ones.
    let noise = Tree::new("elsewhere.example/noise", 7, 0).signer().sign(&tree.text(30));
    let noise = noise.rsplit_once("\n\n").unwrap().1.repeat(90);
    assert_eq!(witness.add(tree.request(20, 30) + &noise).await.0, 200);
    assert_eq!(witness.add("x".repeat(200 * 1024)).await.0, 413);
    // What is much longer is cut off, perhaps before the answer is read.
    let endless = witness.try_add("x".repeat(16 * 1024 * 1024)).await;
    assert!(endless.map_or(true, |(status, _)| status == 413));
    assert_eq!(witness.add(tree.request(30, 30)).await.0, 200);
}

/// Clients that send a byte and wait are cut off, and hold up nobody meanwhile.
#[tokio::test]
async fn slow_clients() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::new("log.example/test", 1, 30);
    init(dir.path(), "witness.example/w1");
    let witness = Witness::start(dir.path(), [&tree.key()]);
    let mut slow = Vec::new();
    for n in 0..120 {
        let start = match n % 3 {
            0 => "",
            1 => "POST /add-checkpoint HTTP/1.1\r\nhost: x\r\n",
            _ => "POST /add-checkpoint HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\nold 0\n",
        };
        let mut socket = TcpStream::connect(witness.address()).await.unwrap();
        socket.write_all(start.as_bytes()).await.unwrap();
        slow.push(socket);
    }
    assert_eq!(witness.add(tree.request(0, 20)).await.0, 200);
    for mut socket in slow {
        let mut answer = Vec::new();
        let ended = timeout(Duration::from_mins(1), socket.read_to_end(&mut answer)).await.expect("it is cut off");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(ended.is_err() || answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    assert_eq!(witness.add(tree.request(20, 30)).await.0, 200);
}

/// A client that goes away at once does not take its request with it half done.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::new("log.example/test", 1, 200);
    init(dir.path(), "witness.example/w1");
    let witness = Witness::start(dir.path(), [&tree.key()]);
    let (mut size, mut left) = (0, 0);
    while size < 150 {
        for skip in 1..4 {
            let body = tree.request(size, size + skip);
            let head = format!("POST /add-checkpoint HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
            let mut socket = TcpStream::connect(witness.address()).await.unwrap();
            socket.write_all((head + &body).as_bytes()).await.unwrap();
        }
        let recorded = match witness.add(tree.request(size, size + 4)).await {
            (200, _) => size + 4,
            (409, recorded) => recorded.trim_end().parse().unwrap(),
            (status, body) => panic!("{status}: {body}"),
        };
        assert!(recorded >= size, "{recorded} after {size}");
        left += usize::from(recorded != size + 4);
        size = recorded;
    }
    println!("{left} requests were recorded after their clients had left");
}
