"""Seals one message with pyhpke, so that our opener is tried against a sealer that we did not write.

Standard input: {"suite": 1, "pk", "info", "aad", "plaintext", "exporter_context", "export_len"}, byte strings in base64.
Standard output: {"enc", "ciphertext", "exported"}, in base64.
"""

import json
import sys
from base64 import b64decode, b64encode

from pyhpke import AEADId, CipherSuite, KDFId, KEMId

# Suite 1 of SPEC.md.
SUITES = {1: (KEMId.DHKEM_P256_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)}


def seal(message: dict) -> dict:
    suite = CipherSuite.new(*SUITES[message["suite"]])
    recipient_key = suite.kem.deserialize_public_key(b64decode(message["pk"]))
    enc, sender = suite.create_sender_context(recipient_key, info=b64decode(message["info"]))
    sealed = {
        "enc": enc,
        "ciphertext": sender.seal(b64decode(message["plaintext"]), aad=b64decode(message["aad"])),
        "exported": sender.export(b64decode(message["exporter_context"]), message["export_len"]),
    }
    return {name: b64encode(value).decode() for name, value in sealed.items()}


if __name__ == "__main__":
    json.dump(seal(json.load(sys.stdin)), sys.stdout)
