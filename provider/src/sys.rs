//! What the process asks of the system, once, before it has threads. The only module with `unsafe` off the Mac.

/// Tells the CPU engine how many threads to use, unless the operator did (`RAYON_NUM_THREADS`).
///
/// Without the variable the matrix library counts the machine's cores anew before every product, which takes longer than
/// the products of a small model.
///
/// # Safety
/// Nothing else may read or change the environment meanwhile: call it first in `main`, before any thread is started.
#[expect(unsafe_code, reason = "the environment can be changed only while the process has one thread")]
pub unsafe fn set_engine_threads() {
    const VARIABLE: &str = "RAYON_NUM_THREADS";
    if std::env::var_os(VARIABLE).is_none() {
        let n = std::thread::available_parallelism().map_or(1, usize::from);
        // SAFETY: the caller vouches that no other thread runs.
        unsafe { std::env::set_var(VARIABLE, n.to_string()) };
    }
}
