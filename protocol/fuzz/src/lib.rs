//! What fuzz targets do that takes more than a line, so that the targets take one.

use fanlight_protocol::entry::{IdentityKey, Receipt, Signed};
use fanlight_protocol::link::Message;
use fanlight_protocol::request::RequestHeader;
use fanlight_protocol::response::{FrameSplitter, ReceiptPayload, ResponseItem};
use fanlight_protocol::{Digest, ParseError, UnixTime};
use fanlight_sealing::{EnclaveDh as _, KemKey, SoftwareDh, open_request};

/// A header that parses is written back as it was.
pub fn rewrite_header(data: &[u8]) {
    if let Ok((header, len)) = RequestHeader::parse(data) {
        assert_eq!(header.to_bytes(), data[..len]);
    }
}

/// A message that parses is written back as it was.
pub fn rewrite_link_message(data: &[u8]) {
    if let Ok((stream, message)) = Message::parse(data) {
        assert_eq!(message.to_bytes(stream), data);
    }
}

/// A payload that parses is written back as it was.
pub fn rewrite_receipt_payload(data: &[u8]) {
    if let Ok(payload) = ReceiptPayload::parse(data) {
        assert_eq!(payload.to_bytes(), data);
    }
}

/// A receipt that nobody could sign does not verify.
pub fn verify_receipt(data: &[u8]) {
    let key = SoftwareDh::from_bytes(&[1; 32]).expect("a scalar");
    let signer = IdentityKey::from_sec1(key.public_key()).expect("a point");
    drop(Signed::<Receipt>::verify(data, &signer));
}

/// Opens with a key that every header names.
pub fn open_with_fixed_key(data: &[u8]) {
    let dh = SoftwareDh::from_bytes(&[1; 32]).expect("a scalar");
    let Ok((header, _)) = RequestHeader::parse(data) else { return };
    let fields = header.fields();
    let statement_digest = fields.recipients[0].statement_digest;
    let key = |_: &_| Some(KemKey { dh: &dh, statement_digest });
    drop(open_request(data, fields.created, key, |_, _| true));
    drop(open_request(data, UnixTime::from_secs(0), key, |_, _| false));
}

/// All bytes at once and one at a time give the same items and the same end.
pub fn split_both_ways(data: &[u8]) {
    let digest = |items: &[ResponseItem]| Digest::of(format!("{items:?}").as_bytes());
    let (whole, by_byte) = (split(data, data.len().max(1)), split(data, 1));
    assert_eq!((digest(&whole.0), whole.1), (digest(&by_byte.0), by_byte.1));
}

fn split(data: &[u8], size: usize) -> (Vec<ResponseItem>, Option<ParseError>) {
    let mut splitter = FrameSplitter::default();
    let mut items = Vec::new();
    for piece in data.chunks(size) {
        splitter.push(piece);
        loop {
            match splitter.next_item() {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(error) => return (items, Some(error)),
            }
        }
    }
    (items, None)
}
