//! The public API of `fanlight-sealing` against its vectors, against attacks, and against other people's HPKE.

mod attacks;
mod interop;
mod read;
#[path = "../../examples/vectors/suite/mod.rs"]
mod suite;
mod vectors;
