//! The candle backend by itself: logits against the reference, rows, forks.

use fanlight_provider::engine::candle::{CandleBackend, CandleRow};
use fanlight_provider::engine::{Backend, DecodeRow, builtin};

use crate::model::{prompts, reference};

fn backend() -> CandleBackend {
    CandleBackend::load(&builtin::files()).expect("the built-in model loads")
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

/// The prompt's row and the logits that follow it.
fn prefilled(backend: &mut CandleBackend, tokens: &[u32]) -> (CandleRow, Vec<f32>) {
    let mut row = backend.new_row();
    let logits = backend.prefill(&mut row, tokens, true).expect("the prompt fits");
    (row, logits)
}

fn decode_one(backend: &mut CandleBackend, row: &mut CandleRow, token: u32) -> Vec<f32> {
    backend.decode(&mut [DecodeRow { row, token }]).expect("the token fits")
}

#[test]
fn logits_are_the_references() {
    let mut backend = backend();
    let reference = reference();
    for (prompt, expected) in prompts().iter().zip(&reference.tests) {
        let (_, logits) = prefilled(&mut backend, &prompt.tokens);
        let picked = logits.iter().step_by(reference.logit_stride);
        for (got, expected) in picked.zip(&expected.logits) {
            assert!((got - expected).abs() < 2e-4, "{}: {got} {expected}", prompt.name);
        }
    }
}

#[test]
fn a_row_computes_the_same_bits_in_any_batch() {
    let mut backend = backend();
    let prompts = prompts();
    let token = 223;
    let alone: Vec<_> = prompts
        .iter()
        .map(|prompt| {
            let (mut row, _) = prefilled(&mut backend, &prompt.tokens);
            bits(&decode_one(&mut backend, &mut row, token))
        })
        .collect();
    for n in 2..=prompts.len() {
        let mut rows: Vec<_> = prompts[..n].iter().map(|prompt| prefilled(&mut backend, &prompt.tokens).0).collect();
        let mut batch: Vec<_> = rows.iter_mut().map(|row| DecodeRow { row, token }).collect();
        let logits = backend.decode(&mut batch).unwrap();
        let vocabulary = backend.vocabulary();
        for (logits, alone) in logits.chunks_exact(vocabulary).zip(&alone) {
            assert!(bits(logits) == *alone, "batch of {n}");
        }
    }
}

#[test]
fn a_fork_continues_as_if_recomputed() {
    let mut backend = backend();
    let prompt = &prompts()[4].tokens;
    let (mut row, _) = prefilled(&mut backend, prompt);
    // What the original does next must not show in the fork.
    decode_one(&mut backend, &mut row, 99);
    let mut fork = backend.fork(&row, prompt.len()).unwrap();
    decode_one(&mut backend, &mut row, 98);
    let (mut fresh, _) = prefilled(&mut backend, prompt);
    for token in reference().tests[4].output.iter().copied() {
        let forked = decode_one(&mut backend, &mut fork, token);
        let recomputed = decode_one(&mut backend, &mut fresh, token);
        assert_eq!(bits(&forked), bits(&recomputed));
    }

    // From the middle of the prompt on, the sums are taken in another order.
    let mut half = backend.fork(&fresh, 7).unwrap();
    let forked = backend.prefill(&mut half, &prompt[7..], true).unwrap();
    let (_, recomputed) = prefilled(&mut backend, prompt);
    for (forked, recomputed) in forked.iter().zip(&recomputed) {
        assert!((forked - recomputed).abs() < 1e-4);
    }
    assert!(backend.fork(&half, prompt.len() + 1).is_err());
}

#[test]
fn a_row_grows_to_the_context_and_no_further() {
    let mut backend = backend();
    let mut row = backend.new_row();
    assert_eq!(backend.row_bytes(&row), 0);
    backend.prefill(&mut row, &[5; 100], false).unwrap();
    let small = backend.row_bytes(&row);
    backend.prefill(&mut row, &[6; 923], false).unwrap();
    // 4 layers of keys and values, 1,024 tokens of 2 heads of 32 floats.
    assert_eq!(backend.row_bytes(&row), 4 * 2 * 1024 * 2 * 32 * 4);
    assert!(small < backend.row_bytes(&row) / 4);
    decode_one(&mut backend, &mut row, 7);
    let over = backend.decode(&mut [DecodeRow { row: &mut row, token: 7 }]);
    assert!(over.is_err());
}
