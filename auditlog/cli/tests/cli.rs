//! The command as a process: what it prints, what it refuses, and what a kill leaves behind.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use fanlight_auditlog::fsck::fsck;
use fanlight_auditlog::{DirStore, Policy, Reader, TlogProof, VerifierKey};
use tempfile::TempDir;

const ORIGIN: &str = "log.example/cli";

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanlight-log"));
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(args: &[&str]) -> Output {
    command(args).output().expect("the command starts")
}

fn run_with_input(args: &[&str], input: &[u8]) -> Output {
    let mut child = command(args).stdin(Stdio::piped()).spawn().expect("the command starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input).expect("the command reads all of its input");
    drop(stdin);
    child.wait_with_output().expect("the command ends")
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("text")
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("text")
}

/// A new log: its directory and the key that `init` printed.
fn init() -> (TempDir, String, VerifierKey) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = dir.path().join("log").to_str().expect("text").to_owned();
    let output = run(&["init", &store, "--origin", ORIGIN]);
    assert!(output.status.success(), "{}", stderr(&output));
    let vkey = stdout(&output).strip_suffix('\n').expect("one line").parse().expect("a vkey and nothing else");
    (dir, store, vkey)
}

fn check(store: &str, key: &VerifierKey) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(audited_size(store, key))
}

/// Recomputes the whole log; its size.
async fn audited_size(store: &str, key: &VerifierKey) -> u64 {
    let report = fsck(&DirStore::open_reader(store), key, |_| {}).await.expect("the log adds up");
    report.checkpoint().tree_size()
}

fn entry(store: &str, key: &VerifierKey, index: u64) -> bytes::Bytes {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let reader = Reader::latest(DirStore::open_reader(store), key).await.expect("the log opens");
        reader.entry(index).await.expect("the entry is there")
    })
}

#[test]
fn init_creates_a_log_once_and_keeps_its_key_to_itself() {
    let (_dir, store, key) = init();
    assert_eq!(key.name(), ORIGIN);
    assert_eq!(check(&store, &key), 0);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = Path::new(&store).join("private/key").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let again = run(&["init", &store, "--origin", ORIGIN]);
    assert!(!again.status.success());
    assert!(stderr(&again).contains("holds a log already"), "{}", stderr(&again));
    assert_eq!(stdout(&again), "");
}

#[test]
fn init_uses_a_key_kept_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let first = run(&["init", &path("one"), "--origin", ORIGIN, "--key", &path("key")]);
    let second = run(&["init", &path("two"), "--origin", ORIGIN, "--key", &path("key")]);
    assert!(first.status.success() && first.stdout == second.stdout, "{}", stderr(&second));
    assert!(!dir.path().join("one/private/key").exists());
    let other = run(&["init", &path("three"), "--origin", "log.example/other", "--key", &path("key")]);
    assert!(stderr(&other).contains("is of another origin"), "{}", stderr(&other));
    let append = run_with_input(&["append", &path("one"), "--key", &path("key")], b"entry");
    assert_eq!(stdout(&append), "0\n");
}

#[test]
fn append_prints_an_index_for_each_entry() {
    let (dir, store, key) = init();
    let file = |name: &str, contents: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let files = run(&["append", &store, &file("a", b"first\n"), &file("b", b"\0second")]);
    assert_eq!(stdout(&files), "0\n1\n", "{}", stderr(&files));
    let lines = run_with_input(&["append", &store, "--lines"], b"third\nfourth\nthird");
    assert_eq!(stdout(&lines), "2\n3\n2\n", "{}", stderr(&lines));
    let whole = run_with_input(&["append", &store], b"first\n");
    assert_eq!(stdout(&whole), "0\n", "{}", stderr(&whole));
    assert_eq!(check(&store, &key), 4);
    assert_eq!(entry(&store, &key, 0), "first\n");
    assert_eq!(entry(&store, &key, 3), "fourth");
}

#[test]
fn too_long_entries_are_named_and_the_others_logged() {
    let (_dir, store, key) = init();
    let input = format!("before\n{}\nafter\n", "x".repeat(65_536));
    let output = run_with_input(&["append", &store, "--lines"], input.as_bytes());
    assert!(!output.status.success());
    assert_eq!(stdout(&output), "0\n1\n");
    assert!(stderr(&output).contains("line 2 of standard input is longer than 65535 bytes"), "{}", stderr(&output));
    assert_eq!(check(&store, &key), 2);
}

#[test]
fn what_cannot_work_says_why() {
    let (dir, store, _) = init();
    let missing = dir.path().join("missing").to_str().unwrap().to_owned();
    for (args, message) in [
        (vec!["init", "s3://bucket/log", "--origin", ORIGIN], "this build's stores are directories"),
        (vec!["append", "s3://bucket/log"], "this build's stores are directories"),
        (vec!["append", &missing], "`fanlight-log init` creates one"),
        (vec!["append", &store, &missing], "cannot read"),
        (vec!["init", &missing, "--origin", "two words"], "bad key name"),
        (vec!["serve", &store, "--listen", "nowhere"], "invalid socket address"),
    ] {
        let output = run(&args);
        assert!(!output.status.success(), "{args:?}");
        assert!(stderr(&output).contains(message), "{args:?}: {}", stderr(&output));
    }
    assert!(!dir.path().join("s3:").exists());
}

/// `serve` on a free port.
struct Server {
    child: Child,
    // Kept open: the server may still print.
    _stdout: BufReader<ChildStdout>,
    url: String,
}

impl Server {
    fn start(store: &str) -> Self {
        let mut child = command(&["serve", store, "--listen", "127.0.0.1:0", "--round-period-ms", "20"])
            .stderr(Stdio::null())
            .spawn()
            .expect("the command starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("the server says where it listens");
        let url = line.trim_end().strip_prefix("listening on ").expect("an address").to_owned();
        Self { child, _stdout: stdout, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client() -> reqwest::Client {
    // Not used on loopback, but the client wants one to exist.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

#[tokio::test]
async fn the_http_surface() {
    let (_dir, store, key) = init();
    let server = Server::start(&store);
    let client = client();
    let url = |path: &str| format!("{}{path}", server.url);

    let added = client.post(url("/add")).body("an entry").send().await.unwrap();
    assert_eq!(added.status(), 200);
    let proof = TlogProof::parse(&added.bytes().await.unwrap()).unwrap();
    assert_eq!(proof.verify(b"an entry", &Policy::for_log(key.clone())).unwrap().index(), 0);

    let too_long = client.post(url("/add")).body(vec![0; 65_536]).send().await.unwrap();
    assert_eq!(too_long.status(), 413);
    let longest = client.post(url("/add")).body(vec![0; 65_535]).send().await.unwrap();
    assert_eq!(longest.status(), 200);

    for (path, status, content_type, cache_control) in [
        ("/checkpoint", 200, "text/plain; charset=utf-8", "no-cache"),
        ("/tile/0/000.p/2", 200, "application/octet-stream", "public, max-age=31536000, immutable"),
        ("/tile/entries/000.p/1", 200, "application/octet-stream", "public, max-age=31536000, immutable"),
        ("/tile/0/000", 404, "text/plain; charset=utf-8", "no-store"),
        ("/private/key", 404, "text/plain; charset=utf-8", "no-store"),
        ("/tile/0/..%2f..%2fprivate/key", 404, "text/plain; charset=utf-8", "no-store"),
        ("/", 404, "text/plain; charset=utf-8", "no-store"),
    ] {
        let response = client.get(url(path)).send().await.unwrap();
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!((header("content-type").as_str(), header("cache-control").as_str()), (content_type, cache_control), "{path}");
        assert_eq!(header("access-control-allow-origin"), "*", "{path}");
    }
    assert_eq!(client.post(url("/checkpoint")).send().await.unwrap().status(), 405);
    assert_eq!(client.get(url("/add")).send().await.unwrap().status(), 405);
    assert_eq!(client.get(url("/healthz")).send().await.unwrap().status(), 200);
    let metrics = client.get(url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("\nfanlight_log_tree_size 2\n"), "{metrics}");
    assert!(metrics.contains("\nfanlight_log_append_seconds_count 2\n"), "{metrics}");

    let second = run(&["append", &store]);
    assert!(!second.status.success());
    assert!(stderr(&second).contains("another writer holds the lock"), "{}", stderr(&second));
    assert!(stderr(&second).contains("private/writer"), "{}", stderr(&second));
}

#[cfg(unix)]
#[tokio::test]
async fn termination_finishes_the_round() {
    let (_dir, store, key) = init();
    let mut server = Server::start(&store);
    let added = client().post(format!("{}/add", server.url)).body("last").send().await.unwrap();
    assert_eq!(added.status(), 200);
    let killed = Command::new("kill").args(["-TERM", &server.child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert!(server.child.wait().unwrap().success());
    assert_eq!(audited_size(&store, &key).await, 1);
}

/// Kills the command at another moment each time, and checks that what it had answered by then is in the log.
#[test]
fn no_kill_loses_an_answered_entry() {
    let (_dir, store, key) = init();
    let mut answered: Vec<(u64, String)> = Vec::new();
    for kill in 0..12usize {
        let mut child = command(&["append", &store, "--lines"]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines: Vec<String> = (0..3000).map(|line| format!("kill {kill} line {line}")).collect();
        let mut stdin = child.stdin.take().unwrap();
        let input = lines.join("\n");
        let writer = std::thread::spawn(move || {
            // The pipe breaks when the command is killed.
            let _ = stdin.write_all(input.as_bytes());
        });
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        // By what was answered, not by time: the first lines, the middle of a round, between rounds.
        let n_before_kill = kill * 67;
        let mut indices = Vec::new();
        while indices.len() < n_before_kill {
            let mut line = String::new();
            assert!(stdout.read_line(&mut line).unwrap() > 0, "the input is longer than this");
            indices.push(line.trim_end().parse::<u64>().unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What is still in the pipe was answered too.
        for line in stdout.lines() {
            let line = line.unwrap();
            if let Ok(index) = line.parse() {
                indices.push(index);
            }
        }
        writer.join().unwrap();
        answered.extend(indices.into_iter().zip(lines));

        // The next writer makes the log good.
        let output = run_with_input(&["append", &store], format!("after kill {kill}").as_bytes());
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(check(&store, &key) > answered.len() as u64);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let reader = Reader::latest(DirStore::open_reader(&store), &key).await.unwrap();
        for (index, line) in &answered {
            assert_eq!(&reader.entry(*index).await.unwrap(), line.as_bytes(), "entry {index}");
        }
    });
}
