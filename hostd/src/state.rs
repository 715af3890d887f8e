//! Files hostd keeps: written whole or not at all, readable by their owner alone.
//!
//! A write goes to a new file, is synced, renamed over the old one, and the directory is synced: after a crash there is the old
//! content or the new one. It does not protect against root, who can read and replace everything here.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

/// Creates a directory and its parents, 0700, and tightens it if it exists with other rights. What it creates outlasts a power loss.
///
/// # Errors
/// The system's.
pub fn directory(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|one| !one.as_os_str().is_empty() && !one.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    for parent in missing.iter().filter_map(|one| one.parent()) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        File::open(parent)?.sync_all()?;
    }
    let rights = fs::metadata(path)?.permissions();
    if rights.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Holds a state directory for one process; ends with it.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Takes a state directory for this process alone.
///
/// # Errors
/// `WouldBlock` when another process has it; the system's.
pub fn lock(path: &Path) -> io::Result<Lock> {
    directory(path)?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.join("lock"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map(|file| Lock { _file: file })
        .map_err(|(_, errno)| errno.into())
}

/// Reads a file of at most `limit` bytes; None when there is none.
///
/// # Errors
/// The system's; `InvalidData` above the limit.
pub fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("larger than {limit} bytes")));
    }
    Ok(Some(bytes))
}

/// Writes a file whole, 0600, in a directory that is created when it is missing.
///
/// # Errors
/// The system's; the old content is then still there.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    directory(parent)?;
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = Path::new(&name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_whole_private_and_bounded() {
        let parent = tempfile::tempdir().unwrap();
        let (dir, file) = (parent.path().join("a/b"), parent.path().join("a/b/c"));
        assert_eq!(read(&file, 10).unwrap(), None);
        for content in ["first", "second"] {
            write(&file, content.as_bytes()).unwrap();
            assert_eq!(read(&file, 10).unwrap().unwrap(), content.as_bytes());
        }
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(read(&file, 3).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn one_process_holds_a_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        assert_eq!(lock(dir.path()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        lock(dir.path()).unwrap();
    }
}
