//! What is remembered between runs, and the files that are written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use fanlight_verifier::monitor::AlertName;

use crate::world::{TestLog, World};
use crate::{Monitor, Served, ids, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_is_never_a_new_beginning() {
    let World { log, .. } = World::new().await;
    let store = text(log.dir.path());
    let monitor = Monitor::of(&log);
    assert_eq!(monitor.run(store).0, 0);
    let path = monitor.state.path().join("state");
    let good = fs::read(&path).unwrap();
    let at = good.len() / 2;
    let flipped = [&good[..at], &[good[at] ^ 1], &good[at + 1..]].concat();
    for (bad, reason) in [
        (flipped.as_slice(), "damaged"),
        (&good[..at], "damaged"),
        (b"", "not a monitor's state"),
        (b"fanlight-verify monitor state v2 00\n{}", "a version that is not known"),
    ] {
        fs::write(&path, bad).unwrap();
        let (code, value) = monitor.run(store);
        let error = value["error"].as_str().unwrap();
        assert!(code == 2 && error.contains(reason) && error.contains("restore it from a backup"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bad, "it is left as it is");
    }
    fs::write(&path, &good).unwrap();
    assert_eq!(monitor.run(store).0, 0);

    // A state of one log does not serve for another.
    let other = TestLog::open_named("other.example", 3).await;
    let (code, value) = Monitor { vkey: other.vkey(), ..monitor }.run(text(other.dir.path()));
    assert!(code == 2 && value["error"].as_str().unwrap().contains("of another log"), "{value}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_leaves_a_state_to_go_on_from() {
    let World { log, .. } = World::new().await;
    let served = Served::of(&log).await;
    let monitor = Monitor::of(&log);
    for n in 0..12_u64 {
        let mut child = monitor.command(&served.url()).args(["--interval", "0s"]).stdout(Stdio::piped()).spawn().unwrap();
        // From its first result on it is saving again and again; at an arbitrary moment then it is gone.
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("\"verdict\":\"good\""), "{line}");
        tokio::time::sleep(Duration::from_micros(n * 700)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        log.append(&n.to_be_bytes()).await;
        served.publish(&log);
        let (code, value) = monitor.run(&served.url());
        assert_eq!((code, &value["new_entries"], ids(&value)), (0, &1.into(), vec![]), "{value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_monitors_do_not_share_a_state() {
    let log = TestLog::open(1).await;
    let store = text(log.dir.path());
    let monitor = Monitor::of(&log);
    let mut child = monitor.command(store).args(["--interval", "1h"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"verdict\":\"good\""));
    let (code, value) = monitor.run(store);
    assert!(code == 2 && value["error"].as_str().unwrap().contains("another monitor is at work"), "{value}");
    // An interrupt ends the loop with the last result.
    let killed = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(monitor.run(store).0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_goes_back() {
    let log = TestLog::open(1).await;
    let store = text(log.dir.path());
    let monitor = Monitor::of(&log);
    assert_eq!(monitor.run(store).0, 0);
    // As if the last run had been in the future. The sum is made anew, as only a program would.
    let path = monitor.state.path().join("state");
    let state = String::from_utf8(fs::read(&path).unwrap()).unwrap();
    let (_, json) = state.split_once('\n').unwrap();
    let mut json: serde_json::Value = serde_json::from_str(json).unwrap();
    json["last_run"] = (json["last_run"].as_u64().unwrap() + 3_600_000).into();
    let json = json.to_string();
    let sum = fanlight_protocol::Digest::of(json.as_bytes());
    fs::write(&path, format!("fanlight-verify monitor state v1 {sum}\n{json}")).unwrap();
    assert_eq!(monitor.alerts(store), (1, vec!["clock_wrong".to_owned()]));
    assert_eq!(monitor.alerts(store), (0, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_is_told_although_it_cannot_be_written() {
    let (log, fork) = (TestLog::open(1).await, TestLog::open(1).await);
    log.append(b"ours").await;
    fork.append(b"theirs").await;
    let monitor = Monitor::of(&log);
    assert_eq!(monitor.run(text(log.dir.path())).0, 0);
    // Evidence, state and metrics: what is in the way is of another kind.
    let state = monitor.state.path();
    fs::write(state.join("evidence/fork"), "").unwrap();
    fs::create_dir(state.join("state.tmp")).unwrap();
    let textfile = state.join("evidence");
    let (code, value) = monitor.run_with(text(fork.dir.path()), &["--textfile", text(&textfile)]);
    assert_eq!((code, ids(&value)), (1, vec!["split_view".to_owned()]), "{value}");
    let detail = value["alerts"][0]["details"][0].as_str().unwrap();
    assert!(detail.contains("two different trees of 1 entries; evidence was not written to"), "{detail}");
    assert_eq!(value["unusable"].as_array().unwrap().len(), 2, "{value}");
    // With room again it is kept.
    fs::remove_file(state.join("evidence/fork")).unwrap();
    fs::remove_dir(state.join("state.tmp")).unwrap();
    let (code, value) = monitor.run(text(fork.dir.path()));
    assert_eq!((code, value["alerts"][0]["evidence"].as_array().unwrap().len()), (1, 1), "{value}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_outlives_what_it_looks_at() {
    let log = TestLog::open(1).await;
    let served = Served::of(&log).await;
    let monitor = Monitor::of(&log);
    let mut child = monitor.command(text(served.dir.path())).args(["--interval", "0s"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("\"verdict\":\"good\""));
    let (path, aside) = (served.dir.path().to_owned(), served.dir.path().with_extension("aside"));
    fs::rename(&path, &aside).unwrap();
    assert!(lines.any(|line| line.contains("\"verdict\":\"unchecked\"")));
    fs::rename(&aside, &path).unwrap();
    assert!(lines.any(|line| line.contains("\"verdict\":\"good\"")));
    // A state that cannot be written is told as well, and the next can.
    let in_the_way = monitor.state.path().join("state.tmp");
    while fs::create_dir(&in_the_way).is_err() {}
    assert!(lines.any(|line| line.contains("\"verdict\":\"unchecked\"")));
    fs::remove_dir(&in_the_way).unwrap();
    assert!(lines.any(|line| line.contains("\"verdict\":\"good\"")));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Metric and labels to value.
type Samples = BTreeMap<String, f64>;

/// Reads the text exposition format, and refuses what a collector would.
fn parse(text: &str) -> Samples {
    let mut samples = Samples::new();
    let mut described: BTreeSet<&str> = BTreeSet::new();
    let mut family = "";
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a help text");
            assert!(!help.is_empty() && described.insert(name), "{line}");
            family = name;
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            assert_eq!(kind, format!("{family} gauge"));
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = sample.split_once('{').expect("labels");
        assert_eq!(name, family, "samples stand under their own family");
        for label in labels.strip_suffix('}').expect("the end of the labels").split("\",") {
            let (name, value) = label.split_once("=\"").expect("a label");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase()) && !value.contains('\n'), "{line}");
        }
        assert!(samples.insert(sample.to_owned(), value.parse().expect("a number")).is_none(), "{line} twice");
    }
    samples
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_for_a_textfile_collector() {
    let World { log, .. } = World::new().await;
    let served = Served::of(&log).await;
    let file = served.path("fanlight.prom");
    let monitor = Monitor::of(&log).with(&["--textfile", text(&file)]);
    // There is one from the first run on, even if that reads nothing.
    assert_eq!(monitor.run(&served.server.url("/broken")).0, 2);
    let metrics = parse(&fs::read_to_string(&file).unwrap());
    let url = served.server.url("/broken");
    assert_eq!(metrics[&format!("fanlight_monitor_up{{log=\"{url}\"}}")].to_string(), "0");
    // A rule on its age must fire for a monitor that never could.
    assert_eq!(metrics[&format!("fanlight_monitor_last_success_timestamp_seconds{{log=\"{url}\"}}")].to_string(), "0");

    assert_eq!(monitor.run(&served.url()).0, 0);
    let metrics = parse(&fs::read_to_string(&file).unwrap());
    let value =
        |name: &str, labels: &str| metrics[&format!("fanlight_monitor_{name}{{log=\"log.example/test\"{labels}}}")].to_string();
    assert_eq!((value("up", ""), value("tree_size", ""), value("checked_entries", "")), ("1".into(), "4".into(), "4".into()));
    assert_eq!(value("last_success_timestamp_seconds", ""), value("last_run_timestamp_seconds", ""));
    assert_eq!((value("entries", ",kind=\"receipt\""), value("entries", ",kind=\"foreign\"")), ("1".into(), "1".into()));
    assert_eq!(value("providers", ""), "1");
    for name in AlertName::ALL {
        let labels = format!(",alert=\"{name}\",severity=\"{}\"", name.severity().as_str());
        assert_eq!(value("alerts", &labels), "0", "every alert has its number, so that rules see it come");
    }
    let success = value("last_success_timestamp_seconds", "");
    served.set("checkpoint", "not a note");
    assert_eq!(monitor.run(&served.url()).0, 1);
    let metrics = parse(&fs::read_to_string(&file).unwrap());
    let log = "{log=\"log.example/test\"";
    assert_eq!(
        metrics[&format!("fanlight_monitor_alerts{log},alert=\"bad_signature\",severity=\"critical\"}}")].to_string(),
        "1"
    );
    assert_eq!(metrics[&format!("fanlight_monitor_last_success_timestamp_seconds{log}}}")].to_string(), success);
    assert!(!served.path("fanlight.prom.tmp").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn usage() {
    let log = TestLog::open(1).await;
    let monitor = Monitor::of(&log);
    let store = text(log.dir.path());
    let help = monitor.command(store).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for part in ["*/5 * * * *", "--textfile", "expr: sum by (log, alert)", "split_view", "a log that does not grow is not stale"]
    {
        assert!(help.contains(part), "{part}: {help}");
    }
    for bad in [&["--acknowledge", "rollback"][..], &["--expect", "/nowhere"]] {
        let (code, value) = monitor.run_with(store, bad);
        assert_eq!((code, value["error"].is_string() || value["complete"] == false), (2, true), "{bad:?}: {value}");
    }
    for bad in [&["--max-age", "soon"][..], &["--ignore", "nothing"], &["--once", "--interval", "1m"]] {
        assert_eq!(monitor.command(store).args(bad).output().unwrap().status.code(), Some(2), "{bad:?}");
    }
}
