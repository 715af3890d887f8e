//! systemd's tpm2-measure.log as `systemd-pcrextend` writes it: made, not recorded.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(unreachable_pub, missing_docs, reason = "shared by test binaries")]

use hostmark_attest::digest::{Digest, HashAlg};

/// One measurement: the PCR, the event type and text as logged, and what is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    pub pcr: u8,
    pub kind: &'static str,
    pub text: String,
    pub hashed: Vec<u8>,
}

impl Measured {
    pub fn new(pcr: u8, kind: &'static str, text: &str) -> Self {
        Self { pcr, kind, text: text.to_owned(), hashed: text.as_bytes().to_vec() }
    }

    pub fn phase(word: &str) -> Self {
        Self::new(11, "phase", word)
    }

    /// The digest is a keyed one: nobody can recompute it from the log.
    pub fn volume_key(volume: &str) -> Self {
        let hashed = b"keyed with the volume's key".to_vec();
        Self { hashed, ..Self::new(15, "volume-key", &format!("cryptsetup:{volume}:1-2-3")) }
    }

    pub fn machine_id(id: &str) -> Self {
        Self::new(15, "machine-id", &format!("machine-id:{id}"))
    }

    /// The same of another PCR.
    pub fn of(self, pcr: u8) -> Self {
        Self { pcr, ..self }
    }

    /// What the PCR is extended by.
    pub fn digest(&self, bank: HashAlg) -> Digest {
        bank.hash(&[&self.hashed]).unwrap()
    }

    /// The record.
    pub fn line(&self, banks: &[HashAlg]) -> String {
        let one = |bank: &HashAlg| format!("{{\"hashAlg\":\"{bank}\",\"digest\":\"{}\"}}", self.digest(*bank));
        let digests: Vec<String> = banks.iter().map(one).collect();
        let (pcr, digests, text, kind) = (self.pcr, digests.join(","), &self.text, self.kind);
        format!(
            "\u{1e}{{\"pcr\":{pcr},\"digests\":[{digests}],\"content_type\":\"systemd\",\"content\":{{\"string\":\"{text}\",\
             \"bootId\":\"3f1c52a07c0e4b6e9f0a5d1f0a3f8b11\",\"timestamp\":1234567,\"eventType\":\"{kind}\"}}}}\n"
        )
    }
}

/// A boot with an encrypted root, up to `ready`.
pub fn boot() -> Vec<Measured> {
    vec![
        Measured::phase("enter-initrd"),
        Measured::volume_key("root"),
        Measured::phase("leave-initrd"),
        Measured::machine_id("0123456789abcdef0123456789abcdef"),
        Measured::new(15, "filesystem", "file-system:/:ext4:4-5-6::::"),
        Measured::phase("sysinit"),
        Measured::phase("ready"),
    ]
}

/// The log of these measurements, in these banks.
pub fn log(measured: &[Measured], banks: &[HashAlg]) -> Vec<u8> {
    measured.iter().map(|one| one.line(banks)).collect::<String>().into_bytes()
}
