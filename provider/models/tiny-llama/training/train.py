"""Train the test model on corpus.json; write config.json, tokenizer.json and model.safetensors.

A Llama of 0.92 million parameters: 4 layers, width 128, 4 query heads over 2 key heads, 1,024
byte-level BPE tokens with single digits. AdamW under a linearly falling rate, for a given number of
CPU seconds; the committed weights took 600 to 800. The result depends on the machine's speed.

Usage: python train.py [CPU_SECONDS]
Needs: jax, optax, numpy, ml_dtypes, safetensors, tokenizers (from PyPI), and corpus.json.
"""

import itertools
import json
import random
import sys
import time

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 1024
HIDDEN = 128
INTERMEDIATE = 384
LAYERS = 4
HEADS = 4
KV_HEADS = 2
HEAD_DIM = HIDDEN // HEADS
CONTEXT = 1024
THETA = 10_000.0
EPSILON = 1e-5

SEQUENCE = 96
BATCH = 8
DIALOGUE_SHARE = 0.88
PEAK_RATE = 3e-3
WARM_UP_STEPS = 50

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def train_tokenizer(texts):
    """A byte-level BPE in which every digit is a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def initial_weights():
    """Normal with deviation 0.02, less for what feeds the residual stream; norms are ones."""
    keys = iter(jax.random.split(jax.random.PRNGKey(0), 200))

    def normal(*shape, deviation=0.02):
        return jax.random.normal(next(keys), shape) * deviation

    residual = 0.02 / (2 * LAYERS) ** 0.5
    weights = {
        "model.embed_tokens.weight": normal(VOCABULARY, HIDDEN),
        "model.norm.weight": jnp.ones(HIDDEN),
    }
    for layer in range(LAYERS):
        p = f"model.layers.{layer}."
        weights |= {
            p + "self_attn.q_proj.weight": normal(HIDDEN, HIDDEN),
            p + "self_attn.k_proj.weight": normal(KV_HEADS * HEAD_DIM, HIDDEN),
            p + "self_attn.v_proj.weight": normal(KV_HEADS * HEAD_DIM, HIDDEN),
            p + "self_attn.o_proj.weight": normal(HIDDEN, HIDDEN, deviation=residual),
            p + "mlp.gate_proj.weight": normal(INTERMEDIATE, HIDDEN),
            p + "mlp.up_proj.weight": normal(INTERMEDIATE, HIDDEN),
            p + "mlp.down_proj.weight": normal(HIDDEN, INTERMEDIATE, deviation=residual),
            p + "input_layernorm.weight": jnp.ones(HIDDEN),
            p + "post_attention_layernorm.weight": jnp.ones(HIDDEN),
        }
    return weights


INVERSE_FREQUENCIES = 1 / THETA ** (np.arange(0, HEAD_DIM, 2) / HEAD_DIM)
ANGLES = np.outer(np.arange(CONTEXT), INVERSE_FREQUENCIES)
COS, SIN = jnp.array(np.cos(ANGLES)), jnp.array(np.sin(ANGLES))


def rope(x):
    """Rotary embedding of [batch, heads, time, head_dim]; the halves are the pairs."""
    time_steps = x.shape[2]
    cos, sin = COS[:time_steps], SIN[:time_steps]
    a, b = x[..., : HEAD_DIM // 2], x[..., HEAD_DIM // 2 :]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def rms_norm(x, weight):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + EPSILON) * weight


def forward(weights, tokens):
    """Logits [batch, time, vocabulary] of tokens [batch, time]."""
    batch, time_steps = tokens.shape
    mask = jnp.tril(jnp.ones((time_steps, time_steps), bool))

    def heads(x, n):
        return x.reshape(batch, time_steps, n, HEAD_DIM).transpose(0, 2, 1, 3)

    x = weights["model.embed_tokens.weight"][tokens]
    for layer in range(LAYERS):
        w = {
            name: weights[f"model.layers.{layer}.{name}.weight"]
            for name in (
                "input_layernorm",
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "self_attn.o_proj",
                "post_attention_layernorm",
                "mlp.gate_proj",
                "mlp.up_proj",
                "mlp.down_proj",
            )
        }
        h = rms_norm(x, w["input_layernorm"])
        q = rope(heads(h @ w["self_attn.q_proj"].T, HEADS))
        k = rope(heads(h @ w["self_attn.k_proj"].T, KV_HEADS))
        v = heads(h @ w["self_attn.v_proj"].T, KV_HEADS)
        k = jnp.repeat(k, HEADS // KV_HEADS, 1)
        v = jnp.repeat(v, HEADS // KV_HEADS, 1)
        scores = jnp.where(mask, q @ k.transpose(0, 1, 3, 2) / HEAD_DIM**0.5, -1e9)
        a = jax.nn.softmax(scores, -1) @ v
        x = x + a.transpose(0, 2, 1, 3).reshape(batch, time_steps, HIDDEN) @ w["self_attn.o_proj"].T
        h = rms_norm(x, w["post_attention_layernorm"])
        gated = jax.nn.silu(h @ w["mlp.gate_proj"].T) * (h @ w["mlp.up_proj"].T)
        x = x + gated @ w["mlp.down_proj"].T
    x = rms_norm(x, weights["model.norm.weight"])
    return x @ weights["model.embed_tokens.weight"].T


def loss(weights, tokens):
    logits = forward(weights, tokens[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


def save(weights):
    """Write the weights in bfloat16, and the configuration, in Hugging Face layout."""
    tensors = {name: np.asarray(w).astype(ml_dtypes.bfloat16) for name, w in weights.items()}
    save_file(tensors, "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": EPSILON,
        "rope_theta": THETA,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 0,
        "eos_token_id": [0, 2],
        "torch_dtype": "bfloat16",
    }
    with open("config.json", "w", encoding="utf8") as out:
        json.dump(config, out, indent=1)


def main():
    budget = float(sys.argv[1]) if len(sys.argv) > 1 else 900.0
    with open("corpus.json", encoding="utf8") as file:
        corpus = json.load(file)
    dialogues, prose = corpus["dialogues"], corpus["prose"]
    tokenizer = train_tokenizer(dialogues[:8000] + prose)
    tokenizer.save("tokenizer.json")

    def tokens_of(texts):
        encodings = tokenizer.encode_batch(texts)
        return np.array([token for encoding in encodings for token in encoding.ids], np.int32)

    dialogue_tokens = tokens_of(dialogues)
    random.Random(1).shuffle(prose)
    prose_tokens = tokens_of([paragraph + "<|endoftext|>" for paragraph in prose])
    # A row of dialogue starts where a dialogue does.
    starts = np.where(dialogue_tokens == 0)[0][:-60] + 1
    rng = np.random.default_rng(0)

    def batch():
        rows = np.empty((BATCH, SEQUENCE + 1), np.int32)
        for row in rows:
            if len(prose_tokens) == 0 or rng.random() < DIALOGUE_SHARE:
                start = starts[rng.integers(len(starts))]
                row[:] = dialogue_tokens[start : start + SEQUENCE + 1]
            else:
                start = rng.integers(len(prose_tokens) - SEQUENCE - 1)
                row[:] = prose_tokens[start : start + SEQUENCE + 1]
        return rows

    optimiser = optax.chain(optax.scale_by_adam(b2=0.98), optax.add_decayed_weights(0.05))
    weights = initial_weights()
    state = optimiser.init(weights)

    @jax.jit
    def step(weights, state, tokens, rate):
        value, gradients = jax.value_and_grad(loss)(weights, tokens)
        norm = optax.global_norm(gradients)
        gradients = jax.tree.map(lambda g: g * jnp.minimum(1, 1 / norm), gradients)
        updates, state = optimiser.update(gradients, state, weights)
        weights = jax.tree.map(lambda w, u: w - rate * u, weights, updates)
        return weights, state, value

    began = time.process_time()
    for n in itertools.count(1):
        spent = (time.process_time() - began) / budget
        if spent >= 1:
            break
        rate = PEAK_RATE * min(1, n / WARM_UP_STEPS) * max(0.02, 1 - spent)
        weights, state, value = step(weights, state, batch(), rate)
        if n % 200 == 0:
            print(f"step {n}, {spent:.0%}, loss {float(value):.3f}", flush=True)
            save(weights)
    save(weights)


if __name__ == "__main__":
    main()
