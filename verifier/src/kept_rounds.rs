//! Evidence of changed verdicts, kept as files: below the state directory, one directory per host, the newest few.
//!
//! Each file is signed (`attest::stored_round`), so who writes the directory can remove evidence but not make some. It is written before
//! the change is recorded: an acknowledged change has its evidence, also after kill -9. A disk that is full loses evidence, never a verdict.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::files::{private_dir, write_atomic};

/// Rounds that are kept of a host: a verdict changes rarely, and an auditor asks for the last ones.
const ROUNDS_MAX: usize = 16;
/// Bytes that are kept of a host: a first round with a whole IMA list has some 10 MiB.
const BYTES_MAX: u64 = 128 << 20;
/// How the files end.
const ENDING: &str = "evidence";

/// The directory of kept rounds.
#[derive(Debug, Clone)]
pub struct KeptRounds(PathBuf);

impl KeptRounds {
    /// Below this state directory.
    #[must_use]
    pub fn below(state_dir: &Path) -> Self {
        Self(state_dir.join("evidence"))
    }

    /// Writes a round of a host (an id that this verifier gave) and removes the oldest beyond the limits.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn keep(&self, host: &str, unix_ms: i64, nonce: &[u8], bytes: &[u8]) -> io::Result<PathBuf> {
        let dir = self.0.join(host);
        private_dir(&self.0)?;
        private_dir(&dir)?;
        // Sorted by name is sorted by time.
        let nonce = hex::encode(nonce.get(..8).unwrap_or_default());
        let path = dir.join(format!("{unix_ms:015}-{nonce}.{ENDING}"));
        write_atomic(&path, 0o600, bytes)?;
        prune(&dir)?;
        Ok(path)
    }

    /// Removes a round that was not recorded after all.
    pub fn discard(path: &Path) {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "evidence of a round that was not recorded stays");
        }
    }
}

fn prune(dir: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == ENDING) {
            files.push(path);
        }
    }
    files.sort();
    let mut bytes = 0u64;
    for (age, path) in files.iter().rev().enumerate() {
        bytes = bytes.saturating_add(fs::metadata(path)?.len());
        // The newest stays, however large.
        if age >= ROUNDS_MAX || (age > 0 && bytes > BYTES_MAX) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_newest_rounds_are_kept_and_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let kept = KeptRounds::below(dir.path());
        let mut last = PathBuf::new();
        for time in 0..20 {
            last = kept.keep("host", time, &[7; 32], b"x").unwrap();
        }
        let folder = dir.path().join("evidence/host");
        let names = || {
            let list = fs::read_dir(&folder).unwrap().map(|one| one.unwrap().file_name().into_string().unwrap());
            let mut list: Vec<String> = list.collect();
            list.sort();
            list
        };
        assert_eq!((names().len(), names()[0].as_str()), (16, "000000000000004-0707070707070707.evidence"));
        assert_eq!(fs::metadata(&last).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        KeptRounds::discard(&last);
        assert_eq!(names().len(), 15);
        kept.keep("other", 1, &[7; 32], b"x").unwrap();
        assert_eq!(names().len(), 15, "each host has its own");
    }
}
