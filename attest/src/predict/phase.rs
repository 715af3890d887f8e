//! The words with which systemd-pcrphase marks boot phases in PCR 11 (systemd-pcrphase.service(8)).
//!
//! Establishes which words follow one another. systemd before 255 extends them without a log: then nothing but their being the
//! only words that fit says which phase a host is in.

/// A boot phase, in the order in which systemd enters them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Before any word: the stub's measurements alone.
    Boot,
    /// `enter-initrd`, only of an initrd that runs systemd.
    EnterInitrd,
    /// `leave-initrd`, only of an initrd that runs systemd.
    LeaveInitrd,
    /// `sysinit`.
    Sysinit,
    /// `ready`.
    Ready,
    /// `shutdown`.
    Shutdown,
    /// `final`.
    Final,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 7] =
        [Self::Boot, Self::EnterInitrd, Self::LeaveInitrd, Self::Sysinit, Self::Ready, Self::Shutdown, Self::Final];

    /// The word that is measured, and `boot` for the phase before the first one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::EnterInitrd => "enter-initrd",
            Self::LeaveInitrd => "leave-initrd",
            Self::Sysinit => "sysinit",
            Self::Ready => "ready",
            Self::Shutdown => "shutdown",
            Self::Final => "final",
        }
    }

    /// Whether the phase belongs to an initrd that runs systemd.
    #[must_use]
    pub const fn is_initrds(self) -> bool {
        matches!(self, Self::EnterInitrd | Self::LeaveInitrd)
    }

    /// The words measured until this phase, itself included.
    pub fn words(self, systemd_initrd: bool) -> impl Iterator<Item = &'static str> {
        Self::ALL
            .into_iter()
            .filter(move |one| *one != Self::Boot && *one <= self && (systemd_initrd || !one.is_initrds()))
            .map(Self::name)
    }
}
