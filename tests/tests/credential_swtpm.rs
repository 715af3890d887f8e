//! MakeCredential against a real TPM implementation: swtpm opens what `identity::credential` makes, for each kind of EK.
//!
//! Also row A10 of the attack table: another TPM, or another AK's Name, opens nothing.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use hostmark_attest::identity::class::TrustBundle;
use hostmark_attest::identity::credential::{Credential, ProtectionKey, make_credential};
use hostmark_attest::identity::ek::verify_ek;
use hostmark_attest::tpm::public::Public;

/// A software TPM on its own state and its own pair of ports; ends with the test.
struct Swtpm {
    process: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Swtpm {
    /// None, and a line that says so, where swtpm or tpm2-tools are not installed.
    fn start() -> Option<Self> {
        for tool in ["swtpm", "tpm2_createek"] {
            if Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
                eprintln!("skipped: {tool} is not installed");
                return None;
            }
        }
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            let port = free_pair();
            let mut process = Command::new("swtpm")
                .args(["socket", "--tpm2", "--tpmstate", &format!("dir={}", dir.path().display())])
                .args(["--server", &format!("type=tcp,bindaddr=127.0.0.1,port={port}")])
                .args(["--ctrl", &format!("type=tcp,bindaddr=127.0.0.1,port={}", port + 1)])
                .args(["--flags", "not-need-init,startup-clear"])
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let end = Instant::now() + Duration::from_secs(10);
            while Instant::now() < end && process.try_wait().unwrap().is_none() {
                // The control port: the server port takes one client in its life.
                if TcpStream::connect(("127.0.0.1", port + 1)).is_ok() {
                    return Some(Self { process, port, dir });
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        panic!("swtpm does not start");
    }

    /// Runs a tpm2-tools command in this TPM's directory. True when it succeeds.
    fn tool(&self, command: &str) -> bool {
        let mut words = command.split(' ');
        let out = Command::new(words.next().unwrap())
            .args(words)
            .args(["--tcti", &format!("swtpm:host=127.0.0.1,port={}", self.port)])
            .current_dir(self.dir.path())
            .env("TSS2_LOG", "all+NONE")
            .output()
            .unwrap();
        if !out.status.success() {
            eprintln!("{command}: {}", String::from_utf8_lossy(&out.stderr));
        }
        out.status.success()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.dir.path().join(name)).unwrap()
    }

    /// An EK of this kind and an AK beside it: the key to protect with, and the AK's Name. The contexts stay in files.
    fn enrol(&self, kind: &str) -> (ProtectionKey, Vec<u8>) {
        assert!(self.tool(&format!("tpm2_createek -G {kind} -c ek.ctx -u ek.pub")));
        assert!(self.tool("tpm2_flushcontext -t"));
        self.ak("ak");
        (protection_key(&self.read("ek.pub")), self.read("ak.name"))
    }

    /// An AK under the EK, in `<name>.ctx`, `<name>.name`.
    fn ak(&self, name: &str) {
        assert!(self.tool(&format!("tpm2_createak -C ek.ctx -G ecc -g sha256 -s ecdsa -c {name}.ctx -n {name}.name")));
        assert!(self.tool("tpm2_flushcontext -t"));
    }

    /// TPM2_ActivateCredential. None when the TPM refuses.
    fn activate(&self, ak: &str, credential: &Credential) -> Option<Vec<u8>> {
        // The file format of tpm2-tools: a magic, a version, then the two structures.
        let mut blob = vec![0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1];
        blob.extend_from_slice(&credential.id_object);
        blob.extend_from_slice(&credential.encrypted_secret);
        std::fs::write(self.dir.path().join("credential"), blob).unwrap();
        let _ = std::fs::remove_file(self.dir.path().join("opened"));
        let mut command = format!("tpm2_activatecredential -c {ak}.ctx -C ek.ctx -i credential -o opened");
        // EK Credential Profile: the low-range templates want PolicySecret(endorsement), the high-range ones also take the empty password.
        let low_range = self.read("ek.pub")[9] & 0x40 == 0;
        if low_range {
            assert!(self.tool("tpm2_startauthsession --policy-session -S session"));
            assert!(self.tool("tpm2_policysecret -S session -c e"));
            command.push_str(" -P session:session");
        }
        let opened = self.tool(&command);
        if low_range {
            assert!(self.tool("tpm2_flushcontext session"));
        }
        assert!(self.tool("tpm2_flushcontext -t"));
        opened.then(|| self.read("opened"))
    }
}

/// A port that is free together with its successor, at this moment.
fn free_pair() -> u16 {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

/// The EK as the verifier would judge it: without a certificate.
fn protection_key(tpm2b: &[u8]) -> ProtectionKey {
    let public = Public::parse_tpm2b(tpm2b).unwrap();
    let now = time::OffsetDateTime::now_utc();
    verify_ek(&public, None, &[], &TrustBundle::new(), now).unwrap().protection().clone()
}

fn make(ek: &ProtectionKey, name: &[u8], secret: &[u8]) -> Credential {
    let mut random = |out: &mut [u8]| SystemRandom::new().fill(out).unwrap();
    make_credential(ek, name, secret, &mut random).unwrap()
}

#[test]
fn swtpm_opens_the_credential_for_each_kind_of_ek() {
    let Some(tpm) = Swtpm::start() else { return };
    for kind in ["rsa", "ecc256", "ecc384"] {
        let (ek, name) = tpm.enrol(kind);
        for secret in [&[0x5a; 32][..], b"s"] {
            assert_eq!(tpm.activate("ak", &make(&ek, &name, secret)).as_deref(), Some(secret), "{kind}");
        }
    }
}

#[test]
fn a10_another_tpm_or_another_ak_opens_nothing() {
    let (Some(tpm), Some(other)) = (Swtpm::start(), Swtpm::start()) else { return };
    for kind in ["rsa", "ecc256", "ecc384"] {
        let (ek, name) = tpm.enrol(kind);
        other.enrol(kind);
        let secret = [0x5a; 32];
        let made = make(&ek, &name, &secret);
        assert_eq!(tpm.activate("ak", &made).as_deref(), Some(&secret[..]), "honest: {kind}");

        assert_eq!(other.activate("ak", &made), None, "another TPM: {kind}");
        tpm.ak("second");
        assert_eq!(tpm.activate("second", &made), None, "another AK of the same TPM: {kind}");
        let mut flipped = made.clone();
        *flipped.id_object.last_mut().unwrap() ^= 1;
        assert_eq!(tpm.activate("ak", &flipped), None, "a changed credential: {kind}");
        let elsewhere = protection_key(&other.read("ek.pub"));
        assert_eq!(tpm.activate("ak", &make(&elsewhere, &name, &secret)), None, "another EK: {kind}");
    }
}
