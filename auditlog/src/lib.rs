//! A transparency log in tiles: an append-only Merkle tree over entries, signed checkpoints, and offline proofs.
//!
//! Formats: C2SP tlog-tiles, signed-note, tlog-checkpoint, tlog-cosignature, tlog-policy and tlog-proof; hashing is
//! RFC 6962. In scope: the tree, its formats, the stores it lives in, the sequencer that grows it, and reading and
//! checking it. Out of scope: what an entry means. To this crate an entry is bytes, at most 64 KiB of them.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use fanlight_auditlog::{Config, DirStore, Log, Policy, Signer, TokioTimer, create};
//!
//! let dir = tempfile::tempdir()?;
//! let store = DirStore::open_writer(dir.path())?;
//! let signer = Signer::new("log.example/demo", &[7; 32])?; // A real seed is random.
//! create(&store, &signer).await?;
//!
//! let (log, sequencer) = Log::open(store, signer, Config::default()).await?;
//! let running = tokio::spawn(sequencer.run(TokioTimer::new()));
//! let appended = log.append("an entry".into()).await?; // Answers once a published checkpoint includes it.
//! appended.tlog_proof.verify(b"an entry", &Policy::for_log(log.log_key().clone()))?;
//! log.close().await;
//! running.await??;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Features
//!
//! Without any the crate is `no_std` with `alloc`: tree, tiles, notes, keys, policies, proofs and the witness protocol's
//! bodies, all of it pure. `std` adds what reads, writes and asks, through traits that a host implements, and builds for
//! wasm32. `dir`, the default, adds the store in a local directory.

#![cfg_attr(not(feature = "std"), no_std)]
// The pure core parses foreign bytes. Checked where it is built alone: `expect` with its reason is all that may panic.
#![cfg_attr(
    not(feature = "std"),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::panic, clippy::unreachable, clippy::unwrap_used)
)]

extern crate alloc;

pub mod bundle;
pub mod checkpoint;
mod decimal;
pub mod hash;
mod merkle;
pub mod note;
pub mod policy;
pub mod proof;
pub mod tile;
pub mod tlog_proof;
pub mod tree;
pub mod witness;

#[cfg(feature = "std")]
pub mod fsck;
#[cfg(feature = "std")]
pub mod http;
#[cfg(feature = "std")]
pub mod mirror;
#[cfg(feature = "std")]
pub mod reader;
#[cfg(feature = "std")]
pub mod sequencer;
#[cfg(feature = "std")]
pub mod store;
#[cfg(feature = "std")]
pub mod workers;

pub use bundle::MAX_ENTRY_LEN;
pub use checkpoint::{Checkpoint, VerifiedCheckpoint, VerifiedInclusion};
pub use hash::{Hash, leaf_hash};
pub use note::{CosignerKey, Signer, VerifierKey};
pub use policy::Policy;
#[cfg(feature = "std")]
pub use reader::Reader;
#[cfg(feature = "dir")]
pub use sequencer::TokioTimer;
#[cfg(feature = "std")]
pub use sequencer::{AppendError, Appended, Config, Cosigner, Log, Sequencer, Timer, create};
#[cfg(feature = "dir")]
pub use store::dir::DirStore;
#[cfg(feature = "std")]
pub use store::{LeafIndex, Lock, ObjectStore, TileSource};
pub use tlog_proof::TlogProof;
