//! The gateway's core: admission, routing, metering and the provider link, for any runtime.
//!
//! The formats are those of `protocol/SPEC.md`, sections 6, 8 and 9.
//!
//! **In scope:** what the gateway decides. [`handle`] answers every HTTP request; [`link::Link`] speaks the provider link as
//! a state machine without sockets; [`registry::Registry`] knows who is connected.
//! **Out of scope:** sockets, timers, tasks and the log's store, which a shell lends through [`Host`]; opening a request,
//! for which no gateway has a key: this crate does not link the sealing crate at all.
//!
//! ```
//! use fanlight_gateway::link::Link;
//! use fanlight_protocol::link::Message;
//! use std::time::Duration;
//!
//! // The gateway speaks first: it challenges whoever connects.
//! let mut link = Link::accept([7; 32], Duration::ZERO);
//! let first = link.poll_transmit(Duration::ZERO).expect("a challenge");
//! assert_eq!(Message::parse(&first), Ok((0, Message::Challenge([7; 32]))));
//! ```

pub mod admit;
pub mod enrol;
mod error;
mod handle;
mod host;
pub mod link;
mod log;
pub mod metrics;
pub mod registry;
mod relay;
pub mod upload;

pub use self::error::{LogError, RequestError};
pub use self::handle::{Reply, handle, problem_response};
pub use self::host::{Answer, BodyError, Host, Outgoing, ProviderLost};
