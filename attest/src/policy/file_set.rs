//! A set of file digests, asked once for each entry of each host's IMA list.
//!
//! The digests lie in one table by their own first bytes, at most half full: a question reads one place of the memory, and the next one
//! if that is taken. Who chooses the digests of a set is the operator who signs it; who asks is a host. The bytes are mixed with a secret
//! of the set all the same, so that nobody who has files put into references can crowd one place of it.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use crate::digest::Digest;

/// Digests of files.
#[derive(Debug, Clone, Default)]
pub(super) struct FileSet {
    sha256: Table,
    /// Of the other algorithms: few, or none.
    others: HashSet<Digest>,
}

impl FileSet {
    pub(super) fn insert(&mut self, digest: Digest) {
        match digest.as_sha256() {
            Some(digest) => self.sha256.insert(digest),
            None => {
                self.others.insert(digest);
            }
        }
    }

    #[inline]
    pub(super) fn contains(&self, digest: &Digest) -> bool {
        match digest.as_sha256() {
            Some(digest) => self.sha256.contains(digest),
            None => self.others.contains(digest),
        }
    }
}

/// A free place. No file hashes to it.
const FREE: [u8; 32] = [0; 32];

#[derive(Debug, Clone)]
struct Table {
    /// Two numbers that nobody outside this process knows.
    secret: (u64, u64),
    /// None, or a power of two.
    places: Vec<[u8; 32]>,
    taken: usize,
}

impl Default for Table {
    fn default() -> Self {
        let random = RandomState::new();
        Self { secret: (random.hash_one(0), random.hash_one(1) | 1), places: Vec::new(), taken: 0 }
    }
}

impl Table {
    /// The places where a digest may lie, from the first one on.
    #[inline]
    fn from(&self, digest: &[u8; 32]) -> impl Iterator<Item = usize> + use<> {
        let number = digest.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        let product = u128::from(number ^ self.secret.0).wrapping_mul(u128::from(self.secret.1));
        #[allow(clippy::cast_possible_truncation, reason = "any bits of a product do")]
        let start = (product >> 32) as usize;
        let last = self.places.len().saturating_sub(1);
        (0..=last).map(move |step| start.wrapping_add(step) & last)
    }

    #[inline]
    fn contains(&self, digest: &[u8; 32]) -> bool {
        for place in self.from(digest) {
            match self.places.get(place) {
                Some(found) if found == digest => return *digest != FREE,
                Some(found) if *found != FREE => {}
                _ => return false,
            }
        }
        false
    }

    fn insert(&mut self, digest: &[u8; 32]) {
        if *digest == FREE || self.contains(digest) {
            return;
        }
        if self.taken.saturating_mul(2) >= self.places.len() {
            let grown = vec![FREE; self.places.len().saturating_mul(2).max(8)];
            for one in std::mem::replace(&mut self.places, grown) {
                self.put(&one);
            }
        }
        self.put(digest);
        self.taken = self.taken.saturating_add(1);
    }

    fn put(&mut self, digest: &[u8; 32]) {
        let free = self.from(digest).find(|place| self.places.get(*place) == Some(&FREE));
        if let Some(place) = free.and_then(|place| self.places.get_mut(place)) {
            *place = *digest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::HashAlg;

    #[test]
    fn a_digest_is_found_whole_or_not() {
        let digest = |alg: HashAlg, byte: u8| Digest::new(alg, &vec![byte; alg.size()]).unwrap();
        let mut set = FileSet::default();
        for alg in [HashAlg::Sha256, HashAlg::Sha512, HashAlg::Sm3] {
            set.insert(digest(alg, 7));
            assert!(set.contains(&digest(alg, 7)) && !set.contains(&digest(alg, 8)));
        }
        assert!(!set.contains(&digest(HashAlg::Sha384, 7)));
        let mut near = [7; 32];
        near[31] = 8;
        assert!(!set.contains(&Digest::new(HashAlg::Sha256, &near).unwrap()), "the same first bytes");
        assert!(!FileSet::default().contains(&digest(HashAlg::Sha256, 7)));
        assert!(!FileSet::default().contains(&Digest::zero(HashAlg::Sha256)));
        set.insert(Digest::zero(HashAlg::Sha256));
        assert!(!set.contains(&Digest::zero(HashAlg::Sha256)), "no file's digest");
    }

    #[test]
    fn many_digests_of_one_beginning_are_told_apart() {
        let digest = |number: u16| {
            let mut bytes = [7; 32];
            bytes[30..].copy_from_slice(&number.to_be_bytes());
            bytes
        };
        let mut table = Table::default();
        for number in (0..2000).step_by(2) {
            table.insert(&digest(number));
            table.insert(&digest(number));
        }
        assert_eq!((table.taken, table.places.len()), (1000, 2048));
        for number in 0..2000 {
            assert_eq!(table.contains(&digest(number)), number % 2 == 0, "{number}");
        }
    }
}
