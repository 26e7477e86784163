//! Wire types of the Fanlight protocol: what clients, gateways, providers and verifiers say to each other.
//!
//! The formats are those of `protocol/SPEC.md`; every module names its section.
//!
//! **In scope:** parsing and writing, identifiers, signature checks of entries.
//! **Out of scope:** sealing and opening (`fanlight-sealing`), the log's own formats (`fanlight-auditlog`), appraisal
//! (`fanlight-verifier`). This crate holds no private key, does no I/O and reads no clock.
//!
//! ```
//! use fanlight_protocol::request::{HeaderFields, RequestHeader};
//!
//! // Foreign bytes either become a header or say why not; nothing in between.
//! assert!(RequestHeader::parse(b"{\"model\":\"m\"}").is_err());
//! # let _ = HeaderFields::MAX_LEN;
//! ```

pub mod bundle;
mod bytes;
pub mod chunk;
pub mod directory;
pub mod entry;
pub mod id;
pub mod link;
pub mod padding;
pub mod problem;
pub mod request;
pub mod response;
pub mod time;

pub use bytes::ParseError;
pub use id::{Digest, KeyId, ProviderId, RequestId};
pub use time::UnixTime;

/// Media type of an encapsulated request (SPEC §4).
pub const REQUEST_MEDIA_TYPE: &str = "application/vnd.fanlight.request";
/// Media type of a sealed response (SPEC §5).
pub const RESPONSE_MEDIA_TYPE: &str = "application/vnd.fanlight.response";
/// The one cipher suite of version 1: P-256, HKDF-SHA256, AES-256-GCM (SPEC §3).
pub const SUITE_P256: u16 = 0x0001;
/// Largest encapsulated request in bytes, header and body (SPEC §10).
pub const MAX_REQUEST_LEN: usize = 8 << 20;
