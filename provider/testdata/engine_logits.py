"""Write engine_logits.json: what the test model computes, by an independent implementation.

Plain numpy in float64, the whole sequence again for every token, no cache, no batching: slow and
hard to get wrong. Reads the model in ../models/tiny-llama.

For every prompt of prompts.json: the greedy continuation up to the end of the turn, the least gap
between the best and second-best logit on the way (how much rounding the tokens survive), and
every 64th logit after the prompt.

Usage: python engine_logits.py
Needs: numpy (from PyPI).
"""

import json
import pathlib
import struct

import numpy as np

HERE = pathlib.Path(__file__).parent
MODEL = HERE / "../models/tiny-llama"
MAX_OUTPUT = 60
LOGIT_STRIDE = 64


def read_tensors(path):
    """The bfloat16 tensors of a safetensors file, widened."""
    data = path.read_bytes()
    (header_length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + header_length])
    body = data[8 + header_length :]
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "BF16"
        start, end = entry["data_offsets"]
        high = np.frombuffer(body[start:end], np.uint16).astype(np.uint32)
        tensors[name] = (high << 16).view(np.float32).astype(np.float64).reshape(entry["shape"])
    return tensors


class Llama:
    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = read_tensors(folder / "model.safetensors")

    def norm(self, x, name):
        scale = np.sqrt((x * x).mean(-1, keepdims=True) + self.config["rms_norm_eps"])
        return x / scale * self.tensors[name + ".weight"]

    def linear(self, x, name):
        return x @ self.tensors[name + ".weight"].T

    def rotate(self, x):
        """[time, heads, head_dim]; element i pairs with element i + head_dim / 2."""
        time, _, dim = x.shape
        frequencies = self.config["rope_theta"] ** (-2 * np.arange(dim // 2) / dim)
        turn = np.exp(1j * np.outer(np.arange(time), frequencies))[:, None, :]
        y = (x[..., : dim // 2] + 1j * x[..., dim // 2 :]) * turn
        return np.concatenate([y.real, y.imag], -1)

    def attend(self, x, layer):
        heads, kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        dim, time = self.config["head_dim"], len(x)
        q = self.rotate(self.linear(x, layer + "q_proj").reshape(time, heads, dim))
        k = self.rotate(self.linear(x, layer + "k_proj").reshape(time, kv_heads, dim))
        v = self.linear(x, layer + "v_proj").reshape(time, kv_heads, dim)
        out = np.empty_like(q)
        for head in range(heads):
            shared = head // (heads // kv_heads)
            scores = q[:, head] @ k[:, shared].T / np.sqrt(dim)
            scores[np.triu_indices(time, 1)] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[:, head] = weights / weights.sum(-1, keepdims=True) @ v[:, shared]
        return self.linear(out.reshape(time, heads * dim), layer + "o_proj")

    def last_logits(self, tokens):
        x = self.tensors["model.embed_tokens.weight"][tokens]
        for n in range(self.config["num_hidden_layers"]):
            layer = f"model.layers.{n}."
            x = x + self.attend(self.norm(x, layer + "input_layernorm"), layer + "self_attn.")
            h = self.norm(x, layer + "post_attention_layernorm")
            gate = self.linear(h, layer + "mlp.gate_proj")
            up = self.linear(h, layer + "mlp.up_proj")
            x = x + self.linear(gate / (1 + np.exp(-gate)) * up, layer + "mlp.down_proj")
        return self.norm(x, "model.norm")[-1] @ self.tensors["model.embed_tokens.weight"].T


def main():
    model = Llama(MODEL)
    tests = []
    for prompt in json.loads((MODEL / "prompts.json").read_text()):
        tokens = list(prompt["tokens"])
        logits = first = model.last_logits(tokens)
        output, gap = [], float("inf")
        while len(output) < MAX_OUTPUT:
            second, best = np.sort(logits)[-2:]
            gap = min(gap, best - second)
            token = int(logits.argmax())
            if token in model.config["eos_token_id"]:
                break
            output.append(token)
            logits = model.last_logits(tokens + output)
        tests.append(
            {
                "name": prompt["name"],
                "output": output,
                "least_gap": round(float(gap), 4),
                "logits": [round(float(x), 5) for x in first[::LOGIT_STRIDE]],
            }
        )
    body = ",\n".join(json.dumps(test) for test in tests)
    header = f'"model": "tiny-llama", "max_output": {MAX_OUTPUT}, "logit_stride": {LOGIT_STRIDE}'
    (HERE / "engine_logits.json").write_text(f'{{{header}, "tests": [\n{body}\n]}}\n')


if __name__ == "__main__":
    main()
