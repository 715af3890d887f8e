//! What a judge worked out in earlier rounds, found again by everything that it was worked out from.
//!
//! DESIGN §4 sends boot log and engine manifest whole in every round, and they seldom change. What was worked out of them is a function
//! of its inputs alone: it is filed under a SHA-256 over each of them, so that other bytes, other quoted values, another command line or
//! other open windows find nothing. It belongs to one [`crate::appraisal::Judge`], to one policy and its references, and ends with it.
//!
//! It holds nothing of a host and proves nothing: signature, nonce, counters, the TPM's class, the tag and the logs that grow are
//! verified in every round. It is bounded, and what is forgotten is worked out again.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::Digest as _;

use crate::check::violated;

/// Largest input and outcome that are kept, in bytes: boot logs have 20 to 60 KB, manifests less. What a parsed one takes is some times
/// its input.
const INPUT_MAX: usize = 256 << 10;
/// Weight that one generation keeps, of which there are two: the outcomes of some hundred to some thousand hosts.
const GENERATION_BYTES: usize = 16 << 20;
/// Weight of an outcome beside that of its input and its own.
const ENTRY: usize = 1 << 10;

/// What is remembered: short inputs can have long outcomes, and whoever chooses the input chooses how many there are.
pub(crate) trait Outcome {
    /// About how many bytes it takes: what was said of the input, and what grows with it.
    fn weight(&self) -> usize;
}

/// All inputs of an outcome, hashed.
pub(crate) struct Inputs(sha2::Sha256);

impl Inputs {
    /// None yet, for one kind of outcome.
    pub(crate) fn of(kind: &str) -> Self {
        let mut none = Self(sha2::Sha256::new());
        none.add(kind.as_bytes());
        none
    }

    /// One more input. Each has a check's id, so that `make mutants` can leave it out.
    pub(crate) fn bind(mut self, id: &'static str, input: &[u8]) -> Self {
        if violated(id, true) {
            self.add(input);
        }
        self
    }

    fn add(&mut self, input: &[u8]) {
        self.0.update(u64::try_from(input.len()).unwrap_or(u64::MAX).to_be_bytes());
        self.0.update(input);
    }

    fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// Outcomes of one kind. When a generation is full it becomes the old one; what is asked for comes back from there.
pub(crate) struct Remembered<T>(Mutex<Generations<T>>);

struct Generations<T> {
    young: HashMap<[u8; 32], Kept<T>>,
    old: HashMap<[u8; 32], Kept<T>>,
    weight: usize,
}

struct Kept<T> {
    outcome: Arc<T>,
    weight: usize,
}

impl<T> Generations<T> {
    fn insert(&mut self, key: [u8; 32], kept: Kept<T>) {
        let weight = kept.weight;
        if self.weight.saturating_add(weight) > GENERATION_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        if self.young.insert(key, kept).is_none() {
            self.weight = self.weight.saturating_add(weight);
        }
    }
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self(Mutex::new(Generations { young: HashMap::new(), old: HashMap::new(), weight: 0 }))
    }
}

impl<T> fmt::Debug for Remembered<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Remembered")
    }
}

impl<T: Outcome> Remembered<T> {
    /// The outcome of these inputs, of which the longest has `size` bytes: as it was, or worked out now.
    pub(crate) fn get_or(&self, inputs: Inputs, size: usize, work_out: impl FnOnce() -> T) -> Arc<T> {
        let key = inputs.finish();
        {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(young) = kept.young.get(&key) {
                return Arc::clone(&young.outcome);
            }
            if let Some(old) = kept.old.remove(&key) {
                let outcome = Arc::clone(&old.outcome);
                kept.insert(key, old);
                return outcome;
            }
        }
        // Not under the lock: other hosts' rounds go on meanwhile.
        let outcome = Arc::new(work_out());
        let own = outcome.weight();
        if size.max(own) <= INPUT_MAX {
            let kept = Kept { outcome: Arc::clone(&outcome), weight: size.saturating_add(own).saturating_add(ENTRY) };
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, kept);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Outcome for usize {
        fn weight(&self) -> usize {
            0
        }
    }

    /// An outcome of as many bytes.
    struct Long(usize);

    impl Outcome for Long {
        fn weight(&self) -> usize {
            self.0
        }
    }

    #[test]
    fn d5_short_inputs_with_long_outcomes_fill_no_memory() {
        // (bytes of each outcome, how many of them stay in a generation)
        for (bytes, most) in [(0, GENERATION_BYTES / ENTRY), (40 << 10, GENERATION_BYTES / (41 << 10)), (1 << 20, 0)] {
            let kept = Remembered::<Long>::default();
            for number in 0..20_000_usize {
                kept.get_or(Inputs::of("test").bind("test", &number.to_be_bytes()), 0, || Long(bytes));
            }
            let generations = kept.0.lock().unwrap();
            assert!(generations.young.len() <= most && generations.old.len() <= most, "{bytes}");
            assert_eq!(generations.young.is_empty(), most == 0, "{bytes}");
            assert!(generations.weight <= GENERATION_BYTES, "{bytes}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_found_by_its_inputs_alone() {
        let kept = Remembered::<usize>::default();
        let inputs = |number: usize| Inputs::of("test").bind("test", &number.to_be_bytes());
        let get = |number, size| *kept.get_or(inputs(number), size, || number + 1);
        let fits = GENERATION_BYTES / (ENTRY + ENTRY);
        for number in 0..10 * fits {
            assert_eq!(get(number, ENTRY), number + 1);
            assert_eq!(*kept.get_or(inputs(0), ENTRY, || panic!("what is asked for stays")), 1);
        }
        let generations = kept.0.lock().unwrap();
        assert!(generations.young.len() <= fits && generations.old.len() <= fits);
        assert!(generations.weight <= GENERATION_BYTES);
        drop(generations);
        get(1 << 40, INPUT_MAX + 1);
        assert_eq!(*kept.get_or(inputs(1 << 40), INPUT_MAX + 1, || 7), 7, "a large input's outcome is not kept");
    }

    #[test]
    fn inputs_run_into_each_other_nowhere() {
        let bound = |parts: [&[u8]; 2]| Inputs::of("test").bind("a", parts[0]).bind("b", parts[1]).finish();
        assert_ne!(bound([b"ab", b"c"]), bound([b"a", b"bc"]));
        assert_ne!(Inputs::of("a").finish(), Inputs::of("b").finish());
    }
}
