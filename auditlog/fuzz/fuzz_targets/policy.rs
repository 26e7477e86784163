#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = fanlight_auditlog::Policy::parse(data);
});
