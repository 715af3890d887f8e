//! Which PCRs a quote covers: a list of (bank, bitmap), compared exactly.
//!
//! TPM 2.0 Library Part 2, 10.9.7 (TPML_PCR_SELECTION). A TPM concatenates the values bank by bank in the list's order, so two
//! lists that select the same PCRs in another order or another split give another digest: equality is on the list itself.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::digest::HashAlg;

/// The PCRs of one bank: bit `n` is PCR `n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BankSelection {
    /// The bank.
    pub bank: HashAlg,
    /// Bit `n` selects PCR `n`; PCR 24–31 exist on no PC Client TPM.
    pub bitmap: u32,
}

impl BankSelection {
    /// The selected PCR indices, ascending.
    pub fn indices(self) -> impl Iterator<Item = u8> {
        (0u8..32).filter(move |index| self.bitmap >> index & 1 == 1)
    }
}

/// The list of bank selections of a quote, in the quote's order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PcrSelection(Vec<BankSelection>);

impl PcrSelection {
    /// A selection in the given order.
    #[must_use]
    pub const fn new(banks: Vec<BankSelection>) -> Self {
        Self(banks)
    }

    /// One bank with these PCRs. Indices above 23 are refused with None.
    #[must_use]
    pub fn one(bank: HashAlg, indices: &[u8]) -> Option<Self> {
        let mut bitmap = 0u32;
        for index in indices {
            if *index > 23 {
                return None;
            }
            bitmap |= 1 << index;
        }
        Some(Self(vec![BankSelection { bank, bitmap }]))
    }

    /// Reads `sha256:0,1,4,7`, banks joined by `+`, as tpm2-tools writes it.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let mut banks = Vec::new();
        for part in text.split('+') {
            let (name, list) = part.split_once(':')?;
            let indices = list.split(',').map(|n| n.parse().ok()).collect::<Option<Vec<u8>>>()?;
            banks.extend(Self::one(HashAlg::from_name(name)?, &indices)?.0);
        }
        Some(Self(banks))
    }

    /// The bank selections in order.
    #[must_use]
    pub fn banks(&self) -> &[BankSelection] {
        &self.0
    }

    /// Whether this bank's PCR is selected.
    #[must_use]
    pub fn contains(&self, bank: HashAlg, index: u8) -> bool {
        index < 32 && self.0.iter().any(|one| one.bank == bank && one.bitmap >> index & 1 == 1)
    }

    /// True when no PCR is selected at all.
    #[must_use]
    pub fn selects_nothing(&self) -> bool {
        self.0.iter().all(|one| one.bitmap == 0)
    }
}

/// `sha1:0,1+sha256:0,1`, as tpm2-tools writes it.
impl fmt::Display for PcrSelection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, one) in self.0.iter().enumerate() {
            if position > 0 {
                out.write_str("+")?;
            }
            let list: Vec<String> = one.indices().map(|index| index.to_string()).collect();
            write!(out, "{}:{}", one.bank, list.join(","))?;
        }
        Ok(())
    }
}

/// As a map `{ sha256 = [0, 1] }`, banks in the order of their names.
impl Serialize for PcrSelection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let map: BTreeMap<&str, Vec<u8>> =
            self.0.iter().map(|one| (one.bank.name(), one.indices().collect())).collect();
        map.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PcrSelection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<String, Vec<u8>>::deserialize(deserializer)?;
        let mut banks = Vec::new();
        for (name, indices) in &map {
            let bank =
                HashAlg::from_name(name).ok_or_else(|| D::Error::custom(format!("unknown PCR bank `{name}`")))?;
            let one = Self::one(bank, indices).ok_or_else(|| D::Error::custom("a PCR index is at most 23"))?;
            banks.extend(one.0);
        }
        Ok(Self(banks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_is_on_the_list() {
        let whole = PcrSelection::from_text("sha256:0,1,2").unwrap();
        let split = PcrSelection::from_text("sha256:0,1+sha256:2").unwrap();
        assert_ne!(whole, split);
        assert_eq!(whole.to_string(), "sha256:0,1,2");
        assert!(PcrSelection::from_text("sha256:24").is_none());
    }
}
