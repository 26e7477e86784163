//! Seals requests to providers and opens them again; seals and opens their answers (`protocol/SPEC.md` §4, §5).
//!
//! | party | has | gets |
//! |---|---|---|
//! | client | [`Recipient`]s, a message | [`Sender::seal`]: request bytes and a [`ResponseOpener`] |
//! | provider | request bytes, an [`EnclaveDh`] | [`open_request`]: the message and a [`ResponseKeys`] |
//! | provider | [`ResponseKeys`] | a prefix, then frames from a [`ResponseSealer`] |
//! | client | [`ResponseOpener`], a prefix, frames | content from an [`OpenResponse`] |
//!
//! **In scope:** HPKE, chunks, content key, commitment, response keys, both transcripts, the order of frames.
//! **Out of scope:** who may be sealed to (`fanlight-client` and `fanlight-verifier` decide), receipts' signatures
//! (`fanlight-protocol`), replay storage (the provider's; see [`open_request`]). Time and randomness are passed in.
//!
//! ```
//! use fanlight_protocol::{Digest, RequestId, UnixTime};
//! use fanlight_sealing::{KemKey, Recipient, RequestParams, Sender, SoftwareDh, EnclaveDh as _, open_request};
//!
//! let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
//! let kem = SoftwareDh::generate(&mut rng);
//! let statement_digest = Digest::of(b"its logged key statement");
//! let recipient = Recipient::new(kem.public_key(), statement_digest)?;
//!
//! let now = UnixTime::from_secs(1_790_000_000);
//! let params = RequestParams::chat("tiny-llama", RequestId([7; 16]), now);
//! let (request, opener) = Sender::new(params, &[recipient])?.seal(b"{}", &mut rng)?;
//!
//! let key = |_: &_| Some(KemKey { dh: &kem, statement_digest });
//! let opened = open_request(&request, now, key, |_, _| true)?;
//! assert_eq!(opened.message(), b"{}");
//! assert_eq!(opened.request_hash(), opener.request_hash());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cipher;
mod dh;
mod hpke;
mod keys;
mod opener;
mod response_opener;
mod response_sealer;
mod sender;

pub use dh::{EnclaveDh, EnclaveError, InvalidKey, SoftwareDh};
pub use opener::{KemKey, OpenError, OpenedRequest, open_request};
pub use response_opener::{OpenResponse, OpenResponseError, Opened, ResponseOpener, ResponseSummary};
pub use response_sealer::{MAX_CONTENT_LEN, ResponseKeys, ResponseSealer, ResponseStart};
pub use sender::{Recipient, RequestParams, SealError, Sender};
