//! The provider's end of the link to a gateway (SPEC §8): one outbound WebSocket, many streams.

mod connection;
mod outgoing;
mod socket;

pub use self::connection::LinkError;
pub(crate) use self::connection::run;
pub(crate) use self::outgoing::{Gone, Outgoing};
