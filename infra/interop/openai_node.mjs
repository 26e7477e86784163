// Drives the local proxy with OpenAI's JavaScript SDK as its users would.
//
// Usage: openai_node.mjs BASE_URL, for example http://127.0.0.1:8787/v1. Prints a line per check; exits 1 when one fails.
import assert from "node:assert/strict";
import process from "node:process";
import { setTimeout as pause } from "node:timers/promises";

import { load } from "./packages.mjs";

const OpenAI = load("openai");

const MODEL = "fanlight-tiny";
const SUM = [{ role: "user", content: "What is 12 + 7?" }];
const CAPITAL = [{ role: "user", content: "What is the capital of Norway?" }];
const OPEN_ENDED = [{ role: "user", content: "Hello" }];
const RECEIPT_HEADER = "x-fanlight-receipt";
const LOGGED_WITHIN_MS = 60_000;

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "unused", maxRetries: 0, timeout: 120_000 });

const ask = (messages, parameters = {}) =>
  client.chat.completions.create({ model: MODEL, temperature: 0, messages, ...parameters });
const textOf = (completion) => completion.choices[0].message.content;
const deltaText = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) {
    chunks.push(chunk);
  }
  return chunks;
}

/** The error that the promise ends with, in OpenAI's shape. */
async function refused(errorClass, promise) {
  const error = await promise.then(
    () => assert.fail("answered instead of refusing"),
    (reason) => reason,
  );
  assert.ok(error instanceof errorClass, `${error}`);
  assert.ok(error.error?.message, "the error has no message");
  return error;
}

/** The receipt bundle (SPEC 9.2), once the receipt is in the log. */
async function loggedBundle(receiptId) {
  const deadline = Date.now() + LOGGED_WITHIN_MS;
  for (;;) {
    const bundle = await client.get(`/receipts/${receiptId}`);
    assert.equal(bundle.receipt_id, receiptId);
    if (bundle.logged) {
      return bundle;
    }
    assert.ok(Date.now() < deadline, `not logged within ${LOGGED_WITHIN_MS} ms`);
    await pause(100);
  }
}

function hasProof(bundle) {
  assert.ok(bundle.receipt, "the bundle has no receipt");
  assert.ok(bundle.tlog_proof.startsWith("c2sp.org/tlog-proof@v1\n"), `tlog_proof is ${bundle.tlog_proof}`);
}

const checks = {
  async models_are_listed() {
    const models = await collect(await client.models.list());
    assert.equal(models.find((model) => model.id === MODEL)?.object, "model");
  },

  async a_question_is_answered() {
    const completion = await ask(SUM);
    assert.equal(completion.object, "chat.completion");
    assert.equal(completion.model, MODEL);
    assert.equal(completion.choices.length, 1);
    assert.equal(completion.choices[0].message.role, "assistant");
    assert.equal(completion.choices[0].finish_reason, "stop");
    assert.match(textOf(completion), /19/);
    const { prompt_tokens, completion_tokens, total_tokens } = completion.usage;
    assert.ok(prompt_tokens > 0 && completion_tokens > 0);
    assert.equal(total_tokens, prompt_tokens + completion_tokens);
  },

  async a_stream_carries_the_same_answer() {
    const whole = await ask(CAPITAL);
    const chunks = await collect(await ask(CAPITAL, { stream: true }));
    assert.equal(deltaText(chunks), textOf(whole));
    assert.match(deltaText(chunks), /Oslo/);
    assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
    const reasons = chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.finish_reason));
    assert.deepEqual(reasons.filter(Boolean), ["stop"]);
  },

  async the_stream_helper_assembles_the_answer() {
    const stream = client.chat.completions.stream({ model: MODEL, temperature: 0, messages: CAPITAL });
    const completion = await stream.finalChatCompletion();
    assert.equal(textOf(completion), textOf(await ask(CAPITAL)));
  },

  async a_stream_ends_with_usage_when_asked() {
    const whole = await ask(CAPITAL);
    const chunks = await collect(await ask(CAPITAL, { stream: true, stream_options: { include_usage: true } }));
    const last = chunks.pop();
    assert.deepEqual(last.choices, []);
    assert.equal(last.usage.prompt_tokens, whole.usage.prompt_tokens);
    assert.equal(last.usage.completion_tokens, whole.usage.completion_tokens);
    assert.ok(chunks.every((chunk) => !chunk.usage));
  },

  async a_stop_sequence_ends_the_answer() {
    const whole = textOf(await ask(CAPITAL));
    const completion = await ask(CAPITAL, { stop: ["Oslo"] });
    assert.equal(textOf(completion), whole.slice(0, whole.indexOf("Oslo")));
    assert.equal(completion.choices[0].finish_reason, "stop");
  },

  async token_limits_end_the_answer() {
    for (const limit of ["max_tokens", "max_completion_tokens"]) {
      const completion = await ask(CAPITAL, { [limit]: 2 });
      assert.equal(completion.choices[0].finish_reason, "length", limit);
      assert.equal(completion.usage.completion_tokens, 2, limit);
    }
  },

  async a_seed_repeats_a_sampled_answer() {
    const sampled = async (seed) =>
      textOf(await ask(OPEN_ENDED, { temperature: 2, top_p: 1, seed, max_tokens: 24 }));
    assert.equal(await sampled(7), await sampled(7));
    const answers = new Set();
    for (let seed = 0; seed < 8; seed += 1) {
      answers.add(await sampled(seed));
    }
    assert.ok(answers.size > 1, "eight seeds give one answer: nothing is sampled");
  },

  async a_conversation_has_several_turns() {
    const first = await ask(SUM);
    const second = await ask([...SUM, { role: "assistant", content: textOf(first) }, ...CAPITAL]);
    assert.ok(textOf(second));
    assert.ok(second.usage.prompt_tokens > first.usage.prompt_tokens);
  },

  async a_request_after_an_aborted_stream_succeeds() {
    const stream = await ask(OPEN_ENDED, { temperature: 2, seed: 1, max_tokens: 200, stream: true });
    for await (const _ of stream) {
      stream.controller.abort();
      break;
    }
    assert.match(textOf(await ask(SUM)), /19/);
  },

  async an_unknown_model_is_refused() {
    const error = await refused(OpenAI.NotFoundError, ask(SUM, { model: "no-such-model" }));
    assert.equal(error.code, "model_not_found");
  },

  async bad_json_is_refused() {
    const response = await fetch(`${client.baseURL}/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: '{"model": ',
    });
    assert.equal(response.status, 400);
    assert.equal((await response.json()).error.type, "invalid_request_error");
  },

  async too_long_a_prompt_is_refused() {
    const error = await refused(OpenAI.BadRequestError, ask([{ role: "user", content: "word ".repeat(20_000) }]));
    assert.equal(error.code, "context_length_exceeded");
  },

  async missing_messages_are_refused() {
    const error = await refused(OpenAI.BadRequestError, ask(undefined));
    assert.equal(error.param, "messages");
  },

  async unsupported_parameters_are_refused_by_name() {
    const tool = { type: "function", function: { name: "clock", parameters: { type: "object", properties: {} } } };
    for (const [param, value] of Object.entries({ tools: [tool], n: 2 })) {
      const error = await refused(OpenAI.BadRequestError, ask(SUM, { [param]: value }));
      assert.equal(error.param, param);
    }
  },

  async a_receipt_is_offered_and_logged() {
    const { data, response } = await ask(SUM).withResponse();
    assert.ok(textOf(data));
    const receiptId = response.headers.get(RECEIPT_HEADER);
    assert.ok(receiptId, `the answer has no header ${RECEIPT_HEADER}`);
    assert.equal(data.x_fanlight_receipt, receiptId);
    hasProof(await loggedBundle(receiptId));
  },

  async a_streamed_receipt_is_offered_and_logged() {
    const { data, response } = await ask(SUM, { stream: true }).withResponse();
    const receiptId = (await collect(data)).at(-1).x_fanlight_receipt;
    assert.ok(receiptId, "the last chunk has no x_fanlight_receipt");
    assert.equal(response.headers.get(RECEIPT_HEADER), receiptId);
    hasProof(await loggedBundle(receiptId));
  },
};

let failed = 0;
for (const [name, run] of Object.entries(checks)) {
  try {
    await run();
    console.log(`ok ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED ${name}: ${error.stack}`);
  }
}
console.log(`${Object.keys(checks).length - failed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
