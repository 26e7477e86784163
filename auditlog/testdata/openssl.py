#!/usr/bin/env python3
"""Writes openssl.json: notes and cosignatures whose signatures OpenSSL made, with a version of the package `cryptography` that knows ML-DSA.

ML-DSA and ECDSA signatures differ from run to run, so the file changes with each; the keys do not.
"""

import base64
import hashlib
import json
import struct
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa

ORIGIN = "log.example/openssl"
TIME = 1_800_000_000
SIZE = 3
ROOT = hashlib.sha256(b"root").digest()
TEXT = f"{ORIGIN}\n{SIZE}\n{base64.b64encode(ROOT).decode()}\n"

ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([1] * 32))
ML_DSA = mldsa.MLDSA44PrivateKey.from_seed_bytes(bytes([2] * 32))
P256 = ec.derive_private_key(3, ec.SECP256R1())


def key_id(name, key_type, public):
    if key_type == 2:
        return hashlib.sha256(public).digest()[:4]
    return hashlib.sha256(name.encode() + b"\n" + bytes([key_type]) + public).digest()[:4]


def vector(name, scenario, key_type, public, body, expect="valid"):
    key = key_id(name, key_type, public)
    line = f"\u2014 {name} {base64.b64encode(key + body).decode()}\n"
    vkey = f"{name}+{key.hex()}+{base64.b64encode(bytes([key_type]) + public).decode()}"
    return {"name": scenario, "vkey": vkey, "note": f"{TEXT}\n{line}", "expect": expect}


def ml_dsa_message(name, time):
    vectors = [bytes([len(text)]) + text.encode() for text in (name, ORIGIN)]
    time = struct.pack(">Q", time)
    return b"subtree/v1\n\0" + vectors[0] + time + vectors[1] + struct.pack(">QQ", 0, SIZE) + ROOT


def cosigned(time, signature):
    return struct.pack(">Q", time) + signature


ed25519_public = ED25519.public_key().public_bytes_raw()
ml_dsa_public = ML_DSA.public_key().public_bytes_raw()
spki = P256.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
witness = "witness.example/w1"
ml_dsa_signature = ML_DSA.sign(ml_dsa_message(witness, TIME))

tests = [
    vector(ORIGIN, "ed25519_note", 1, ed25519_public, ED25519.sign(TEXT.encode())),
    vector(ORIGIN, "ecdsa_note", 2, spki, P256.sign(TEXT.encode(), ec.ECDSA(hashes.SHA256()))),
    vector(ORIGIN, "ecdsa_note_of_another_text", 2, spki, P256.sign(b"text\n", ec.ECDSA(hashes.SHA256())), "bad signature of a trusted key"),
    vector(ORIGIN, "ecdsa_signature_without_asn1", 2, spki, bytes(64), "bad signature of a trusted key"),
    vector(witness, "ed25519_cosignature", 4, ed25519_public, cosigned(TIME, ED25519.sign(f"cosignature/v1\ntime {TIME}\n{TEXT}".encode()))),
    vector(witness, "ml_dsa_44_cosignature", 6, ml_dsa_public, cosigned(TIME, ml_dsa_signature)),
    vector(witness, "ml_dsa_44_cosignature_of_another_time", 6, ml_dsa_public, cosigned(TIME + 1, ml_dsa_signature), "bad signature of a trusted key"),
    vector("witness.example/w2", "ml_dsa_44_cosignature_of_another_name", 6, ml_dsa_public, cosigned(TIME, ml_dsa_signature), "bad signature of a trusted key"),
    vector(ORIGIN, "ml_dsa_44_line_of_the_log", 6, ml_dsa_public, cosigned(0, ML_DSA.sign(ml_dsa_message(ORIGIN, 0)))),
]
for number, test in enumerate(tests, 1):
    test["id"] = number
file = {"schema": "openssl", "spec": "C2SP signed-note and tlog-cosignature", "tests": tests}
Path(__file__).with_suffix(".json").write_text(json.dumps(file, indent=2, ensure_ascii=False) + "\n")
