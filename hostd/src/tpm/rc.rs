//! TPM response codes in words.
//!
//! TPM 2.0 Library Part 2, 6.6 (TPM_RC). Names the codes an operator can meet and says what to do; others stay numbers.

use std::fmt;

/// A TPM_RC other than TPM_RC_SUCCESS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseCode(pub u32);

/// TPM_RC_LOCKOUT: authorizations are refused for a while.
const LOCKOUT: u32 = 0x921;
const BAD_AUTH: u32 = 0x0A2;
const AUTH_FAIL: u32 = 0x08E;
const HANDLE: u32 = 0x08B;
const INTEGRITY: u32 = 0x09F;
const NV_DEFINED: u32 = 0x14C;
const REFERENCE_H0: u32 = 0x910;
const OBJECT_MEMORY: u32 = 0x902;
const SESSION_MEMORY: u32 = 0x903;
const INITIALIZE: u32 = 0x100;
const LOCALITY: u32 = 0x907;
const PCR: u32 = 0x127;
/// The TPM asks to send the same command again: RETRY, YIELDED, TESTING, NV_RATE.
const AGAIN: [u32; 4] = [0x922, 0x908, 0x90A, 0x920];

impl ResponseCode {
    /// The code without the number of the parameter, handle or session it is about (Part 2, 6.6.2).
    #[must_use]
    pub const fn base(self) -> u32 {
        if self.0 & 0x80 == 0 { self.0 } else { self.0 & 0x0BF }
    }

    /// Whether the TPM asks to send the same command again.
    #[must_use]
    pub fn again(self) -> bool {
        AGAIN.contains(&self.0)
    }

    /// Whether the named object, NV index or persistent handle does not exist.
    #[must_use]
    pub fn no_such_handle(self) -> bool {
        self.base() == HANDLE || (REFERENCE_H0..=REFERENCE_H0.saturating_add(6)).contains(&self.0)
    }

    /// Whether a stored key is not this TPM's (its seeds changed, or the blob belongs to another TPM).
    #[must_use]
    pub fn foreign_blob(self) -> bool {
        self.base() == INTEGRITY
    }

    /// Whether an authorization value was wrong.
    #[must_use]
    pub fn wrong_auth(self) -> bool {
        matches!(self.base(), BAD_AUTH | AUTH_FAIL)
    }

    fn words(self) -> (&'static str, &'static str) {
        match (self.0, self.base()) {
            (LOCKOUT, _) => {
                ("TPM_RC_LOCKOUT", "wait for the lockout interval, or reset it with the lockout authorization")
            }
            (OBJECT_MEMORY, _) => {
                ("TPM_RC_OBJECT_MEMORY", "use /dev/tpmrm0, or end the other program that loads objects")
            }
            (SESSION_MEMORY, _) => {
                ("TPM_RC_SESSION_MEMORY", "use /dev/tpmrm0, or end the other program that opens sessions")
            }
            (INITIALIZE, _) => {
                ("TPM_RC_INITIALIZE", "the TPM was not started: firmware (or swtpm --flags startup-clear) must do it")
            }
            (LOCALITY, _) => ("TPM_RC_LOCALITY", "this PCR can not be extended by the operating system"),
            (NV_DEFINED, _) => ("TPM_RC_NV_DEFINED", "the NV index exists already"),
            (PCR, _) => ("TPM_RC_PCR", "the PCR was changed meanwhile"),
            (_, BAD_AUTH) => ("TPM_RC_BAD_AUTH", "give the right authorization with --tpm-auth-file"),
            (_, AUTH_FAIL) => ("TPM_RC_AUTH_FAIL", "give the right authorization with --tpm-auth-file"),
            (_, HANDLE) => ("TPM_RC_HANDLE", "the object does not exist in this TPM"),
            (_, INTEGRITY) => {
                ("TPM_RC_INTEGRITY", "the stored key is of another TPM, or the TPM was cleared: provision again")
            }
            _ => ("", ""),
        }
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words() {
            ("", _) => write!(out, "TPM_RC {:#05x}", self.0),
            (name, fix) => write!(out, "{name} ({:#05x}); {fix}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_lose_the_position_they_speak_of() {
        // Session 1 failed its authorization; handle 1 does not exist; parameter 1 has a bad integrity value.
        assert!(ResponseCode(0x98E).wrong_auth());
        assert!(ResponseCode(0x18B).no_such_handle());
        assert!(ResponseCode(0x1DF).foreign_blob());
        assert!(ResponseCode(0x922).again());
        assert!(!ResponseCode(0x921).again());
    }
}
