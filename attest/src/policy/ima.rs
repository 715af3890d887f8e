//! `[ima]` of an appraisal policy: which IMA policy the hosts run, what unknown files cost, and who may sign files.
//!
//! Files are allowed by the digests of the references, by a signature, or by a signature of a key that a keyring was measured to
//! hold. Nothing is excluded: a path is relative to a mount namespace, and excuses no entry.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::OnUnknown;
use crate::ima::ImaKey;

/// How the IMA list is judged.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImaRules {
    /// The IMA policy that the host must run.
    pub policy: ImaPolicy,
    /// What a file whose digest no reference names costs.
    pub unknown: OnUnknown,
    /// Keys, as PEM: a file with a signature of one of them is as good as one that a reference names.
    #[serde(default)]
    pub signers: Vec<ImaKey>,
    /// Keyrings of the kernel, each with the keys that issue its certificates: a certificate that one of them signed, measured as
    /// it entered the keyring, makes its key a signer.
    #[serde(default)]
    pub keyrings: BTreeMap<String, Vec<ImaKey>>,
}

impl ImaRules {
    /// Whether the policy names anybody who signs files.
    #[must_use]
    pub fn names_signers(&self) -> bool {
        !self.signers.is_empty() || !self.keyrings.is_empty()
    }
}

/// What the kernel is told to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImaPolicy {
    /// configs/ima/container-host.policy: every program and executable mapping, in memory too, but for overlay file systems.
    ContainerHost,
    /// The kernel's built-in `tcb`. It leaves tmpfs and memory files out, so that `runtime` never affirms.
    Tcb,
}

/// A keyring has the kernel's kind of name, which no path of a file has, and somebody issues its certificates.
pub(super) fn is_keyring((name, issuers): (&String, &Vec<ImaKey>)) -> bool {
    let plain = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    name.strip_prefix(['.', '_']).is_some_and(plain) && !issuers.is_empty()
}
