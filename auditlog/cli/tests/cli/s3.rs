//! A log in a bucket, as a process: what a kill leaves behind is there, and in the bucket only.

use std::path::Path;

use fanlight_auditlog::{TileSource as _, VerifierKey};
use fanlight_stores::{AnyStore, open_reader};

use crate::bucket::{self, Kind, Server as Bucket};
use crate::support::{self, ORIGIN, Server, audited_size_of, client, run, run_with_input, stderr, stdout};

const STORE: &str = "s3://bucket/some/log";

/// A log in a bucket, with its key and its index in a directory.
struct BucketLog {
    endpoint: String,
    key_file: String,
    vkey: VerifierKey,
    directory: tempfile::TempDir,
}

impl BucketLog {
    fn init(bucket: &Bucket) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (endpoint, key_file) = (bucket.endpoint.clone(), text(&directory.path().join("key")));
        let index = text(&directory.path().join("first"));
        let store = ["--endpoint-url", &endpoint, "--key", &key_file, "--index", &index];
        let output = run(&[&["init", STORE, "--origin", ORIGIN], &store[..]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let vkey = stdout(&output).trim_end().parse().expect("a vkey and nothing else");
        let again = run(&[&["init", STORE, "--origin", ORIGIN], &store[..]].concat());
        assert!(!again.status.success() && stderr(&again).contains("holds a log already"), "{}", stderr(&again));
        Self { endpoint, key_file, vkey, directory }
    }

    /// The arguments that say where it is; an index of another name is a machine of its own.
    fn args(&self, index: &str) -> Vec<String> {
        let index = text(&self.directory.path().join(index));
        ["--endpoint-url", &self.endpoint, "--key", &self.key_file, "--index", &index].map(str::to_owned).into()
    }

    fn serve(&self, index: &str) -> Server {
        let args = self.args(index);
        Server::start(STORE, &args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn append(&self, index: &str, lines: &[&str]) -> String {
        let args = self.args(index);
        let args = [&["append", STORE, "--lines"][..], &args.iter().map(String::as_str).collect::<Vec<_>>()].concat();
        let output = run_with_input(&args, lines.join("\n").as_bytes());
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output).to_owned()
    }

    async fn reader(&self) -> AnyStore {
        let location = STORE.parse().expect("a location");
        open_reader(&location, Some(&self.endpoint)).await.expect("the bucket is read")
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("temporary paths are text").to_owned()
}

/// Adds an entry: its index.
async fn add(server: &Server, entry: &str) -> u64 {
    let added = client().post(server.url("/add")).body(entry.to_owned()).send().await.expect("an answer");
    assert_eq!(added.status(), 200);
    added.headers()["x-log-index"].to_str().expect("text").parse().expect("a number")
}

#[test]
fn append_finds_what_is_there_from_any_machine() {
    bucket::run(async {
        let bucket = Bucket::start(Kind::Moto).await;
        let log = BucketLog::init(&bucket);
        assert_eq!(log.append("first", &["a", "b", "a"]), "0\n1\n0\n");
        assert_eq!(log.append("first", &["b", "c"]), "1\n2\n");
        // One that has never seen the log builds the index from it.
        assert_eq!(log.append("second", &["c", "a", "d"]), "2\n0\n3\n");
        let reader = log.reader().await;
        assert_eq!(audited_size_of(&reader, &log.vkey).await, 4);
        assert!(reader.get("private/key").await.unwrap().is_none(), "the key stays here");
    });
}

#[test]
fn no_kill_of_a_server_loses_an_answered_entry() {
    bucket::run(async {
        let bucket = Bucket::start(Kind::Moto).await;
        let log = BucketLog::init(&bucket);
        let mut answered: Vec<(String, u64)> = Vec::new();
        for kill in 0..4 {
            // A machine that is lost takes its index with it.
            let server = log.serve(if kill == 2 { "second" } else { "first" });
            for (entry, index) in &answered {
                assert_eq!(add(&server, entry).await, *index, "an entry is logged once");
            }
            for n in 0..5 {
                let entry = format!("kill {kill} entry {n}");
                let index = add(&server, &entry).await;
                answered.push((entry, index));
            }
            // More is under way when the process dies, at some moment of its round.
            let under_way = client().post(server.url("/add")).body(format!("under way {kill}")).send();
            let killed = async {
                for _ in 0..kill * 100 {
                    tokio::task::yield_now().await;
                }
                server.signal("-KILL");
            };
            let (_, ()) = tokio::join!(under_way, killed);
        }
        let server = log.serve("first");
        let leaf = fanlight_auditlog::leaf_hash(answered[7].0.as_bytes()).to_hex();
        assert_eq!(client().get(server.url(&format!("/proof/{leaf}"))).send().await.unwrap().status(), 200);
        drop(server);
        let reader = log.reader().await;
        let size = audited_size_of(&reader, &log.vkey).await;
        // What was under way may be in it or not.
        assert!((20..=24).contains(&size), "{size} entries");
        for (entry, index) in &answered {
            assert_eq!(support::entry_of(&reader, &log.vkey, *index).await, entry.as_bytes());
        }
    });
}
