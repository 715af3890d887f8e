//! B22 on a real software TPM: a writer of the host log is ended by kill -9, again and again, and never parts log and PCR.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hostmark_attest::digest::{Digest, HashAlg};
use hostmark_attest::host_log::{Event, HostLog as Parsed, HostLogContext};
use hostmark_hostd::host_log::{HostLog, HostLogError, HostLogPlace, INTENT_FILE, PcrBank};
use hostmark_hostd::tpm::{Auth, Tcti, Tpm, TpmError};
use hostmark_tests::swtpm::{self, LocalCa, Swtpm};

const BOOT: &str = "7c1d9a52-0d53-4a4b-9d0a-0c8f9d2f6f10";
/// Kills at moments that nobody chose.
const KILLS: u64 = 20;

/// A TPM that stops before or after an extension and says so, for the kills at chosen moments.
struct Stalling {
    tpm: Tpm,
    /// `before`, `after`, or nothing.
    at: String,
    mark: std::path::PathBuf,
}

impl Stalling {
    fn stall(&self, moment: &str) {
        if self.at == moment {
            std::fs::write(&self.mark, moment).unwrap();
            std::thread::sleep(Duration::from_secs(60));
        }
    }
}

impl PcrBank for Stalling {
    type Error = TpmError;

    fn read(&self, pcr: u8) -> Result<Digest, TpmError> {
        PcrBank::read(&self.tpm, pcr)
    }

    fn extend(&self, pcr: u8, digest: Digest) -> Result<(), TpmError> {
        self.stall("before");
        PcrBank::extend(&self.tpm, pcr, digest)?;
        self.stall("after");
        Ok(())
    }
}

fn place(directory: &Path) -> HostLogPlace {
    let start = Digest::zero(HashAlg::Sha256);
    HostLogPlace { directory: directory.join("run"), pcr: 13, start, boot_id: BOOT.to_owned() }
}

fn open(tcti: &str) -> Tpm {
    let tcti: Tcti = tcti.parse().unwrap();
    Tpm::open(&tcti, Auth::default()).unwrap()
}

/// Appends until it is killed.
#[test]
#[ignore = "the process that the other tests kill"]
fn writer() {
    let Ok(directory) = std::env::var("WRITER_DIRECTORY") else { return };
    let directory = Path::new(&directory);
    let tpm = open(&std::env::var("WRITER_TCTI").unwrap());
    let at = std::env::var("WRITER_STALL").unwrap_or_default();
    let bank = Stalling { tpm, at, mark: directory.join("mark") };
    let mut log = HostLog::open(place(directory), bank).unwrap();
    std::fs::write(directory.join("open"), "").unwrap();
    for number in 0u64.. {
        let mut sha256 = [0u8; 32];
        sha256[..8].copy_from_slice(&number.to_be_bytes());
        sha256[8..12].copy_from_slice(&std::process::id().to_be_bytes());
        log.note_manifest(sha256).unwrap();
    }
}

fn spawn(directory: &Path, tcti: &str, stall: &str) -> Child {
    for mark in ["open", "mark"] {
        let _ = std::fs::remove_file(directory.join(mark));
    }
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--ignored", "--nocapture"])
        .env("WRITER_DIRECTORY", directory)
        .env("WRITER_TCTI", tcti)
        .env("WRITER_STALL", stall)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn appears(path: &Path) -> bool {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        if path.exists() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

/// Recovers as hostd does at its start, and lets the verifier's code judge. Returns the number of records.
fn recovered(directory: &Path, tcti: &str) -> usize {
    let mut log = HostLog::open(place(directory), open(tcti)).unwrap();
    let bytes = log.lock().unwrap().snapshot().to_vec();
    drop(log);
    let quoted = PcrBank::read(&open(tcti), 13).unwrap();
    let start = Digest::zero(HashAlg::Sha256);
    let verified = Parsed::parse(&bytes)
        .unwrap()
        .verify(&HostLogContext { pcr: 13, start, quoted, boot_id: BOOT })
        .unwrap_or_else(|findings| panic!("{findings:?}"));
    assert!(matches!(verified.events()[0], Event::Boot { .. }));
    verified.events().len()
}

#[test]
fn b22_kill_9_between_intent_extend_and_mark_never_parts_log_and_pcr() {
    if !swtpm::available("B22 on a software TPM") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let ca = LocalCa::new(&directory.path().join("ca")).unwrap();
    let swtpm = Swtpm::start(&directory.path().join("tpm"), &ca).unwrap();
    let (directory, tcti) = (directory.path(), swtpm.tcti());

    // The honest twin: a writer that is never killed.
    let before = {
        let mut log = HostLog::open(place(directory), open(&tcti)).unwrap();
        log.note_manifest([1; 32]).unwrap();
        drop(log);
        recovered(directory, &tcti)
    };
    assert_eq!(before, 2);

    // Chosen moments: the intent is open and not extended, and open and extended.
    let mut records = before;
    for stall in ["before", "after"] {
        let mut child = spawn(directory, &tcti, stall);
        assert!(appears(&directory.join("mark")), "{stall}: the writer stalls");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(directory.join("run").join(INTENT_FILE).exists(), "{stall}: the intent is open");
        let now = recovered(directory, &tcti);
        assert_eq!(now, records + 1, "{stall}: the intended event is kept, once");
        records = now;
    }

    // Moments that nobody chose.
    let mut open_intents = 0;
    for number in 0..KILLS {
        let mut child = spawn(directory, &tcti, "");
        assert!(appears(&directory.join("open")), "the writer recovers and writes");
        std::thread::sleep(Duration::from_micros(number * 977));
        child.kill().unwrap();
        child.wait().unwrap();
        open_intents += u32::from(directory.join("run").join(INTENT_FILE).exists());
        let now = recovered(directory, &tcti);
        assert!(now >= records);
        records = now;
    }
    println!("{KILLS} kills, {open_intents} with an open intent, {records} records");

    // What no crash explains is still broken.
    let tpm = open(&tcti);
    PcrBank::extend(&tpm, 13, Digest::new(HashAlg::Sha256, &[9; 32]).unwrap()).unwrap();
    assert!(matches!(HostLog::open(place(directory), tpm), Err(HostLogError::Broken { .. })));
}
