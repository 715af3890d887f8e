//! The embedded store. Its methods are commands; each is one transaction.
//!
//! SQLite, WAL, synchronous FULL: what was acknowledged survives kill -9 and a power failure. The issue of a nonce alone waits for no disk: it
//! grants nothing, and a host whose nonce a power failure took asks again. Every change runs under `BEGIN IMMEDIATE`, so that two processes on
//! one store see one order. A change and its audit record are one transaction; the chain's signed head is written beside the database
//! afterwards, under a lock that all processes share. If head and chain disagree, the store is read-only until a person has looked.

mod audit;
mod certificates;
mod enrolments;
mod hosts;
mod nonces;
mod rounds;
mod rules;
#[cfg(test)]
mod tests;
mod tokens;

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use hostmark_attest::finding::Finding;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::clock::Now;
use crate::keys::Keys;
use crate::refusal::{Kind, Outcome, Refusal};

pub use certificates::{CertificateRow, OperatorRow};
pub use enrolments::{EnrolmentRow, EnrolmentState, NewEnrolment};
pub use hosts::{Assignment, HostRow, Placement};
pub use nonces::{ConsumedNonce, IssuedNonce, Purpose};
pub use rounds::{Changes, NonceIssue, RoundRecord, StoredResult};
pub use rules::SignedKind;
pub use tokens::{NewToken, Preregistration, TokenRow};

/// The schema's version, in SQLite's user_version.
const SCHEMA_VERSION: i64 = 2;
/// How long a command waits for another process's transaction.
const BUSY: Duration = Duration::from_secs(5);
/// Connections for reads: hot reads must not wait behind a commit's fsync.
const READERS: usize = 4;

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is none.
    #[error("{0} does not exist; run `verifier init` first")]
    Missing(PathBuf),
    /// Written by another release.
    #[error("{path} has schema version {found}, this release reads {SCHEMA_VERSION}")]
    Version {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// SQLite refused.
    #[error("{path}: {source}")]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A file beside the database refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The store. Share it in an `Arc`.
pub struct Store {
    writer: Mutex<Connection>,
    readers: Vec<Mutex<Connection>>,
    next_reader: AtomicUsize,
    keys: Arc<Keys>,
    head_path: PathBuf,
    head_lock: File,
    read_only: OnceLock<Finding>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Store").field("head", &self.head_path).finish_non_exhaustive()
    }
}

/// One transaction of a command. Dropped without [`Store::write`] returning `Ok`, it changes nothing.
#[derive(Debug)]
pub struct Tx<'c> {
    sql: rusqlite::Transaction<'c>,
    now: &'c Now,
    keys: &'c Keys,
    audited: Cell<bool>,
}

impl<'c> std::ops::Deref for Tx<'c> {
    type Target = rusqlite::Transaction<'c>;

    fn deref(&self) -> &Self::Target {
        &self.sql
    }
}

impl Tx<'_> {
    /// The time of this command.
    #[must_use]
    pub const fn now(&self) -> &Now {
        self.now
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic inside a command rolled its transaction back; the connection itself is sound.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Store {
    /// Makes a new, empty store.
    ///
    /// # Errors
    /// [`OpenError`]; an existing database is an error.
    pub fn create(path: &Path, keys: Arc<Keys>) -> Result<Self, OpenError> {
        let sqlite = |source| OpenError::Sqlite { path: path.into(), source };
        // The file is created closed to others before SQLite sees it.
        use std::os::unix::fs::OpenOptionsExt as _;
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| OpenError::Io { path: path.into(), source })?;
        let connection = Connection::open(path).map_err(sqlite)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(sqlite)?;
        connection
            .execute_batch(&format!(
                "BEGIN IMMEDIATE; {} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;",
                include_str!("schema.sql")
            ))
            .map_err(sqlite)?;
        drop(connection);
        Self::open(path, keys)
    }

    /// Opens an existing store and verifies its audit chain against the signed head.
    ///
    /// # Errors
    /// [`OpenError`]. A broken chain is not an error: the store opens read-only, see [`Store::read_only`].
    pub fn open(path: &Path, keys: Arc<Keys>) -> Result<Self, OpenError> {
        let sqlite = |source| OpenError::Sqlite { path: path.into(), source };
        if !path.exists() {
            return Err(OpenError::Missing(path.into()));
        }
        let writer = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sqlite)?;
        let found: i64 = writer.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sqlite)?;
        if found != SCHEMA_VERSION {
            return Err(OpenError::Version { path: path.into(), found });
        }
        let mut readers = Vec::with_capacity(READERS);
        for _ in 0..READERS {
            readers.push(Mutex::new(Self::connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(sqlite)?));
        }
        let head_path = path.with_file_name("audit-head.jws");
        let lock_path = path.with_file_name("audit-head.lock");
        let head_lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|source| OpenError::Io { path: lock_path.clone(), source })?;
        let store = Self {
            writer: Mutex::new(writer),
            readers,
            next_reader: AtomicUsize::new(0),
            keys,
            head_path,
            head_lock,
            read_only: OnceLock::new(),
        };
        store.check_chain().map_err(sqlite)?;
        Ok(store)
    }

    fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        connection.pragma_update(None, "trusted_schema", "OFF")?;
        Ok(connection)
    }

    /// Why the store accepts no change, if it does not.
    #[must_use]
    pub fn read_only(&self) -> Option<&Finding> {
        self.read_only.get()
    }

    /// The keys that seal and sign what the store keeps.
    #[must_use]
    pub const fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Runs one command as one transaction: all of it, with its audit records, or nothing.
    ///
    /// # Errors
    /// What the command refuses (nothing is changed then), or 503 when the store is away or read-only.
    pub fn write<T>(&self, now: &Now, command: impl FnOnce(&Tx<'_>) -> Outcome<T>) -> Outcome<T> {
        self.commit(now, "FULL", command)
    }

    /// As [`Store::write`], for a change that grants nothing: it is on the disk with the next [`Store::write`] at the latest. The end of the
    /// process does not undo it, a power failure may.
    ///
    /// # Errors
    /// As [`Store::write`].
    fn write_soon<T>(&self, now: &Now, command: impl FnOnce(&Tx<'_>) -> Outcome<T>) -> Outcome<T> {
        self.commit(now, "NORMAL", command)
    }

    fn commit<T>(&self, now: &Now, synchronous: &str, command: impl FnOnce(&Tx<'_>) -> Outcome<T>) -> Outcome<T> {
        if let Some(finding) = self.read_only() {
            return Err(Refusal::new(Kind::Unavailable, finding.clone()));
        }
        let mut writer = lock(&self.writer);
        writer.pragma_update(None, "synchronous", synchronous)?;
        let sql = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let tx = Tx { sql, now, keys: &self.keys, audited: Cell::new(false) };
        let value = command(&tx)?;
        if tx.audited.get() {
            self.commit_with_head(tx)?
        } else {
            tx.sql.commit()?
        }
        Ok(value)
    }

    /// Reads one consistent snapshot.
    ///
    /// # Errors
    /// 503 when the store is away, or what `query` refuses.
    pub fn read<T>(&self, query: impl FnOnce(&Connection) -> Outcome<T>) -> Outcome<T> {
        let count = self.readers.len().max(1);
        let first = self.next_reader.fetch_add(1, Ordering::Relaxed).checked_rem(count).unwrap_or(0);
        let Some(reader) = self.readers.get(first) else {
            return Err(Refusal::internal("the store has no reader"));
        };
        let reader = lock(reader);
        let snapshot = reader.unchecked_transaction()?;
        query(&snapshot)
    }
}

/// Runs a blocking command off the async threads.
///
/// # Errors
/// What the command refuses; 500 when it panicked (nothing is changed then).
pub async fn blocking<T: Send + 'static>(
    store: &Arc<Store>,
    command: impl FnOnce(&Store) -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    let store = Arc::clone(store);
    match tokio::task::spawn_blocking(move || command(&store)).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Refusal::internal(error)),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A new store in a directory of its own.
    pub(crate) fn store() -> (tempfile::TempDir, Arc<Store>) {
        let dir = tempfile::tempdir().unwrap();
        let keys = Arc::new(Keys::create(&dir.path().join("state")).unwrap());
        let store = Store::create(&dir.path().join("state/store.sqlite"), keys).unwrap();
        (dir, Arc::new(store))
    }

    /// A reading of a clock that stands where a test wants it.
    pub(crate) fn at(ms: i64) -> Now {
        Now { boot_id: "boot-1".into(), boot_ms: ms, unix_ms: 1_700_000_000_000_i64.saturating_add(ms) }
    }
}
