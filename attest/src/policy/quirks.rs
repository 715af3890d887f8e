//! Deviations of firmware and kernels that a policy may tolerate by name. Each use is visible in the result.
//!
//! A quirk accepts exactly one other reading of the evidence, never a class of them: the values that it explains are computed, so
//! that nothing else passes with it. Quirks of EK certificates are in `identity::class`.

/// One deviation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quirk {
    /// What policies call it. A finding of the same name, below its subject, shows each use.
    pub id: &'static str,
    /// Whom it concerns.
    pub scope: &'static str,
    /// What they do, and what is accepted therefore.
    pub reason: &'static str,
}

/// systemd's phases.
pub const PCRPHASE_UNLOGGED: &str = "pcrphase-unlogged";
/// The padded template digest.
pub const IMA_PADDED_SHA1: &str = "ima-padded-sha1";
/// The two actions at the end of boot services.
pub const EXIT_BOOT_SERVICES_UNLOGGED: &str = "exit-boot-services-unlogged";
/// The locality of TPM2_Startup.
pub const STARTUP_LOCALITY_MISSING: &str = "startup-locality-missing";

/// Every quirk of logs.
pub const QUIRKS: [Quirk; 4] = [
    Quirk {
        id: PCRPHASE_UNLOGGED,
        scope: "systemd before 255, PCR 11",
        reason: "boot phases are extended without a log: the known words are accepted, in their order, of a host that sends no log of them",
    },
    Quirk {
        id: IMA_PADDED_SHA1,
        scope: "Linux before 5.8, PCR 10",
        reason: "every bank is extended with the SHA-1 template digest, padded with zeros",
    },
    Quirk {
        id: EXIT_BOOT_SERVICES_UNLOGGED,
        scope: "some firmware and kernels, PCR 5",
        reason: "the two Exit Boot Services actions are extended after the log was read: exactly these two are accepted at its end",
    },
    Quirk {
        id: STARTUP_LOCALITY_MISSING,
        scope: "firmware that starts the TPM from locality 3 or 4, PCR 0",
        reason: "the log leaves the StartupLocality event out: PCR 0 may begin with 3 or 4, which no software can set",
    },
];
