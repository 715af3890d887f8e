//! Waivers: an operator's signed word that named hosts need not meet named controls until a date.
//!
//! SURFACE, "Keys": a detached JWS over the file's exact bytes by an offline key. A waiver travels inside the report that it excuses something in,
//! so that whoever reads the report verifies it again by its own keys, clock and name of the host. Establishes that a failure counts as waived
//! only by a waiver that is signed, not ended, for this host and this control, and part of what is measured. It never turns an error, or
//! what nobody looked at, into anything.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::outcome::Status;
use super::report::{Counts, ProfileReport};
use super::{CONTROLS_MAX, TEXT_MAX};
use crate::digest::sha256;
use crate::finding::{Finding, Findings};
use crate::jws::{KeySet, Purpose};
use crate::manifest::FileDigest;
use crate::policy::{PolicyError, SignedFile, parse_toml};

/// Signatures over waivers.
pub const WAIVER: Purpose = Purpose {
    typ: "hostmark-waiver",
    malformed: "waiver.malformed-signature",
    algorithm: "waiver.algorithm",
    purpose: "waiver.purpose",
    key: "waiver.key",
    signature: "waiver.signature",
};

/// Most bytes of a waiver's file: some hundred names of hosts.
pub const WAIVER_MAX: usize = 16 << 10;
/// Most waivers that one report carries.
pub const WAIVERS_MAX: usize = 64;
/// Most hosts of one waiver.
const HOSTS_MAX: usize = 256;

/// A waiver as it lies beside its signature and as a report carries it: nobody has verified it yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedWaiver {
    /// The file's text.
    pub text: String,
    /// The detached signature over it.
    pub signature: String,
}

/// A waiver whose signature was verified: exists only after the check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiver {
    raw: Raw,
    expires: OffsetDateTime,
    digest: FileDigest,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    controls: BTreeSet<String>,
    hosts: BTreeSet<String>,
    reason: String,
    approver: String,
    expires: String,
}

impl SignedWaiver {
    /// SHA-256 of the file's text: the name that an outcome gives it.
    #[must_use]
    pub fn digest(&self) -> FileDigest {
        FileDigest(sha256(&[self.text.as_bytes()]))
    }

    /// Verifies and reads it. `file` is for messages.
    ///
    /// # Errors
    /// [`PolicyError`]: no trusted signature over exactly these bytes, or not a waiver.
    pub fn verify(&self, file: &str, signers: &KeySet) -> Result<Waiver, PolicyError> {
        let signed = SignedFile::verify(file, &self.text, &self.signature, &WAIVER, signers)?;
        Waiver::parse(file, signed.text())
    }
}

impl Waiver {
    /// Reads a waiver's text, to see that it is one before it is signed. Nothing is excused by it.
    ///
    /// # Errors
    /// [`PolicyError`] naming line and column, or what is invalid.
    pub fn parse(file: &str, text: &str) -> Result<Self, PolicyError> {
        let invalid = |problem: &str| {
            Err(PolicyError::Invalid { file: file.to_owned(), id: "waiver.invalid", problem: problem.to_owned() })
        };
        if text.len() > WAIVER_MAX {
            return invalid(&format!("it is larger than {WAIVER_MAX} bytes"));
        }
        let raw: Raw = parse_toml(file, text)?;
        if raw.controls.is_empty() || raw.controls.len() > CONTROLS_MAX {
            return invalid("`controls` names at least one control");
        }
        if raw.hosts.is_empty() || raw.hosts.len() > HOSTS_MAX {
            return invalid(&format!("`hosts` names 1 to {HOSTS_MAX} hosts, each by its node name or id"));
        }
        // A pattern would excuse hosts that nobody thought of.
        if let Some(name) = raw.hosts.iter().find(|name| !is_name(name)) {
            let name = crate::finding::one_line(name);
            return invalid(&format!("`{name}` in `hosts` is no node name and no host id"));
        }
        let unsaid = |text: &str| text.trim().is_empty() || text.len() > TEXT_MAX || text.chars().any(char::is_control);
        if unsaid(&raw.reason) || unsaid(&raw.approver) {
            return invalid(&format!("`reason` and `approver` have 1 to {TEXT_MAX} bytes on one line"));
        }
        let Ok(expires) = OffsetDateTime::parse(&raw.expires, &Rfc3339) else {
            return invalid("`expires` is a time like 2027-01-31T00:00:00Z");
        };
        Ok(Self { raw, expires, digest: FileDigest(sha256(&[text.as_bytes()])) })
    }

    /// The controls that it is about.
    #[must_use]
    pub const fn controls(&self) -> &BTreeSet<String> {
        &self.raw.controls
    }

    /// The hosts that it is for, by node name or id.
    #[must_use]
    pub const fn hosts(&self) -> &BTreeSet<String> {
        &self.raw.hosts
    }

    /// Why, by whom and until when, in one line.
    #[must_use]
    pub fn told(&self) -> String {
        crate::finding::one_line(&format!("{} ({}, until {})", self.raw.reason, self.raw.approver, self.raw.expires))
    }

    /// Whether it counts on the host that has one of `names`, at `now`.
    fn counts(&self, names: &[&str], now: OffsetDateTime, findings: &mut Findings) -> bool {
        let what = self.digest;
        let here = findings.check("waiver.host", !names.iter().any(|name| self.raw.hosts.contains(*name)), || {
            Finding::warning("", format!("waiver {what} is for other hosts"))
                .expected(self.raw.hosts.iter().cloned().collect::<Vec<_>>().join(", "))
                .found(names.join(", "))
                .fix("take it away here, or have one signed that names this host")
        });
        let open = findings.check("waiver.expired", now >= self.expires, || {
            Finding::warning("", format!("waiver {what} has ended"))
                .expected(format!("a time before {}", self.raw.expires))
                .found(now.format(&Rfc3339).unwrap_or_default())
                .fix("meet the control, or have a new waiver signed")
        });
        here && open
    }
}

/// RFC 1123, which a host's id is too.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    !name.is_empty() && name.len() <= 253 && name.bytes().all(fits)
}

impl ProfileReport {
    /// Takes waivers along with the report, those that name a control that fails here. It does not yet count them: [`Self::waived_by`] does.
    ///
    /// # Errors
    /// More waivers than a report may carry.
    pub fn carry(&mut self, waivers: impl IntoIterator<Item = (SignedWaiver, Waiver)>) -> Result<(), PolicyError> {
        let failing: BTreeSet<&str> = self
            .outcomes
            .iter()
            .filter(|outcome| matches!(outcome.status, Status::Fail | Status::Waived))
            .map(|outcome| outcome.control.as_str())
            .collect();
        let mut carried: BTreeSet<SignedWaiver> = std::mem::take(&mut self.waivers).into_iter().collect();
        for (signed, waiver) in waivers {
            if waiver.controls().iter().any(|control| failing.contains(control.as_str())) {
                carried.insert(signed);
            }
        }
        if carried.len() > WAIVERS_MAX {
            let problem =
                format!("{} waivers are about controls that fail here; a report carries {WAIVERS_MAX}", carried.len());
            return Err(PolicyError::Invalid { file: "waivers".to_owned(), id: "waiver.count", problem });
        }
        self.waivers = carried.into_iter().collect();
        Ok(())
    }

    /// The report as it counts for the host that has one of `names`, at `now`: every failure fails, whatever the report says, unless a waiver
    /// that the report carries bears it. The findings tell of waivers that do not count.
    #[must_use]
    pub fn waived_by(mut self, signers: &KeySet, names: &[&str], now: OffsetDateTime) -> (Self, Findings) {
        let mut findings = Findings::new();
        let mut counting = Vec::new();
        for signed in &self.waivers {
            match signed.verify(&format!("waiver {}", signed.digest()), signers) {
                Ok(waiver) if waiver.counts(names, now, &mut findings) => counting.push(waiver),
                Ok(_) => {}
                Err(PolicyError::Unsigned { findings: unsigned, .. }) => findings.append(unsigned),
                Err(error) => findings.push(Finding::warning("waiver.invalid", error.to_string())),
            }
        }
        // Of several the one that ends last bears it.
        counting.sort_by_key(|waiver| std::cmp::Reverse((waiver.expires, waiver.digest)));
        for outcome in &mut self.outcomes {
            let claimed = match outcome.status {
                Status::Waived => true,
                Status::Fail => false,
                Status::Pass | Status::Error | Status::NotApplicable | Status::Manual => continue,
            };
            let bearing = counting.iter().find(|waiver| waiver.controls().contains(&outcome.control));
            let measured = findings.check("waiver.unmeasured", claimed && bearing.is_none(), || {
                Finding::warning(
                    "",
                    format!("{} is called waived, and no waiver in the report bears that", outcome.control),
                )
                .fix("put the waiver and its signature beside the profile on the host, and observe again")
            });
            (outcome.status, outcome.waiver) = match bearing {
                Some(waiver) => (Status::Waived, Some(waiver.digest)),
                None if claimed && measured => continue,
                None => (Status::Fail, None),
            };
        }
        self.counts = Counts::of(&self.outcomes);
        (self, findings)
    }
}

#[cfg(test)]
#[path = "waiver_tests.rs"]
mod tests;
