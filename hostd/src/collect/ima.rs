//! The kernel's IMA list, from one entry on.
//!
//! Linux `ima_fs.c`. A busy host's list has hundreds of thousands of entries and only grows: where every [`STRIDE`]th entry begins
//! is remembered, so that a round reads and frames little more than what is new. Establishes entry boundaries only; what an
//! entry says is the verifier's to replay.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use hostmark_attest::evidence::{EVIDENCE_MAX, ImaPart};
use hostmark_attest::ima::boundaries;

/// An offset is remembered for each so many entries: 4 KiB of memory for 100,000 entries, and some 50 KiB read again a round.
const STRIDE: usize = 256;
/// So many bytes at the start tell another list from this one: they hold the boot aggregate.
const HEAD: u64 = 128;

/// Where the list is, and where its entries begin.
#[derive(Debug)]
pub(super) struct ImaList {
    path: PathBuf,
    head: Vec<u8>,
    /// Offset of entry `STRIDE * index`.
    marks: Vec<u64>,
}

impl ImaList {
    /// Nothing is read yet.
    #[must_use]
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, head: Vec::new(), marks: vec![0] }
    }

    /// The list from entry `from` on, or from 0 when it has fewer entries. A malformed list comes whole: it is for the verifier to judge.
    ///
    /// # Errors
    /// The system's; `InvalidData` when more is left than one round can carry.
    pub(super) fn read_from(&mut self, from: u64) -> io::Result<ImaPart> {
        let mut file = File::open(&self.path)?;
        let mut head = Vec::new();
        file.by_ref().take(HEAD).read_to_end(&mut head)?;
        if !head.starts_with(&self.head) || self.head.is_empty() {
            self.marks = vec![0];
        }
        self.head = head;
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let nearest = (from / STRIDE).min(self.marks.len().saturating_sub(1));
        if nearest > 0 {
            if let Some(part) = self.read_part(&mut file, nearest, from)? {
                return Ok(part);
            }
            // It does not fit what was seen: another list in its place.
            self.marks = vec![0];
        }
        for from in [from, 0] {
            if let Some(part) = self.read_part(&mut file, 0, from)? {
                return Ok(part);
            }
        }
        let list = read_rest(&mut file, 0)?;
        Ok(ImaPart { from: 0, list })
    }

    /// Reads on from a mark. None when no entry `from` is found there.
    fn read_part(&mut self, file: &mut File, mark: usize, from: usize) -> io::Result<Option<ImaPart>> {
        let Some(start) = self.marks.get(mark).copied() else { return Ok(None) };
        let mut bytes = read_rest(file, start)?;
        let Ok(found) = boundaries(&bytes) else { return Ok(None) };
        let first = mark.saturating_mul(STRIDE);
        self.marks.truncate(mark.saturating_add(1));
        for offset in found.iter().skip(STRIDE).step_by(STRIDE) {
            self.marks.push(start.saturating_add(u64::try_from(*offset).unwrap_or(u64::MAX)));
        }
        let whole = found.last().copied().unwrap_or_default();
        let Some(begin) = from.checked_sub(first).and_then(|entry| found.get(entry)).copied() else { return Ok(None) };
        bytes.truncate(whole);
        bytes.drain(..begin);
        Ok(Some(ImaPart { from: u64::try_from(from).unwrap_or(u64::MAX), list: bytes }))
    }
}

fn read_rest(file: &mut File, start: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start))?;
    let limit = u64::try_from(EVIDENCE_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > EVIDENCE_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("more than {EVIDENCE_MAX} bytes are left of it"),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::io::Write as _;

    /// An ima-ng entry with `size` bytes of template data.
    fn entry(number: usize) -> Vec<u8> {
        let data = vec![u8::try_from(number % 251).unwrap(); number.wrapping_rem(7).wrapping_add(10)];
        let mut out = 10u32.to_le_bytes().to_vec();
        out.extend([u8::try_from(number % 200).unwrap() | 1; 20]);
        out.extend(6u32.to_le_bytes());
        out.extend(b"ima-ng");
        out.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        out.extend(data);
        out
    }

    fn entries(range: std::ops::Range<usize>) -> Vec<u8> {
        range.flat_map(entry).collect()
    }

    fn append(path: &std::path::Path, bytes: &[u8]) {
        OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(bytes).unwrap();
    }

    #[test]
    fn the_list_is_sent_from_any_entry_and_never_ends_within_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ima");
        append(&path, &entries(0..1000));
        let mut list = ImaList::new(path.clone());
        // (asked, sent from), in an order that uses marks, makes them, and has none.
        for (asked, from) in [
            (0, 0),
            (999, 999),
            (1000, 1000),
            (1001, 0),
            (255, 255),
            (256, 256),
            (257, 257),
            (u64::MAX, 0),
            (1000, 1000),
        ] {
            let part = list.read_from(asked).unwrap();
            let expect = entries(usize::try_from(from).unwrap()..1000);
            assert_eq!((part.from, part.list == expect), (from, true), "from {asked}");
        }
        assert_eq!(list.marks.len(), 1000 / STRIDE + 1);
        // It grows, and a copy in progress ends within an entry.
        append(&path, &entries(1000..1300));
        append(&path, entry(1300).get(..30).unwrap());
        assert_eq!(list.read_from(1000).unwrap(), ImaPart { from: 1000, list: entries(1000..1300) });
        append(&path, entry(1300).get(30..).unwrap());
        assert_eq!(list.read_from(1300).unwrap(), ImaPart { from: 1300, list: entries(1300..1301) });
    }

    #[test]
    fn another_list_in_its_place_is_read_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ima");
        append(&path, &entries(0..600));
        let mut list = ImaList::new(path.clone());
        assert_eq!(list.read_from(600).unwrap().from, 600);
        for (name, content) in [("other", entries(7..700)), ("shorter", entries(7..20)), ("empty", Vec::new())] {
            std::fs::write(&path, &content).unwrap();
            let part = list.read_from(0).unwrap();
            assert_eq!((part.from, part.list == content), (0, true), "{name}");
            let part = list.read_from(600).unwrap();
            let (from, expect) = if name == "other" { (600, entries(607..700)) } else { (0, content) };
            assert_eq!((part.from, part.list == expect), (from, true), "{name}");
        }
        // What is no list is sent as it is.
        std::fs::write(&path, [0xFF; 100]).unwrap();
        assert_eq!(list.read_from(5).unwrap(), ImaPart { from: 0, list: vec![0xFF; 100] });
        std::fs::remove_file(&path).unwrap();
        assert_eq!(list.read_from(0).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
