#![no_main]

use fanlight_auditlog::witness::AddCheckpoint;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(request) = AddCheckpoint::parse(data) {
        assert_eq!(request.to_string().as_bytes(), data);
    }
});
