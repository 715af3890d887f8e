//! Reading what the user names: a regular file or `-`, never more than its limit.
//!
//! A directory, a pipe or a device is refused before anything is read, so that no command hangs or fills memory.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::failure::Failure;

/// TPM structures, keys, PCR values and certificates: the largest that tpm2-tools writes is below 10 KiB.
pub(super) const SMALL_MAX: usize = 1 << 20;
/// Policies and pools: people write them.
pub(super) const POLICY_MAX: usize = 4 << 20;
/// Reference bundles: a million files would still fit.
pub(super) const REFERENCES_MAX: usize = 64 << 20;

/// Reads `path` (`-`: standard input), which is `what` and holds at most `limit` bytes.
pub(super) fn read(path: &Path, what: &str, limit: usize) -> Result<Vec<u8>, Failure> {
    let bytes = if path.as_os_str() == "-" {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Err(Failure::unusable("standard input (-) can only be read once: name files for the rest"));
        }
        bounded(io::stdin().lock(), limit)
    } else {
        open(path)?.and_then(|file| bounded(file, limit))
    };
    let bytes = bytes.map_err(|error| Failure::io(path, &error))?;
    if bytes.len() > limit {
        return Err(Failure::unusable(format!(
            "{}: at byte {limit}: the file goes on, and {what} has at most {limit} bytes",
            path.display()
        )));
    }
    Ok(bytes)
}

/// As [`read`], for UTF-8 text.
pub(super) fn read_text(path: &Path, what: &str, limit: usize) -> Result<String, Failure> {
    String::from_utf8(read(path, what, limit)?).map_err(|error| {
        Failure::unusable(format!(
            "{}: at byte {}: {what} is UTF-8 text, and this is not",
            path.display(),
            error.utf8_error().valid_up_to()
        ))
    })
}

/// Opens without waiting for a pipe's other end. The outer error is ours, the inner one the system's.
fn open(path: &Path) -> Result<io::Result<File>, Failure> {
    // What the caller's shell opened for us, as in `<(command)`, is already a pipe with two ends.
    let given = ["/dev/fd/", "/dev/stdin", "/proc/self/fd/"]
        .iter()
        .any(|prefix| path.to_str().is_some_and(|path| path.starts_with(prefix)));
    if given {
        return Ok(File::open(path));
    }
    let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NOCTTY;
    let file = match File::options().read(true).custom_flags(flags.bits()).open(path) {
        Ok(file) => file,
        Err(error) => return Ok(Err(error)),
    };
    let kind = match file.metadata() {
        Ok(metadata) => metadata.file_type(),
        Err(error) => return Ok(Err(error)),
    };
    let refused = if kind.is_dir() {
        Some("is a directory: name a file in it")
    } else if kind.is_fifo() || kind.is_socket() {
        Some("is a pipe or socket: give its content on standard input and name it -")
    } else if kind.is_char_device() || kind.is_block_device() {
        Some("is a device: copy its content to a file first")
    } else {
        None
    };
    match refused {
        Some(problem) => Err(Failure::unusable(format!("{}: {problem}", path.display()))),
        None => Ok(Ok(file)),
    }
}

/// At most one byte more than `limit`: enough to know that it was passed.
fn bounded(reader: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The byte of a JSON error, and its reason without serde_json's line and column.
pub(super) fn json_error(file: &Path, bytes: &[u8], error: &serde_json::Error) -> Failure {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
    let at = lines.map(<[u8]>::len).sum::<usize>().saturating_add(error.column().saturating_sub(1));
    let text = error.to_string();
    let why = text.rsplit_once(" at line ").map_or(text.as_str(), |(why, _)| why);
    Failure::unusable(format!("{}: at byte {at}: {why}", file.display()))
}
