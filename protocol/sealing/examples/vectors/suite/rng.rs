//! The random bytes of vectors: `SHA-256(seed ‖ 0u64) ‖ SHA-256(seed ‖ 1u64) ‖ …`, read in order.

use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};
use sha2::{Digest as _, Sha256};

pub(crate) struct CounterRng {
    seed: Vec<u8>,
    counter: u64,
    block: Vec<u8>,
}

impl CounterRng {
    pub(crate) fn new(seed: &str) -> Self {
        Self { seed: seed.into(), counter: 0, block: Vec::new() }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let Ok(()) = self.try_fill_bytes(&mut out);
        out
    }
}

impl TryRng for CounterRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_be_bytes(self.array()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_be_bytes(self.array()))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for byte in out {
            if self.block.is_empty() {
                let hash = Sha256::new().chain_update(&self.seed).chain_update(self.counter.to_be_bytes());
                self.block = hash.finalize().iter().rev().copied().collect();
                self.counter += 1;
            }
            *byte = self.block.pop().expect("just filled");
        }
        Ok(())
    }
}

impl TryCryptoRng for CounterRng {}
