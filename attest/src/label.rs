//! Sensitivity labels: `level[:category,…][@tenant]`, and which label dominates which.
//!
//! CSA best practices 3.1.2.1: the label of the data drives placement. Strict grammar, lower case, one canonical form.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Longest label, in bytes.
const LABEL_MAX: usize = 255;
/// Longest part of a label, in bytes.
const PART_MAX: usize = 32;
/// Most categories in one label.
const CATEGORIES_MAX: usize = 16;

/// Why a label was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// Above `LABEL_MAX` bytes.
    #[error("a label is at most {LABEL_MAX} bytes, this one has {found}")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// A part is not `[a-z][a-z0-9-]{0,31}`.
    #[error("the {part} of a label must match [a-z][a-z0-9-]{{0,31}}")]
    Part {
        /// Which part: level, category or tenant.
        part: &'static str,
    },
    /// Too many categories.
    #[error("a label has at most {CATEGORIES_MAX} categories, this one has {found}")]
    TooManyCategories {
        /// Categories found.
        found: usize,
    },
    /// A category twice.
    #[error("category `{0}` stands twice in the label")]
    DuplicateCategory(String),
    /// The level is not among the configured levels.
    #[error("`{found}` is not a sensitivity level; the levels are {known}")]
    UnknownLevel {
        /// The level found.
        found: String,
        /// The configured levels, lowest first.
        known: String,
    },
}

/// The ordered sensitivity levels, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Levels(Vec<String>);

impl Default for Levels {
    fn default() -> Self {
        Self(["public", "internal", "confidential", "restricted"].map(str::to_owned).to_vec())
    }
}

impl Levels {
    /// Levels in ascending order.
    #[must_use]
    pub const fn new(ascending: Vec<String>) -> Self {
        Self(ascending)
    }

    fn rank(&self, level: &str) -> Option<usize> {
        self.0.iter().position(|known| known == level)
    }

    /// Refuses a label whose level is not configured.
    ///
    /// # Errors
    /// [`LabelError::UnknownLevel`].
    pub fn accept(&self, label: &Label) -> Result<(), LabelError> {
        match self.rank(&label.level) {
            Some(_) => Ok(()),
            None => Err(LabelError::UnknownLevel { found: label.level.clone(), known: self.0.join(", ") }),
        }
    }

    /// `a` dominates `b`: its level is at least as high, it has every category, and the tenants are equal. No tenant
    /// means no tenant, never any. A level that is not configured dominates nothing and is dominated by nothing.
    #[must_use]
    pub fn dominates(&self, a: &Label, b: &Label) -> bool {
        match (self.rank(&a.level), self.rank(&b.level)) {
            (Some(high), Some(low)) => high >= low && a.categories.is_superset(&b.categories) && a.tenant == b.tenant,
            _ => false,
        }
    }
}

/// A sensitivity label in canonical form: categories sorted and unique.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    level: String,
    categories: BTreeSet<String>,
    tenant: Option<String>,
}

impl Label {
    /// The level.
    #[must_use]
    pub fn level(&self) -> &str {
        &self.level
    }

    /// The tenant, if the label names one.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }
}

fn part(text: &str, part: &'static str) -> Result<String, LabelError> {
    let mut bytes = text.bytes();
    let starts = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
    let goes_on = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if starts && goes_on && text.len() <= PART_MAX { Ok(text.to_owned()) } else { Err(LabelError::Part { part }) }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        if text.len() > LABEL_MAX {
            return Err(LabelError::TooLong { found: text.len() });
        }
        let (rest, tenant) = match text.split_once('@') {
            Some((rest, tenant)) => (rest, Some(part(tenant, "tenant")?)),
            None => (text, None),
        };
        let (level, list) = match rest.split_once(':') {
            Some((level, list)) => (level, Some(list)),
            None => (rest, None),
        };
        let level = part(level, "level")?;
        let mut categories = BTreeSet::new();
        for category in list.into_iter().flat_map(|list| list.split(',')) {
            let category = part(category, "category")?;
            if !categories.insert(category.clone()) {
                return Err(LabelError::DuplicateCategory(category));
            }
        }
        if categories.len() > CATEGORIES_MAX {
            return Err(LabelError::TooManyCategories { found: categories.len() });
        }
        Ok(Self { level, categories, tenant })
    }
}

impl fmt::Display for Label {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.level)?;
        for (position, category) in self.categories.iter().enumerate() {
            out.write_str(if position == 0 { ":" } else { "," })?;
            out.write_str(category)?;
        }
        match &self.tenant {
            Some(tenant) => write!(out, "@{tenant}"),
            None => Ok(()),
        }
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_canonical_form() {
        let rows = [
            ("public", Ok("public")),
            ("restricted:phi,eu@hospital-a", Ok("restricted:eu,phi@hospital-a")),
            ("Public", Err(LabelError::Part { part: "level" })),
            ("public:", Err(LabelError::Part { part: "category" })),
            ("public@", Err(LabelError::Part { part: "tenant" })),
            ("public:a,a", Err(LabelError::DuplicateCategory("a".into()))),
            ("public@a@b", Err(LabelError::Part { part: "tenant" })),
            ("1a", Err(LabelError::Part { part: "level" })),
            ("a\n", Err(LabelError::Part { part: "level" })),
        ];
        for (input, expect) in rows {
            assert_eq!(input.parse::<Label>().map(|label| label.to_string()), expect.map(str::to_owned), "{input:?}");
        }
        assert_eq!("a".repeat(256).parse::<Label>(), Err(LabelError::TooLong { found: 256 }));
    }

    #[test]
    fn dominance() {
        let levels = Levels::default();
        let rows = [
            ("restricted:phi@a", "internal@a", true),
            ("internal:phi@a", "internal:phi,eu@a", false),
            ("restricted", "public@a", false),
            ("restricted@a", "public", false),
            ("public", "internal", false),
            ("unknown", "unknown", false),
            ("confidential:a,b", "confidential:b", true),
        ];
        for (a, b, expect) in rows {
            assert_eq!(levels.dominates(&a.parse().unwrap(), &b.parse().unwrap()), expect, "{a} over {b}");
        }
    }
}
