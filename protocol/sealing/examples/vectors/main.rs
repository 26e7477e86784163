//! Rewrites `protocol/testdata/*_v1.json`: `cargo run -p fanlight-sealing --example vectors`.
//!
//! The files are a function of this program alone. Random bytes come from a counter stream (see `suite::rng`), and what is
//! sealed here is sealed by a second writing of SPEC.md (`suite::craft`), not by the crate under test.

mod suite;

fn main() -> std::io::Result<()> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata");
    for (name, text) in suite::files() {
        std::fs::write(dir.join(name), text)?;
    }
    Ok(())
}
