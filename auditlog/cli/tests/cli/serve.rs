//! `serve`: what it answers over HTTP, and how it ends.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use fanlight_auditlog::bundle::write_entry;
use fanlight_auditlog::{Policy, TlogProof, VerifierKey, leaf_hash};
use reqwest::{Method, StatusCode};

use crate::support::{Server, audited_size, client, init, run, stderr};

const BATCH: &str = "application/x.tlog.entries";

fn batch(entries: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    for entry in entries {
        write_entry(&mut body, entry).expect("short enough");
    }
    body
}

fn verified_index(proof: &str, entry: &[u8], key: &VerifierKey) -> u64 {
    let proof = TlogProof::parse(proof.as_bytes()).expect("a proof");
    proof.verify(entry, &Policy::for_log(key.clone())).expect("a good proof").index()
}

#[tokio::test]
async fn the_http_surface() {
    let (_dir, store, key) = init();
    let server = Server::start(&store, &[]);
    let client = client();

    let added = client.post(server.url("/add")).body("an entry").send().await.unwrap();
    assert_eq!((added.status(), &added.headers()["x-log-index"]), (StatusCode::OK, &"0".parse().unwrap()));
    assert_eq!(verified_index(&added.text().await.unwrap(), b"an entry", &key), 0);
    let longest = client.post(server.url("/add")).body(vec![0; 65_535]).send().await.unwrap();
    assert_eq!(longest.status(), 200);

    let leaf = leaf_hash(b"an entry").to_hex();
    for (path, status, content_type, cache_control) in [
        ("/checkpoint", 200, "text/plain; charset=utf-8", "no-cache"),
        ("/tile/0/000.p/2", 200, "application/octet-stream", "public, max-age=31536000, immutable"),
        ("/tile/entries/000.p/1", 200, "application/octet-stream", "public, max-age=31536000, immutable"),
        ("/tile/0/000", 404, "text/plain; charset=utf-8", "no-store"),
        ("/private/key", 404, "text/plain; charset=utf-8", "no-store"),
        ("/tile/0/..%2f..%2fprivate/key", 404, "text/plain; charset=utf-8", "no-store"),
        ("/", 404, "text/plain; charset=utf-8", "no-store"),
        (&format!("/proof/{leaf}"), 200, "text/plain; charset=utf-8", "public, max-age=60"),
        (&format!("/proof/{}", leaf.to_ascii_uppercase()), 200, "text/plain; charset=utf-8", "public, max-age=60"),
        (&format!("/proof/{}", leaf_hash(b"another").to_hex()), 404, "text/plain; charset=utf-8", "no-store"),
        ("/proof/abc", 400, "text/plain; charset=utf-8", "no-store"),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let response = client.request(method, server.url(path)).send().await.unwrap();
            let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
            assert_eq!(response.status(), status, "{path}");
            assert_eq!(
                (header("content-type").as_str(), header("cache-control").as_str()),
                (content_type, cache_control),
                "{path}"
            );
            assert_eq!(header("access-control-allow-origin"), "*", "{path}");
        }
    }
    let proof = client.get(server.url(&format!("/proof/{leaf}"))).send().await.unwrap().text().await.unwrap();
    assert_eq!(verified_index(&proof, b"an entry", &key), 0);

    assert_eq!(client.post(server.url("/checkpoint")).send().await.unwrap().status(), 405);
    assert_eq!(client.get(server.url("/add")).send().await.unwrap().status(), 405);
    let healthy = client.get(server.url("/healthz")).send().await.unwrap();
    assert_eq!((healthy.status(), healthy.text().await.unwrap().as_str()), (StatusCode::OK, "ok\n"));

    let second = run(&["append", &store]);
    assert!(!second.status.success());
    assert!(stderr(&second).contains("another writer holds the lock"), "{}", stderr(&second));
    assert!(stderr(&second).contains("private/writer"), "{}", stderr(&second));
}

#[tokio::test]
async fn a_checkpoint_that_is_known_is_not_sent_again() {
    let (_dir, store, _) = init();
    let server = Server::start(&store, &[]);
    let get = |tags: &str| client().get(server.url("/checkpoint")).header("if-none-match", tags.to_owned()).send();
    let first = get("\"another\"").await.unwrap();
    let tag = first.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(first.status(), 200);
    for tags in [tag.clone(), format!("W/{tag}"), format!("\"another\", {tag}"), "*".to_owned()] {
        let again = get(&tags).await.unwrap();
        assert_eq!(
            (again.status(), again.headers()["etag"].to_str().unwrap()),
            (StatusCode::NOT_MODIFIED, tag.as_str()),
            "{tags}"
        );
        assert_eq!(again.text().await.unwrap(), "");
    }
    client().post(server.url("/add")).body("an entry").send().await.unwrap();
    assert_eq!(get(&tag).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_page_of_another_origin_may_use_the_log() {
    let (_dir, store, _) = init();
    let server = Server::start(&store, &[]);
    for path in ["/add", "/checkpoint", "/proof/00"] {
        let preflight = client().request(Method::OPTIONS, server.url(path)).send().await.unwrap();
        let header = |name: &str| preflight.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(preflight.status(), 204);
        assert_eq!(header("access-control-allow-origin"), "*");
        assert!(header("access-control-allow-methods").contains("POST"));
        assert!(header("access-control-allow-headers").contains("content-type"));
    }
    // How the operator's log does is not for them.
    let metrics = client().get(server.url("/metrics")).send().await.unwrap();
    assert!(!metrics.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn a_batch_is_answered_entry_by_entry() {
    let (_dir, store, key) = init();
    let server = Server::start(&store, &[]);
    let entries: [&[u8]; 5] = [b"one", b"two", b"", b"one", &vec![7; 65_535]];
    let add = client().post(server.url("/add")).header("content-type", format!("{BATCH}; v=1")).body(batch(&entries));
    let response = add.send().await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["content-type"]),
        (StatusCode::OK, &"application/x-ndjson".parse().unwrap())
    );
    let text = response.text().await.unwrap();
    let mut indices = Vec::new();
    for (line, entry) in text.lines().zip(entries) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let index = line["index"].as_u64().unwrap();
        assert_eq!(verified_index(line["tlog_proof"].as_str().unwrap(), entry, &key), index);
        indices.push(index);
    }
    assert_eq!((indices, text.lines().count()), (vec![0, 1, 2, 0, 3], 5));
}

#[tokio::test]
async fn what_is_no_entry_is_refused() {
    let (_dir, store, _) = init();
    let server = Server::start(&store, &[]);
    let too_many = [b"".as_slice(); 257];
    for (content_type, body, status, words) in [
        ("text/plain", vec![0; 65_536], 413, "65535 bytes"),
        ("text/plain", vec![0; 1 << 20], 413, "65535 bytes"),
        (BATCH, vec![0; (4 << 20) + 1], 413, "4 MiB"),
        (BATCH, Vec::new(), 400, "without entries"),
        (BATCH, vec![0, 5, 1], 400, "ends inside an entry"),
        (BATCH, batch(&too_many), 400, "more than 256 entries"),
        ("multipart/form-data; boundary=x", b"--x--".to_vec(), 415, "--data-binary"),
    ] {
        let response = client().post(server.url("/add")).header("content-type", content_type).body(body).send().await.unwrap();
        assert_eq!(response.status(), status, "{words}");
        let text = response.text().await.unwrap();
        assert!(text.contains(words), "{text}");
    }
    let packed = client().post(server.url("/add")).header("content-encoding", "gzip").body("x").send().await.unwrap();
    assert_eq!(packed.status(), 415);
    assert_eq!(server.metric("fanlight_log_appended_total").await, Some(0.0));
}

#[tokio::test]
async fn an_entry_keeps_its_index_when_the_server_is_killed() {
    let (_dir, store, key) = init();
    for n_kills in 0..3u64 {
        let mut server = Server::start(&store, &[]);
        for earlier in 0..=n_kills {
            let entry = format!("entry {earlier}");
            let added = client().post(server.url("/add")).body(entry.clone()).send().await.unwrap();
            assert_eq!(verified_index(&added.text().await.unwrap(), entry.as_bytes(), &key), earlier);
            let path = format!("/proof/{}", leaf_hash(entry.as_bytes()).to_hex());
            let found = client().get(server.url(&path)).send().await.unwrap().text().await.unwrap();
            assert_eq!(verified_index(&found, entry.as_bytes(), &key), earlier);
        }
        server.signal("-KILL");
        assert!(!server.wait().success());
    }
    assert_eq!(audited_size(&store, &key).await, 3);
}

#[tokio::test]
async fn a_full_pool_says_when_to_come_back() {
    let (_dir, store, key) = init();
    // Nothing is due for a minute, and what waits is less than half of what may.
    let mut server = Server::start(&store, &["--max-delay", "60000", "--max-pool-bytes", "65535"]);
    let add = |entry: Vec<u8>| client().post(server.url("/add")).body(entry).send();
    let waiting = tokio::spawn(add(vec![1; 32_000]));
    server.until("fanlight_log_pool_bytes", 32_000.0).await;
    let refused = add(vec![2; 40_000]).await.unwrap();
    assert_eq!(refused.status(), 503);
    let retry_after: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&retry_after), "{retry_after}");
    assert_eq!(server.metric("fanlight_log_overloaded_total").await, Some(1.0));

    let entries = batch(&[&vec![3; 40_000], &vec![4; 50_000]]);
    let refused = client().post(server.url("/add")).header("content-type", BATCH).body(entries).send().await.unwrap();
    assert!(refused.status() == 503 && refused.headers().contains_key("retry-after"));
    for line in refused.text().await.unwrap().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["status"] == 503 && line["retry_after"].as_u64() >= Some(1) && line["error"].is_string(), "{line}");
    }

    // Whoever waits at the end is answered at the end, however early that is.
    server.signal("-TERM");
    let answered = waiting.await.unwrap().unwrap();
    assert_eq!(verified_index(&answered.text().await.unwrap(), &vec![1; 32_000], &key), 0);
    assert!(server.wait().success());
    assert_eq!(audited_size(&store, &key).await, 1);
}

#[tokio::test]
async fn slow_clients_cost_nobody_else_anything() {
    let (_dir, store, _) = init();
    let mut server = Server::start(&store, &["--max-connections", "3"]);
    let connect = |sent: &str| {
        let mut socket = TcpStream::connect(server.address()).unwrap();
        socket.write_all(sent.as_bytes()).unwrap();
        socket
    };
    let half_head = connect("POST /add HTTP/1.1\r\nhost: log\r\n");
    let half_body = connect("POST /add HTTP/1.1\r\nhost: log\r\ncontent-length: 10\r\n\r\nhalf");
    let added = client().post(server.url("/add")).body("whole").send().await.unwrap();
    assert_eq!(added.status(), 200);
    // A connection beyond the limit waits until the head of another one is overdue.
    let silent = connect("");
    let added = client().post(server.url("/add")).body("whole too").send().await.unwrap();
    assert_eq!(added.status(), 200);
    let mut answer = Vec::new();
    for mut overdue in [half_head, silent] {
        overdue.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        // Closed, perhaps after a few words about it.
        overdue.read_to_end(&mut answer).unwrap();
    }
    server.signal("-TERM");
    assert!(server.wait().success());
    drop(half_body);
}

#[tokio::test]
async fn announced_bodies_take_nothing_from_others() {
    let (_dir, store, _) = init();
    let server = Server::start(&store, &[]);
    let announce = || {
        let mut socket = TcpStream::connect(server.address()).unwrap();
        let head = format!("POST /add HTTP/1.1\r\nhost: log\r\ncontent-type: {BATCH}\r\ncontent-length: 4194304\r\n\r\n");
        socket.write_all(head.as_bytes()).unwrap();
        socket
    };
    let silent: Vec<TcpStream> = (0..32).map(|_| announce()).collect();
    server.until("fanlight_log_adds", 32.0).await;
    assert_eq!(client().post(server.url("/add")).body("one").send().await.unwrap().status(), 200);
    let add = client().post(server.url("/add")).header("content-type", BATCH).body(batch(&[b"two", b"three"]));
    assert_eq!(add.send().await.unwrap().status(), 200);
    drop(silent);
}

#[tokio::test]
async fn readers_that_take_nothing_are_cut_off_and_hold_little() {
    let (_dir, store, key) = init();
    let mut server = Server::start(&store, &["--patience", "3000"]);
    let n_entries = 256u16;
    for first in (0..n_entries).step_by(32) {
        let entries: Vec<Vec<u8>> = (first..first + 32).map(|n| n.to_be_bytes().repeat(32_767)).collect();
        let body = batch(&entries.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let added = client().post(server.url("/add")).header("content-type", BATCH).body(body).send().await.unwrap();
        assert_eq!(added.status(), 200);
    }
    let ask = || {
        let mut socket = TcpStream::connect(server.address()).unwrap();
        socket.write_all(b"GET /tile/entries/000 HTTP/1.1\r\nhost: log\r\n\r\n").unwrap();
        socket
    };
    let silent: Vec<TcpStream> = (0..24).map(|_| ask()).collect();
    // As many as may be held, whatever is asked for.
    server.until("fanlight_log_sending_bytes", 8.0 * 256.0 * 65_536.0).await;
    // What is short needs no share.
    let checkpoint = client().get(server.url("/checkpoint")).send();
    let checkpoint = tokio::time::timeout(Duration::from_secs(2), checkpoint).await.expect("an answer at once");
    assert_eq!(checkpoint.unwrap().status(), 200);
    // Whoever reads gets its turn once they are given up.
    let read = async {
        loop {
            let answer = client().get(server.url("/tile/entries/000")).send().await.unwrap();
            if answer.status() == 200 {
                return answer.bytes().await.unwrap();
            }
        }
    };
    let bytes = tokio::time::timeout(Duration::from_mins(1), read).await.expect("the silent ones are cut off");
    assert_eq!(bytes.len(), 256 * (2 + 65_534));
    drop(silent);
    server.signal("-TERM");
    assert!(server.wait().success());
    assert_eq!(audited_size(&store, &key).await, u64::from(n_entries));
}

#[tokio::test]
async fn metrics_are_what_prometheus_reads() {
    let (_dir, store, _) = init();
    let server = Server::start(&store, &[]);
    for entry in ["one", "two", "one"] {
        client().post(server.url("/add")).body(entry).send().await.unwrap();
    }
    let response = client().get(server.url("/metrics")).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().await.unwrap();
    let mut declared = None;
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, _) = help.split_once(' ').unwrap();
            declared = Some((name, ""));
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(declared == Some((name, "")) && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            declared = Some((name, kind));
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let (name, kind) = declared.unwrap();
            let suffix = sample.strip_prefix(name).unwrap_or_else(|| panic!("{line} does not belong to {name}"));
            let suffix = suffix.split('{').next().unwrap();
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix) && value.parse::<f64>().is_ok(), "{line}");
        }
    }
    for line in [
        "fanlight_log_tree_size 2",
        "fanlight_log_appended_total 2",
        "fanlight_log_duplicates_total 1",
        "fanlight_log_append_seconds_count 3",
        "fanlight_log_append_seconds_bucket{le=\"+Inf\"} 3",
        "fanlight_log_waiting_appends 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
    }
}

#[tokio::test]
async fn termination_ends_a_server_at_rest() {
    let (_dir, store, key) = init();
    for signal in ["-TERM", "-INT"] {
        let mut server = Server::start(&store, &[]);
        let added = client().post(server.url("/add")).body(signal).send().await.unwrap();
        assert_eq!(added.status(), 200);
        server.signal(signal);
        assert!(server.wait().success());
    }
    assert_eq!(audited_size(&store, &key).await, 2);
}
