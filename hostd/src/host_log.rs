//! Writing the host log so that a crash at any moment leaves log and PCR in agreement, or able to be brought there.
//!
//! DESIGN §4, "Host log is crash-safe". A TPM cannot take an extension back, and no file can be written in the same instant:
//! so an event is first intended in a file of its own, then extended, then written to the log, then the intent is removed. On
//! start the PCR tells how far it came. Establishes that what hostd extended is in its log. Does not establish who extended:
//! another process that extends this PCR makes it [`HostLogError::Broken`], which only a reboot heals.
//!
//! | crash after | log | intent | PCR | then |
//! |---|---|---|---|---|
//! | nothing | old | – | old | nothing to do |
//! | intent | old | new | old | extend, write, remove |
//! | extend | old | new | new | write, remove (adopt) |
//! | half a line | torn | new | new | cut, write, remove |
//! | line | new | new | new | remove |

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::marker::PhantomData;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use hostmark_attest::bytes::ParseError;
use hostmark_attest::digest::{Digest, HashAlg};
use hostmark_attest::host_log::{Event, HostLog as Parsed, LOG_MAX, RECORDS_MAX, Record};
use hostmark_attest::selection::PcrSelection;
use nix::fcntl::{Flock, FlockArg};

use crate::state;
use crate::tpm::{Tpm, TpmError};

/// Name of the log in the run directory.
pub const LOG_FILE: &str = "host-log.jsonl";
/// Name of the open intent in the run directory.
pub const INTENT_FILE: &str = "host-log.intent";
const LOCK_FILE: &str = "host-log.lock";

/// The SHA-256 bank of a TPM, as far as the host log needs it.
pub trait PcrBank {
    /// Why the bank did not do what was asked.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The PCR's value now.
    ///
    /// # Errors
    /// The device's.
    fn read(&self, pcr: u8) -> Result<Digest, Self::Error>;

    /// Extends the PCR. After an error it may or may not have been extended.
    ///
    /// # Errors
    /// The device's.
    fn extend(&self, pcr: u8, digest: Digest) -> Result<(), Self::Error>;
}

impl PcrBank for Tpm {
    type Error = TpmError;

    fn read(&self, pcr: u8) -> Result<Digest, TpmError> {
        let selection = PcrSelection::one(HashAlg::Sha256, &[pcr]).unwrap_or_default();
        let banks = self.pcr_read(&selection)?;
        // A PCR that is not in the answer is not zero: all ones matches no replay.
        let value = banks.get(&HashAlg::Sha256).and_then(|values| values.get(&pcr)).copied();
        Ok(value.unwrap_or_else(|| Digest::ones(HashAlg::Sha256)))
    }

    fn extend(&self, pcr: u8, digest: Digest) -> Result<(), TpmError> {
        self.pcr_extend(pcr, &[digest])
    }
}

/// Where a host log is and what it continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLogPlace {
    /// The run directory: on /run it vanishes with the PCR's value.
    pub directory: PathBuf,
    /// The PCR that is extended.
    pub pcr: u8,
    /// That PCR's value after the boot log's events (zero where it has none).
    pub start: Digest,
    /// The kernel's boot id.
    pub boot_id: String,
}

/// Why the host log cannot be continued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostLogError<E: std::error::Error + 'static> {
    /// PCR and log parted: something else extended the PCR, or the log was changed or lost.
    #[error(
        "host-log-broken: PCR {pcr} is {found}, the log gives {expected}; reboot the host, and if it happens again find out what extends this PCR"
    )]
    Broken {
        /// The PCR.
        pcr: u8,
        /// The value that the log gives, hex.
        expected: String,
        /// The value that the TPM has, hex.
        found: String,
    },
    /// The log or the intent is not what hostd writes.
    #[error("host-log-broken: {file}: {source}; reboot the host")]
    Malformed {
        /// The file's name.
        file: &'static str,
        /// Where and why.
        source: ParseError,
    },
    /// The log holds as many records as a verifier reads.
    #[error(
        "the host log is full ({RECORDS_MAX} records since boot): find out what keeps changing, then reboot the host"
    )]
    Full,
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The TPM did not answer. The next call finds out how far the extension came.
    #[error(transparent)]
    Bank(E),
    /// Injected by a test.
    #[cfg(test)]
    #[error("crashed {0:?}")]
    Crashed(CrashPoint),
}

/// Where a test ends an append as a crash would.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each names the step it follows")]
pub enum CrashPoint {
    BeforeIntent,
    AfterIntent,
    AfterExtend,
    HalfLine,
    AfterLine,
}

/// The host log of this boot. One writer at a time, other processes included.
#[derive(Debug)]
pub struct HostLog<B: PcrBank> {
    place: HostLogPlace,
    bank: B,
    parsed: Parsed,
    /// Bytes of the log's file that `parsed` stands for.
    length: u64,
    /// How far the last append came is not known.
    unsure: bool,
    #[cfg(test)]
    crash: Option<CrashPoint>,
}

/// While it lives nobody appends: quote first, then take the [`Guard::snapshot`].
#[derive(Debug)]
pub struct Guard<'a> {
    bytes: Vec<u8>,
    _lock: Flock<File>,
    _log: PhantomData<&'a mut ()>,
}

impl Guard<'_> {
    /// The log's bytes; they reproduce the PCR as long as the guard lives.
    #[must_use]
    pub fn snapshot(&self) -> &[u8] {
        &self.bytes
    }
}

impl<B: PcrBank> HostLog<B> {
    /// Continues the log of this boot, or begins it with the event that binds the boot. An older boot's log is removed.
    ///
    /// # Errors
    /// [`HostLogError`]. After `Broken` or `Malformed` the files stay as they are, for a person to look at.
    pub fn open(place: HostLogPlace, bank: B) -> Result<Self, HostLogError<B::Error>> {
        Self::open_with(
            place,
            bank,
            #[cfg(test)]
            None,
        )
    }

    fn open_with(
        place: HostLogPlace,
        bank: B,
        #[cfg(test)] crash: Option<CrashPoint>,
    ) -> Result<Self, HostLogError<B::Error>> {
        state::directory(&place.directory)
            .map_err(|source| HostLogError::File { path: place.directory.clone(), source })?;
        let mut log = Self {
            place,
            bank,
            parsed: Parsed::default(),
            length: 0,
            unsure: true,
            #[cfg(test)]
            crash,
        };
        let lock = log.take_lock()?;
        log.forget_another_boot()?;
        log.settle()?;
        if log.parsed.records().is_empty() {
            let boot_id = log.place.boot_id.clone();
            log.write(&Event::Boot { boot_id, hostd: env!("CARGO_PKG_VERSION").to_owned() })?;
        }
        drop(lock);
        Ok(log)
    }

    /// Intends, extends and writes one event.
    ///
    /// # Errors
    /// [`HostLogError`].
    pub fn append(&mut self, event: &Event) -> Result<(), HostLogError<B::Error>> {
        let _lock = self.take_lock()?;
        self.settle()?;
        self.write(event)
    }

    /// Appends a manifest's digest unless it is the last one that was appended. Returns whether it was appended.
    ///
    /// # Errors
    /// [`HostLogError`].
    pub fn note_manifest(&mut self, sha256: [u8; 32]) -> Result<bool, HostLogError<B::Error>> {
        let _lock = self.take_lock()?;
        self.settle()?;
        let last = self.parsed.records().iter().rev().find_map(|record| match record.event() {
            Event::Manifest { sha256 } => Some(sha256),
            _ => None,
        });
        if last == Some(sha256) {
            return Ok(false);
        }
        self.write(&Event::Manifest { sha256 }).map(|()| true)
    }

    /// Keeps everybody from appending while the caller quotes and reads.
    ///
    /// # Errors
    /// [`HostLogError`].
    pub fn lock(&mut self) -> Result<Guard<'_>, HostLogError<B::Error>> {
        let lock = self.take_lock()?;
        self.settle()?;
        let bytes = self.read(LOG_FILE)?.unwrap_or_default();
        Ok(Guard { bytes, _lock: lock, _log: PhantomData })
    }

    /// Number of records.
    #[must_use]
    pub fn records(&self) -> usize {
        self.parsed.records().len()
    }

    /// Brings log and PCR together: does nothing when they are known to be.
    fn settle(&mut self) -> Result<(), HostLogError<B::Error>> {
        let intent = self.read(INTENT_FILE)?;
        let length = fs::metadata(self.path(LOG_FILE)).map(|meta| meta.len()).unwrap_or_default();
        if !self.unsure && intent.is_none() && length == self.length {
            return Ok(());
        }
        let mut bytes = self.read(LOG_FILE)?.unwrap_or_default();
        let pcr = self.bank.read(self.place.pcr).map_err(HostLogError::Bank)?;
        let Some(intent) = intent else {
            self.adopt(&bytes)?;
            return self.must_be(pcr, self.value());
        };
        // A torn last line can only be the beginning of the intended one.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
        if bytes.get(whole..).is_some_and(|torn| !torn.is_empty() && intent.starts_with(torn)) {
            bytes.truncate(whole);
            self.cut(whole)?;
        }
        if bytes.ends_with(&intent) {
            self.adopt(&bytes)?;
            self.must_be(pcr, self.value())?;
            return self.remove_intent();
        }
        self.adopt(&bytes)?;
        let with = Parsed::parse(&[bytes.as_slice(), &intent].concat())
            .map_err(|source| HostLogError::Malformed { file: INTENT_FILE, source })?;
        let before = self.value();
        let after = with.replay(self.place.start);
        if pcr == before {
            let digest = with.records().last().and_then(|record| Digest::new(HashAlg::Sha256, &record.digest()));
            let Some(digest) = digest else { return self.must_be(pcr, after) };
            self.bank.extend(self.place.pcr, digest).map_err(HostLogError::Bank)?;
        } else {
            self.must_be(pcr, after)?;
        }
        self.commit(&intent)
    }

    /// The steps of one append. `settle` has run under the same lock.
    fn write(&mut self, event: &Event) -> Result<(), HostLogError<B::Error>> {
        let recnum = u64::try_from(self.records()).unwrap_or(u64::MAX);
        let (line, digest) = Record::encode(recnum, self.place.pcr, event);
        let longest = u64::try_from(LOG_MAX.saturating_sub(line.len())).unwrap_or_default();
        if recnum >= RECORDS_MAX || self.length > longest {
            return Err(HostLogError::Full);
        }
        // The checked parser is the one that the verifier uses: never extend what it would not read.
        Parsed::parse(&Record::encode(0, self.place.pcr, event).0)
            .map_err(|source| HostLogError::Malformed { file: INTENT_FILE, source })?;
        self.unsure = true;
        self.reach(Step::BeforeIntent)?;
        let intent = self.path(INTENT_FILE);
        state::write(&intent, &line).map_err(|source| HostLogError::File { path: intent, source })?;
        self.reach(Step::AfterIntent)?;
        let digest = Digest::new(HashAlg::Sha256, &digest).unwrap_or_else(|| Digest::ones(HashAlg::Sha256));
        self.bank.extend(self.place.pcr, digest).map_err(HostLogError::Bank)?;
        self.reach(Step::AfterExtend)?;
        self.commit(&line)
    }

    /// Writes the extended line to the log and removes its intent.
    fn commit(&mut self, line: &[u8]) -> Result<(), HostLogError<B::Error>> {
        #[cfg(test)]
        if self.crash == Some(CrashPoint::HalfLine) {
            self.append_bytes(line.get(..line.len() / 2).unwrap_or_default())?;
            return Err(HostLogError::Crashed(CrashPoint::HalfLine));
        }
        self.append_bytes(line)?;
        self.reach(Step::AfterLine)?;
        let bytes = self.read(LOG_FILE)?.unwrap_or_default();
        self.adopt(&bytes)?;
        self.remove_intent()
    }

    fn append_bytes(&self, bytes: &[u8]) -> Result<(), HostLogError<B::Error>> {
        let path = self.path(LOG_FILE);
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            File::open(&self.place.directory)?.sync_all()
        };
        write().map_err(|source| HostLogError::File { path: path.clone(), source })
    }

    fn cut(&self, length: usize) -> Result<(), HostLogError<B::Error>> {
        let path = self.path(LOG_FILE);
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let cut = || -> io::Result<()> {
            let file = OpenOptions::new().write(true).open(&path)?;
            file.set_len(length)?;
            file.sync_all()
        };
        cut().map_err(|source| HostLogError::File { path: path.clone(), source })
    }

    fn remove_intent(&mut self) -> Result<(), HostLogError<B::Error>> {
        let path = self.path(INTENT_FILE);
        fs::remove_file(&path)
            .and_then(|()| File::open(&self.place.directory)?.sync_all())
            .map_err(|source| HostLogError::File { path, source })?;
        self.unsure = false;
        Ok(())
    }

    /// Takes the log's bytes as what is known.
    fn adopt(&mut self, bytes: &[u8]) -> Result<(), HostLogError<B::Error>> {
        let parsed = Parsed::parse(bytes).map_err(|source| HostLogError::Malformed { file: LOG_FILE, source })?;
        self.parsed = parsed;
        self.length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    fn must_be(&mut self, found: Digest, expected: Digest) -> Result<(), HostLogError<B::Error>> {
        let fits = self.parsed.pcr().is_none_or(|pcr| pcr == self.place.pcr);
        if found != expected || !fits {
            let (expected, found) = (expected.to_string(), found.to_string());
            return Err(HostLogError::Broken { pcr: self.place.pcr, expected, found });
        }
        self.unsure = false;
        Ok(())
    }

    fn value(&self) -> Digest {
        self.parsed.replay(self.place.start)
    }

    /// Removes log and intent when they bind another boot; without /run they may outlive it.
    fn forget_another_boot(&self) -> Result<(), HostLogError<B::Error>> {
        let log = self.read(LOG_FILE)?.unwrap_or_default();
        let intent = self.read(INTENT_FILE)?.unwrap_or_default();
        let first = if log.contains(&b'\n') { &log } else { &intent };
        let first = first.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
        let bound = Parsed::parse(first).ok().and_then(|parsed| parsed.records().first().map(Record::event));
        match bound {
            Some(Event::Boot { boot_id, .. }) if boot_id != self.place.boot_id => {
                for file in [INTENT_FILE, LOG_FILE] {
                    let path = self.path(file);
                    match fs::remove_file(&path) {
                        Err(source) if source.kind() != io::ErrorKind::NotFound => {
                            return Err(HostLogError::File { path, source });
                        }
                        _ => {}
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.place.directory.join(file)
    }

    fn read(&self, file: &'static str) -> Result<Option<Vec<u8>>, HostLogError<B::Error>> {
        read(&self.place.directory, file).map_err(|source| HostLogError::File { path: self.path(file), source })
    }

    fn take_lock(&self) -> Result<Flock<File>, HostLogError<B::Error>> {
        let path = self.path(LOCK_FILE);
        let lock = || -> io::Result<Flock<File>> {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
        };
        lock().map_err(|source| HostLogError::File { path: path.clone(), source })
    }

    #[cfg_attr(not(test), expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests crash here"))]
    fn reach(&self, step: Step) -> Result<(), HostLogError<B::Error>> {
        #[cfg(test)]
        if self.crash == Some(step) {
            return Err(HostLogError::Crashed(step));
        }
        let _ = step;
        Ok(())
    }
}

#[cfg(test)]
use CrashPoint as Step;

/// The steps between which a crash is survived.
#[cfg(not(test))]
enum Step {
    BeforeIntent,
    AfterIntent,
    AfterExtend,
    AfterLine,
}

/// The bytes of the log as they are, for a host whose log cannot be continued: the verifier sees what is there.
///
/// # Errors
/// The system's.
pub fn read(directory: &Path, file: &str) -> io::Result<Option<Vec<u8>>> {
    state::read(&directory.join(file), u64::try_from(LOG_MAX).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;
    use std::rc::Rc;

    use hostmark_attest::host_log::HostLogContext;

    use super::*;

    /// The device, not the mathematics: one PCR that is extended as a TPM does.
    #[derive(Clone)]
    struct Pcr(Rc<Cell<Digest>>);

    impl PcrBank for Pcr {
        type Error = Infallible;

        fn read(&self, _: u8) -> Result<Digest, Infallible> {
            Ok(self.0.get())
        }

        fn extend(&self, _: u8, digest: Digest) -> Result<(), Infallible> {
            self.0.set(self.0.get().extend(&digest).unwrap());
            Ok(())
        }
    }

    fn zero() -> Digest {
        Digest::zero(HashAlg::Sha256)
    }

    fn place(directory: &Path, boot_id: &str) -> HostLogPlace {
        HostLogPlace { directory: directory.to_owned(), pcr: 13, start: zero(), boot_id: boot_id.to_owned() }
    }

    /// What the verifier says, and the events it sees.
    fn verify(directory: &Path, pcr: &Pcr) -> Vec<Event> {
        let bytes = read(directory, LOG_FILE).unwrap().unwrap_or_default();
        let context = HostLogContext { pcr: 13, start: zero(), quoted: pcr.0.get(), boot_id: "boot-1" };
        Parsed::parse(&bytes).unwrap().verify(&context).unwrap().events().to_vec()
    }

    fn manifest(byte: u8) -> Event {
        Event::Manifest { sha256: [byte; 32] }
    }

    const POINTS: [CrashPoint; 5] = [
        CrashPoint::BeforeIntent,
        CrashPoint::AfterIntent,
        CrashPoint::AfterExtend,
        CrashPoint::HalfLine,
        CrashPoint::AfterLine,
    ];

    #[test]
    fn b22_a_crash_at_any_step_never_makes_a_false_mismatch() {
        for point in POINTS {
            for second in POINTS.map(Some).into_iter().chain([None]) {
                let dir = tempfile::tempdir().unwrap();
                let pcr = Pcr(Rc::new(Cell::new(zero())));
                let mut log = HostLog::open(place(dir.path(), "boot-1"), pcr.clone()).unwrap();
                log.append(&manifest(1)).unwrap();
                log.crash = Some(point);
                assert!(matches!(log.append(&manifest(2)), Err(HostLogError::Crashed(at)) if at == point));
                drop(log);
                if let Some(second) = second {
                    // A crash in the recovery from the first one.
                    let _ = HostLog::open_with(place(dir.path(), "boot-1"), pcr.clone(), Some(second));
                }
                let mut log = HostLog::open(place(dir.path(), "boot-1"), pcr.clone()).unwrap();
                let kept = point != CrashPoint::BeforeIntent;
                let events = verify(dir.path(), &pcr);
                assert_eq!(events.len(), if kept { 3 } else { 2 }, "{point:?} {second:?}");
                assert_eq!(events.contains(&manifest(2)), kept, "an intended event is never lost: {point:?}");
                log.append(&manifest(3)).unwrap();
                assert_eq!(verify(dir.path(), &pcr).last(), Some(&manifest(3)), "{point:?} {second:?}");
                assert!(!dir.path().join(INTENT_FILE).exists());
            }
        }
    }

    #[test]
    fn b22_a_crash_at_the_first_record_is_survived_too() {
        for point in POINTS {
            let dir = tempfile::tempdir().unwrap();
            let pcr = Pcr(Rc::new(Cell::new(zero())));
            let crashed = HostLog::open_with(place(dir.path(), "boot-1"), pcr.clone(), Some(point));
            assert!(crashed.is_err(), "{point:?}");
            HostLog::open(place(dir.path(), "boot-1"), pcr.clone()).unwrap();
            assert_eq!(verify(dir.path(), &pcr).len(), 1, "{point:?}");
        }
    }

    #[test]
    fn b22_what_no_crash_explains_is_broken() {
        type Change = fn(&Path, &Pcr);
        let rows: &[(&str, bool, Change)] = &[
            ("honest", true, |_, _| {}),
            ("extended without an entry", false, |_, pcr| {
                let digest = Digest::new(HashAlg::Sha256, &[9; 32]).unwrap();
                pcr.0.set(pcr.0.get().extend(&digest).unwrap());
            }),
            ("an entry without an extend", false, |dir, _| {
                let mut file = OpenOptions::new().append(true).open(dir.join(LOG_FILE)).unwrap();
                file.write_all(&Record::encode(2, 13, &manifest(9)).0).unwrap();
            }),
            ("a removed entry", false, |dir, _| {
                let log = fs::read_to_string(dir.join(LOG_FILE)).unwrap();
                fs::write(dir.join(LOG_FILE), log.split_inclusive('\n').next().unwrap()).unwrap();
            }),
            ("a lost log", false, |dir, _| fs::remove_file(dir.join(LOG_FILE)).unwrap()),
            ("a torn line without an intent", false, |dir, _| {
                let log = fs::read(dir.join(LOG_FILE)).unwrap();
                fs::write(dir.join(LOG_FILE), &log[..log.len().checked_sub(9).unwrap()]).unwrap();
            }),
            ("a foreign intent after a foreign extend", false, |dir, pcr| {
                fs::write(dir.join(INTENT_FILE), Record::encode(2, 13, &manifest(8)).0).unwrap();
                let digest = Digest::new(HashAlg::Sha256, &[9; 32]).unwrap();
                pcr.0.set(pcr.0.get().extend(&digest).unwrap());
            }),
            ("an intent that is no record", false, |dir, _| fs::write(dir.join(INTENT_FILE), "x").unwrap()),
            ("an intent out of order", false, |dir, _| {
                fs::write(dir.join(INTENT_FILE), Record::encode(7, 13, &manifest(8)).0).unwrap();
            }),
        ];
        for (name, fine, change) in rows {
            let dir = tempfile::tempdir().unwrap();
            let pcr = Pcr(Rc::new(Cell::new(zero())));
            let mut log = HostLog::open(place(dir.path(), "boot-1"), pcr.clone()).unwrap();
            log.append(&manifest(1)).unwrap();
            drop(log);
            change(dir.path(), &pcr);
            let before = pcr.0.get();
            match HostLog::open(place(dir.path(), "boot-1"), pcr.clone()) {
                Ok(_) => assert!(fine, "{name}"),
                Err(HostLogError::Broken { .. } | HostLogError::Malformed { .. }) => assert!(!fine, "{name}"),
                Err(error) => panic!("{name}: {error}"),
            }
            assert_eq!(pcr.0.get(), before, "{name}: a broken log extends nothing");
        }
    }

    #[test]
    fn another_boot_begins_a_new_log_and_kexec_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let pcr = Pcr(Rc::new(Cell::new(zero())));
        HostLog::open(place(dir.path(), "boot-0"), pcr.clone()).unwrap();
        assert!(
            matches!(HostLog::open(place(dir.path(), "boot-1"), pcr.clone()), Err(HostLogError::Broken { .. })),
            "the boot id changed and the PCR was not reset"
        );
        pcr.0.set(zero());
        HostLog::open(place(dir.path(), "boot-1"), pcr.clone()).unwrap();
        assert_eq!(verify(dir.path(), &pcr).len(), 1);
    }

    #[test]
    fn nobody_appends_while_it_is_read_and_an_unchanged_manifest_is_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let pcr = Pcr(Rc::new(Cell::new(zero())));
        let mut first = HostLog::open(place(dir.path(), "boot-1"), pcr.clone()).unwrap();
        assert!(first.note_manifest([1; 32]).unwrap());
        assert!(!first.note_manifest([1; 32]).unwrap());
        // Another writer on the same directory: the first one notices and continues behind it.
        let mut second = HostLog::open(place(dir.path(), "boot-1"), pcr.clone()).unwrap();
        assert!(second.note_manifest([2; 32]).unwrap());
        assert!(!first.note_manifest([2; 32]).unwrap());
        let guard = first.lock().unwrap();
        assert_eq!(Parsed::parse(guard.snapshot()).unwrap().records().len(), 3);
        let file = File::open(dir.path().join(LOCK_FILE)).unwrap();
        assert!(Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err());
        drop(guard);
        assert_eq!(verify(dir.path(), &pcr).len(), 3);
    }
}
