//! A machine for one host: a software TPM brought into the state of a recorded boot, the logs that explain it, engine files.
//!
//! Every digest of the recorded boot log and IMA list is extended into the fresh TPM, so that a quote of it says what the recorded
//! machine's would. Establishes a host that is honest in everything but its TPM's class, which is `simulated` and is shown.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use hostmark_attest::boot_log::BootLog;
use hostmark_attest::digest::{Digest, HashAlg, sha256};
use hostmark_attest::ima::{ImaFormat, ImaLog};
use hostmark_hostd::tpm::{Auth, Tcti, Tpm};

use crate::engine_files::EngineFiles;
use crate::forge::systemd_log::Measured;
use crate::recording::Recording;
use crate::swtpm::{LocalCa, Swtpm};

/// The only bank that the software TPMs have.
const BANK: HashAlg = HashAlg::Sha256;
/// IMA's PCR.
const IMA_PCR: u8 = 10;

/// Files of a running kernel, and the recording's copies of them.
const FACTS: [(&str, &str); 3] =
    [("proc/cmdline", "cmdline"), ("sys/kernel/security/lockdown", "lockdown"), ("sys/kernel/security/lsm", "lsm")];

/// A machine that has booted.
#[derive(Debug)]
pub struct Machine {
    directory: PathBuf,
    recording: Recording,
    swtpm: Swtpm,
    engines: EngineFiles,
    boots: u32,
}

impl Machine {
    /// Makes a machine in `directory`, with its own TPM certified by `ca`, and boots it as `recording` did.
    ///
    /// # Errors
    /// When the TPM cannot be made or extended.
    pub fn boot(directory: &Path, ca: &LocalCa, recording: &Recording) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let directory = directory.canonicalize()?;
        let swtpm = Swtpm::start(&directory.join("tpm"), ca)?;
        let engines = EngineFiles::create(&directory.join("root"))?;
        let mut machine = Self { directory, recording: recording.clone(), swtpm, engines, boots: 0 };
        machine.start_kernel()?;
        Ok(machine)
    }

    /// Resets the TPM and boots again: PCRs anew, another boot id, an empty /run. hostd must not be running.
    ///
    /// # Errors
    /// When the TPM does not start again.
    pub fn reboot(&mut self) -> anyhow::Result<()> {
        self.swtpm.reset()?;
        self.start_kernel()
    }

    fn start_kernel(&mut self) -> anyhow::Result<()> {
        self.boots = self.boots.saturating_add(1);
        std::fs::create_dir_all(self.run_dir())?;
        let (boot_log, ima) = (self.recording.boot_log()?, self.recording.ima()?);
        let mut extends = Vec::new();
        for event in BootLog::parse(&boot_log)?.events() {
            if let (Some(pcr), Some(digest)) = (event.extends(), event.digest(BANK)) {
                extends.push((pcr, digest));
            }
        }
        for entry in ImaLog::parse_as(&ima, ImaFormat::Binary)?.entries() {
            // What the kernel extends for a violation.
            let digest = if entry.is_violation() { Some(Digest::ones(BANK)) } else { entry.template_digest(BANK) };
            extends.push((IMA_PCR, digest.context("an IMA entry without a template digest")?));
        }
        self.extend(&extends)?;
        match std::fs::remove_file(self.userspace_log()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        std::fs::write(self.boot_log(), boot_log)?;
        std::fs::write(self.ima(), ima)?;
        // What the recorded kernel said of itself, where hostd looks for it below a root.
        for (file, from) in FACTS {
            let path = self.engines.root().join(file);
            std::fs::create_dir_all(path.parent().context("a file lies in a directory")?)?;
            std::fs::copy(self.recording.path(from), &path).with_context(|| path.display().to_string())?;
        }
        Ok(std::fs::write(self.engines.root().join("proc/cmdline"), self.recording.command_line()?)?)
    }

    /// Extends PCRs, in order. The software TPM has one client: hostd must not be running.
    ///
    /// # Errors
    /// What the TPM says.
    pub fn extend(&self, digests: &[(u8, Digest)]) -> anyhow::Result<()> {
        let tpm = self.tpm()?;
        for (pcr, digest) in digests {
            tpm.pcr_extend(*pcr, &[*digest])?;
        }
        Ok(())
    }

    /// A connection to the TPM. It has one client at a time: hostd must not be running.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn tpm(&self) -> anyhow::Result<Tpm> {
        let tcti: Tcti = self.tcti().parse()?;
        Ok(Tpm::open(&tcti, Auth::default())?)
    }

    /// The kernel executes a file that it has not measured before: an entry in the IMA list, and its digest in PCR 10.
    ///
    /// # Errors
    /// When the TPM or the list cannot be written.
    pub fn execute(&self, path: &str, content: &[u8]) -> anyhow::Result<()> {
        use std::io::Write as _;
        let (entry, digest) = ima_ng_entry(path, content)?;
        self.extend(&[(IMA_PCR, digest)])?;
        std::fs::OpenOptions::new().append(true).open(self.ima())?.write_all(&entry)?;
        Ok(())
    }

    /// systemd measures, with a record of each. hostd must not be running.
    ///
    /// # Errors
    /// When the TPM or the log cannot be written.
    pub fn systemd(&self, measured: &[Measured]) -> anyhow::Result<()> {
        use std::io::Write as _;
        let mut log = std::fs::OpenOptions::new().append(true).create(true).open(self.userspace_log())?;
        for one in measured {
            self.extend(&[(one.pcr, one.digest(BANK))])?;
            log.write_all(one.line(&[BANK]).as_bytes())?;
        }
        Ok(())
    }

    /// Changes the boot log's file and nothing else, as somebody who has root can.
    ///
    /// # Errors
    /// The system's.
    pub fn tamper_boot_log(&self, change: impl FnOnce(&mut [u8])) -> anyhow::Result<()> {
        let mut log = std::fs::read(self.boot_log())?;
        change(&mut log);
        Ok(std::fs::write(self.boot_log(), log)?)
    }

    /// The TPM's address for `--tpm`.
    #[must_use]
    pub fn tcti(&self) -> String {
        self.swtpm.tcti()
    }

    /// The software TPM.
    pub const fn swtpm(&mut self) -> &mut Swtpm {
        &mut self.swtpm
    }

    /// The engine files, to edit.
    #[must_use]
    pub const fn engines(&self) -> &EngineFiles {
        &self.engines
    }

    /// Everything of this machine.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// binary_bios_measurements.
    #[must_use]
    pub fn boot_log(&self) -> PathBuf {
        self.directory.join("boot-log.bin")
    }

    /// The IMA list.
    #[must_use]
    pub fn ima(&self) -> PathBuf {
        self.directory.join("ima.bin")
    }

    /// systemd's tpm2-measure.log; there is none until systemd measures.
    #[must_use]
    pub fn userspace_log(&self) -> PathBuf {
        self.directory.join("tpm2-measure.log")
    }

    /// This boot's /run/hostmark.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.directory.join(format!("run-{}", self.boots))
    }

    /// This boot's id: a UUID that differs between machines and boots.
    #[must_use]
    pub fn boot_id(&self) -> String {
        let seed = sha256(&[self.directory.as_os_str().as_encoded_bytes(), &self.boots.to_be_bytes()]);
        let hex = hex::encode(seed);
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        format!("{}-{}-4{}-8{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
    }
}

/// Changes one byte of the last measured event's digest, as somebody would who wants another history. A log without events stays
/// as it is.
pub fn change_last_event(log: &mut [u8]) {
    let Ok(parsed) = BootLog::parse(log) else { return };
    let Some(last) = parsed.events().rev().find(|event| event.extends().is_some()) else { return };
    let Some(digest) = last.digest(BANK) else { return };
    let at = log.windows(digest.as_bytes().len()).rposition(|window| window == digest.as_bytes());
    if let Some(byte) = at.and_then(|at| log.get_mut(at)) {
        *byte ^= 1;
    }
}

/// One `ima-ng` entry in the binary list's form, and what PCR 10's SHA-256 bank is extended with
/// (Linux, Documentation/security/IMA-templates).
fn ima_ng_entry(path: &str, content: &[u8]) -> anyhow::Result<(Vec<u8>, Digest)> {
    fn field(out: &mut Vec<u8>, parts: &[&[u8]]) -> anyhow::Result<()> {
        let body = parts.concat();
        out.extend(u32::try_from(body.len())?.to_le_bytes());
        out.extend(body);
        Ok(())
    }
    let mut data = Vec::new();
    field(&mut data, &[b"sha256:\0", &sha256(&[content])])?;
    field(&mut data, &[path.as_bytes(), b"\0"])?;
    let sha1 = HashAlg::Sha1.hash(&[&data]).context("SHA-1 is supported")?;
    let digest = BANK.hash(&[&data]).context("SHA-256 is supported")?;
    let mut entry = u32::from(IMA_PCR).to_le_bytes().to_vec();
    entry.extend(sha1.as_bytes());
    field(&mut entry, &[b"ima-ng"])?;
    field(&mut entry, &[&data])?;
    Ok((entry, digest))
}
