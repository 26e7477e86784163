// Seals one message with @hpke/core, so that our opener is tried against a sealer that we did not write.
//
// Standard input: {"suite": 1, "pk", "info", "aad", "plaintext", "exporter_context", "export_len"}, byte strings in base64.
// Standard output: {"enc", "ciphertext", "exported"}, in base64.
import { text } from "node:stream/consumers";
import process from "node:process";

import { load } from "./packages.mjs";

const { Aes256Gcm, CipherSuite, DhkemP256HkdfSha256, HkdfSha256 } = load("@hpke/core");

const message = JSON.parse(await text(process.stdin));
if (message.suite !== 1) {
  throw new Error(`suite ${message.suite} is not one of SPEC.md`);
}
const bytes = (name) => new Uint8Array(Buffer.from(message[name], "base64"));

const suite = new CipherSuite({ kem: new DhkemP256HkdfSha256(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });
const sender = await suite.createSenderContext({
  recipientPublicKey: await suite.kem.deserializePublicKey(bytes("pk")),
  info: bytes("info"),
});
const sealed = {
  enc: sender.enc,
  ciphertext: await sender.seal(bytes("plaintext"), bytes("aad")),
  exported: await sender.export(bytes("exporter_context"), message.export_len),
};
for (const name of Object.keys(sealed)) {
  sealed[name] = Buffer.from(sealed[name]).toString("base64");
}
process.stdout.write(JSON.stringify(sealed));
