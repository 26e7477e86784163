//! Gathering cosignatures over HTTP, from witnesses of every kind.

use std::fs;
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};

use fanlight_auditlog::note::Note;
use fanlight_auditlog::policy::PolicyViolation;
use fanlight_auditlog::sequencer::{Cosigner as _, NotCosigned, TokioTimer};
use fanlight_auditlog::witness::{HttpPost, Mode, Settings, WitnessReport, Witnesses, WitnessesError};
use fanlight_auditlog::{CosignerKey, DirStore, Policy, Reader, Signer, TlogProof, VerifiedCheckpoint, VerifierKey};
use tempfile::TempDir;

use crate::support::{Server, client, init, run, run_with_input, stderr};
use crate::witness::{Behaviour, Witness};

/// Long enough for loopback on a busy machine, where a test does not wait for its end.
const LONG: Duration = Duration::from_secs(20);

/// A log with one entry.
struct Log {
    _dir: TempDir,
    store: String,
    key: VerifierKey,
}

impl Log {
    async fn new() -> Self {
        let (dir, store, key) = init();
        let log = Self { _dir: dir, store, key };
        log.append("an entry\n").await;
        log
    }

    async fn append(&self, lines: &'static str) {
        let store = self.store.clone();
        let append = move || run_with_input(&["append", &store, "--lines"], lines.as_bytes());
        assert!(tokio::task::spawn_blocking(append).await.expect("it ends").status.success());
    }

    async fn reader(&self) -> Reader<DirStore> {
        Reader::latest(DirStore::open_reader(&self.store), &self.key).await.expect("the log opens")
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs()
}

fn policy(witnesses: &[&Witness], quorum: &str) -> Policy {
    let lines: String = witnesses.iter().map(|witness| witness.policy_line()).collect();
    Policy::parse(format!("{lines}{quorum}\n").as_bytes()).expect("a policy")
}

fn gather(log_key: &VerifierKey, policy: Policy, mode: Mode, timeout: Duration) -> Witnesses<HttpPost, TokioTimer> {
    let settings = Settings { mode, timeout, ..Settings::default() };
    let post = HttpPost::new().expect("a client");
    Witnesses::new(policy, log_key, settings, post, TokioTimer::new(), now).expect("witnesses to ask")
}

/// What becomes of one submission to a witness that behaves like this.
async fn outcome(log: &Log, behaviour: Behaviour, timeout: Duration) -> WitnessReport {
    let witness = Witness::start("one", &log.key, behaviour.clone()).await;
    let witnesses = gather(&log.key, policy(&[&witness], "quorum one"), Mode::Required, timeout);
    let reader = log.reader().await;
    let cosigned = witnesses.cosign(&reader).await;
    let reports = witnesses.reports();
    let [report] = reports.as_slice() else { panic!("one witness, one report") };
    assert_eq!(cosigned.is_ok(), report.cosigned > 0, "{behaviour:?}");
    report.clone()
}

#[tokio::test]
async fn every_answer_is_counted_as_what_it_is() {
    let log = Log::new().await;
    log.append("second\nthird\n").await;
    let honest = Witness::start("honest", &log.key, Behaviour::Honest).await;
    let elsewhere = format!("{}/add-checkpoint", honest.url);
    let report = |name: &str| WitnessReport { name: name.to_owned(), ..WitnessReport::default() };
    let one = || report("witness.example/one");
    for behaviour in [400, 403, 404, 409, 418, 422]
        .map(Behaviour::Status)
        .into_iter()
        .chain([Behaviour::Fickle, Behaviour::Redirect(elsewhere)])
    {
        let refused = WitnessReport { refused: 1, ..one() };
        assert_eq!(outcome(&log, behaviour.clone(), LONG).await, refused, "{behaviour:?}");
    }
    assert_eq!(honest.n_requests(), 0);
    for behaviour in [429, 500, 503].map(Behaviour::Status).into_iter().chain([Behaviour::Body(vec![b'a'; 1 << 20])]) {
        let failed = WitnessReport { failed: 1, ..one() };
        assert_eq!(outcome(&log, behaviour.clone(), LONG).await, failed, "{behaviour:?}");
    }
    let stranger = format!("— witness.example/other {}\n", "AAAAAAAAAAAAAAAAAAAA");
    for behaviour in [
        Behaviour::Body(Vec::new()),
        Behaviour::Body(b"garbage\n".to_vec()),
        Behaviour::Body(stranger.into_bytes()),
        Behaviour::OtherTree,
        Behaviour::HonestInThePast(3 * 24 * 60 * 60),
    ] {
        let lying = WitnessReport { lying: 1, ..one() };
        assert_eq!(outcome(&log, behaviour.clone(), LONG).await, lying, "{behaviour:?}");
    }
    assert_eq!(outcome(&log, Behaviour::Ahead(4), LONG).await, WitnessReport { ahead: 1, ..one() });
    let late = outcome(&log, Behaviour::Mute, Duration::from_millis(50)).await;
    assert_eq!(late, WitnessReport { timed_out: 1, ..one() });
    let good = outcome(&log, Behaviour::Honest, LONG).await;
    assert!(good.cosigned == 1 && good.last_cosigned.is_some_and(|time| time.abs_diff(now()) < 60), "{good:?}");
}

#[tokio::test]
async fn a_witness_is_told_how_the_log_grew() {
    let log = Log::new().await;
    let witness = Witness::start("one", &log.key, Behaviour::Honest).await;
    let fresh = || gather(&log.key, policy(&[&witness], "quorum one"), Mode::Required, LONG);
    let first = fresh();
    first.cosign(&log.reader().await).await.unwrap();
    assert_eq!((witness.size(), witness.n_requests()), (1, 1));
    log.append("second\nthird\n").await;
    first.cosign(&log.reader().await).await.unwrap();
    assert_eq!((witness.size(), witness.n_requests()), (3, 2), "the size was remembered");
    // One that remembers nothing, as after a restart, learns the size from the witness.
    log.append("fourth\nfifth\n").await;
    fresh().cosign(&log.reader().await).await.unwrap();
    assert_eq!((witness.size(), witness.n_requests()), (5, 4));
    // The same checkpoint once more.
    first.cosign(&log.reader().await).await.unwrap();
    assert_eq!((witness.size(), witness.n_requests()), (5, 6));
}

#[tokio::test]
async fn a_witness_with_two_keys_is_asked_once() {
    let log = Log::new().await;
    let witness = Witness::start("one", &log.key, Behaviour::Honest).await;
    let text = format!("log {}\n{}group both all one one-pq\nquorum both\n", log.key, witness.policy_lines());
    let policy = Policy::parse(text.as_bytes()).unwrap();
    let witnesses = gather(&log.key, policy.clone(), Mode::Required, LONG);
    let note = witnesses.cosign(&log.reader().await).await.unwrap();
    policy.verify_checkpoint(note.as_bytes()).unwrap();
    assert_eq!((witness.n_requests(), witnesses.reports().len()), (1, 1));
}

#[tokio::test]
async fn an_empty_log_is_witnessed_too() {
    let (_dir, store, key) = init();
    let witness = Witness::start("one", &key, Behaviour::Honest).await;
    let reader = Reader::latest(DirStore::open_reader(&store), &key).await.unwrap();
    assert_eq!(reader.checkpoint().tree_size(), 0);
    gather(&key, policy(&[&witness], "quorum one"), Mode::Required, LONG).cosign(&reader).await.unwrap();
    assert_eq!(witness.n_requests(), 1);
}

#[tokio::test]
async fn a_quorum_does_not_wait_for_the_last() {
    let log = Log::new().await;
    let a = Witness::start("a", &log.key, Behaviour::Honest).await;
    let b = Witness::start("b", &log.key, Behaviour::Honest).await;
    let mute = Witness::start("mute", &log.key, Behaviour::Mute).await;
    let quorum = "group two 2 a b mute\nquorum two";
    let witnesses = gather(&log.key, policy(&[&a, &b, &mute], quorum), Mode::Required, LONG);
    let start = Instant::now();
    let note = witnesses.cosign(&log.reader().await).await.unwrap();
    assert!(start.elapsed() < LONG / 2, "it waited for the mute one");
    let full = format!("log {}\n{}{}{}{quorum}\n", log.key, a.policy_line(), b.policy_line(), mute.policy_line());
    Policy::parse(full.as_bytes()).unwrap().verify_checkpoint(note.as_bytes()).unwrap();
    let counts: Vec<_> = witnesses.reports().iter().map(|report| (report.cosigned, report.timed_out)).collect();
    assert_eq!(counts, [(1, 0), (1, 0), (0, 1)]);
    // It rests for a second at least, so that the next round does not wait for it at all.
    witnesses.cosign(&log.reader().await).await.unwrap();
    assert_eq!((a.n_requests(), mute.n_requests()), (2, 1));
}

#[tokio::test]
async fn without_a_quorum_nothing_passes_unless_told_to() {
    let log = Log::new().await;
    let a = Witness::start("a", &log.key, Behaviour::Honest).await;
    let b = Witness::start("b", &log.key, Behaviour::Status(503)).await;
    let quorum = "group both all a b\nquorum both";
    let required = gather(&log.key, policy(&[&a, &b], quorum), Mode::Required, LONG);
    let reader = log.reader().await;
    assert_eq!(required.cosign(&reader).await, Err(NotCosigned));
    // Where nothing goes without it, a witness is asked again at once.
    assert_eq!(required.cosign(&reader).await, Err(NotCosigned));
    assert_eq!(b.n_requests(), 2);

    let fail_open = gather(&log.key, policy(&[&a, &b], quorum), Mode::FailOpen, LONG);
    let note = fail_open.cosign(&reader).await.unwrap();
    assert_eq!(fail_open.passed_without_quorum(), 1);
    assert!(note.contains(&a.name) && !note.contains(&b.name), "{note}");
    fail_open.cosign(&reader).await.unwrap();
    assert_eq!((fail_open.passed_without_quorum(), b.n_requests()), (2, 3), "it rests where it need not be asked");

    b.now_does(Behaviour::Honest);
    let note = required.cosign(&reader).await.unwrap();
    assert!(note.contains(&a.name) && note.contains(&b.name), "{note}");
}

#[tokio::test]
async fn an_old_cosignature_does_not_take_the_place_of_a_newer_one() {
    let log = Log::new().await;
    let witness = Witness::start("one", &log.key, Behaviour::Honest).await;
    let fresh = || gather(&log.key, policy(&[&witness], "quorum one"), Mode::Required, LONG);
    let reader = log.reader().await;
    let note = fresh().cosign(&reader).await.unwrap();
    let published = VerifiedCheckpoint::verify(note.as_bytes(), &log.key).unwrap();
    let reader = Reader::at(DirStore::open_reader(&log.store), published).await.unwrap();
    for (behaviour, counts) in
        [(Behaviour::HonestInThePast(3600), (1, 0, 0)), (Behaviour::HonestOnce, (0, 1, 0)), (Behaviour::Status(500), (0, 0, 1))]
    {
        witness.now_does(behaviour.clone());
        let witnesses = fresh();
        assert_eq!(witnesses.cosign(&reader).await.as_deref(), Ok(note.as_str()), "{behaviour:?}");
        let reports = witnesses.reports();
        let report = reports.first().unwrap();
        assert_eq!((report.lying, report.refused, report.failed), counts, "{behaviour:?}");
    }
    assert_eq!(Note::parse(note.as_bytes()).unwrap().signatures().len(), 2);
}

#[tokio::test]
async fn a_witness_that_cosigns_a_size_only_once_is_not_punished() {
    let log = Log::new().await;
    let witness = Witness::start("one", &log.key, Behaviour::Honest).await;
    let witnesses = gather(&log.key, policy(&[&witness], "quorum one"), Mode::Required, LONG);
    let note = witnesses.cosign(&log.reader().await).await.unwrap();
    let published = VerifiedCheckpoint::verify(note.as_bytes(), &log.key).unwrap();
    let reader = Reader::at(DirStore::open_reader(&log.store), published).await.unwrap();
    for (n, behaviour) in [Behaviour::Status(400), Behaviour::Status(409), Behaviour::HonestOnce].into_iter().enumerate() {
        witness.now_does(behaviour);
        // The quorum stands from before.
        assert_eq!(witnesses.cosign(&reader).await.as_deref(), Ok(note.as_str()));
        // It was asked, so it did not rest after the last refusal.
        assert_eq!(witness.n_requests(), 2 + n as u64);
    }
    let reports = witnesses.reports();
    assert_eq!(reports.first().map(|report| (report.cosigned, report.refused)), Some((1, 3)));
}

#[tokio::test]
async fn a_policy_that_names_nobody_to_ask_is_refused() {
    let key = CosignerKey::ed25519("witness.example/w", &[1; 32]).unwrap().verifier_key();
    let other_log = Signer::new("log.example/other", &[3; 32]).unwrap().verifier_key();
    let refused = |text: String| {
        let policy = Policy::parse(text.as_bytes()).unwrap();
        let (log_key, post) = (Signer::new("log.example/this", &[4; 32]).unwrap().verifier_key(), HttpPost::new().unwrap());
        Witnesses::new(policy, &log_key, Settings::default(), post, TokioTimer::new(), now).unwrap_err()
    };
    let witness = "witness.example/w".to_owned();
    assert_eq!(refused(format!("witness w {key} https://w.example\nquorum none\n")), WitnessesError::NoQuorum);
    assert_eq!(refused(format!("witness w {key}\nquorum w\n")), WitnessesError::NoUrl { witness: witness.clone() });
    assert_eq!(refused(format!("witness w {key} ftp://w.example\nquorum w\n")), WitnessesError::NotHttp { witness });
    let of_other = format!("log {other_log}\nwitness w {key} https://w.example\nquorum w\n");
    assert_eq!(refused(of_other), WitnessesError::OtherLog);
}

/// A log that is served under a policy with one witness.
struct Served {
    dir: TempDir,
    witness: Witness,
    /// The policy of those who rely on the log.
    policy: Policy,
    server: Server,
}

impl Served {
    async fn start(behaviour: Behaviour, args: &[&str]) -> Self {
        let (dir, store, key) = init();
        let witness = Witness::start("one", &key, behaviour).await;
        let text = format!("log {key}\n{}quorum one\n", witness.policy_line());
        let file = dir.path().join("policy").to_str().expect("text").to_owned();
        fs::write(&file, &text).expect("a file");
        let server = Server::start(&store, &[&["--witness-policy", &file], args].concat());
        let policy = Policy::parse(text.as_bytes()).expect("a policy");
        Self { dir, witness, policy, server }
    }

    async fn checkpoint(&self) -> String {
        let answer = client().get(self.server.url("/checkpoint")).send().await.expect("an answer");
        answer.text().await.expect("text")
    }

    /// Waits until the published checkpoint is one that is looked for.
    async fn until(&self, found: impl Fn(&str) -> bool) -> String {
        let find = async {
            loop {
                let checkpoint = self.checkpoint().await;
                if found(&checkpoint) {
                    return checkpoint;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), find).await.expect("it is published")
    }

    fn answers(outcome: &str) -> String {
        format!("fanlight_log_witness_answers_total{{witness=\"witness.example/one\",outcome=\"{outcome}\"}}")
    }
}

#[tokio::test]
async fn nothing_is_published_without_a_required_quorum() {
    let served = Served::start(Behaviour::Status(503), &[]).await;
    let add = client().post(served.server.url("/add")).body("an entry").send();
    let adding = tokio::spawn(add);
    // Asked more than once, and refused each time.
    while served.witness.n_requests() < 3 {
        assert!(!adding.is_finished());
        tokio::task::yield_now().await;
    }
    assert_eq!(served.checkpoint().await.lines().nth(1), Some("0"));
    assert_eq!(served.server.metric("fanlight_log_tree_size").await, Some(0.0));

    served.witness.now_does(Behaviour::Honest);
    let proof = adding.await.unwrap().unwrap().text().await.unwrap();
    TlogProof::parse(proof.as_bytes()).unwrap().verify(b"an entry", &served.policy).unwrap();
    served.policy.verify_checkpoint(served.checkpoint().await.as_bytes()).unwrap();
    assert_eq!(served.witness.size(), 1);
    assert!(served.server.metric(&Served::answers("failed")).await >= Some(3.0));
    assert_eq!(served.server.metric(&Served::answers("cosigned")).await, Some(1.0));
    assert_eq!(served.server.metric("fanlight_log_passed_without_quorum_total").await, Some(0.0));
}

#[tokio::test]
async fn fail_open_publishes_and_counts() {
    let served = Served::start(Behaviour::Status(503), &["--witness-mode", "fail-open"]).await;
    let added = client().post(served.server.url("/add")).body("an entry").send().await.unwrap();
    assert_eq!(added.status(), 200);
    let proof = added.text().await.unwrap();
    let proof = TlogProof::parse(proof.as_bytes()).unwrap();
    assert_eq!(proof.verify(b"an entry", &served.policy), Err(PolicyViolation::NoQuorum.into()));
    assert!(served.server.metric("fanlight_log_passed_without_quorum_total").await >= Some(1.0));
    assert!(served.server.metric(&Served::answers("failed")).await >= Some(1.0));
}

#[tokio::test]
async fn cosignatures_are_renewed_while_nothing_is_appended() {
    let served = Served::start(Behaviour::Honest, &["--witness-refresh", "1"]).await;
    client().post(served.server.url("/add")).body("an entry").send().await.unwrap();
    let first = served.checkpoint().await;
    let second = served.until(|checkpoint| checkpoint != first).await;
    served.policy.verify_checkpoint(second.as_bytes()).unwrap();
    assert_eq!(first.split_once("\n\n").unwrap().0, second.split_once("\n\n").unwrap().0, "the tree is the same");
    assert_eq!(served.server.metric("fanlight_log_tree_size").await, Some(1.0));
}

#[tokio::test]
async fn reads_go_on_while_appends_wait_for_witnesses() {
    let served = Served::start(Behaviour::Status(503), &["--max-connections", "4"]).await;
    let add = |entry: String| client().post(served.server.url("/add")).body(entry).send();
    let waiting: Vec<_> = (0..3).map(|n| tokio::spawn(add(format!("entry {n}")))).collect();
    served.server.until("fanlight_log_waiting_appends", 3.0).await;
    let refused = tokio::time::timeout(Duration::from_secs(20), add("one more".to_owned())).await.expect("an answer at once");
    let refused = refused.unwrap();
    assert_eq!(refused.status(), 503);
    assert!(refused.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert!(refused.text().await.unwrap().contains("too many appends wait"));
    assert_eq!(client().get(served.server.url("/healthz")).send().await.unwrap().status(), 200);
    assert_eq!(served.server.metric("fanlight_log_crowded_total").await, Some(1.0));
    assert!(waiting.iter().all(|add| !add.is_finished()));
    served.witness.now_does(Behaviour::Honest);
    for added in waiting {
        assert_eq!(added.await.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_log_that_cannot_publish_says_so_when_nobody_waits_any_more() {
    let served = Served::start(Behaviour::Status(503), &["--patience", "100"]).await;
    let healthz = || async {
        let answer = client().get(served.server.url("/healthz")).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let add = || client().post(served.server.url("/add")).body("an entry").send();
    let unanswered = tokio::time::timeout(Duration::from_secs(20), add()).await.expect("an answer in time").unwrap();
    assert_eq!(unanswered.status(), 503);
    assert!(unanswered.text().await.unwrap().contains("appending the entry again is safe"));
    served.server.until("fanlight_log_waiting_appends", 0.0).await;
    assert_eq!(served.server.metric("fanlight_log_unanswered_entries").await, Some(1.0));
    let changes_to = async |wanted: u16| {
        let changes = async {
            loop {
                let (status, text) = healthz().await;
                if status == wanted {
                    return text;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), changes).await.expect("it changes")
    };
    let text = changes_to(503).await;
    assert!(text.contains("1 entries wait") && text.contains("witnesses withheld"), "{text}");
    served.witness.now_does(Behaviour::Honest);
    changes_to(200).await;
    assert_eq!(add().await.unwrap().headers()["x-log-index"], "0");
}

#[tokio::test]
async fn fresh_cosignatures_are_a_publication() {
    let mut served = Served::start(Behaviour::Honest, &["--witness-refresh", "1"]).await;
    assert_eq!(client().post(served.server.url("/add")).body("an entry").send().await.unwrap().status(), 200);
    served.server.signal("-TERM");
    assert!(served.server.wait().success());
    let policy = served.dir.path().join("policy").to_str().unwrap().to_owned();
    let store = served.dir.path().join("log").to_str().unwrap().to_owned();
    served.server = Server::start(&store, &["--witness-policy", &policy, "--witness-refresh", "1"]);
    let published = async {
        while served.server.metric("fanlight_log_published_timestamp_seconds").await.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), published).await.expect("without a round");
    assert_eq!(served.server.metric("fanlight_log_rounds_total").await, Some(0.0));
}

#[test]
fn times_that_cannot_be_kept_are_refused() {
    for (flag, value) in [("--witness-timeout", "30001"), ("--witness-refresh", "18446744073709551615")] {
        let output = run(&["serve", "log", "--listen", "127.0.0.1:0", "--witness-policy", "policy", flag, value]);
        assert!(stderr(&output).contains("is not in"), "{}", stderr(&output));
    }
}

#[tokio::test]
async fn a_second_signal_ends_a_server_that_cannot_finish() {
    let mut served = Served::start(Behaviour::Mute, &["--witness-timeout", "30000"]).await;
    let adding = tokio::spawn(client().post(served.server.url("/add")).body("an entry").send());
    while served.witness.n_requests() == 0 {
        tokio::task::yield_now().await;
    }
    served.server.signal("-TERM");
    // No connection is taken any more, so it has begun to end.
    while TcpStream::connect(served.server.address()).is_ok() {
        tokio::task::yield_now().await;
    }
    served.server.signal("-INT");
    assert_eq!(served.server.wait().code(), Some(1));
    assert!(adding.await.unwrap().is_err());
}

#[test]
fn a_policy_that_does_not_fit_is_refused() {
    let (dir, store, key) = init();
    let file = dir.path().join("policy").to_str().unwrap().to_owned();
    let other = Signer::new("log.example/other", &[3; 32]).unwrap().verifier_key();
    for (text, words) in [
        ("quorum none\n".to_owned(), "asks for no witness"),
        (format!("log {other}\nquorum none\n"), "about other logs; add a line `log`"),
        (format!("log {key}\n"), "exactly one quorum line"),
    ] {
        fs::write(&file, text).unwrap();
        let output = run(&["serve", &store, "--listen", "127.0.0.1:0", "--witness-policy", &file]);
        assert!(!output.status.success());
        assert!(stderr(&output).contains(words) && stderr(&output).contains(&file), "{}", stderr(&output));
    }
    let output = run(&["append", &store, "--witness-mode", "fail-open"]);
    assert!(stderr(&output).contains("--witness-policy"), "{}", stderr(&output));
}
