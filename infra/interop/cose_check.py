"""Verifies log entries with a COSE library that we did not write.

Usage: cose_check.py FILE, where FILE is {"entries": [{"cose", "spki", "typ"}, ...]}, byte strings in base64. Every entry has
to be one tagged COSE_Sign1 with ES256 by the key of `spki` and `typ` (label 16) in its protected header; and with any one of
a few bits flipped it has to be refused.
"""

import json
import sys
from base64 import b64decode
from hashlib import sha256

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cwt import COSE, COSEHeaders, COSEKey

TAG_OF_COSE_SIGN1 = 0xD2
ES256 = -7
TYP = 16


def key_of(spki: bytes) -> COSEKey:
    pem = load_der_public_key(spki).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    # The `kid` of an entry is its provider id; the library takes no other key for it.
    return COSEKey.from_pem(pem, alg="ES256", kid=sha256(spki).digest())


def verify(cose: bytes, spki: bytes, typ: str) -> None:
    assert cose[0] == TAG_OF_COSE_SIGN1, "no tagged COSE_Sign1"
    protected, unprotected, payload = COSE.new().decode_with_headers(cose, key_of(spki))
    assert protected[COSEHeaders.ALG] == ES256, f"alg is {protected[COSEHeaders.ALG]}"
    assert protected[TYP] == typ, f"typ is {protected[TYP]!r}, not {typ!r}"
    assert not unprotected, "the unprotected header is not empty"
    assert payload, "no payload"


def refuses_flipped_bits(cose: bytes, spki: bytes, typ: str) -> None:
    for at in (1, len(cose) // 4, len(cose) // 2, len(cose) - 65, len(cose) - 1):
        flipped = bytearray(cose)
        flipped[at] ^= 1
        try:
            verify(bytes(flipped), spki, typ)
        except Exception:  # noqa: BLE001 - any refusal will do
            continue
        raise AssertionError(f"verifies with bit 0 of byte {at} flipped")


def main(path: str) -> int:
    with open(path, encoding="utf-8") as file:
        entries = json.load(file)["entries"]
    if not entries:
        print("no entries to check")
        return 1
    failed = 0
    for n, entry in enumerate(entries):
        name = f"entry {n} ({entry['typ']})"
        given = b64decode(entry["cose"]), b64decode(entry["spki"]), entry["typ"]
        try:
            verify(*given)
            refuses_flipped_bits(*given)
        except Exception as error:  # noqa: BLE001 - reported, and fails the run
            failed += 1
            print(f"FAILED {name}: {type(error).__name__}: {error}")
        else:
            print(f"ok {name}")
    print(f"{len(entries) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
