//! What is derived from the content key and from a response secret (SPEC §4.2, §4.3, §5.1).

use fanlight_protocol::{Digest, KeyId};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::cipher::ChunkCipher;

const COMMITMENT_LABEL: &[u8] = b"fanlight-v1 commitment";
const REQUEST_LABEL: &[u8] = b"fanlight-v1 request";
const BODY_KEY_LABEL: &[u8] = b"fanlight-v1 body key";
const BODY_NONCE_LABEL: &[u8] = b"fanlight-v1 body nonce";
const RESPONSE_KEY_LABEL: &[u8] = b"fanlight-v1 response key";
const RESPONSE_NONCE_LABEL: &[u8] = b"fanlight-v1 response nonce";
/// The exporter context of a response secret (SPEC §4.2).
pub(crate) const RESPONSE_EXPORT_LABEL: &[u8] = b"fanlight-v1 response";

/// `"fanlight-v1 request" ‖ H(fields) ‖ key_id`: the HPKE info of one recipient.
pub(crate) fn wrap_info(fields_hash: &Digest, key_id: &KeyId) -> Vec<u8> {
    [REQUEST_LABEL, &fields_hash.0, &key_id.0].concat()
}

/// `HKDF-SHA256(salt = "", ikm = content_key, info = "fanlight-v1 commitment" ‖ H(fields), 32)`.
pub(crate) fn commitment(content_key: &[u8; 32], fields_hash: &Digest) -> [u8; 32] {
    let hkdf = Hkdf::<Sha256>::new(None, content_key);
    let mut out = [0; 32];
    hkdf.expand_multi_info(&[COMMITMENT_LABEL, &fields_hash.0], &mut out).expect(WITHIN_LIMIT);
    out
}

/// The cipher of a request body: `HKDF-SHA256(salt = H(header), ikm = content_key, …)`.
pub(crate) fn body_cipher(content_key: &[u8; 32], header_hash: &Digest) -> ChunkCipher {
    expand_cipher(&Hkdf::new(Some(&header_hash.0), content_key), BODY_KEY_LABEL, BODY_NONCE_LABEL)
}

/// The cipher of a response: `prk = HKDF-Extract(salt = enc ‖ response_nonce ‖ request_hash, ikm = response_secret)`.
pub(crate) fn response_cipher(
    enc: &[u8; 65],
    response_nonce: &[u8; 32],
    request_hash: &Digest,
    response_secret: &[u8; 32],
) -> ChunkCipher {
    let mut salt = [0; 65 + 32 + 32];
    salt[..65].copy_from_slice(enc);
    salt[65..97].copy_from_slice(response_nonce);
    salt[97..].copy_from_slice(&request_hash.0);
    expand_cipher(&Hkdf::new(Some(&salt), response_secret), RESPONSE_KEY_LABEL, RESPONSE_NONCE_LABEL)
}

fn expand_cipher(hkdf: &Hkdf<Sha256>, key_label: &[u8], nonce_label: &[u8]) -> ChunkCipher {
    let mut key = Zeroizing::new([0; 32]);
    let mut nonce = [0; 12];
    hkdf.expand(key_label, key.as_mut_slice()).expect(WITHIN_LIMIT);
    hkdf.expand(nonce_label, &mut nonce).expect(WITHIN_LIMIT);
    ChunkCipher::new(&key, nonce)
}

const WITHIN_LIMIT: &str = "HKDF-SHA256 gives up to 8,160 bytes";
