//! HPKE of suite 0x0001 (RFC 9180, base mode). The key agreement is done apart from the rest, because a Secure Enclave does
//! only that; derivations and contexts are those of the `hpke` crate.

use ::hpke::aead::{AeadCtxR, AeadCtxS, AesGcm256};
use ::hpke::kdf::{HkdfSha256, Kdf as _};
use ::hpke::kem::{DhP256HkdfSha256, SharedSecret};
use ::hpke::{OpModeR, OpModeS};
use rand_core::CryptoRng;
use subtle::ConstantTimeEq as _;

use crate::dh::{EnclaveDh, EnclaveError, InvalidKey, PublicKey, SoftwareDh};

/// `"KEM" ‖ kem_id(2)`, RFC 9180 §4.1.
const KEM_SUITE_ID: [u8; 5] = *b"KEM\x00\x10";

pub(crate) type SenderContext = AeadCtxS<AesGcm256, HkdfSha256, DhP256HkdfSha256>;
pub(crate) type RecipientContext = AeadCtxR<AesGcm256, HkdfSha256, DhP256HkdfSha256>;

/// `SetupBaseS(pkR, info)`, RFC 9180 §5.1.1. Gives `enc` and the context.
pub(crate) fn setup_sender(recipient: &PublicKey, info: &[u8], rng: &mut impl CryptoRng) -> ([u8; 65], SenderContext) {
    let ephemeral = SoftwareDh::generate(rng);
    let secret = shared_secret(&ephemeral.agree(recipient), ephemeral.public_key(), recipient.bytes());
    let mode = OpModeS::<DhP256HkdfSha256>::Base;
    (*ephemeral.public_key(), HkdfSha256::combine_secrets::<AesGcm256, _, _>(&mode, secret, info).into())
}

/// `SetupBaseR(enc, skR, info)`, RFC 9180 §5.1.1, where only `DH(skR, pkE)` is asked of the holder of `skR`.
///
/// `enc` is checked here, whatever the holder checks. An all-zero DH value is refused too: no pair of valid keys gives
/// it in practice, so it would be the mark of a broken holder.
pub(crate) fn setup_recipient(dh: &dyn EnclaveDh, enc: &[u8; 65], info: &[u8]) -> Result<RecipientContext, EnclaveError> {
    PublicKey::parse(enc).map_err(|InvalidKey| EnclaveError::InvalidPeer)?;
    let shared = dh.ecdh(enc)?;
    if shared.ct_eq(&[0; 32]).into() {
        return Err(EnclaveError::InvalidPeer);
    }
    let secret = shared_secret(&shared, enc, dh.public_key());
    let mode = OpModeR::<DhP256HkdfSha256>::Base;
    Ok(HkdfSha256::combine_secrets::<AesGcm256, _, _>(&mode, secret, info).into())
}

/// `ExtractAndExpand(dh, enc ‖ pkRm)`, RFC 9180 §4.1.
fn shared_secret(dh: &[u8; 32], enc: &[u8; 65], recipient: &[u8; 65]) -> SharedSecret<DhP256HkdfSha256> {
    let mut kem_context = [0; 130];
    kem_context[..65].copy_from_slice(enc);
    kem_context[65..].copy_from_slice(recipient);
    let mut secret = SharedSecret::default();
    HkdfSha256::extract_and_expand(dh, &KEM_SUITE_ID, &kem_context, &mut secret.0).expect("32 bytes are within HKDF's limit");
    secret
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::dh::SoftwareDh;

    #[derive(Deserialize)]
    struct Vectors {
        tests: Vec<Vector>,
    }

    #[derive(Deserialize)]
    struct Vector {
        name: String,
        aead_id: u16,
        info: String,
        #[serde(rename = "skEm")]
        ephemeral_secret: String,
        #[serde(rename = "skRm")]
        recipient_secret: String,
        #[serde(rename = "pkRm")]
        recipient_public: String,
        enc: String,
        shared_secret: String,
        encryptions: Vec<Encryption>,
        exports: Vec<Export>,
    }

    #[derive(Deserialize)]
    struct Encryption {
        aad: String,
        ct: String,
        pt: String,
    }

    #[derive(Deserialize)]
    struct Export {
        exporter_context: String,
        #[serde(rename = "L")]
        len: usize,
        exported_value: String,
    }

    fn array<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    /// The key schedule with any AEAD, after the key agreement and extract-and-expand of both sides.
    fn check<A: ::hpke::aead::Aead>(vector: &Vector) -> usize {
        let dh = SoftwareDh::from_bytes(&array(&vector.recipient_secret)).unwrap();
        assert_eq!(dh.public_key(), &array::<65>(&vector.recipient_public), "{}", vector.name);
        let enc = array(&vector.enc);
        let shared = dh.ecdh(&enc).unwrap();
        let secret = shared_secret(&shared, &enc, dh.public_key());
        assert_eq!(hex::encode(secret.0.as_slice()), vector.shared_secret, "{}", vector.name);
        let ephemeral = SoftwareDh::from_bytes(&array(&vector.ephemeral_secret)).unwrap();
        assert_eq!(ephemeral.public_key(), &enc, "{}", vector.name);
        assert_eq!(ephemeral.agree(&PublicKey::parse(dh.public_key()).unwrap()), shared, "{}", vector.name);
        let info = hex::decode(&vector.info).unwrap();
        let mode = OpModeR::<DhP256HkdfSha256>::Base;
        let mut context: AeadCtxR<A, HkdfSha256, _> = HkdfSha256::combine_secrets(&mode, secret, &info).into();
        for encryption in &vector.encryptions {
            let (ct, aad) = (hex::decode(&encryption.ct).unwrap(), hex::decode(&encryption.aad).unwrap());
            assert_eq!(hex::encode(context.open(&ct, &aad).unwrap()), encryption.pt, "{}", vector.name);
        }
        for export in &vector.exports {
            let mut value = vec![0; export.len];
            context.export(&hex::decode(&export.exporter_context).unwrap(), &mut value).unwrap();
            assert_eq!(hex::encode(value), export.exported_value, "{}", vector.name);
        }
        vector.encryptions.len() + vector.exports.len()
    }

    #[test]
    fn rfc_9180_vectors_open_with_an_outside_key_agreement() {
        let vectors: Vectors = serde_json::from_str(include_str!("../../testdata/rfc9180_p256.json")).unwrap();
        let mut checks = 0;
        for vector in &vectors.tests {
            checks += match vector.aead_id {
                0x0001 => check::<::hpke::aead::AesGcm128>(vector),
                0x0002 => check::<AesGcm256>(vector),
                0x0003 => check::<::hpke::aead::ChaCha20Poly1305>(vector),
                0xffff => check::<::hpke::aead::ExportOnlyAead>(vector),
                other => panic!("aead {other:#06x} has no reader"),
            };
        }
        assert_eq!(checks, 783, "encryptions and exports of all four vectors");
    }

    #[test]
    fn an_enclave_that_answers_zeros_is_refused() {
        struct Zeros(SoftwareDh);
        impl EnclaveDh for Zeros {
            fn public_key(&self) -> &[u8; 65] {
                self.0.public_key()
            }
            fn ecdh(&self, _: &[u8; 65]) -> Result<zeroize::Zeroizing<[u8; 32]>, EnclaveError> {
                Ok(zeroize::Zeroizing::new([0; 32]))
            }
        }
        let key = SoftwareDh::from_bytes(&[1; 32]).unwrap();
        let enc = *key.public_key();
        assert!(matches!(setup_recipient(&Zeros(key), &enc, b""), Err(EnclaveError::InvalidPeer)));
    }

    #[test]
    fn points_off_the_curve_are_refused() {
        let dh = SoftwareDh::from_bytes(&[1; 32]).unwrap();
        let good = *SoftwareDh::from_bytes(&[2; 32]).unwrap().public_key();
        assert!(setup_recipient(&dh, &good, b"").is_ok());
        let mut off_curve = good;
        off_curve[64] ^= 1;
        let mut compressed_tag = good;
        compressed_tag[0] = 0x02;
        let mut infinity = [0; 65];
        infinity[0] = 0x04;
        for bad in [off_curve, compressed_tag, infinity, [0; 65], [0xff; 65]] {
            assert!(matches!(setup_recipient(&dh, &bad, b""), Err(EnclaveError::InvalidPeer)));
            assert!(matches!(dh.ecdh(&bad), Err(EnclaveError::InvalidPeer)));
            assert!(PublicKey::parse(&bad).is_err());
        }
    }
}
