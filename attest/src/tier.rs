//! AR4SI: tiers, the trustworthiness vector, and the basis of a claim.
//!
//! draft-ietf-rats-ar4si §2.3 (tiers and their numbers). Every claim starts at none; only a named check raises it (law 1).
//! Which claim each submodule sets:
//!
//! | submodule | claim | set by |
//! |---|---|---|
//! | boot | hardware | firmware PCRs 0, 2, 3 equal a reference |
//! | boot | executables | boot code PCRs 4, 9, 11 equal a reference |
//! | boot | configuration | PCRs 7, 8, 12, 14 equal a reference, and the policy's boot rules |
//! | runtime | executables | every IMA entry's digest is a reference |
//! | engine | configuration, executables | the engine manifest equals a reference |
//! | tag | sourced-data | the asset tag's provisioning signature |
//! | platform | instance-identity | the EK chain's class |

use serde::{Deserialize, Serialize};

use crate::finding::Severity;

/// A trustworthiness tier, ordered from best to worst for combining: the worst claim decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Checked and good.
    Affirming,
    /// Checked, with a reservation.
    Warning,
    /// Nothing was established.
    None,
    /// Checked and bad.
    Contraindicated,
}

impl Tier {
    /// The tier's representative AR4SI value.
    #[must_use]
    pub const fn value(self) -> i8 {
        match self {
            Self::None => 0,
            Self::Affirming => 2,
            Self::Warning => 32,
            Self::Contraindicated => 96,
        }
    }

    /// Whether this tier meets a demand: affirming meets both, warning only a demand for warning; nothing else meets any.
    #[must_use]
    pub const fn meets(self, wanted: Self) -> bool {
        matches!((self, wanted), (Self::Affirming, Self::Affirming | Self::Warning) | (Self::Warning, Self::Warning))
    }

    /// What a finding of this weight leaves of the tier.
    #[must_use]
    pub fn after(self, worst: Option<Severity>) -> Self {
        match worst {
            Some(Severity::Error) => Self::Contraindicated,
            Some(Severity::Warning) => self.max(Self::Warning),
            Some(Severity::Info) | None => self,
        }
    }

    /// Lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Affirming => "affirming",
            Self::Warning => "warning",
            Self::None => "none",
            Self::Contraindicated => "contraindicated",
        }
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name())
    }
}

/// What a claim rests on (law 8: reported is not proven). Ordered from strongest to weakest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// Signed by hardware or by its maker.
    HardwareSigned,
    /// Data whose digest was recomputed and that replays to a quoted PCR.
    PcrAnchored,
    /// hostd's word.
    Reported,
}

impl Basis {
    /// The best tier that this basis can carry: hostd's word never affirms.
    #[must_use]
    pub const fn cap(self) -> Tier {
        match self {
            Self::HardwareSigned | Self::PcrAnchored => Tier::Affirming,
            Self::Reported => Tier::Warning,
        }
    }
}

/// A subsystem that is appraised on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Submodule {
    /// Firmware to kernel.
    Boot,
    /// What the kernel executed since.
    Runtime,
    /// The container engines.
    Engine,
    /// The hardened profile.
    Profile,
    /// The asset tag.
    Tag,
    /// The TPM and the machine.
    Platform,
}

impl Submodule {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 6] = [Self::Boot, Self::Runtime, Self::Engine, Self::Profile, Self::Tag, Self::Platform];

    /// Lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Runtime => "runtime",
            Self::Engine => "engine",
            Self::Profile => "profile",
            Self::Tag => "tag",
            Self::Platform => "platform",
        }
    }
}

impl std::fmt::Display for Submodule {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_never_meets_a_demand() {
        for (have, want, expect) in [
            (Tier::Affirming, Tier::Warning, true),
            (Tier::Warning, Tier::Affirming, false),
            (Tier::Warning, Tier::Warning, true),
            (Tier::None, Tier::Warning, false),
            (Tier::None, Tier::None, false),
            (Tier::Contraindicated, Tier::Warning, false),
        ] {
            assert_eq!(have.meets(want), expect, "{have} for {want}");
        }
        assert_eq!(Tier::None.after(Some(Severity::Warning)), Tier::None, "a reservation gives no credit");
    }
}
