//! What the verifier is told to want: appraisal policies and reference values, both data, both signed by an operator's key.
//!
//! A file is accepted as bytes with a detached signature over exactly these bytes ([`SignedFile`]); it is compiled once and
//! shared. Unknown keys are errors with line and column: a policy that is not understood is not applied.

mod appraisal;
pub mod capture;
pub mod corim;
mod file_set;
mod ima;
pub mod import;
pub mod predicted;
pub mod quirks;
pub mod rebase;
mod references;

pub use appraisal::{AppraisalPolicy, EngineRules, Expectation, OnUnknown, Rule, WorkloadRules};
pub use ima::{ImaPolicy, ImaRules};
pub use references::{References, Window};

use serde::de::DeserializeOwned;

use crate::finding::Findings;
use crate::jws::{self, KeySet, Purpose};

/// Signatures over appraisal policies.
pub const POLICY: Purpose = Purpose {
    typ: "hostmark-policy",
    malformed: "policy.malformed-signature",
    algorithm: "policy.algorithm",
    purpose: "policy.purpose",
    key: "policy.key",
    signature: "policy.signature",
};

/// Signatures over reference values.
pub const REFERENCES: Purpose = Purpose {
    typ: "hostmark-references",
    malformed: "references.malformed-signature",
    algorithm: "references.algorithm",
    purpose: "references.purpose",
    key: "references.key",
    signature: "references.signature",
};

/// Why a policy, pool or reference file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Not the TOML that is expected: syntax, an unknown key, a wrong type.
    #[error("{file}: line {line}, column {column}: {problem}")]
    Toml {
        /// The file.
        file: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong there.
        problem: String,
    },
    /// Well-formed, but it says something that must not be applied.
    #[error("{file}: {id}: {problem}")]
    Invalid {
        /// The file.
        file: String,
        /// The violated rule, a dotted path.
        id: &'static str,
        /// What is wrong and how to mend it.
        problem: String,
    },
    /// The signature does not hold.
    #[error("{file}: {}", findings.as_slice().iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Unsigned {
        /// The file.
        file: String,
        /// Why.
        findings: Findings,
    },
}

/// Parses one TOML file strictly.
///
/// # Errors
/// [`PolicyError::Toml`] with line and column.
pub fn parse_toml<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, PolicyError> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        at_place(file, text, at, error.message().replace('\n', " "))
    })
}

/// A problem at a byte of a TOML file, as line and column.
pub(crate) fn at_place(file: &str, text: &str, at: usize, problem: String) -> PolicyError {
    let before = text.get(..at).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |at| at.saturating_add(1));
    PolicyError::Toml {
        file: file.to_owned(),
        line: before.matches('\n').count().saturating_add(1),
        column: before.get(line_start..).map_or(0, |tail| tail.chars().count()).saturating_add(1),
        problem,
    }
}

/// A file whose detached signature was verified: exists only after the check.
#[derive(Debug, Clone)]
pub struct SignedFile<'a> {
    text: &'a str,
    signer: String,
}

impl<'a> SignedFile<'a> {
    /// Verifies the detached JWS `signature` over the file's exact bytes.
    ///
    /// # Errors
    /// [`PolicyError::Unsigned`].
    pub fn verify(
        file: &str,
        text: &'a str,
        signature: &str,
        purpose: &Purpose,
        keys: &KeySet,
    ) -> Result<Self, PolicyError> {
        let signer = jws::verify_detached(purpose, text.as_bytes(), signature, keys)
            .map_err(|findings| PolicyError::Unsigned { file: file.to_owned(), findings })?;
        Ok(Self { text, signer })
    }

    /// The verified text.
    #[must_use]
    pub const fn text(&self) -> &'a str {
        self.text
    }

    /// The id of the key that signed it.
    #[must_use]
    pub fn signer(&self) -> &str {
        &self.signer
    }
}
