//! Wraps made by HPKE implementations that are not ours: pyhpke and @hpke/core (`infra/interop`).
//!
//! `cargo xtask test --only setup` installs them and `cargo xtask test` says where; without them these tests fail.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fanlight_protocol::{Digest, KeyId, UnixTime};
use fanlight_sealing::{EnclaveDh as _, KemKey, SoftwareDh, open_request};
use serde::Deserialize;
use serde_json::json;

use crate::suite::craft::{Answer, Crafted, Fields, MESSAGE, NOW, Party, Wrapped, plaintext, sha256, whole_chunks};
use crate::suite::rng::CounterRng;

/// What a foreign sealer gives, in base64.
#[derive(Deserialize)]
struct Sealed {
    enc: String,
    ciphertext: String,
    exported: String,
}

#[test]
fn pyhpke_wraps_open() {
    let python = installed("FANLIGHT_PYTHON", "target/xtask/venv/bin/python");
    let mut command = Command::new(python);
    command.arg(root().join("infra/interop/hpke_seal.py"));
    check(command);
}

#[test]
fn hpke_js_wraps_open() {
    let packages = installed("FANLIGHT_NODE_DIR", "target/xtask/node");
    let mut command = Command::new("node");
    command.arg(root().join("infra/interop/hpke_seal.mjs")).env("FANLIGHT_NODE_DIR", &packages).current_dir(packages);
    check(command);
}

/// A request whose wrap `command` made opens, and the answer to it is sealed under the secret that `command` exported.
fn check(command: Command) {
    let party = Party::new("interop");
    let fields = Fields::to(&[&party]);
    let mut request = Crafted::header_only(&fields, "interop");
    let info = [b"fanlight-v1 request".as_slice(), &sha256(&request.fields), &party.key_id()].concat();
    let sealed = run(
        command,
        &json!({
            "suite": 1, "pk": STANDARD.encode(party.public), "info": STANDARD.encode(info),
            "aad": STANDARD.encode(request.commitment), "plaintext": STANDARD.encode(request.content_key),
            "exporter_context": STANDARD.encode("fanlight-v1 response"), "export_len": 32,
        })
        .to_string(),
    );
    let decode = |text: &str| STANDARD.decode(text).expect("base64");
    let wrap = Wrapped {
        enc: decode(&sealed.enc).try_into().expect("an uncompressed point"),
        sealed_key: decode(&sealed.ciphertext),
        response_secret: decode(&sealed.exported).try_into().expect("32 bytes"),
    };
    request.wraps[0] = wrap.clone();
    request.body = request.seal_body(&whole_chunks(&plaintext(MESSAGE, 1), 16_384));

    let dh = SoftwareDh::from_bytes(&party.secret).expect("a scalar");
    let key = |id: &KeyId| {
        (*id == KeyId::of(1, dh.public_key())).then_some(KemKey { dh: &dh, statement_digest: Digest(party.statement) })
    };
    let opened = open_request(&request.bytes(), UnixTime::from_secs(NOW), key, |_, _| true).expect("a foreign wrap opens");
    assert_eq!(opened.message(), MESSAGE);

    let start = opened.into_response_keys().start(&mut CounterRng::new("response nonce"));
    let (frames, _) = start.with_status(200).seal_final(b"{}");
    let mut answer = Answer::new(&party, &wrap, request.hash(), 1);
    assert_eq!(frames, [answer.sealed(2, &[&[0, 200][..], b"{}"].concat())], "both exports are the same");
}

fn run(mut command: Command, input: &str) -> Sealed {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the interpreter starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("the script reads its input");
    let output = child.wait_with_output().expect("the script ends");
    assert!(output.status.success(), "the script failed: {}", output.status);
    serde_json::from_slice(&output.stdout).expect("the script's output")
}

fn installed(variable: &str, fallback: &str) -> PathBuf {
    let path = env::var_os(variable).map_or_else(|| root().join(fallback), PathBuf::from);
    assert!(path.exists(), "{} is not there: run `cargo xtask test --only setup`", path.display());
    path
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate is two below the root")
}
