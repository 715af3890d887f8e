//! Files that a key of the policy signed, and the keys that the kernel's keyrings were measured to hold.
//!
//! A file's signature stands in its entry (`ima-sig`, `ima-sigv2`, `ima-modsig`) and is verified here, whatever the kernel did with
//! it. A measured key signs only if a key that the policy names issued its certificate: root can extend an entry for any key.
//! What is kept of such a key between rounds is the key; it is forgotten with the boot.

use crate::check::violated;
use crate::finding::{Finding, Severity};
use crate::ima::FileMeasurement;
use crate::ima::keys::{ImaKey, KeptKey};
use crate::ima::signature::{FileSignature, is_signed};
use crate::policy::ImaRules;

/// Most signatures that one round verifies: above what a host's whole root file system has signed, below what a list of a million
/// entries could ask for.
const SIGNATURES_MAX: u32 = 20_000;
/// Most measured keys that are followed: a keyring of a distribution's kernel holds a handful.
const KEYS_MAX: usize = 8;

/// Who may sign files, and how many signatures are left to verify.
pub(super) struct Signers<'a> {
    rules: &'a ImaRules,
    budget: u32,
}

/// What a keyring's entry is.
pub(super) enum MeasuredKey {
    /// Issued by a key that the policy names for this keyring.
    Signer,
    /// Issued by nobody whom the policy names for it.
    Stranger,
}

impl<'a> Signers<'a> {
    pub(super) const fn of(rules: &'a ImaRules) -> Self {
        Self { rules, budget: SIGNATURES_MAX }
    }

    /// Whether a key of the policy, or one that a keyring was measured to hold, signed this file.
    pub(super) fn signed(&mut self, file: &FileMeasurement<'_>, kept: &[KeptKey]) -> bool {
        let keys = self.rules.signers.iter().chain(kept.iter().map(|key| &key.0));
        file.signature.is_some() && is_signed(file, keys, &mut self.budget)
    }

    /// Looks at an entry of a keyring that the policy names, and keeps a key that may sign. None for any other entry.
    pub(super) fn keyring(&self, file: &FileMeasurement<'_>, kept: &mut Vec<KeptKey>) -> Option<MeasuredKey> {
        let certificate = file.buffer?;
        let issuers = self.rules.keyrings.get(std::str::from_utf8(file.path).ok()?)?;
        let Some(key) = ImaKey::issued(certificate, issuers) else {
            return Some(if violated("ima.unknown-key", true) { MeasuredKey::Stranger } else { MeasuredKey::Signer });
        };
        let key = KeptKey(key);
        if kept.len() < KEYS_MAX && !kept.contains(&key) {
            kept.push(key);
        }
        Some(MeasuredKey::Signer)
    }
}

/// A key on a keyring whose keys sign files.
pub(super) fn unknown_key(weight: Severity, file: &FileMeasurement<'_>) -> Finding {
    Finding::new(
        "ima.unknown-key",
        weight,
        "a key entered a keyring that the policy names, and none of its issuers signed it",
    )
    .expected("a certificate that a key of [ima.keyrings] issued, or that the references name")
    .found(format!(
        "{} {}",
        file.path_lossy(),
        file.file_digest().map_or_else(String::new, |digest| format!("{digest:?}"))
    ))
    .fix("find out who added the key; name its issuer in [ima.keyrings] if it belongs there")
}

/// The key that an unknown file's signature names: for display.
pub(super) fn signer_of(file: &FileMeasurement<'_>) -> Option<String> {
    file.signature.and_then(FileSignature::parse).map(|signature| signature.key_id())
}
