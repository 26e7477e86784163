//! `init` and `append`: what they print, and what they refuse.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::support::{ORIGIN, check, command, entry, init, run, run_with_input, stderr, stdout};

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
fn an_error_does_not_wait_for_more_input() {
    let (_dir, store, _) = init();
    // What the first round writes is there with other bytes, so that the log cannot go on.
    let tile = Path::new(&store).join("tile/entries/000.p/1");
    fs::create_dir_all(tile.parent().unwrap()).unwrap();
    fs::write(tile, "other bytes").unwrap();
    let mut child = command(&["append", &store, "--lines"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"an entry\n").unwrap();
    let (sender, ended) = mpsc::channel();
    let waiting = thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    let output = ended.recv_timeout(Duration::from_mins(1)).expect("it ends although its input does not");
    assert!(!output.status.success() && stderr(&output).contains("the log stopped"), "{}", stderr(&output));
    drop(stdin);
    waiting.join().unwrap().unwrap();
}

#[test]
fn what_cannot_work_says_why() {
    let (dir, store, _) = init();
    let missing = dir.path().join("missing").to_str().unwrap().to_owned();
    for (args, message) in [
        (vec!["init", "s3://bucket/log", "--origin", ORIGIN], "is a file here; --key FILE names it"),
        (vec!["append", "s3://bucket/log"], "is a file here; --key FILE names it"),
        (vec!["append", "s3://b/log"], "a bucket's name has 3 to 63"),
        (vec!["append", "gs://bucket/log"], "give a directory or s3://bucket/prefix"),
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
