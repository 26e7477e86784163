//! Attacks that need a running party, and properties over whole messages. The rest of SPEC §11 is in `attacks_v1.json`.

use std::cell::RefCell;
use std::collections::HashSet;

use fanlight_protocol::padding::Padding;
use fanlight_protocol::response::Frame;
use fanlight_protocol::{Digest, KeyId, MAX_REQUEST_LEN, RequestId, UnixTime};
use fanlight_sealing::{
    EnclaveDh, EnclaveError, KemKey, OpenError, OpenResponseError, OpenedRequest, Recipient, RequestParams, ResponseOpener,
    SealError, Sender, SoftwareDh, open_request,
};
use proptest::prelude::*;
use zeroize::Zeroizing;

use crate::read::read_response;
use crate::suite::craft::{Answer, Crafted, Fields, MESSAGE, Party, receipt_frame, sha256};
use crate::suite::rng::CounterRng;

const NOW: UnixTime = UnixTime::from_secs(1_790_000_000);
const STATEMENT: Digest = Digest([5; 32]);

fn kem() -> SoftwareDh {
    SoftwareDh::generate(&mut CounterRng::new("attacked"))
}

fn params(padding: Padding) -> RequestParams {
    RequestParams { padding, ..RequestParams::chat("tiny-llama", RequestId([1; 16]), NOW) }
}

fn seal(kem: &SoftwareDh, padding: Padding, message: &[u8]) -> (Vec<u8>, ResponseOpener) {
    let recipients = [Recipient::new(kem.public_key(), STATEMENT).expect("a valid key")];
    let sender = Sender::new(params(padding), &recipients).expect("valid parameters");
    sender.seal(message, &mut CounterRng::new("sealed")).expect("a short message")
}

fn open(kem: &SoftwareDh, request: &[u8]) -> Result<OpenedRequest, OpenError> {
    let key_id = KeyId::of(1, kem.public_key());
    let key = |id: &KeyId| (*id == key_id).then_some(KemKey { dh: kem, statement_digest: STATEMENT });
    open_request(request, NOW, key, |_, _| true)
}

/// An answer with its receipt, in one piece.
fn answer(opened: OpenedRequest, contents: &[&[u8]]) -> Vec<u8> {
    let start = opened.into_response_keys().start(&mut CounterRng::new("answer"));
    let mut response = start.prefix().to_bytes().to_vec();
    let mut sealer = start.with_status(200);
    let (last, first) = contents.split_last().expect("a last content");
    for content in first {
        response.extend(sealer.seal_data(content).concat());
    }
    response.extend(sealer.seal_final(last).0.concat());
    response.extend(receipt_frame());
    response
}

#[test]
fn request_replayed_is_refused_by_what_was_claimed() {
    let kem = kem();
    let (request, _) = seal(&kem, Padding::Padme, MESSAGE);
    let seen = RefCell::new(HashSet::new());
    let key = |_: &KeyId| Some(KemKey { dh: &kem, statement_digest: STATEMENT });
    let open = || open_request(&request, NOW, key, |id, enc| seen.borrow_mut().insert((*id, *enc)));
    assert!(open().is_ok());
    assert!(matches!(open(), Err(OpenError::Replayed)));
    assert_eq!(seen.borrow().len(), 1);
}

/// One provider with two keys opens with the first, and claims both; the first key goes, and the request stays refused.
#[test]
fn request_replayed_after_its_key_is_gone() {
    let kems = ["old", "new"].map(|name| SoftwareDh::generate(&mut CounterRng::new(name)));
    let recipients = kems.each_ref().map(|kem| Recipient::new(kem.public_key(), STATEMENT).unwrap());
    let (request, _) =
        Sender::new(params(Padding::Padme), &recipients).unwrap().seal(MESSAGE, &mut CounterRng::new("two")).unwrap();
    let seen = RefCell::new(HashSet::new());
    let open = |kems: &[SoftwareDh]| {
        let key = |id: &KeyId| {
            let dh = kems.iter().find(|kem| KeyId::of(1, kem.public_key()) == *id)?;
            Some(KemKey { dh, statement_digest: STATEMENT })
        };
        open_request(&request, NOW, key, |id, enc| seen.borrow_mut().insert((*id, *enc)))
    };
    assert_eq!(open(&kems).unwrap().recipient().key_id, *recipients[0].key_id());
    assert!(matches!(open(&kems[1..]), Err(OpenError::Replayed)));
}

/// Nothing is claimed or unwrapped for a request that is refused before: refusals come in the order of SPEC §4.4.
#[test]
fn refusals_come_in_order() {
    let kem = kem();
    let (request, _) = seal(&kem, Padding::Padme, MESSAGE);
    let none = |_: &KeyId, _: &[u8; 65]| -> bool { panic!("claimed") };
    let known = |_: &KeyId| Some(KemKey { dh: &kem, statement_digest: STATEMENT });
    let unknown = |_: &KeyId| -> Option<KemKey<'static>> { None };
    let late = UnixTime::from_secs(NOW.as_secs() + 301);
    assert!(matches!(open_request(&request[1..], late, unknown, none), Err(OpenError::Malformed(_))));
    assert!(matches!(open_request(&request, late, unknown, none), Err(OpenError::Expired)));
    assert!(matches!(open_request(&request, NOW, unknown, none), Err(OpenError::UnknownKey)));
    let truncated = &request[..request.len() - 1];
    assert!(matches!(open_request(truncated, NOW, known, |_, _| false), Err(OpenError::Replayed)));
    assert!(matches!(open_request(truncated, NOW, known, |_, _| true), Err(OpenError::Rejected)));
    assert!(matches!(open_request(&vec![1; MAX_REQUEST_LEN + 1], NOW, known, none), Err(OpenError::TooLarge)));
}

/// A recipient that rewrites the body under the content key gets a second recipient to answer it. Were the response keys not
/// bound to the request hash, the client would take that answer for one to its own body.
#[test]
fn insider_body_rewritten_would_succeed_without_the_request_hash() {
    let parties = [Party::new("insider"), Party::new("victim")];
    let fields = Fields::to(&[&parties[0], &parties[1]]);
    let sent = Crafted::new(&fields, "insider", MESSAGE);
    let rewritten = Crafted::new(&fields, "insider", b"{\"evil\":1}");
    assert_eq!(sent.header(), rewritten.header(), "only the body is another");
    let bound = |request: &Crafted| Answer::new(&parties[1], &request.wraps[1], request.hash(), 1).sealed(2, &[0, 200]);
    let unbound = |request: &Crafted| Answer::new(&parties[1], &request.wraps[1], [0; 32], 1).sealed(2, &[0, 200]);
    assert_eq!(unbound(&sent), unbound(&rewritten), "the control: one answer fits both bodies");
    assert_ne!(bound(&sent), bound(&rewritten));
}

#[test]
fn any_bit_of_a_request_flipped_is_refused() {
    let kem = kem();
    let (mut request, _) = seal(&kem, Padding::None, b"{}");
    assert!(open(&kem, &request).is_ok());
    for bit in 0..request.len() * 8 {
        request[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&kem, &request).is_err(), "bit {bit}");
        request[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn any_bit_of_a_response_flipped_is_refused() {
    let kem = kem();
    let (request, opener) = seal(&kem, Padding::None, b"{}");
    let mut response = answer(open(&kem, &request).unwrap(), &[b"a", b"b"]);
    assert!(read_response(opener, &response).is_ok());
    // The receipt is in clear here; it is signed, and the client checks that.
    for bit in 0..(response.len() - receipt_frame().len()) * 8 {
        response[bit / 8] ^= 1 << (bit % 8);
        let (_, opener) = seal(&kem, Padding::None, b"{}");
        assert!(read_response(opener, &response).is_err(), "bit {bit}");
        response[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_response_cut_anywhere_is_no_response() {
    let kem = kem();
    let (request, _) = seal(&kem, Padding::Padme, b"{}");
    let response = answer(open(&kem, &request).unwrap(), &[b"a", b"b"]);
    for len in 0..response.len() {
        let (_, opener) = seal(&kem, Padding::Padme, b"{}");
        assert_eq!(read_response(opener, &response[..len]).err(), Some("truncated"), "{len} bytes");
    }
}

#[test]
fn a_refused_response_gives_nothing_more() {
    let kem = kem();
    let (request, opener) = seal(&kem, Padding::Padme, b"{}");
    let start = open(&kem, &request).unwrap().into_response_keys().start(&mut CounterRng::new("answer"));
    let mut response = opener.begin(start.prefix()).unwrap();
    let mut sealer = start.with_status(200);
    let good = sealer.seal_data(b"one").remove(0);
    let mut forged = good.clone();
    forged[10] ^= 1;
    assert_eq!(response.open(&Frame::parse(&forged).unwrap()), Err(OpenResponseError::Rejected));
    assert_eq!(response.open(&Frame::parse(&good).unwrap()), Err(OpenResponseError::Refused));
    assert_eq!(response.finish(), Err(OpenResponseError::Refused));
}

#[test]
fn an_abort_is_receipted_for_what_was_sealed() {
    let kem = kem();
    let (request, opener) = seal(&kem, Padding::Padme, b"{}");
    let start = open(&kem, &request).unwrap().into_response_keys().start(&mut CounterRng::new("answer"));
    assert_eq!(start.response_hash().0, sha256(&start.prefix().to_bytes()));
    let mut response = opener.begin(start.prefix()).unwrap();
    let mut sealer = start.with_status(200);
    let frame = sealer.seal_data(b"one").remove(0);
    response.open(&Frame::parse(&frame).unwrap()).unwrap();
    assert_eq!(sealer.response_hash(), response.response_hash());
    assert_eq!(response.finish(), Err(OpenResponseError::Truncated));
}

#[test]
fn an_enclave_that_is_gone_is_no_fault_of_the_sender() {
    #[derive(Debug)]
    struct Gone(SoftwareDh);
    impl EnclaveDh for Gone {
        fn public_key(&self) -> &[u8; 65] {
            self.0.public_key()
        }
        fn ecdh(&self, _: &[u8; 65]) -> Result<Zeroizing<[u8; 32]>, EnclaveError> {
            Err(EnclaveError::Unavailable("locked".into()))
        }
    }
    let (request, _) = seal(&kem(), Padding::Padme, b"{}");
    let gone = Gone(kem());
    let key = |_: &KeyId| Some(KemKey { dh: &gone, statement_digest: STATEMENT });
    assert!(matches!(open_request(&request, NOW, key, |_, _| true), Err(OpenError::Enclave(_))));
}

#[test]
fn a_message_fits_or_is_refused_at_the_limit() {
    let kem = kem();
    let recipient = [Recipient::new(kem.public_key(), STATEMENT).unwrap()];
    let seal = |len: usize| {
        let sender = Sender::new(params(Padding::None), &recipient).unwrap();
        sender.seal(&vec![b'x'; len], &mut CounterRng::new("limit")).map(|(request, _)| request)
    };
    let overhead = seal(MAX_REQUEST_LEN - 20_000).unwrap().len() - (MAX_REQUEST_LEN - 20_000);
    // The last 20,000 bytes take one chunk more, of 20 bytes: its tag and length.
    let longest = MAX_REQUEST_LEN - overhead - 20;
    assert_eq!(seal(longest).unwrap().len(), MAX_REQUEST_LEN);
    assert_eq!(seal(longest + 1), Err(SealError::TooLong));
    assert_eq!(open(&kem, &seal(longest).unwrap()).unwrap().message().len(), longest);
}

#[test]
fn secrets_are_not_printed() {
    let kem = kem();
    let (request, opener) = seal(&kem, Padding::Padme, MESSAGE);
    let request = open(&kem, &request).unwrap();
    let secret = hex::encode(kem.to_bytes());
    let printed = format!("{kem:?} {opener:?} {request:?}");
    assert!(!printed.contains("Hello") && !printed.contains(&secret));
    for shown in
        [format!("{kem:?}"), format!("{opener:?}"), format!("{request:?}"), format!("{:?}", request.into_response_keys())]
    {
        assert!(shown.contains(".."), "{shown}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn messages_and_answers_come_back(
        message in prop::collection::vec(any::<u8>(), 0..40_000),
        contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20_000), 1..5),
        padded: bool,
    ) {
        let kem = kem();
        let padding = if padded { Padding::Padme } else { Padding::None };
        let (request, opener) = seal(&kem, padding, &message);
        let opened = open(&kem, &request).expect("it was sealed to this key");
        prop_assert_eq!(opened.message(), &message);
        let contents: Vec<_> = contents.iter().map(Vec::as_slice).collect();
        let response = answer(opened, &contents);
        let (got, summary) = read_response(opener, &response).expect("it was sealed by the recipient");
        prop_assert_eq!(got.concat(), contents.concat());
        prop_assert_eq!(summary.status, 200);
    }

    #[test]
    fn requests_that_nobody_sealed_do_not_open(bytes in prop::collection::vec(any::<u8>(), 0..3_000)) {
        prop_assert!(open(&kem(), &bytes).is_err());
    }
}
