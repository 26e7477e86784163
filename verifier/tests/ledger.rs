//! Every provider of a log at once, in memory that does not grow: held against a plain reading of the whole.

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use fanlight_protocol::entry::{KeyStatement, Receipt, Signed};
use fanlight_protocol::{Digest, ProviderId, UnixTime};
use fanlight_verifier::history::{Ledger, Limits, Remark, Search};
use fanlight_verifier::{Finding, ProviderHistory};
use proptest::prelude::*;
use world::{Identity, NOW, details};

/// So little that every test runs into it.
const TIGHT: Limits =
    Limits { max_providers: 3, max_evidence: 1, max_statements: 1, max_links: 4, max_runs: 3, max_questions: 64 };

const N_RECEIPTS: usize = 12;

/// A provider with two statements, a chain under them, and what it could do wrong.
struct Chain {
    provider: Identity,
    statements: [Signed<KeyStatement>; 2],
    receipts: Vec<Signed<Receipt>>,
    // The n-th goes on like `receipts[n]`, but is another one.
    forks: Vec<Signed<Receipt>>,
    // The n-th names no receipt before it.
    torn: Vec<Signed<Receipt>>,
}

impl Chain {
    fn new(seed: u8) -> Self {
        let provider = Identity::new(seed);
        let statements = [provider.statement(|_| ()), provider.statement(|s| s.build_measurement = Digest([9; 32]))];
        let mut receipts: Vec<Signed<Receipt>> = Vec::new();
        for n in 0..N_RECEIPTS {
            receipts.push(provider.receipt(&statements[n % 2], &details(), receipts.last()));
        }
        let edited = |edit: fn(&mut Receipt)| {
            let edited = receipts.iter().map(|receipt| {
                let mut receipt = (**receipt).clone();
                edit(&mut receipt);
                provider.sign(&receipt)
            });
            edited.collect()
        };
        let forks = edited(|receipt| receipt.commitment = Digest([8; 32]));
        let torn = edited(|receipt| {
            if receipt.counter > 0 {
                receipt.previous = Digest([7; 32]);
            }
        });
        Self { provider, statements, receipts, forks, torn }
    }

    fn enrolment(&self) -> Vec<Vec<u8>> {
        let statements = self.statements.iter().map(|statement| statement.bytes().to_vec());
        std::iter::once(self.provider.evidence().bytes().to_vec()).chain(statements).collect()
    }
}

static CHAINS: LazyLock<[Chain; 2]> = LazyLock::new(|| [Chain::new(7), Chain::new(8)]);

static CROWD: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| (20..26).map(|seed| Identity::new(seed).evidence().bytes().to_vec()).collect());

/// What somebody does to the log.
#[derive(Clone, Copy, Debug)]
enum Event {
    // Evidence of a key that does nothing else.
    Crowd(usize),
    Foreign,
    Fork(usize, usize),
    Receipt(usize, usize),
    Torn(usize, usize),
}

fn event() -> impl Strategy<Value = Event> {
    let at = || (0..2_usize, 0..N_RECEIPTS);
    prop_oneof![
        3 => (0..CROWD.len()).prop_map(Event::Crowd),
        1 => Just(Event::Foreign),
        1 => at().prop_map(|(c, n)| Event::Fork(c, n)),
        8 => at().prop_map(|(c, n)| Event::Receipt(c, n)),
        1 => at().prop_map(|(c, n)| Event::Torn(c, n)),
    ]
}

/// The entries of both providers' enrolment, then the events.
fn log(events: &[Event]) -> Vec<Vec<u8>> {
    let enrolment = CHAINS.iter().flat_map(Chain::enrolment);
    let entries = events.iter().map(|event| match *event {
        Event::Crowd(n) => CROWD[n].clone(),
        Event::Foreign => b"not an entry".to_vec(),
        Event::Fork(c, n) => CHAINS[c].forks[n].bytes().to_vec(),
        Event::Receipt(c, n) => CHAINS[c].receipts[n].bytes().to_vec(),
        Event::Torn(c, n) => CHAINS[c].torn[n].bytes().to_vec(),
    });
    enrolment.chain(entries).collect()
}

type Found = BTreeSet<(ProviderId, String)>;

fn text(found: &mut Found, provider_id: ProviderId, finding: Finding) {
    found.insert((provider_id, finding.to_string()));
}

/// Folds the log, written and read back after each of `splits` entries, with a search there if one is asked for.
fn follow(entries: &[Vec<u8>], limits: &Limits, splits: &[usize]) -> Found {
    let mut ledger = Ledger::new();
    let mut found = Found::new();
    for (at, entry) in entries.iter().enumerate() {
        ledger.take(entry, NOW, limits, |id, remark| {
            if let Remark::Finding(finding) = remark {
                text(&mut found, id, finding);
            }
        });
        if splits.contains(&at) || at + 1 == entries.len() {
            look_back(entries, limits, &mut ledger, &mut found);
            let json = serde_json::to_vec(&ledger).expect("a ledger is JSON");
            let restored: Ledger = serde_json::from_slice(&json).expect("what was written is read");
            assert_eq!(restored, ledger);
            ledger = restored;
        }
    }
    for (id, finding, _) in ledger.standing() {
        text(&mut found, id, finding);
    }
    found.extend(ledger.early().map(|(id, note)| (id, note.to_string())));
    assert_eq!(ledger.census().unjudged, 0);
    found
}

fn look_back(entries: &[Vec<u8>], limits: &Limits, ledger: &mut Ledger, found: &mut Found) {
    // Who is found again raises new questions, which raise none.
    for _ in 0..2 {
        let mut search = Search::new(ledger);
        for index in search.range() {
            if search.is_done() {
                break;
            }
            let entry = usize::try_from(index).expect("a leaf of this test");
            search.take(index, &entries[entry], ledger);
        }
        search.finish(ledger, limits, NOW, |id, remark| {
            if let Remark::Finding(finding) = remark {
                text(found, id, finding);
            }
        });
    }
    assert!(Search::new(ledger).is_done());
}

/// What the rules of SPEC §7.3 say of a whole log, written down as plainly as possible.
fn plain(events: &[Event]) -> Found {
    let mut found = Found::new();
    for (c, chain) in CHAINS.iter().enumerate() {
        let mut by_counter: BTreeMap<u64, Vec<(u64, &Signed<Receipt>)>> = BTreeMap::new();
        let enrolled = 2 * chain.enrolment().len();
        for (at, event) in events.iter().enumerate() {
            let receipt = match *event {
                Event::Fork(of, n) if of == c => &chain.forks[n],
                Event::Receipt(of, n) if of == c => &chain.receipts[n],
                Event::Torn(of, n) if of == c => &chain.torn[n],
                _ => continue,
            };
            let there = by_counter.entry(receipt.counter).or_default();
            if there.iter().all(|(_, known)| known.digest() != receipt.digest()) {
                there.push(((enrolled + at) as u64, receipt));
            }
        }
        let id = chain.provider.id();
        let newest = by_counter.keys().last().copied().unwrap_or_default();
        let mut missing: Option<u64> = None;
        for counter in 0..=newest {
            let Some(there) = by_counter.get(&counter) else {
                missing.get_or_insert(counter);
                continue;
            };
            if let Some(first) = missing.take() {
                text(&mut found, id, Finding::Gap { first, last: counter - 1 });
            }
            if let [(first, _), (second, _), ..] = there.as_slice() {
                text(&mut found, id, Finding::Fork { counter, first: *first, second: *second });
            }
            let before = counter.checked_sub(1).and_then(|before| by_counter.get(&before));
            for (index, receipt) in there {
                if before.is_some_and(|before| before.iter().all(|(_, b)| b.digest() != receipt.previous)) {
                    text(&mut found, id, Finding::PreviousMismatch { index: *index, counter });
                }
            }
        }
        // A provider with no receipt at all has no gap either.
        if by_counter.is_empty() {
            found.retain(|(of, _)| *of != id);
        }
    }
    found
}

/// Counters of forks, and gaps: what no limit may hide. The leaf of a fork's first branch depends on what is remembered.
fn bare(found: &Found) -> Found {
    let cut = |(id, text): &(ProviderId, String)| (*id, text.split(", at leaves").next().unwrap_or(text).to_owned());
    found.iter().filter(|(_, text)| !text.contains("does not name")).map(cut).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn everything_remembered_is_the_plain_reading(events in prop::collection::vec(event(), 0..60)) {
        let entries = log(&events);
        prop_assert_eq!(follow(&entries, &Limits::NONE, &[]), plain(&events));
        let mut histories = CHAINS.each_ref().map(|chain| ProviderHistory::new(chain.provider.id()));
        for entry in &entries {
            for history in &mut histories {
                history.push(entry);
            }
        }
        let mut found = Found::new();
        for history in histories {
            let report = history.finish(NOW);
            report.findings.iter().for_each(|finding| text(&mut found, report.provider_id, *finding));
        }
        prop_assert_eq!(found, plain(&events));
    }

    #[test]
    fn splits_change_nothing(
        events in prop::collection::vec(event(), 0..60),
        splits in prop::collection::vec(0..66_usize, 0..8),
    ) {
        let entries = log(&events);
        for limits in [Limits::NONE, Limits::BOUNDED] {
            prop_assert_eq!(follow(&entries, &limits, &splits), plain(&events));
        }
    }

    #[test]
    fn little_memory_hides_no_fork_and_accuses_nobody(
        events in prop::collection::vec(event(), 0..60),
        splits in prop::collection::vec(0..66_usize, 0..8),
    ) {
        // No more gaps than are remembered.
        let roomy = Limits { max_runs: N_RECEIPTS, ..TIGHT };
        let entries = log(&events);
        prop_assert_eq!(bare(&follow(&entries, &roomy, &splits)), bare(&plain(&events)));
        // With fewer, gaps that were filled too late stay, and nothing else is added.
        let forks = |found: &Found| found.iter().filter(|(_, t)| t.contains("forked")).cloned().collect::<Found>();
        prop_assert_eq!(forks(&bare(&follow(&entries, &TIGHT, &splits))), forks(&bare(&plain(&events))));
    }
}

#[test]
fn state_does_not_grow_with_the_chain() {
    let chain = Chain::new(7);
    let mut ledger = Ledger::new();
    let mut sizes = Vec::new();
    for entry in chain.enrolment() {
        ledger.take(&entry, NOW, &TIGHT, |_, _| ());
    }
    let mut last = chain.receipts[0].clone();
    for n in 1..=64 {
        ledger.take(last.bytes(), NOW, &TIGHT, |_, remark| panic!("{remark:?}"));
        last = chain.provider.receipt(&chain.statements[1], &details(), Some(&last));
        if n % 16 == 0 {
            sizes.push(serde_json::to_vec(&ledger).unwrap().len());
        }
    }
    // Digits of counters and leaves are all that is added.
    assert!(sizes[3] < sizes[0] + 64, "{sizes:?}");
    assert_eq!(ledger.newest_counter(&chain.provider.id()), Some(63));
}

#[test]
fn who_was_crowded_out_is_not_accused() {
    let (idle, stranger) = (&CHAINS[0], &CHAINS[1]);
    let follow = |entries: &[Vec<u8>]| {
        let mut entries = [CHAINS[0].enrolment(), CROWD.clone(), entries.to_vec()].concat();
        // The search reads what is before the last.
        entries.push(b"the end".to_vec());
        follow(&entries, &TIGHT, &[])
    };
    let receipts: Vec<Vec<u8>> = idle.receipts.iter().map(|receipt| receipt.bytes().to_vec()).collect();
    assert_eq!(follow(&receipts), Found::new());
    // It enrols once more, before or after its first receipts.
    let again = idle.provider.statement(|statement| statement.build_measurement = Digest([11; 32])).bytes().to_vec();
    assert_eq!(follow(&[vec![again.clone()], receipts.clone()].concat()), Found::new());
    assert_eq!(follow(&[receipts[..2].to_vec(), vec![again], receipts[2..].to_vec()].concat()), Found::new());
    // Those who never enrolled are told from those who did.
    let first = stranger.receipts[0].bytes().to_vec();
    let found = follow(std::slice::from_ref(&first));
    assert!(
        found.len() == 1 && found.iter().all(|(id, text)| *id == stranger.provider.id() && text.contains("key was not logged"))
    );
    let late = follow(&[vec![first], stranger.enrolment()].concat());
    assert!(late.iter().any(|(id, text)| *id == stranger.provider.id() && text.contains("was not logged before it")), "{late:?}");
    // And forks are seen, also those that were signed while nobody remembered the key.
    let found = follow(&[receipts[0].clone(), idle.forks[0].bytes().to_vec()]);
    assert!(found.iter().any(|(id, text)| *id == idle.provider.id() && text.contains("forked")), "{found:?}");
}

#[test]
fn a_look_back_begins_where_the_provider_does() {
    let chain = &CHAINS[0];
    let foreign = vec![b"not an entry".to_vec(); 50];
    let receipts = chain.receipts.iter().map(|receipt| receipt.bytes().to_vec()).collect();
    let fork = vec![chain.forks[2].bytes().to_vec()];
    let entries = [foreign.clone(), chain.enrolment(), receipts, foreign, fork].concat();
    let mut ledger = Ledger::new();
    for entry in &entries {
        ledger.take(entry, NOW, &TIGHT, |_, _| ());
    }
    let range = Search::new(&ledger).range();
    assert_eq!(range, 50..entries.len() as u64 - 1);
    let mut found = Found::new();
    look_back(&entries, &TIGHT, &mut ledger, &mut found);
    assert!(found.iter().any(|(_, text)| text.contains("two different receipts number 2")), "{found:?}");
}

#[test]
fn a_crowd_of_keys_does_not_keep_out_those_that_serve() {
    let serving = &CHAINS[0];
    let mut ledger = Ledger::new();
    let take = |ledger: &mut Ledger, entry: &[u8]| {
        ledger.take(entry, NOW, &TIGHT, |_, remark| panic!("{remark:?}"));
    };
    for entry in serving.enrolment() {
        take(&mut ledger, &entry);
    }
    take(&mut ledger, serving.receipts[0].bytes());
    for seed in 20..40 {
        take(&mut ledger, Identity::new(seed).evidence().bytes());
        assert!(ledger.n_providers() <= TIGHT.max_providers);
    }
    take(&mut ledger, serving.receipts[1].bytes());
    assert_eq!((ledger.newest_counter(&serving.provider.id()), ledger.census().unjudged), (Some(1), 0));

    // Where all of them serve, one more is not judged, and that is counted.
    for seed in 40..42 {
        let other = Chain::new(seed);
        for entry in other.enrolment().iter().map(Vec::as_slice).chain([other.receipts[0].bytes()]) {
            take(&mut ledger, entry);
        }
    }
    assert_eq!(ledger.census().unjudged, 0);
    take(&mut ledger, Identity::new(50).evidence().bytes());
    assert_eq!(ledger.census().unjudged, 1);
}

#[test]
fn when_a_gap_was_left() {
    let chain = &CHAINS[0];
    let mut ledger = Ledger::new();
    let early = UnixTime::from_secs(1);
    for entry in chain.enrolment() {
        ledger.take(&entry, NOW, &TIGHT, |_, _| ());
    }
    // Its own word counts, but never for later than it was seen.
    ledger.take(chain.receipts[1].bytes(), NOW, &TIGHT, |_, _| ());
    ledger.take(chain.receipts[3].bytes(), early, &TIGHT, |_, _| ());
    let id = chain.provider.id();
    let gaps: Vec<_> = ledger.standing().collect();
    assert_eq!(
        gaps,
        [
            (id, Finding::Gap { first: 0, last: 0 }, Some(chain.receipts[1].time.min(NOW))),
            (id, Finding::Gap { first: 2, last: 2 }, Some(early)),
        ]
    );
    ledger.take(chain.receipts[2].bytes(), NOW, &TIGHT, |_, _| ());
    ledger.take(chain.receipts[0].bytes(), NOW, &TIGHT, |_, _| ());
    assert_eq!(ledger.standing().count(), 0);
}
