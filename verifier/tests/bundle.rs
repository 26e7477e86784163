//! Receipt bundles offline: the good one, one fault each, and any bit flipped.

mod world;

use std::sync::LazyLock;

use fanlight_auditlog::Policy;
use fanlight_protocol::bundle::ReceiptBundle;
use fanlight_protocol::entry::{EntryError, ReceiptDetails};
use fanlight_protocol::{Digest, RequestId, UnixTime};
use fanlight_verifier::{
    BundleCheck, BundleError, Grade, ListingError, LogProofError, ProviderPolicy, ReceiptError, verify_receipt,
};
use proptest::prelude::*;
use world::{END, Identity, START, TestLog, World, bundle, details, list};

/// What one edit of the details makes of an otherwise good, signed and logged receipt.
async fn signed_with(edit: fn(&mut ReceiptDetails)) -> Result<(), BundleError> {
    let World { log, provider, statement, listing, .. } = World::new().await;
    let mut details = details();
    edit(&mut details);
    let receipt = provider.receipt(&statement, &details, None);
    let proof = log.append(receipt.bytes()).await;
    verify(&bundle(&listing, &receipt, &details, Some(proof)), &log)
}

fn verify(bundle: &ReceiptBundle, log: &TestLog) -> Result<(), BundleError> {
    verify_receipt(bundle, &ProviderPolicy::new(log.policy())).map(drop)
}

#[tokio::test]
async fn a_good_bundle_proves_its_exchange() {
    let World { log, provider, statement, receipt, bundle, .. } = World::new().await;
    let verified = verify_receipt(&bundle, &ProviderPolicy::new(log.policy())).unwrap();
    assert_eq!(verified.provider().provider_id(), provider.id());
    assert_eq!(verified.provider().statement_digest(), statement.digest());
    assert_eq!(verified.provider().grade(), Grade::SelfSigned);
    assert_eq!(verified.receipt().digest(), receipt.digest());
    assert_eq!(*verified.details(), details());
    assert_eq!((verified.inclusion().index(), verified.inclusion().checkpoint().tree_size()), (3, 4));

    // The file a client keeps is JSON.
    let reread: ReceiptBundle = serde_json::from_str(&serde_json::to_string(&bundle).unwrap()).unwrap();
    assert_eq!(verify(&reread, &log), Ok(()));
}

/// An edit of a good bundle, the check that stops it, and the error.
type Tampering<'a> = (&'a dyn Fn(&mut ReceiptBundle), BundleCheck, fn(&BundleError) -> bool);

#[tokio::test]
async fn every_field_tampered() {
    let World { log, provider, statement, listing, receipt, bundle: good } = World::new().await;
    let other = Identity::new(8);
    let other_statement = other.statement(|_| ());
    let others = list(&log, other.evidence().bytes(), other_statement.bytes()).await;
    let others_receipt = other.receipt(&other_statement, &details(), None);
    let elsewhere = TestLog::open(2).await;
    let foreign_proof = elsewhere.append(receipt.bytes()).await;
    let second = provider.receipt(&statement, &details(), Some(&receipt));
    let mut other_details = details();
    other_details.usage.output += 1;

    let edited = |edit: &dyn Fn(&mut ReceiptBundle)| {
        let mut bundle = good.clone();
        edit(&mut bundle);
        let refused = verify(&bundle, &log).expect_err("the bundle is bad");
        (refused.failed_check(), refused)
    };
    let opened = EntryError::Payload("details are not those that the receipt commits to");
    let cases: [Tampering<'_>; 13] = [
        (&|b| b.blind.truncate(31), BundleCheck::Form, |e| *e == BundleError::BlindLength),
        (&|b| b.logged = false, BundleCheck::Form, |e| *e == BundleError::LoggedContradicts),
        (&|b| b.tlog_proof = None, BundleCheck::Form, |e| *e == BundleError::LoggedContradicts),
        (&|b| b.evidence = others.evidence.clone(), BundleCheck::Provider, |e| {
            *e == BundleError::Provider(ListingError::OtherProvider)
        }),
        (&|b| b.key_statement_proof = listing.evidence_proof.clone(), BundleCheck::Provider, |e| {
            matches!(e, BundleError::Provider(ListingError::StatementNotLogged(_)))
        }),
        (&|b| b.evidence_proof.clear(), BundleCheck::Provider, |e| {
            matches!(e, BundleError::Provider(ListingError::EvidenceNotLogged(LogProofError::Malformed(_))))
        }),
        // A receipt of another provider for the very same details.
        (&|b| b.receipt = others_receipt.bytes().to_vec(), BundleCheck::Receipt, |e| {
            *e == BundleError::Receipt(ReceiptError::Receipt(EntryError::WrongKey))
        }),
        (&|b| b.receipt = b.key_statement.clone(), BundleCheck::Receipt, |e| {
            *e == BundleError::Receipt(ReceiptError::Receipt(EntryError::WrongType))
        }),
        (&|b| b.details = other_details.to_bytes(), BundleCheck::Receipt, |e| {
            matches!(e, BundleError::Receipt(ReceiptError::Details(_)))
        }),
        (&|b| b.blind[0] ^= 1, BundleCheck::Receipt, |e| matches!(e, BundleError::Receipt(ReceiptError::Details(_)))),
        (&|b| b.receipt_id = RequestId([2; 16]), BundleCheck::ReceiptId, |e| *e == BundleError::OtherReceiptId),
        (&|b| b.tlog_proof = Some(foreign_proof.clone()), BundleCheck::Logged, |e| matches!(e, BundleError::NotLogged(_))),
        (&|b| b.receipt = second.bytes().to_vec(), BundleCheck::Logged, |e| matches!(e, BundleError::NotLogged(_))),
    ];
    for (at, (edit, check, expected)) in cases.iter().enumerate() {
        let (failed, error) = edited(*edit);
        assert!(failed == *check && expected(&error), "case {at}: {error:?}");
    }
    assert_eq!(edited(&|b| b.blind[0] ^= 1).1, BundleError::Receipt(ReceiptError::Details(opened)));

    // All of another provider but the receipt.
    let stolen = ReceiptBundle { receipt: receipt.bytes().to_vec(), ..bundle(&others, &others_receipt, &details(), None) };
    assert_eq!(verify(&stolen, &log), Err(BundleError::Receipt(ReceiptError::Receipt(EntryError::WrongKey))));
}

#[tokio::test]
async fn details_that_the_statement_does_not_cover() {
    type Case = (fn(&mut ReceiptDetails), Result<(), ReceiptError>);
    let cases: [Case; 13] = [
        (|d| d.model = "huge".to_owned(), Err(ReceiptError::ModelNotOffered)),
        (|d| d.weights_digest = Digest([9; 32]), Err(ReceiptError::OtherWeights)),
        (|d| d.build_measurement = Digest([9; 32]), Err(ReceiptError::OtherBuild)),
        (|d| d.usage.cached_input = d.usage.input + 1, Err(ReceiptError::UsageDoesNotAddUp)),
        (|d| d.usage.reasoning = d.usage.output + 1, Err(ReceiptError::UsageDoesNotAddUp)),
        (|d| d.started = UnixTime::from_millis(d.ended.as_millis() + 1), Err(ReceiptError::TimesContradict)),
        (|d| d.started = UnixTime::from_millis(START * 1000 - 1), Err(ReceiptError::OutsideValidity)),
        (|d| d.started = UnixTime::from_secs(START), Ok(())),
        // Sealed in time, opened in the grace, answered a while later.
        (|d| at(d, END + 300, END + 900), Ok(())),
        (|d| at(d, END + 301, END + 900), Err(ReceiptError::OutsideValidity)),
        (|d| at(d, END + 300, END + 300 + 3_600), Ok(())),
        (|d| at(d, END + 300, END + 300 + 3_660), Err(ReceiptError::OutsideValidity)),
        (|d| d.status = fanlight_protocol::entry::Status::Failed, Ok(())),
    ];
    for (case, (edit, expected)) in cases.into_iter().enumerate() {
        assert_eq!(signed_with(edit).await, expected.map_err(BundleError::Receipt), "case {case}");
    }
}

fn at(details: &mut ReceiptDetails, started: u64, ended: u64) {
    (details.started, details.ended) = (UnixTime::from_secs(started), UnixTime::from_secs(ended));
}

#[tokio::test]
async fn signed_long_before_or_after_it_ended() {
    let World { log, provider, statement, listing, receipt, .. } = World::new().await;
    for seconds in [-60_i64, 120] {
        let mut shifted = (*receipt).clone();
        shifted.time = UnixTime::from_secs(receipt.time.as_secs().strict_add_signed(seconds));
        let shifted = provider.sign(&shifted);
        let proof = log.append(shifted.bytes()).await;
        let refused = verify(&bundle(&listing, &shifted, &details(), Some(proof)), &log);
        assert_eq!(refused, Err(BundleError::Receipt(ReceiptError::TimesContradict)), "{seconds}");
    }
    let other = provider.statement(|s| s.not_after = UnixTime::from_secs(END - 1));
    let under_other = provider.receipt(&other, &details(), None);
    let refused = verify(&bundle(&listing, &under_other, &details(), None), &log);
    assert_eq!(refused, Err(BundleError::Receipt(ReceiptError::OtherStatement)));
    assert_ne!(other.digest(), statement.digest());
}

#[tokio::test]
async fn not_yet_logged_is_told_apart_from_not_logged() {
    let World { log, bundle: good, .. } = World::new().await;
    let early = ReceiptBundle { logged: false, tlog_proof: None, ..good.clone() };
    assert_eq!(verify(&early, &log), Err(BundleError::NotYetLogged));
    // It is said only of a bundle that is good otherwise.
    let tampered = ReceiptBundle { receipt_id: RequestId([2; 16]), ..early };
    assert_eq!(verify(&tampered, &log), Err(BundleError::OtherReceiptId));
    let garbled = ReceiptBundle { tlog_proof: Some(String::new()), ..good };
    assert!(matches!(verify(&garbled, &log), Err(BundleError::NotLogged(LogProofError::Malformed(_)))));
}

#[tokio::test]
async fn a_receipt_logged_before_its_statement() {
    let log = TestLog::open(1).await;
    let provider = Identity::new(7);
    let statement = provider.statement(|_| ());
    let receipt = provider.receipt(&statement, &details(), None);
    let proof = log.append(receipt.bytes()).await;
    let listing = list(&log, provider.evidence().bytes(), statement.bytes()).await;
    let early = bundle(&listing, &receipt, &details(), Some(proof));
    assert_eq!(verify(&early, &log), Err(BundleError::LoggedBeforeStatement));
}

#[tokio::test]
async fn a_receipt_in_another_trusted_log() {
    let World { log, receipt, bundle: good, .. } = World::new().await;
    let other = TestLog::open_named("other.example/log", 2).await;
    for filler in 0..8_u8 {
        other.append(&[filler]).await;
    }
    let elsewhere = ReceiptBundle { tlog_proof: Some(other.append(receipt.bytes()).await), ..good };
    let text = format!("log {}\nlog {}\nquorum none\n", log.vkey(), other.vkey());
    let policy = ProviderPolicy::new(Policy::parse(text.as_bytes()).unwrap());
    assert_eq!(verify_receipt(&elsewhere, &policy).unwrap_err(), BundleError::OtherLog);
}

#[tokio::test]
async fn the_policy_asks_for_a_grade() {
    let World { log, bundle, .. } = World::new().await;
    let policy = ProviderPolicy { log: log.policy(), minimum_grade: Grade::DeviceBound };
    let refused = verify_receipt(&bundle, &policy).unwrap_err();
    assert!(matches!(refused, BundleError::Grade(ListingError::GradeTooLow { .. })));
    assert_eq!(refused.failed_check(), BundleCheck::Grade);
}

/// A bundle and its policy that outlive the runtime they were made in.
static GOOD: LazyLock<(ReceiptBundle, ProviderPolicy)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let world = World::new().await;
        (world.bundle, ProviderPolicy::new(world.log.policy()))
    })
});

const N_FIELDS: usize = 8;

/// Flips one bit of one field; `None` when the text is no longer text, which JSON cannot carry.
fn flipped(field: usize, bit: usize) -> Option<ReceiptBundle> {
    let mut bundle = GOOD.0.clone();
    let flip = |bytes: &mut Vec<u8>| {
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
    };
    let flip_text = |text: &mut String| {
        let mut bytes = std::mem::take(text).into_bytes();
        flip(&mut bytes);
        String::from_utf8(bytes).map(|flipped| *text = flipped).ok()
    };
    match field {
        0 => flip(&mut bundle.receipt),
        1 => flip(&mut bundle.details),
        2 => flip(&mut bundle.blind),
        3 => flip(&mut bundle.key_statement),
        4 => flip(&mut bundle.evidence),
        5 => flip_text(&mut bundle.key_statement_proof)?,
        6 => flip_text(&mut bundle.evidence_proof)?,
        _ => flip_text(bundle.tlog_proof.as_mut().expect("the good bundle has a proof"))?,
    }
    Some(bundle)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn any_flipped_bit_is_refused(field in 0..N_FIELDS, bit in any::<usize>()) {
        if let Some(bundle) = flipped(field, bit) {
            prop_assert!(verify_receipt(&bundle, &GOOD.1).is_err(), "field {field}, bit {bit}");
        }
    }
}
