//! Listings of the directory: the good one, and one for each thing that can be wrong.

mod world;

use fanlight_auditlog::Policy;
use fanlight_auditlog::policy::PolicyViolation;
use fanlight_auditlog::tlog_proof::InclusionError;
use fanlight_protocol::directory::Listing;
use fanlight_protocol::entry::EntryError;
use fanlight_protocol::{Digest, UnixTime};
use fanlight_verifier::{AppraisalError, Grade, ListingError, LogProofError, ProviderPolicy, verify_listing};
use world::{END, Identity, NOW, START, TestLog, Witness, World, list};

const UNKNOWN_LOG: LogProofError = LogProofError::Refused(InclusionError::Policy(PolicyViolation::UnknownLog));
const NO_QUORUM: LogProofError = LogProofError::Refused(InclusionError::Policy(PolicyViolation::NoQuorum));

fn refusal(listing: &Listing, log: &TestLog, now: UnixTime) -> ListingError {
    verify_listing(listing, &ProviderPolicy::new(log.policy()), now).expect_err("the listing is bad")
}

#[tokio::test]
async fn a_good_listing_says_who_and_how_sure() {
    let world = World::new().await;
    let provider = verify_listing(&world.listing, &ProviderPolicy::new(world.log.policy()), NOW).unwrap();
    assert_eq!(provider.provider_id(), world.provider.id());
    assert_eq!(provider.statement_digest(), world.statement.digest());
    assert_eq!(provider.key_statement().models, world.statement.models);
    assert_eq!((provider.evidence_leaf_index(), provider.statement_leaf_index()), (1, 2));
    assert_eq!(provider.log_origin(), "log.example/test");
    assert_eq!(provider.grade(), Grade::SelfSigned);
    assert_eq!(provider.result().unverified_claims()["os"], "linux");
    assert!(provider.is_valid_at(NOW) && !provider.is_valid_at(UnixTime::from_secs(END + 1)));
}

#[tokio::test]
async fn statement_not_logged() {
    let World { log, listing, provider, .. } = World::new().await;
    let without = Listing { key_statement_proof: String::new(), ..listing.clone() };
    assert!(matches!(refusal(&without, &log, NOW), ListingError::StatementNotLogged(LogProofError::Malformed(_))));

    // A statement that was never appended, under the proof of one that was.
    let unlogged = provider.statement(|s| s.build_measurement = Digest([9; 32]));
    let borrowed = Listing { key_statement: unlogged.bytes().to_vec(), ..listing.clone() };
    let refused = refusal(&borrowed, &log, NOW);
    assert!(matches!(refused, ListingError::StatementNotLogged(LogProofError::Refused(InclusionError::Proof(_)))));

    let swapped = Listing { evidence_proof: listing.key_statement_proof.clone(), ..listing };
    assert!(matches!(refusal(&swapped, &log, NOW), ListingError::EvidenceNotLogged(LogProofError::Refused(_))));
}

#[tokio::test]
async fn statement_forked() {
    let World { log, listing, provider, statement, .. } = World::new().await;
    // The same entries in another log: its key is not ours.
    let other = TestLog::open(2).await;
    let elsewhere = list(&other, provider.evidence().bytes(), statement.bytes()).await;
    assert_eq!(refusal(&elsewhere, &log, NOW), ListingError::EvidenceNotLogged(UNKNOWN_LOG));
    let half = Listing { key_statement_proof: elsewhere.key_statement_proof.clone(), ..listing.clone() };
    assert_eq!(refusal(&half, &log, NOW), ListingError::StatementNotLogged(UNKNOWN_LOG));

    // The log's own key on a second tree: nothing but witnesses can tell, and the quorum did not see it.
    let fork = TestLog::open(1).await;
    let forked = list(&fork, provider.evidence().bytes(), statement.bytes()).await;
    let witness = Witness::new(3);
    let text = format!("log {}\nwitness w {}\nquorum w\n", log.vkey(), witness.vkey());
    let policy = ProviderPolicy::new(Policy::parse(text.as_bytes()).unwrap());
    assert_eq!(verify_listing(&forked, &policy, NOW).unwrap_err(), ListingError::EvidenceNotLogged(NO_QUORUM));
    let cosigned = Listing {
        evidence_proof: witness.cosign(&listing.evidence_proof),
        key_statement_proof: witness.cosign(&listing.key_statement_proof),
        ..listing.clone()
    };
    assert!(verify_listing(&cosigned, &policy, NOW).is_ok());
    let half = Listing { key_statement_proof: listing.key_statement_proof, ..cosigned };
    assert_eq!(verify_listing(&half, &policy, NOW).unwrap_err(), ListingError::StatementNotLogged(NO_QUORUM));
}

#[tokio::test]
async fn evidence_and_statement_in_different_trusted_logs() {
    let World { log, listing, provider, .. } = World::new().await;
    let other = TestLog::open_named("other.example/log", 2).await;
    let elsewhere = other.append(provider.evidence().bytes()).await;
    let text = format!("log {}\nlog {}\nquorum none\n", log.vkey(), other.vkey());
    let policy = ProviderPolicy::new(Policy::parse(text.as_bytes()).unwrap());
    let split = Listing { evidence_proof: elsewhere, ..listing };
    assert_eq!(verify_listing(&split, &policy, NOW).unwrap_err(), ListingError::OtherLog);
}

#[tokio::test]
async fn statement_expired() {
    let World { log, listing, .. } = World::new().await;
    let policy = ProviderPolicy::new(log.policy());
    let at = |secs| verify_listing(&listing, &policy, UnixTime::from_secs(secs)).map(drop);
    assert_eq!(at(START - 1), Err(ListingError::NotYetValid));
    assert_eq!((at(START), at(END)), (Ok(()), Ok(())));
    assert_eq!(at(END + 1), Err(ListingError::Expired));
}

#[tokio::test]
async fn mixed_providers_and_evidence() {
    let World { log, listing, provider, statement, .. } = World::new().await;
    let other = Identity::new(8);
    let others = list(&log, other.evidence().bytes(), other.statement(|_| ()).bytes()).await;
    let mixed = Listing { evidence: others.evidence, evidence_proof: others.evidence_proof, ..listing.clone() };
    assert_eq!(refusal(&mixed, &log, NOW), ListingError::OtherProvider);

    let mut newer = (*provider.evidence()).clone();
    newer.claims.insert("os".to_owned(), "macos".to_owned());
    let newer = provider.sign(&newer);
    let mixed = list(&log, newer.bytes(), statement.bytes()).await;
    assert_eq!(refusal(&mixed, &log, NOW), ListingError::OtherEvidence);

    // A statement in the name of one provider, signed by another.
    let stolen = other.sign_as(&provider, &statement);
    let stolen = list(&log, &listing.evidence, &stolen).await;
    assert_eq!(refusal(&stolen, &log, NOW), ListingError::KeyStatement(EntryError::BadSignature));
}

#[tokio::test]
async fn signature_reused_as_another_type() {
    let World { log, listing, receipt, .. } = World::new().await;
    let wrong_type = ListingError::KeyStatement(EntryError::WrongType);
    for entry in [listing.evidence.clone(), receipt.bytes().to_vec()] {
        let reused = list(&log, &listing.evidence, &entry).await;
        assert_eq!(refusal(&reused, &log, NOW), wrong_type);
    }
    let reused = list(&log, &listing.key_statement, &listing.key_statement).await;
    assert_eq!(refusal(&reused, &log, NOW), ListingError::Evidence(EntryError::WrongType));
}

#[tokio::test]
async fn grades_below_the_minimum_and_evidence_of_tomorrow() {
    let World { log, listing, provider, .. } = World::new().await;
    for minimum in [Grade::DeviceBound, Grade::AppAttested] {
        let policy = ProviderPolicy { log: log.policy(), minimum_grade: minimum };
        let refused = verify_listing(&listing, &policy, NOW).unwrap_err();
        assert_eq!(refused, ListingError::GradeTooLow { minimum, actual: Grade::SelfSigned });
    }
    let mut tomorrow = (*provider.evidence()).clone();
    tomorrow.created = UnixTime::from_secs(NOW.as_secs() + 61);
    let tomorrow = provider.sign(&tomorrow);
    let statement = provider.statement(|s| s.evidence_digest = tomorrow.digest());
    let early = list(&log, tomorrow.bytes(), statement.bytes()).await;
    assert_eq!(refusal(&early, &log, NOW), ListingError::Appraisal(AppraisalError::FromTheFuture));
}
