//! Mutations that break framing: what a hostile host would do to a log or a structure it did not write itself.

/// Longest input that is tried; above it a parser's size limit is one comparison and nothing more is learned.
pub const INPUT_MAX: usize = 256 * 1024;

/// Values that parsers get wrong: zero, one, signs, all ones, and lengths just beyond.
const EDGES: [u32; 12] = [0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

/// A small deterministic generator (xorshift64*): the same seed gives the same run.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator; zero is replaced, since it would stay zero.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(if seed == 0 { 0x9e37_79b9_7f4a_7c15 } else { seed })
    }

    /// A number below `bound`; 0 when the bound is 0.
    pub const fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16;
        if bound == 0 { 0 } else { (number as usize) % bound }
    }

    fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }
}

/// A seed with one to eight mutations; `other` is spliced in at times.
#[must_use]
pub fn mutate(random: &mut Random, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let mut input = seed[..seed.len().min(INPUT_MAX)].to_vec();
    for _ in 0..=random.below(8) {
        let at = random.below(input.len());
        let span = random.below(input.len().saturating_sub(at).min(64)) + 1;
        let end = (at + span).min(input.len());
        match random.below(9) {
            0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
            1 if !input.is_empty() => input[at] = random.byte(),
            2 => overwrite(random, &mut input, at),
            3 => input.truncate(at),
            4 => drop(input.drain(at..end)),
            5 => {
                let copy = input[at..end].to_vec();
                splice(&mut input, at, &copy);
            }
            6 => {
                let noise: Vec<u8> = (0..span).map(|_| random.byte()).collect();
                splice(&mut input, at, &noise);
            }
            7 if !other.is_empty() => {
                let from = random.below(other.len());
                let piece = other[from..(from + span * 4).min(other.len())].to_vec();
                splice(&mut input, at, &piece);
            }
            _ => input[at..end].fill(0),
        }
    }
    input
}

/// Writes an edge value over a length field, in either byte order and width.
fn overwrite(random: &mut Random, input: &mut [u8], at: usize) {
    let value = EDGES[random.below(EDGES.len())];
    let bytes = match random.below(4) {
        0 => value.to_le_bytes().to_vec(),
        1 => value.to_be_bytes().to_vec(),
        2 => (value as u16).to_le_bytes().to_vec(),
        _ => (value as u16).to_be_bytes().to_vec(),
    };
    for (byte, new) in input[at..].iter_mut().zip(bytes) {
        *byte = new;
    }
}

fn splice(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    if input.len() + piece.len() <= INPUT_MAX {
        input.splice(at..at, piece.iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs_and_an_empty_one_is_no_trouble() {
        let run = |seed| {
            let mut random = Random::new(seed);
            (0..2000).map(|_| mutate(&mut random, b"level:a,b@tenant", b"")).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let mut random = Random::new(0);
        for _ in 0..2000 {
            assert!(mutate(&mut random, b"", b"").len() <= INPUT_MAX);
        }
    }
}
