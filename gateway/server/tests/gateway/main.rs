//! The gateway over real sockets: a real listener, a real log, providers that speak the link, clients that speak HTTP.

#[path = "../../../tests/support/entries.rs"]
mod entries;
mod http;
mod links;
mod relay;
mod support;
#[path = "../../../../auditlog/cli/tests/cli/witness.rs"]
#[expect(dead_code, clippy::disallowed_methods, reason = "shared with the log's own tests")]
mod witness;
