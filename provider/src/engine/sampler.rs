//! From logits to one token.

use std::collections::HashMap;

use super::request::Sampling;

/// One request's sampler: its penalties, and its own counted stream of draws.
///
/// Draw `n` is a function of the seed and `n` alone, so a request gives the same tokens whoever
/// shares its batch.
#[derive(Debug)]
pub(super) struct Sampler {
    sampling: Sampling,
    n_drawn: u64,
    /// How often each token was taken; empty unless a penalty needs it.
    taken: HashMap<u32, f32>,
    /// Scratch: each candidate's unnormalised probability.
    candidates: Vec<(u32, f64)>,
}

impl Sampler {
    pub(super) fn new(sampling: Sampling) -> Self {
        Self { sampling, n_drawn: 0, taken: HashMap::new(), candidates: Vec::new() }
    }

    /// The next token, or `None` where no logit is a number, which only broken weights yield.
    pub(super) fn sample(&mut self, logits: &mut [f32]) -> Option<u32> {
        let Sampling { temperature, frequency_penalty, presence_penalty, .. } = self.sampling;
        let penalised = frequency_penalty != 0.0 || presence_penalty != 0.0;
        for (&token, count) in &self.taken {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit -= presence_penalty + frequency_penalty * count;
            }
        }
        let (likeliest, max) = argmax(logits)?;
        let token = if temperature == 0.0 { likeliest } else { self.draw(logits, max) };
        if penalised {
            *self.taken.entry(token).or_insert(0.0) += 1.0;
        }
        Some(token)
    }

    /// Draws in proportion to `exp((logit - max) / temperature)`, within the `top_p` nucleus.
    fn draw(&mut self, logits: &[f32], max: f32) -> u32 {
        let temperature = f64::from(self.sampling.temperature);
        self.candidates.clear();
        let mut total = 0.0;
        for (token, &logit) in (0_u32..).zip(logits) {
            let weight = (f64::from(logit - max) / temperature).exp();
            // Not true of not-a-number either.
            if weight > 0.0 {
                total += weight;
                self.candidates.push((token, weight));
            }
        }
        let top_p = f64::from(self.sampling.top_p);
        if top_p < 1.0 {
            total = self.keep_nucleus(top_p, total);
        }
        let mut rest = self.uniform() * total;
        for &(token, weight) in &self.candidates {
            rest -= weight;
            if rest < 0.0 {
                return token;
            }
        }
        // Rounding left a sliver past the last candidate; the likeliest has weight 1 and is there.
        self.candidates.last().map_or(0, |&(token, _)| token)
    }

    /// Keeps the likeliest candidates whose weights reach `top_p * total`; returns their sum.
    fn keep_nucleus(&mut self, top_p: f64, total: f64) -> f64 {
        // Candidates below (1 - top_p) / n sum to less than 1 - top_p, so none is in the nucleus:
        // what remains to be sorted is short even for a large vocabulary.
        let n = u32::try_from(self.candidates.len()).unwrap_or(u32::MAX);
        let floor = total * (1.0 - top_p) / f64::from(n);
        self.candidates.retain(|&(_, weight)| weight >= floor);
        self.candidates.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut sum = 0.0;
        let mut kept = 0;
        while kept < self.candidates.len() && (kept == 0 || sum < top_p * total) {
            sum += self.candidates[kept].1;
            kept += 1;
        }
        self.candidates.truncate(kept);
        sum
    }

    /// The next draw in [0, 1), in steps of 2^-32: `SplitMix64` (Steele, Lea and Flood 2014).
    fn uniform(&mut self) -> f64 {
        self.n_drawn += 1;
        let mut z = self.sampling.seed.wrapping_add(self.n_drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let high = u32::try_from(z >> 32).expect("32 bits remain");
        f64::from(high) / 4_294_967_296.0
    }
}

/// The largest logit and its token, the lowest such token on a tie.
fn argmax(logits: &[f32]) -> Option<(u32, f32)> {
    let mut best: Option<(u32, f32)> = None;
    for (token, &logit) in (0_u32..).zip(logits) {
        if logit > best.map_or(f32::NEG_INFINITY, |(_, max)| max) {
            best = Some((token, logit));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLING: Sampling = Sampling { temperature: 1.0, top_p: 1.0, seed: 7, frequency_penalty: 0.0, presence_penalty: 0.0 };

    fn counts(sampling: Sampling, logits: &[f32], n: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling);
        let mut counts = vec![0; logits.len()];
        for _ in 0..n {
            let token = sampler.sample(&mut logits.to_vec()).unwrap();
            counts[token as usize] += 1;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_the_likeliest() {
        let mut sampler = Sampler::new(Sampling::GREEDY);
        assert_eq!(sampler.sample(&mut [0.0, 3.0, f32::NAN, 3.0]), Some(1));
    }

    #[test]
    fn no_number_no_token() {
        let mut sampler = Sampler::new(Sampling::GREEDY);
        assert_eq!(sampler.sample(&mut [f32::NAN, f32::NEG_INFINITY]), None);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        // Probabilities 1/8, 2/8, 5/8; four standard deviations of 8,000 draws are below 180.
        let logits = [1.0_f32.ln(), 2.0_f32.ln(), 5.0_f32.ln()];
        let counts = counts(SAMPLING, &logits, 8_000);
        for (count, expected) in counts.iter().zip([1_000_u32, 2_000, 5_000]) {
            assert!(count.abs_diff(expected) < 180, "{counts:?}");
        }
    }

    #[test]
    fn temperature_sharpens() {
        let logits = [1.0_f32.ln(), 2.0_f32.ln()];
        let cold = Sampling { temperature: 0.25, ..SAMPLING };
        // 1 : 2^4.
        let counts = counts(cold, &logits, 1_700);
        assert!(counts[0].abs_diff(100) < 40, "{counts:?}");
    }

    #[test]
    fn top_p_keeps_the_smallest_sufficient_set() {
        let logits = [1.0_f32.ln(), 6.0_f32.ln(), 3.0_f32.ln()];
        let nucleus = |top_p| {
            let sampling = Sampling { top_p, ..SAMPLING };
            counts(sampling, &logits, 500).iter().map(|&n| n > 0).collect::<Vec<_>>()
        };
        assert_eq!(nucleus(0.5), [false, true, false]);
        assert_eq!(nucleus(0.61), [false, true, true]);
        assert_eq!(nucleus(0.95), [true, true, true]);
    }

    #[test]
    fn penalties_push_repetition_down() {
        let presence = Sampling { presence_penalty: 1.0, ..Sampling::GREEDY };
        let frequency = Sampling { frequency_penalty: 1.0, ..Sampling::GREEDY };
        let take = |sampling| {
            let mut sampler = Sampler::new(sampling);
            (0..5).map(|_| sampler.sample(&mut [1.5, 1.0]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(take(presence), [0, 1, 0, 0, 0]);
        assert_eq!(take(frequency), [0, 1, 0, 1, 0]);
    }

    #[test]
    fn the_seed_decides() {
        let logits = [0.0; 64];
        let run = |seed| {
            let mut sampler = Sampler::new(Sampling { seed, ..SAMPLING });
            (0..20).map(|_| sampler.sample(&mut logits.to_vec())).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
