//! One round's evidence, collected in the one order that makes it consistent.
//!
//! DESIGN §4, "Order of collecting": (1) what no PCR anchors, and the host log's record of a changed manifest, so that the log's last
//! manifest is the one that is sent; (2) lock the host log and systemd's; (3) quote, bound to (1); (4) read the logs, which may have grown
//! behind the quote, and unlock. Establishes that the parts belong together. Judges nothing: a broken host log, an absent boot
//! log or a tag that cannot be written is sent as it is, for the verifier to explain.

mod facts;
mod ima;
mod preload;
mod untold;
mod userspace_log;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use hostmark_attest::boot_log::BootLog;
use hostmark_attest::digest::{Digest, HashAlg};
use hostmark_attest::evidence::{EVIDENCE_MAX, Evidence, ImaPart, TagEvidence, UNANCHORED_MAX, Unanchored};
use hostmark_attest::host_log::{Event, LOG_MAX as HOST_LOG_MAX};
use hostmark_attest::manifest::EngineManifest;
use hostmark_attest::tpm::attest::Attest;
use hostmark_attest::wire::{Challenge, DOMAIN_QUOTE};

use crate::config::{Config, Source};
use crate::engines::transitions::{Before, unseen};
use crate::engines::{DigestCache, EnginesConfig, WorkloadCache, inventory, measure};
use crate::host_log::{HostLog, HostLogError, HostLogPlace, LOG_FILE};
use crate::state;
use crate::tpm::{Tpm, TpmError};
use ima::ImaList;
use untold::Untold;
use userspace_log::UserspaceLog;

/// Longest boot log that a verifier reads.
const BOOT_LOG_MAX: usize = hostmark_attest::boot_log::LOG_MAX;
/// The host log is read whole even where it is longer than it may be: that is for the verifier to say.
const HOST_LOG_READ: u64 = 2 * HOST_LOG_MAX as u64;

/// Most records of unknown contents since the daemon started: each says the same of the host, and the log ends at ten thousand.
const UNSEEN_MAX: usize = 512;
/// Longest path in such a record: an event may have 4096 bytes, and a byte becomes up to six in JSON.
const UNSEEN_PATH_MAX: usize = 512;

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The host log's files cannot be used.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A part is larger than a verifier reads.
    #[error("the {what} has {found} bytes, a round carries {limit}: {fix}")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The limit.
        limit: usize,
        /// What to do.
        fix: &'static str,
    },
    /// Collecting ended unexpectedly.
    #[error("collecting ended unexpectedly; restart hostd")]
    Ended,
}

/// What a measurement of the engines found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measurement {
    /// SHA-256 of the manifest's canonical bytes.
    pub sha256: [u8; 32],
    /// Whether it differs from the last one in the host log (and stands there now).
    pub changed: bool,
    /// Whether the containers are others than those of the last evidence.
    pub workloads_changed: bool,
    /// What to watch.
    pub looked_at: BTreeSet<PathBuf>,
}

/// Evidence, ready to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// The encoded [`Evidence`].
    pub evidence: Vec<u8>,
    /// What was measured for it.
    pub measurement: Measurement,
    /// What is missing or broken in it, for the operator of this host.
    pub problems: Vec<String>,
}

/// Collects one host's evidence. One at a time: it holds the host log.
#[derive(Debug)]
pub struct Collector {
    tpm: Tpm,
    source: Source,
    unusual: Vec<String>,
    engines: EnginesConfig,
    cache: DigestCache,
    workloads: WorkloadCache,
    /// The last measurement, and how often something passed unread.
    before: Option<Before>,
    unseen: usize,
    untold: Untold,
    /// The inventory of the last evidence.
    told: Option<Vec<u8>>,
    place: HostLogPlace,
    log: Option<HostLog<Tpm>>,
    log_problem: Option<String>,
    ima: ImaList,
}

impl Collector {
    /// Continues the host log of this boot, or begins it. `tpm` has its keys open. A broken log is no error: see [`Collector::problem`].
    ///
    /// # Errors
    /// [`CollectError`].
    pub fn new(config: &Config, tpm: Tpm) -> Result<Self, CollectError> {
        let source = config.source.clone();
        let boot_id = source
            .boot_id()
            .map_err(|source| CollectError::File { path: "/proc/sys/kernel/random/boot_id".into(), source })?;
        let mut problems = Vec::new();
        let boot_log = boot_log(&source.boot_log, &mut problems)?;
        let place = HostLogPlace {
            directory: source.run_dir.clone(),
            pcr: config.host_log_pcr,
            start: boot_part(&boot_log, config.host_log_pcr),
            boot_id,
        };
        let mut this = Self {
            ima: ImaList::new(source.ima.clone()),
            unusual: config.unusual_sources(),
            engines: config.engines.clone(),
            cache: DigestCache::default(),
            workloads: WorkloadCache::default(),
            told: None,
            before: None,
            unseen: 0,
            untold: Untold::default(),
            log: None,
            log_problem: None,
            tpm,
            source,
            place,
        };
        this.open_log()?;
        Ok(this)
    }

    /// The boot that this collector works in.
    #[must_use]
    pub fn boot_id(&self) -> &str {
        &self.place.boot_id
    }

    /// Why the host log is not continued, if it is not.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.log_problem.as_deref()
    }

    /// Measures the engines; what changed is extended and logged before this returns.
    ///
    /// # Errors
    /// [`CollectError`]. A broken host log is none.
    pub fn measure(&mut self) -> Result<Measurement, CollectError> {
        // Asked for by an event: a container may have been changed.
        self.workloads.forget();
        Ok(self.measure_all()?.0)
    }

    /// The measurement, the manifest's bytes and the inventory's.
    fn measure_all(&mut self) -> Result<(Measurement, Vec<u8>, Vec<u8>), CollectError> {
        let measured = measure(&self.engines, &mut self.cache);
        let manifest = measured.manifest.to_canonical();
        let sha256 = EngineManifest::digest(&manifest);
        self.open_log()?;
        let now = Before { manifest: measured.manifest, stamps: measured.stamps };
        let unseen = self.note_unseen(&now)?;
        let noted = self.log.as_mut().map(|log| log.note_manifest(sha256)).transpose();
        let changed = self.tolerate(noted)?.flatten().unwrap_or(false) || unseen;
        let inventory = inventory(&self.engines, &now.manifest, &mut self.workloads);
        self.before = Some(now);
        let workloads_changed = self.told.as_ref() != Some(&inventory);
        let measurement = Measurement { sha256, changed, workloads_changed, looked_at: measured.looked_at };
        Ok((measurement, manifest, inventory))
    }

    /// Logs what passed between two measurements without having been read. Returns whether there was anything.
    fn note_unseen(&mut self, now: &Before) -> Result<bool, CollectError> {
        let mut noted = false;
        let replaced = self.untold.measured(&now.manifest);
        let replaced = replaced.into_iter().map(|path| (path, "it was another program before any round told of it"));
        for (what, why) in unseen(self.before.as_ref(), now).into_iter().chain(replaced) {
            if self.unseen >= UNSEEN_MAX {
                break;
            }
            let mut what = what;
            what.truncate(what.floor_char_boundary(UNSEEN_PATH_MAX));
            tracing::warn!(what, why, "a measured file had a content that nobody knows");
            let event = Event::ContentUnknown { what, why: why.to_owned() };
            let logged = self.log.as_mut().map(|log| log.append(&event)).transpose();
            if self.tolerate(logged)?.flatten().is_some() {
                self.unseen = self.unseen.saturating_add(1);
                noted = true;
            }
        }
        Ok(noted)
    }

    /// The verifier has judged the last evidence: what it told of programs is known.
    pub fn answered(&mut self) {
        self.untold.answered();
    }

    /// Collects evidence for a challenge.
    ///
    /// # Errors
    /// [`CollectError`].
    pub fn collect(&mut self, challenge: &Challenge) -> Result<Collected, CollectError> {
        let mut problems = Vec::new();
        // (1) What no PCR anchors.
        let (measurement, manifest, inventory) = self.measure_all()?;
        let unanchored = Unanchored {
            nonce: challenge.nonce,
            boot_id: self.place.boot_id.clone(),
            hostd: env!("CARGO_PKG_VERSION").to_owned(),
            manifest,
            facts: facts::facts(&self.source.root),
            sources: self.unusual.clone(),
            tag: self.tag(challenge, &mut problems)?,
            inventory,
        };
        self.told = Some(unanchored.inventory.clone());
        self.untold.send();
        let bound = unanchored.encode();
        fits("unanchored part", bound.len(), UNANCHORED_MAX, "configure fewer things to measure (`hostd measure`)")?;
        let qualifying = challenge.nonce.bind(DOMAIN_QUOTE, &bound);

        // (2) From here on nobody appends, until the guard goes.
        let guard = match self.log.as_mut().map(HostLog::lock).transpose() {
            Ok(guard) => guard,
            Err(error) => {
                self.log_problem = Some(tolerable(error)?);
                None
            }
        };
        let systemds = &self.source.userspace_log;
        let mut userspace = UserspaceLog::hold(systemds, &mut problems);
        // (3) The TPM's own retry covers a PCR that moves meanwhile.
        let mut quoted = self.tpm.quote(&challenge.selection, &qualifying)?;
        if userspace.appeared(systemds) {
            userspace = UserspaceLog::hold(systemds, &mut problems);
            quoted = self.tpm.quote(&challenge.selection, &qualifying)?;
        }
        let reset = Attest::parse(&quoted.signed.attest.0).ok().map(|attest| attest.clock_info.reset_count);
        // (4) The logs, at least as long as when the quote was made.
        let boot_log = boot_log(&self.source.boot_log, &mut problems)?;
        let from = if reset == Some(challenge.reset_count) { challenge.ima_from } else { 0 };
        let ima = ima_part(&mut self.ima, &self.source.ima, from, &mut problems);
        let host_log = match &guard {
            Some(guard) => guard.snapshot().to_vec(),
            None => raw_host_log(&self.place.directory.join(LOG_FILE))?,
        };
        let userspace_log = userspace.read(systemds, &mut problems);
        drop(guard);

        problems.extend(self.log_problem.clone());
        let mut evidence = Evidence::new(unanchored, quoted.signed, quoted.pcrs);
        evidence.boot_log = boot_log;
        evidence.ima = ima;
        evidence.host_log = host_log;
        evidence.userspace_log = userspace_log;
        let evidence = evidence.encode();
        fits("evidence", evidence.len(), EVIDENCE_MAX, "let the IMA policy measure less, and reboot the host")?;
        Ok(Collected { evidence, measurement, problems })
    }

    /// Opens the log if it is not open; a broken one stays closed, with its reason, and is tried again in the next round.
    fn open_log(&mut self) -> Result<(), CollectError> {
        if self.log.is_none() {
            let opened = HostLog::open(self.place.clone(), self.tpm.clone());
            self.log = self.tolerate(opened.map(Some))?.flatten();
            if self.log.is_some() {
                self.log_problem = None;
            }
        }
        Ok(())
    }

    /// Keeps the reason of a broken log and goes on without it.
    fn tolerate<T>(&mut self, outcome: Result<T, HostLogError<TpmError>>) -> Result<Option<T>, CollectError> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                self.log_problem = Some(tolerable(error)?);
                self.log = None;
                Ok(None)
            }
        }
    }

    /// Writes a newer tag, then reads and certifies what NV holds.
    fn tag(&self, challenge: &Challenge, problems: &mut Vec<String>) -> Result<Option<TagEvidence>, CollectError> {
        if let Some(newer) = &challenge.tag {
            let written = match self.tpm.read_tag() {
                Ok(Some(held)) if held == newer.nv.0 => Ok(()),
                Ok(_) => self.tpm.write_tag(&newer.nv.0).inspect(|()| tracing::info!("asset tag written to NV")),
                Err(error) => Err(error),
            };
            self.without("the asset tag could not be written to NV", written, problems)?;
        }
        let certified = self.tpm.tag_evidence(&challenge.nonce);
        Ok(self.without("the asset tag could not be certified", certified, problems)?.flatten())
    }

    /// Goes on after a refusal of the TPM, but not without a TPM.
    fn without<T>(
        &self,
        what: &str,
        outcome: Result<T, TpmError>,
        problems: &mut Vec<String>,
    ) -> Result<Option<T>, CollectError> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(error @ (TpmError::Response { .. } | TpmError::TagTooLarge { .. })) => {
                problems.push(format!("{what}: {error}"));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The reason, of a log that only a reboot heals; everything else is an error of this round.
fn tolerable(error: HostLogError<TpmError>) -> Result<String, CollectError> {
    match error {
        HostLogError::Bank(error) => Err(CollectError::Tpm(error)),
        HostLogError::File { path, source } => Err(CollectError::File { path, source }),
        broken => Ok(broken.to_string()),
    }
}

fn fits(what: &'static str, found: usize, limit: usize, fix: &'static str) -> Result<(), CollectError> {
    if found > limit { Err(CollectError::TooLarge { what, found, limit, fix }) } else { Ok(()) }
}

/// The value that a PCR has after the boot log; zero without one. A log that cannot be read explains nothing.
fn boot_part(log: &[u8], pcr: u8) -> Digest {
    let zero = Digest::zero(HashAlg::Sha256);
    match BootLog::parse(log) {
        Ok(log) => log.replay_bank(HashAlg::Sha256).get(&pcr).copied().unwrap_or(zero),
        Err(_) => zero,
    }
}

fn boot_log(path: &Path, problems: &mut Vec<String>) -> Result<Vec<u8>, CollectError> {
    let limit = u64::try_from(BOOT_LOG_MAX).unwrap_or(u64::MAX);
    let fix = "the firmware or the boot loader logs without end; look at it with `hostmark inspect boot-log`";
    match state::read(path, limit) {
        Ok(Some(log)) => Ok(log),
        Ok(None) => {
            problems.push(format!("{}: there is no boot log", path.display()));
            Ok(Vec::new())
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(CollectError::TooLarge {
            what: "boot log",
            found: BOOT_LOG_MAX.saturating_add(1),
            limit: BOOT_LOG_MAX,
            fix,
        }),
        Err(error) => {
            problems.push(format!("{}: {error}", path.display()));
            Ok(Vec::new())
        }
    }
}

/// A list that is too long is told to the verifier: a host that fell silent would be a riddle.
fn ima_part(list: &mut ImaList, path: &Path, from: u64, problems: &mut Vec<String>) -> ImaPart {
    let part = list.read_from(from).unwrap_or_else(|error| {
        problems.push(format!("{}: {error}", path.display()));
        ImaPart::default()
    });
    if part.left_out > 0 {
        let fix = "let the IMA policy measure less, and reboot the host";
        problems.push(format!("{}: more than {} bytes from entry {from} on: {fix}", path.display(), part.left_out));
    }
    part
}

fn raw_host_log(path: &Path) -> Result<Vec<u8>, CollectError> {
    let read = state::read(path, HOST_LOG_READ);
    read.map(Option::unwrap_or_default).map_err(|source| CollectError::File { path: path.to_owned(), source })
}
