//! Where a log can be kept, by the name that a person gives it: a directory, or `s3://bucket/prefix`.
//!
//! In scope: turning a name into a store, and the stores that are too heavy for the log's own crate. Out of scope: what
//! a log does with its store.

mod any;
mod location;
mod open;
pub mod s3;

pub use any::AnyStore;
pub use location::{Location, LocationError, S3Location};
pub use open::{OpenError, open_copy, open_reader, open_writer};
