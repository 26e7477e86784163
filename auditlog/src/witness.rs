//! Asking witnesses for cosignatures, and being asked (C2SP tlog-witness).

#[cfg(feature = "std")]
mod gather;
#[cfg(feature = "reqwest")]
mod http_post;
#[cfg(feature = "std")]
mod submit;
mod wire;

#[cfg(feature = "std")]
pub use gather::{Mode, Settings, Witnesses, WitnessesError};
#[cfg(feature = "reqwest")]
pub use http_post::HttpPost;
#[cfg(feature = "std")]
pub use submit::{Answer, MAX_ANSWER_LEN, Post, PostError, WitnessReport};
pub use wire::{
    ADD_CHECKPOINT, AddCheckpoint, AddCheckpointError, MAX_ADD_CHECKPOINT_LEN, MAX_COSIGNATURES_LEN, MAX_PROOF_LEN,
    SIZE_CONTENT_TYPE, parse_cosignatures, parse_size, write_cosignatures, write_size,
};
