//! Logs and copies in a bucket of an S3 server that we did not write.

#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "../../../auditlog/stores/tests/s3/server.rs"]
mod bucket;
#[path = "../../tests/world/mod.rs"]
mod world;

use std::path::Path;
use std::process::Command;

use bucket::{Kind, Server};
use fanlight_auditlog::{ObjectStore as _, TileSource as _};
use fanlight_stores::open_copy;
use serde_json::Value;
use world::TestLog;

/// What would tell the command of a machine's own credentials or server.
const AWS_VARIABLES: [&str; 8] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
];

/// The command, run in a directory of its own as on a machine without credentials.
struct Verify {
    directory: tempfile::TempDir,
    endpoint: String,
    vkey: String,
}

impl Verify {
    fn new(server: &Server, log: &TestLog) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { directory, endpoint: server.endpoint.clone(), vkey: log.vkey() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fanlight-verify"));
        command.arg("--json").args(args).args(["--log-key", &self.vkey]).current_dir(self.directory.path());
        for name in AWS_VARIABLES {
            command.env_remove(name);
        }
        command.env_remove("FANLIGHT_POLICY").env("HOME", self.directory.path()).env("AWS_EC2_METADATA_DISABLED", "true");
        command
    }

    /// Runs the command at the server, with credentials: its exit status, and what it says.
    fn run(&self, args: &[&str]) -> (i32, Value) {
        let mut command = self.command(args);
        command.args(["--endpoint-url", &self.endpoint]);
        end(command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test"))
    }

    fn path(&self, name: &str) -> String {
        text(&self.directory.path().join(name)).to_owned()
    }
}

fn end(command: &mut Command) -> (i32, Value) {
    let output = command.output().expect("the command starts");
    let code = output.status.code().expect("the command exits");
    (code, serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {output:?}")))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// A log of `n` entries in two checkpoints.
async fn log_of(n: usize) -> TestLog {
    let log = TestLog::open(1).await;
    log.append(b"first").await;
    let entries: Vec<String> = (1..n).map(|n| format!("entry {n}")).collect();
    futures_util::future::join_all(entries.iter().map(|entry| log.append(entry.as_bytes()))).await;
    log
}

#[test]
fn copies_in_buckets_are_checked_like_others() {
    bucket::run(async {
        let (server, log) = (Server::start(Kind::Moto).await, log_of(600).await);
        let verify = Verify::new(&server, &log);
        let (original, copy) = (text(log.dir.path()), "s3://bucket/copy");
        let (code, value) = verify.run(&["mirror", original, copy]);
        assert_eq!((code, &value["tree_size"], &value["n_resumed"]), (0, &600.into(), &0.into()), "{value}");
        let (code, value) = verify.run(&["fsck", copy]);
        assert_eq!((code, &value["tree_size"], &value["n_damaged"]), (0, &600.into(), &0.into()), "{value}");

        // It is gone on with, and is as good an origin as the log itself.
        let old = verify.path("old");
        std::fs::write(&old, log.checkpoint()).unwrap();
        log.append(b"one more").await;
        let (code, value) = verify.run(&["mirror", original, copy]);
        assert_eq!((code, &value["tree_size"], &value["old_tree_size"]), (0, &601.into(), &600.into()), "{value}");
        let back = verify.path("back");
        assert_eq!(verify.run(&["mirror", copy, &back]).0, 0);
        assert_eq!(verify.run(&["fsck", &back]).0, 0);
        let (code, value) = verify.run(&["consistency", &old, copy]);
        assert_eq!((code, &value["new_tree_size"]), (0, &601.into()), "{value}");
        let (code, value) = verify.run(&["provider", &"00".repeat(32), "--log", copy]);
        assert_eq!((code, &value["tree_size"]), (1, &601.into()), "nobody heard of this provider: {value}");

        // The bucket as the log, and as another view of it.
        let state = verify.path("state");
        let (code, value) = verify.run(&["monitor", copy, "--state", &state, "--also", copy]);
        assert_eq!((code, &value["checked_entries"], &value["compared"]), (0, &601.into(), &1.into()), "{value}");

        // Every byte counts, and so does what a directory would list.
        let store = open_copy(&copy.parse().unwrap(), Some(&server.endpoint)).await.unwrap();
        let full = "tile/0/001";
        let mut bytes = store.get(full).await.unwrap().unwrap().to_vec();
        bytes[100] ^= 1;
        store.put(full, bytes.into()).await.unwrap();
        let leftover = "tile/0/000.p/9";
        store.put(leftover, vec![7; 9 * 32].into()).await.unwrap();
        let (code, value) = verify.run(&["fsck", copy]);
        assert_eq!((code, &value["n_damaged"]), (1, &2.into()), "{value}");
        let mut damaged = [&value["damage"][0]["path"], &value["damage"][1]["path"]];
        damaged.sort_by_key(ToString::to_string);
        assert_eq!(damaged, [leftover, full]);
        assert!(Path::new(&verify.path(value["evidence"].as_str().unwrap())).exists());
    });
}

#[test]
fn what_cannot_be_reached_says_what_to_do() {
    bucket::run(async {
        let (server, log) = (Server::start(Kind::Moto).await, log_of(3).await);
        let verify = Verify::new(&server, &log);
        let original = text(log.dir.path());
        let state = verify.path("state");
        for (args, says) in [
            (&["fsck", "s3://other-bucket/log"][..], "there is no such bucket; create it, or correct its name or --endpoint-url"),
            (&["mirror", original, "s3://other-bucket/log"], "there is no such bucket"),
            (&["fsck", "s3://bucket/nothing"], "s3://bucket/nothing has no checkpoint"),
            (&["fsck", "s3://b/log"], "a bucket's name has 3 to 63"),
            (&["fsck", "ftp://bucket/log"], "no store is named ftp://"),
        ] {
            let (code, value) = verify.run(args);
            assert!(code == 2 && value["error"].as_str().unwrap().contains(says), "{args:?}: {value}");
        }
        let (code, value) = verify.run(&["monitor", "s3://other-bucket/log", "--state", &state]);
        assert!(code == 2 && value.to_string().contains("there is no such bucket"), "{value}");

        // Without credentials requests are not signed, which is enough for a public bucket, and never for writing.
        assert_eq!(verify.run(&["mirror", original, "s3://bucket/log"]).0, 0);
        let unsigned = |args: &[&str]| end(verify.command(args).args(["--endpoint-url", &server.endpoint]));
        for args in [&["fsck", "s3://bucket/log"][..], &["mirror", original, "s3://bucket/log"]] {
            let (code, value) = unsigned(args);
            let says = value["error"].as_str().unwrap();
            assert!(code == 2 && says.contains("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"), "{args:?}: {value}");
        }
        // Port 9 discards, if anything listens there at all.
        let mut elsewhere = verify.command(&["fsck", "s3://bucket/log", "--endpoint-url", "http://127.0.0.1:9"]);
        let (code, value) = end(&mut elsewhere);
        let says = value["error"].as_str().unwrap();
        assert!(code == 2 && says.contains("cannot reach the server; is --endpoint-url"), "{value}");
    });
}
