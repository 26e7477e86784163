//! Whom the client seals to: only providers that verify, sampled by itself.

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fanlight_client::{Client, SendError};
use fanlight_protocol::KeyId;
use fanlight_protocol::directory::Listing;
use fanlight_protocol::request::RequestHeader;
use fanlight_verifier::{Grade, ListingError};

use support::{Network, TestProvider, chat, lock};

async fn ask(client: &Client) -> Result<(), SendError> {
    client.send(&chat(false)).await?.into_answer(1 << 20).await?;
    Ok(())
}

/// Key ids of the recipients of every request that arrived.
fn sealed_to(network: &Network) -> Vec<Vec<KeyId>> {
    let requests = lock(&network.state.requests);
    let ids =
        |request: &Vec<u8>| RequestHeader::parse(request).expect("a header").0.recipients().map(|(r, _)| r.key_id).collect();
    requests.iter().map(ids).collect()
}

#[tokio::test]
async fn only_verified_listings_are_sealed_to() {
    let network = Network::start(1).await;
    let clock = &network.state.clock;
    let make = || TestProvider::new(clock, &[("tiny", 2_048)]);
    let good = lock(&network.state.listings)[0].clone();
    let on_other_log = make().listing(&network.other_log().await).await;
    let logged = make().listing(&network.state.log).await;
    let (before, after) = (clock.now(), clock.now() + Duration::from_hours(1));
    let expired = TestProvider::valid(clock, &[("tiny", 1)], clock_minus(before, 7_200), clock_minus(before, 3_600));
    let future = TestProvider::valid(clock, &[("tiny", 1)], after, after + Duration::from_mins(1));
    let bad = [
        ("statement_not_logged", Listing { key_statement_proof: String::new(), ..logged.clone() }),
        ("statement_forked", on_other_log),
        ("proof of another entry", Listing { key_statement_proof: logged.evidence_proof.clone(), ..logged.clone() }),
        (
            "evidence of another",
            Listing { evidence: good.evidence.clone(), evidence_proof: good.evidence_proof.clone(), ..logged },
        ),
        ("statement_expired", expired.listing(&network.state.log).await),
        ("not valid yet", future.listing(&network.state.log).await),
        ("garbage", Listing { key_statement: vec![1, 2, 3], ..good.clone() }),
    ];
    lock(&network.state.listings).extend(bad.iter().map(|(_, listing)| listing.clone()));

    let client = network.client();
    let snapshot = client.directory().await.unwrap();
    assert_eq!((snapshot.providers.len(), snapshot.refused.len()), (1, bad.len()));
    let reason = |n: usize| &snapshot.refused[n].reason;
    assert!(matches!(reason(0), ListingError::StatementNotLogged(_)));
    assert!(matches!(reason(1), ListingError::EvidenceNotLogged(_)));
    assert!(matches!(reason(2), ListingError::StatementNotLogged(_)));
    assert!(matches!(reason(3), ListingError::OtherProvider));
    assert!(matches!(reason(4), ListingError::Expired));
    assert!(matches!(reason(5), ListingError::NotYetValid | ListingError::Appraisal(_)));
    assert!(matches!(reason(6), ListingError::KeyStatement(_)));
    ask(&client).await.unwrap();
    assert_eq!(sealed_to(&network), [vec![snapshot.providers[0].verified().key_statement().key_id()]]);
}

fn clock_minus(time: fanlight_protocol::UnixTime, secs: u64) -> fanlight_protocol::UnixTime {
    fanlight_protocol::UnixTime::from_secs(time.as_secs() - secs)
}

#[tokio::test]
async fn nothing_is_sealed_when_nobody_is_good_enough() {
    let network = Network::start(2).await;
    let mut config = network.config();
    config.minimum_grade = Grade::DeviceBound;
    let client = Client::new(config).unwrap();
    let error = ask(&client).await.unwrap_err();
    assert!(matches!(error, SendError::UnknownModel { verified: 0, refused: 2 }), "{error:?}");
    assert_eq!(sealed_to(&network), Vec::<Vec<KeyId>>::new());
}

#[tokio::test]
async fn the_client_samples_recipients_at_random() {
    let network = Network::start(6).await;
    // A gateway that lists one provider often does not make it likelier; nor does one that lists another model.
    let often = lock(&network.state.listings)[0].clone();
    lock(&network.state.listings).extend(std::iter::repeat_n(often, 10));
    let other_model = network.add_provider(TestProvider::new(&network.state.clock, &[("other", 64)])).await;
    let client = network.client();
    let snapshot = client.directory().await.unwrap();
    assert_eq!(snapshot.providers.len(), 7);
    assert!(!snapshot.offering("tiny", client.now()).any(|listed| listed.verified().provider_id() == other_model.id()));
    for _ in 0..40 {
        ask(&client).await.unwrap();
    }
    let sealed_to = sealed_to(&network);
    assert!(sealed_to.iter().all(|keys| keys.len() == 3));
    let all: BTreeSet<_> = sealed_to.iter().flatten().collect();
    let first: BTreeSet<_> = sealed_to.iter().map(|keys| keys[0]).collect();
    // Each of six is missing from 40 samples of three with probability 2^-40; never first, with (5/6)^40 < 0.1 %.
    assert_eq!(all.len(), 6);
    assert!(first.len() > 3);
}

#[tokio::test]
async fn one_fetch_serves_all_who_wait() {
    let network = Network::start(2).await;
    let client = network.client();
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { ask(&client).await })
        })
        .collect();
    for task in asking {
        task.await.unwrap().unwrap();
    }
    assert_eq!(network.state.directory_fetches.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_directory_is_fetched_anew_when_it_is_old_or_statements_end() {
    let network = Network::start(1).await;
    let client = network.client();
    let fetches = || network.state.directory_fetches.load(Ordering::Relaxed);
    ask(&client).await.unwrap();
    ask(&client).await.unwrap();
    assert_eq!(fetches(), 1);
    network.state.clock.advance(Duration::from_secs(301));
    ask(&client).await.unwrap();
    assert_eq!(fetches(), 2, "old");
    network.state.clock.advance(Duration::from_secs(3_299 - 60));
    ask(&client).await.unwrap();
    network.state.clock.advance(Duration::from_secs(30));
    ask(&client).await.unwrap();
    assert_eq!(fetches(), 4, "near the end of the only statement");

    // The statement has ended: nothing is sealed to it, although the gateway still lists it.
    network.state.clock.advance(Duration::from_mins(2));
    let sent = lock(&network.state.requests).len();
    let error = ask(&client).await.unwrap_err();
    assert!(matches!(error, SendError::UnknownModel { verified: 0, refused: 1 }), "{error:?}");
    assert_eq!(lock(&network.state.requests).len(), sent);

    // Its next statement is found without being told, a moment later.
    network.state.clock.advance(Duration::from_secs(5));
    network.add_provider(TestProvider::new(&network.state.clock, &[("tiny", 2_048)])).await;
    ask(&client).await.unwrap();
}

#[tokio::test]
async fn unknown_models_do_not_fetch_a_directory_each() {
    let network = Network::start(0).await;
    network.add_provider(TestProvider::new(&network.state.clock, &[("other", 64)])).await;
    let client = network.client();
    let fetches = || network.state.directory_fetches.load(Ordering::Relaxed);
    for _ in 0..5 {
        let error = ask(&client).await.unwrap_err();
        assert!(matches!(error, SendError::UnknownModel { verified: 1, refused: 0 }), "{error:?}");
    }
    assert_eq!(fetches(), 1);
    network.state.clock.advance(Duration::from_secs(5));
    network.add_provider(TestProvider::new(&network.state.clock, &[("tiny", 2_048)])).await;
    ask(&client).await.unwrap();
    assert_eq!(fetches(), 2, "a model that is new is found soon");
}

#[tokio::test]
async fn configurations_that_cannot_work_are_refused_at_once() {
    use fanlight_client::SetUpError;
    let network = Network::start(0).await;
    for gateway in ["", "gateway.example", "ftp://gateway.example", "http://", "http://gateway.example/?x=1"] {
        let mut config = network.config();
        config.gateway = gateway.to_owned();
        assert!(matches!(Client::new(config), Err(SetUpError::Gateway(_))), "{gateway}");
    }
    let mut config = network.config();
    config.policy = "log nonsense\nquorum none\n".to_owned();
    assert!(matches!(Client::new(config), Err(SetUpError::Policy(_))));
    let mut config = network.config();
    config.state_dir = "/dev/null/state".into();
    assert!(matches!(Client::new(config), Err(SetUpError::State { .. })));
}
