//! What every store promises, and what only a bucket can get wrong.

use std::time::Duration;

use bytes::Bytes;
use fanlight_auditlog::sequencer::OpenError;
use fanlight_auditlog::store::contract::{ContractViolation, Effort, check_contract};
use fanlight_auditlog::store::{ProbeError, PutNew, Swap};
use fanlight_auditlog::{Config, LeafIndex as _, Lock as _, Log, ObjectStore as _, TileSource as _, create};
use fanlight_stores::{AnyStore, open_reader, open_writer};

use crate::log::signer;
use crate::proxy::{Faults, Proxy};
use crate::server::{Kind, Server, location, run, store};

#[test]
fn moto_keeps_the_contract() {
    run(keeps_the_contract(Kind::Moto, Effort::Thorough));
}

#[test]
fn ministack_keeps_the_contract() {
    run(keeps_the_contract(Kind::Ministack, Effort::Thorough));
}

async fn keeps_the_contract(kind: Kind, effort: Effort) {
    let server = Server::start(kind).await;
    let index = tempfile::tempdir().unwrap();
    let store = server.store("some/log", &index).await;
    check_contract(&store, effort).await.unwrap();
    // A log beside it sees nothing of it.
    let other = tempfile::tempdir().unwrap();
    let other = server.store("some/logs", &other).await;
    assert_eq!(other.list("private/").await.unwrap(), [""; 0]);
    assert!(other.load().await.unwrap().is_none());
}

/// The same server behind a proxy that strips the conditions is one that ignores them.
#[test]
fn a_server_that_ignores_conditions_is_refused() {
    run(async {
        let server = Server::start(Kind::Moto).await;
        let refused = async |header: &'static str, prefix: &str| {
            let index = tempfile::tempdir().unwrap();
            create(&server.store(prefix, &index).await, &signer()).await.unwrap();
            let proxy = Proxy::start(&server.endpoint, Faults::strip(header)).await;
            let index = tempfile::tempdir().unwrap();
            let ignoring = store(&proxy.endpoint, prefix, &index).await;
            Log::open(ignoring, signer(), Config::default()).await.map(drop).unwrap_err()
        };
        let error = refused("if-none-match", "a").await;
        assert!(matches!(error, OpenError::Probe(ProbeError::PutNewIgnored)), "{error}");
        assert!(error.to_string().contains("two writers could fork the log"));
        let error = refused("if-match", "b").await;
        assert!(matches!(error, OpenError::Probe(ProbeError::SwapIgnored)), "{error}");

        let proxy = Proxy::start(&server.endpoint, Faults::strip("if-none-match")).await;
        let index = tempfile::tempdir().unwrap();
        let broken = check_contract(&store(&proxy.endpoint, "c", &index).await, Effort::Quick).await.unwrap_err();
        assert!(matches!(broken, ContractViolation::Broken { .. }), "the contract notices it as well");
    });
}

/// A condition that never holds, whatever is read before: an error in the end, and no log is kept there.
#[test]
fn a_server_that_refuses_every_condition_is_given_up() {
    run(async {
        let server = Server::start(Kind::Moto).await;
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let direct = server.store("log", &dirs[0]).await;
        create(&direct, &signer()).await.unwrap();
        let (a, b) = (Bytes::from("a"), Bytes::from("b"));
        direct.put("private/x", a.clone()).await.unwrap();
        let put_over = async |store: &AnyStore, previous: Option<&Bytes>| {
            let put = store.put_over("private/x", previous, b.clone());
            let error = tokio::time::timeout(Duration::from_secs(30), put).await.expect("it ends").unwrap_err();
            std::error::Error::source(&error).unwrap().to_string()
        };

        let renaming = Proxy::start(&server.endpoint, Faults::rename_etags()).await;
        let renamed = store(&renaming.endpoint, "log", &dirs[1]).await;
        let error = put_over(&renamed, Some(&a)).await;
        assert!(error.contains("refuses the ETag"), "{error}");
        assert_eq!(renaming.requests(), 10, "five attempts, each a look and a write");
        let opened = Log::open(renamed, signer(), Config::default()).await.map(drop);
        assert!(matches!(opened, Err(OpenError::Probe(ProbeError::Store(_)))), "{opened:?}");

        let absent = Proxy::start(&server.endpoint, Faults::always(404, "NoSuchKey")).await;
        let error = put_over(&store(&absent.endpoint, "log", &dirs[2]).await, None).await;
        assert!(error.contains("no such bucket"), "{error}");
        assert_eq!(direct.get("private/x").await.unwrap(), Some(a), "nothing was written");
    });
}

#[test]
fn public_objects_have_the_headers_of_the_read_path() {
    run(async {
        let server = Server::start(Kind::Moto).await;
        let index = tempfile::tempdir().unwrap();
        let store = server.store("log", &index).await;
        store.put("checkpoint", "note".into()).await.unwrap();
        store.put_new("tile/0/000.p/1", vec![0; 32].into()).await.unwrap();
        for (key, content_type, cache_control) in [
            ("checkpoint", "text/plain; charset=utf-8", "no-cache"),
            ("tile/0/000.p/1", "application/octet-stream", "public, max-age=31536000, immutable"),
        ] {
            // The server asks who reads, though not for a signature.
            let request = reqwest::Client::new().get(format!("{}/bucket/log/{key}", server.endpoint));
            let answer = request.header("authorization", "AWS test:test").send().await.unwrap();
            assert_eq!(answer.headers()["content-type"], content_type);
            assert_eq!(answer.headers()["cache-control"], cache_control);
        }
    });
}

#[test]
fn errors_say_what_to_do() {
    run(async {
        let server = Server::start(Kind::Moto).await;
        let said = async |url: &str, endpoint: &str| {
            let store = open_reader(&url.parse().unwrap(), Some(endpoint)).await.unwrap();
            let error = store.get("checkpoint").await.unwrap_err();
            std::error::Error::source(&error).unwrap().to_string()
        };
        let error = said("s3://absent-bucket/log", &server.endpoint).await;
        assert!(error.contains("s3://absent-bucket/log/checkpoint") && error.contains("no such bucket"), "{error}");
        // Port 9 discards, if anything listens there at all.
        let error = said("s3://bucket/log", "http://127.0.0.1:9").await;
        assert!(error.contains("cannot reach the server") && error.contains("--endpoint-url"), "{error}");
        for (status, code, words) in [
            (403, "AccessDenied", "s3:GetObject"),
            (301, "PermanentRedirect", "AWS_REGION=eu-1"),
            (501, "NotImplemented", "501 NotImplemented"),
        ] {
            let proxy = Proxy::start(&server.endpoint, Faults::always(status, code)).await;
            let error = said("s3://bucket/log", &proxy.endpoint).await;
            assert!(error.contains(words), "{error}");
        }
        let absent = open_reader(&location("log"), Some(&server.endpoint)).await.unwrap();
        assert_eq!(absent.get("checkpoint").await.unwrap(), None, "an absent object is no error");
        assert!(absent.indexed().await.is_err(), "a reader has no index");
    });
}

#[test]
fn objects_longer_than_theirs_are_not_read() {
    run(async {
        let server = Server::start(Kind::Moto).await;
        let index = tempfile::tempdir().unwrap();
        let store = server.store("log", &index).await;
        let long = Bytes::from(vec![1; 10_000]);
        store.put("tile/0/000", long.clone()).await.unwrap_err();
        assert_eq!(store.get("tile/0/000").await.unwrap(), None, "what nobody would read back is not written");
        let request = reqwest::Client::new().put(format!("{}/bucket/log/tile/0/000", server.endpoint)).body(long);
        assert!(request.header("authorization", "AWS test:test").send().await.unwrap().status().is_success());
        store.get("tile/0/000").await.unwrap_err();
        // Nor does one hide that a tile is not what it should be.
        assert_eq!(store.put_new("tile/0/000", vec![2; 8192].into()).await.unwrap(), PutNew::ExistsDifferent);
        assert!(open_writer(&location("log"), Some(&server.endpoint), Some(index.path())).await.is_err(), "the index is in use");
    });
}

/// The swap is sent once: its answer being lost, nobody but the lock itself knows.
#[test]
fn a_swap_is_never_repeated() {
    run(async {
        let server = Server::start(Kind::Moto).await;
        let index = tempfile::tempdir().unwrap();
        let direct = server.store("log", &index).await;
        direct.create("1".into()).await.unwrap();
        let token = direct.load().await.unwrap().unwrap().token;
        let proxy = Proxy::start(&server.endpoint, Faults::lose_answers()).await;
        let index = tempfile::tempdir().unwrap();
        let store = store(&proxy.endpoint, "log", &index).await;
        let swap = tokio::time::timeout(Duration::from_secs(10), store.swap(&token, "2".into())).await.unwrap();
        assert!(matches!(swap, Swap::Unknown(_)), "{swap:?}");
        assert_eq!(proxy.requests(), 1);
        assert_eq!(direct.load().await.unwrap().unwrap().bytes, "2", "it went through");
    });
}
