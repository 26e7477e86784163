//! `documents_v1.json`: problems, directories and receipt bundles (SPEC §6, §9). `kind` says which a test is.

use serde_json::json;

use super::Suite;

/// Codes and statuses of SPEC §6.
const PROBLEMS: [(&str, u16); 15] = [
    ("malformed_request", 400),
    ("expired_request", 400),
    ("rejected_request", 400),
    ("limit_exceeded", 400),
    ("model_not_found", 404),
    ("not_found", 404),
    ("method_not_allowed", 405),
    ("replayed_request", 409),
    ("request_too_large", 413),
    ("plaintext_request", 415),
    ("unknown_key", 422),
    ("overloaded", 429),
    ("internal_error", 500),
    ("provider_failed", 502),
    ("no_provider", 503),
];

const PROVIDER: &str = r#"{"key_statement":"AQID","key_statement_proof":"c2sp.org/tlog-proof@v1\n","evidence":"BAUG","evidence_proof":"c2sp.org/tlog-proof@v1\n"}"#;
const BUNDLE: &str = r#"{"format":"fanlight.receipt-bundle.v1","receipt_id":"42424242424242424242424242424242","receipt":"AQID","details":"oA==","blind":"sbE=","key_statement":"AQID","key_statement_proof":"p","evidence":"BAUG","evidence_proof":"p","logged":true,"tlog_proof":"p"}"#;

pub(crate) fn file() -> String {
    let mut suite = Suite::new("SPEC.md §6, §9.1, §9.2", "documents_v1");
    for (code, status) in PROBLEMS {
        let error_type = match status {
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        let text = format!(
            r#"{{"type":"urn:fanlight:error:{code}","title":"t","status":{status},"error":{{"message":"m","type":"{error_type}","param":null,"code":"{code}"}}}}"#
        );
        suite.test(
            format!("problem_{code}"),
            &["Good"],
            json!({"kind": "problem", "text": text, "code": code, "status": status}),
            "ok",
        );
    }
    let mut add = |name: &str, kind: &str, text: String, expect: &str| {
        let flag = if expect == "ok" { "Good" } else { "Bad" };
        suite.test(name, &[flag], json!({"kind": kind, "text": text}), expect);
    };
    add("problem_not_json", "problem", "<html>".into(), "malformed");
    add("problem_without_error", "problem", r#"{"type":"t","title":"t","status":400}"#.into(), "malformed");
    add("directory_empty", "directory", r#"{"providers":[]}"#.into(), "ok");
    add("directory_one", "directory", format!(r#"{{"providers":[{PROVIDER}]}}"#), "ok");
    add(
        "directory_without_evidence",
        "directory",
        r#"{"providers":[{"key_statement":"AQID","key_statement_proof":"p"}]}"#.into(),
        "malformed",
    );
    add("directory_not_base64", "directory", format!(r#"{{"providers":[{}]}}"#, PROVIDER.replace("AQID", "AQI*")), "malformed");
    add(
        "directory_base64_unpadded",
        "directory",
        format!(r#"{{"providers":[{}]}}"#, PROVIDER.replace("AQID", "AQI")),
        "malformed",
    );
    add("bundle_logged", "bundle", BUNDLE.into(), "ok");
    let pending = BUNDLE.replace(r#""logged":true,"tlog_proof":"p""#, r#""logged":false,"tlog_proof":null"#);
    add("bundle_not_yet_logged", "bundle", pending, "ok");
    add("bundle_of_another_version", "bundle", BUNDLE.replace("bundle.v1", "bundle.v2"), "malformed");
    add("bundle_receipt_id_upper_case", "bundle", BUNDLE.replace(&"42".repeat(16), &"AB".repeat(16)), "malformed");
    add("bundle_receipt_id_short", "bundle", BUNDLE.replace(&"42".repeat(16), &"42".repeat(15)), "malformed");
    add("bundle_without_receipt", "bundle", BUNDLE.replace(r#""receipt":"AQID","#, ""), "malformed");
    suite.into_text()
}
