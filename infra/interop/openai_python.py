"""Drives the local proxy with OpenAI's Python SDK as its users would.

Usage: openai_python.py BASE_URL, for example http://127.0.0.1:8787/v1. Prints a line per check; exits 1 when one fails.
"""

import json
import sys
import time
import traceback
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai
from openai import OpenAI

MODEL = "fanlight-tiny"
SUM = [{"role": "user", "content": "What is 12 + 7?"}]
CAPITAL = [{"role": "user", "content": "What is the capital of Norway?"}]
OPEN_ENDED = [{"role": "user", "content": "Hello"}]
RECEIPT_HEADER = "x-fanlight-receipt"
LOGGED_WITHIN_SECONDS = 60
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def equal(got, wanted, what):
    assert got == wanted, f"{what} is {got!r}, not {wanted!r}"


def ask(client, messages, **parameters):
    parameters = {"model": MODEL, "temperature": 0} | parameters
    return client.chat.completions.create(messages=messages, **parameters)


def text_of(completion):
    return completion.choices[0].message.content


def delta_text(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def refused(error_class, call):
    """The error that the call ends with, in OpenAI's shape."""
    try:
        answer = call()
    except error_class as error:
        assert error.body and error.body.get("message"), f"the error has no message: {error.body!r}"
        return error
    raise AssertionError(f"answered instead of refusing: {answer!r}")


@check
def models_are_listed(client):
    models = {model.id: model for model in client.models.list()}
    assert MODEL in models, f"{MODEL} is not among {sorted(models)}"
    equal(models[MODEL].object, "model", "object")


@check
def a_model_is_retrieved(client):
    equal(client.models.retrieve(MODEL).id, MODEL, "id")


@check
def a_question_is_answered(client):
    completion = ask(client, SUM)
    equal(completion.object, "chat.completion", "object")
    equal(completion.model, MODEL, "model")
    equal(len(completion.choices), 1, "number of choices")
    equal(completion.choices[0].message.role, "assistant", "role")
    equal(completion.choices[0].finish_reason, "stop", "finish_reason")
    assert "19" in text_of(completion), f"the answer is {text_of(completion)!r}"
    usage = completion.usage
    assert usage.prompt_tokens > 0 and usage.completion_tokens > 0, f"usage is {usage}"
    equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens, "total_tokens")
    assert abs(completion.created - time.time()) < 300, f"created is {completion.created}"


@check
def a_stream_carries_the_same_answer(client):
    whole = ask(client, CAPITAL)
    chunks = list(ask(client, CAPITAL, stream=True))
    equal(delta_text(chunks), text_of(whole), "streamed text")
    assert "Oslo" in delta_text(chunks), f"the answer is {delta_text(chunks)!r}"
    equal({chunk.object for chunk in chunks}, {"chat.completion.chunk"}, "objects")
    equal(len({chunk.id for chunk in chunks}), 1, "number of ids in one stream")
    equal(chunks[0].choices[0].delta.role, "assistant", "role of the first chunk")
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    equal([reason for reason in reasons if reason], ["stop"], "finish reasons")
    assert all(chunk.usage is None for chunk in chunks), "usage came unasked"


@check
def a_stream_ends_with_usage_when_asked(client):
    whole = ask(client, CAPITAL)
    chunks = list(ask(client, CAPITAL, stream=True, stream_options={"include_usage": True}))
    equal(chunks[-1].choices, [], "choices of the last chunk")
    equal(chunks[-1].usage.prompt_tokens, whole.usage.prompt_tokens, "prompt_tokens")
    equal(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens, "completion_tokens")
    assert all(chunk.usage is None for chunk in chunks[:-1]), "usage came before the last chunk"


@check
def a_stop_sequence_ends_the_answer(client):
    whole = text_of(ask(client, CAPITAL))
    for stop in ("Oslo", ["Stockholm", "Oslo"]):
        completion = ask(client, CAPITAL, stop=stop)
        equal(text_of(completion), whole[: whole.index("Oslo")], "text before the stop sequence")
        equal(completion.choices[0].finish_reason, "stop", "finish_reason")
        equal(delta_text(ask(client, CAPITAL, stop=stop, stream=True)), text_of(completion), "streamed text")


@check
def token_limits_end_the_answer(client):
    for limit in ("max_tokens", "max_completion_tokens"):
        completion = ask(client, CAPITAL, **{limit: 2})
        equal(completion.choices[0].finish_reason, "length", f"finish_reason under {limit}")
        equal(completion.usage.completion_tokens, 2, f"completion_tokens under {limit}")
        whole = text_of(ask(client, CAPITAL))
        assert whole.startswith(text_of(completion)), f"{text_of(completion)!r} does not begin {whole!r}"


@check
def a_seed_repeats_a_sampled_answer(client):
    def sampled(seed):
        return text_of(ask(client, OPEN_ENDED, temperature=2, top_p=1, seed=seed, max_tokens=24))

    equal(sampled(7), sampled(7), "the second answer with one seed")
    assert len({sampled(seed) for seed in range(8)}) > 1, "eight seeds give one answer: nothing is sampled"


@check
def a_narrow_top_p_is_greedy(client):
    greedy = text_of(ask(client, SUM))
    equal(text_of(ask(client, SUM, temperature=2, top_p=1e-6, seed=3)), greedy, "answer with top_p near 0")


@check
def a_conversation_has_several_turns(client):
    first = ask(client, SUM)
    turns = [*SUM, {"role": "assistant", "content": text_of(first)}, *CAPITAL]
    second = ask(client, turns)
    assert text_of(second), "the second turn is empty"
    assert second.usage.prompt_tokens > first.usage.prompt_tokens, "the first turn was not read"
    parts = ask(client, [{"role": "user", "content": [{"type": "text", "text": SUM[0]["content"]}]}])
    equal(text_of(parts), text_of(first), "answer to content in parts")


@check
def concurrent_answers_are_not_mixed(client):
    questions = [SUM, CAPITAL] * 4
    with ThreadPoolExecutor(len(questions)) as pool:
        answers = list(pool.map(lambda question: text_of(ask(client, question)), questions))
    for question, answer in zip(questions, answers, strict=True):
        wanted = "19" if question is SUM else "Oslo"
        assert wanted in answer, f"{answer!r} answers {question!r}"


@check
def a_request_after_an_aborted_stream_succeeds(client):
    stream = ask(client, OPEN_ENDED, temperature=2, seed=1, max_tokens=200, stream=True)
    next(iter(stream))
    stream.close()
    assert "19" in text_of(ask(client, SUM)), "the next answer is wrong"


@check
def an_unknown_model_is_refused(client):
    error = refused(openai.NotFoundError, lambda: ask(client, SUM, model="no-such-model"))
    equal(error.code, "model_not_found", "code")
    error = refused(openai.NotFoundError, lambda: client.models.retrieve("no-such-model"))
    equal(error.code, "model_not_found", "code")


@check
def bad_json_is_refused(client):
    request = urllib.request.Request(f"{client.base_url}chat/completions", data=b'{"model": ', method="POST")
    request.add_header("content-type", "application/json")
    try:
        urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        equal(error.code, 400, "status")
        equal(json.load(error)["error"]["type"], "invalid_request_error", "type")
        return
    raise AssertionError("answered instead of refusing")


@check
def too_long_a_prompt_is_refused(client):
    messages = [{"role": "user", "content": "word " * 20_000}]
    error = refused(openai.BadRequestError, lambda: ask(client, messages))
    equal(error.code, "context_length_exceeded", "code")


@check
def missing_messages_are_refused(client):
    body = {"model": MODEL}
    error = refused(openai.BadRequestError, lambda: client.post("/chat/completions", body=body, cast_to=object))
    equal(error.param, "messages", "param")


@check
def unsupported_parameters_are_refused_by_name(client):
    tool = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
    for param, value in {"tools": [tool], "n": 2}.items():
        error = refused(openai.BadRequestError, lambda: ask(client, SUM, **{param: value}))
        equal(error.param, param, "param")


def logged_bundle(client, receipt_id):
    """The receipt bundle (SPEC 9.2), once the receipt is in the log."""
    deadline = time.monotonic() + LOGGED_WITHIN_SECONDS
    while True:
        bundle = client.get(f"/receipts/{receipt_id}", cast_to=object)
        equal(bundle["receipt_id"], receipt_id, "receipt_id")
        if bundle["logged"]:
            return bundle
        assert time.monotonic() < deadline, f"not logged within {LOGGED_WITHIN_SECONDS} s"
        time.sleep(0.1)


def has_proof(bundle):
    assert bundle["receipt"], "the bundle has no receipt"
    assert bundle["tlog_proof"].startswith("c2sp.org/tlog-proof@v1\n"), f"tlog_proof is {bundle['tlog_proof']!r}"


@check
def a_receipt_is_offered_and_logged(client):
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=SUM)
    receipt_id = raw.headers.get(RECEIPT_HEADER)
    assert receipt_id, f"the answer has no header {RECEIPT_HEADER}"
    completion = raw.parse()
    assert text_of(completion), "the answer is empty"
    equal((completion.model_extra or {}).get("x_fanlight_receipt"), receipt_id, "x_fanlight_receipt")
    has_proof(logged_bundle(client, receipt_id))


@check
def a_streamed_receipt_is_offered_and_logged(client):
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=SUM, stream=True)
    last = list(raw.parse())[-1]
    receipt_id = (last.model_extra or {}).get("x_fanlight_receipt")
    assert receipt_id, "the last chunk has no x_fanlight_receipt"
    equal(raw.headers.get(RECEIPT_HEADER), receipt_id, f"header {RECEIPT_HEADER}")
    has_proof(logged_bundle(client, receipt_id))


@check
def an_unknown_receipt_is_refused(client):
    refused(openai.NotFoundError, lambda: client.get(f"/receipts/{'0' * 32}", cast_to=object))


def main(base_url):
    failed = 0
    with OpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=120) as client:
        for function in CHECKS:
            try:
                function(client)
            except Exception as error:  # noqa: BLE001 - reported, and fails the run
                failed += 1
                traceback.print_exc(file=sys.stdout)
                print(f"FAILED {function.__name__}: {type(error).__name__}: {error}")
            else:
                print(f"ok {function.__name__}")
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
