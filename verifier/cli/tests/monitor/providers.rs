//! What providers can do wrong; the rules themselves are tested in the library.

use fanlight_protocol::entry::{LinkAuth, Receipt, ReceiptDetails, Signed};
use fanlight_protocol::{Digest, UnixTime};
use futures_util::future::join_all;

use crate::world::{END, Identity, NOW, TestLog, details};
use crate::{Monitor, ids, text};

/// A provider that enrolled in a log, and its chain.
struct Enrolled {
    log: TestLog,
    provider: Identity,
    receipts: Vec<Signed<Receipt>>,
}

impl Enrolled {
    async fn new(n_receipts: usize) -> Self {
        let log = TestLog::open(1).await;
        let provider = Identity::new(7);
        let statement = provider.statement(|_| ());
        log.append(provider.evidence().bytes()).await;
        log.append(statement.bytes()).await;
        let mut receipts: Vec<Signed<Receipt>> = Vec::new();
        for _ in 0..n_receipts {
            receipts.push(provider.receipt(&statement, &details(), receipts.last()));
        }
        Self { log, provider, receipts }
    }

    fn edited(&self, n: usize, edit: impl FnOnce(&mut Receipt)) -> Vec<u8> {
        let mut receipt = (*self.receipts[n]).clone();
        edit(&mut receipt);
        self.provider.sign(&receipt).bytes().to_vec()
    }

    fn id(&self, name: &str) -> String {
        format!("{name}/{}", self.provider.id())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_count_after_their_grace_and_close_when_filled() {
    let world = Enrolled::new(5).await;
    let store = text(world.log.dir.path());
    let monitor = Monitor::of(&world.log);
    for n in [0, 2, 1] {
        world.log.append(world.receipts[n].bytes()).await;
    }
    let (code, value) = monitor.run(store);
    assert_eq!((code, &value["providers"], &value["entries"]["receipt"]), (0, &1.into(), &3.into()), "{value}");
    world.log.append(world.receipts[4].bytes()).await;
    // The receipts of this world were signed years ago, and a grace of a century is not over.
    let (code, value) = monitor.run_with(store, &["--gap-grace", "36500d"]);
    assert_eq!((code, ids(&value)), (0, vec![]));
    let (code, value) = monitor.run(store);
    assert_eq!((code, ids(&value)), (1, vec![world.id("receipt_gap")]));
    assert_eq!(value["alerts"][0]["details"][0], "receipt number 3 is missing: withheld, or not logged yet");
    // It stays, whatever the grace is now, until the receipt is there.
    assert_eq!(monitor.run_with(store, &["--gap-grace", "36500d"]).0, 1);
    let (code, value) = monitor.run_with(store, &["--acknowledge", &world.id("receipt_gap")]);
    assert_eq!((code, &value["alerts"][0]["counts"]), (0, &false.into()));
    assert_eq!(monitor.run(store).0, 0);
    world.log.append(world.receipts[3].bytes()).await;
    let (code, value) = monitor.run(store);
    assert_eq!((code, ids(&value), &value["closed"][0]["id"]), (0, vec![], &world.id("receipt_gap").into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_alert_for_each_broken_rule() {
    let world = Enrolled::new(3).await;
    let store = text(world.log.dir.path());
    let monitor = Monitor::of(&world.log);
    for receipt in &world.receipts {
        world.log.append(receipt.bytes()).await;
    }
    assert_eq!(monitor.alerts(store), (0, vec![]));

    let other_statement = world.provider.statement(|statement| statement.build_measurement = Digest([9; 32]));
    let late = ReceiptDetails { ended: UnixTime::from_secs(END + 7_200), ..details() };
    let statement = world.provider.statement(|_| ());
    let next = |previous: &Signed<Receipt>| world.provider.receipt(&statement, &late, Some(previous));
    let outside = next(&world.receipts[2]);
    let not_logged = world.provider.receipt(&other_statement, &details(), Some(&outside));
    let link = world.provider.sign(&LinkAuth {
        identity: world.provider.public.clone(),
        challenge: [0; 32],
        statement_digest: statement.digest(),
        time: NOW,
    });
    let baseless = world.provider.statement(|statement| statement.evidence_digest = Digest([9; 32]));
    let mut torn = (*world.provider.receipt(&statement, &details(), Some(&not_logged))).clone();
    torn.previous = Digest([5; 32]);
    let mut tomorrow = (*world.provider.evidence()).clone();
    tomorrow.created = UnixTime::from_secs(4_000_000_000);
    let forger = Identity::new(9);
    for (entry, name) in [
        (outside.bytes().to_vec(), world.id("receipt_outside_validity")),
        (not_logged.bytes().to_vec(), world.id("receipt_statement_not_logged")),
        (world.edited(1, |receipt| receipt.commitment = Digest([9; 32])), world.id("receipt_fork")),
        (world.provider.sign(&torn).bytes().to_vec(), world.id("receipt_previous_mismatch")),
        (link.bytes().to_vec(), world.id("entry_never_logged")),
        (baseless.bytes().to_vec(), world.id("evidence_not_logged")),
        (world.provider.sign(&tomorrow).bytes().to_vec(), world.id("evidence_refused")),
        (forger.sign_as(&world.provider, &world.receipts[0]), "entry_unverifiable".to_owned()),
    ] {
        let before = monitor.run(store).1;
        world.log.append(&entry).await;
        let (code, value) = monitor.run(store);
        let new: Vec<String> = ids(&value).into_iter().filter(|id| !ids(&before).contains(id)).collect();
        assert_eq!((code, new), (1, vec![name]), "{value}");
    }
    // Eight, each of which stays for good until somebody says that it is known.
    let (_, value) = monitor.run(store);
    assert_eq!(ids(&value).len(), 8);
    let open = ids(&value);
    let acknowledge: Vec<&str> = open.iter().flat_map(|id| ["--acknowledge", id]).collect();
    let (code, value) = monitor.run_with(store, &acknowledge);
    // A chain that does not fit together stays listed, as what is so, and no longer counts.
    assert_eq!((code, ids(&value)), (0, vec![world.id("receipt_previous_mismatch")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_by_keys_that_are_not_enrolled() {
    let world = Enrolled::new(1).await;
    let store = text(world.log.dir.path());
    let monitor = Monitor::of(&world.log);
    let stranger = Identity::new(11);
    let statement = stranger.statement(|_| ());
    let receipt = stranger.receipt(&statement, &details(), None);
    world.log.append(receipt.bytes()).await;
    let (code, value) = monitor.run(store);
    assert_eq!((code, ids(&value)), (1, vec!["receipt_unknown_key".to_owned()]));
    let (code, value) = monitor.run_with(store, &["--ignore", "receipt_unknown_key"]);
    assert_eq!((code, &value["alerts"][0]["counts"]), (0, &false.into()));
    // Enrolled too late: now it is known who signed it.
    world.log.append(stranger.evidence().bytes()).await;
    let (code, value) = monitor.run(store);
    let name = format!("receipt_not_enrolled/{}", stranger.id());
    assert_eq!((code, ids(&value), &value["closed"][0]["id"]), (1, vec![name], &"receipt_unknown_key".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_at_a_receipt_that_is_long_forgotten() {
    let world = Enrolled::new(60).await;
    let store = text(world.log.dir.path());
    let monitor = Monitor::of(&world.log);
    join_all(world.receipts.iter().map(|receipt| world.log.append(receipt.bytes()))).await;
    let (code, value) = monitor.run(store);
    assert_eq!((code, &value["entries"]["receipt"]), (0, &60.into()));
    let state = std::fs::read_to_string(monitor.state.path().join("state")).unwrap();
    assert!(!state.contains(&world.receipts[20].digest().to_string()), "the test means one that is not remembered");
    world.log.append(&world.edited(20, |receipt| receipt.commitment = Digest([9; 32]))).await;
    let (code, value) = monitor.run(store);
    assert_eq!((code, ids(&value)), (1, vec![world.id("receipt_fork")]), "{value}");
    let detail = value["alerts"][0]["details"][0].as_str().unwrap();
    assert!(detail.starts_with("two different receipts number 20, at leaves ") && detail.contains(" and 62:"), "{detail}");
}
