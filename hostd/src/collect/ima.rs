//! The kernel's IMA list, from one entry on.
//!
//! Linux `ima_fs.c`. A busy host's list has hundreds of thousands of entries and only grows: where every [`STRIDE`]th entry begins
//! is remembered, so that a round reads and frames little more than what is new. Establishes entry boundaries only; what an
//! entry says is the verifier's to replay.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use hostmark_attest::evidence::{IMA_SENT_MAX, ImaPart};
use hostmark_attest::ima::boundaries;

/// An offset is remembered for each so many entries: 4 KiB of memory for 100,000 entries, and some 50 KiB read again a round.
const STRIDE: usize = 256;
/// Bytes framed at a time: more than the longest entry (DATA_MAX of the format).
const CHUNK: u64 = 24 << 20;
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

    /// The list from entry `from` on, or from 0 when it has fewer entries. A malformed list comes whole: it is for the verifier to
    /// judge. Of one that is longer from there than a round can carry nothing comes but how much it is at least.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn read_from(&mut self, from: u64) -> io::Result<ImaPart> {
        match self.read_fitting(from) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Ok(ImaPart { from, list: Vec::new(), left_out: u64::try_from(IMA_SENT_MAX).unwrap_or(u64::MAX) })
            }
            other => other,
        }
    }

    fn read_fitting(&mut self, from: u64) -> io::Result<ImaPart> {
        let mut file = File::open(&self.path)?;
        let mut head = Vec::new();
        file.by_ref().take(HEAD).read_to_end(&mut head)?;
        if !head.starts_with(&self.head) || self.head.is_empty() {
            self.marks = vec![0];
        }
        self.head = head;
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        self.mark_until(&mut file, from)?;
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
        Ok(ImaPart { from: 0, list, left_out: 0 })
    }

    /// Marks entries up to `from`, a chunk in memory at a time: a daemon that has just started knows none, and the list may be longer
    /// than a round carries. Stops where it cannot frame a stride; reading goes on from there.
    fn mark_until(&mut self, file: &mut File, from: usize) -> io::Result<()> {
        while self.marks.len() <= from / STRIDE {
            let start = self.marks.last().copied().unwrap_or_default();
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.by_ref().take(CHUNK).read_to_end(&mut bytes)?;
            let Ok(found) = boundaries(&bytes) else { return Ok(()) };
            if found.len() <= STRIDE {
                return Ok(());
            }
            for offset in found.iter().skip(STRIDE).step_by(STRIDE) {
                self.marks.push(start.saturating_add(u64::try_from(*offset).unwrap_or(u64::MAX)));
            }
        }
        Ok(())
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
        Ok(Some(ImaPart { from: u64::try_from(from).unwrap_or(u64::MAX), list: bytes, left_out: 0 }))
    }
}

fn read_rest(file: &mut File, start: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start))?;
    let limit = u64::try_from(IMA_SENT_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > IMA_SENT_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("more than {IMA_SENT_MAX} bytes are left of it"),
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
        assert_eq!(list.read_from(1000).unwrap(), ImaPart { from: 1000, list: entries(1000..1300), left_out: 0 });
        append(&path, entry(1300).get(30..).unwrap());
        assert_eq!(list.read_from(1300).unwrap(), ImaPart { from: 1300, list: entries(1300..1301), left_out: 0 });
    }

    #[test]
    fn b24_a_list_that_no_round_carries_is_told_and_its_end_is_still_sent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ima");
        // Some 40 MiB of long paths; a quarter of a million short ones would do the same.
        let long = |number: usize| {
            let data = vec![u8::try_from(number % 251).unwrap(); 4000];
            let mut out = 10u32.to_le_bytes().to_vec();
            out.extend([1; 20]);
            out.extend(6u32.to_le_bytes());
            out.extend(b"ima-ng");
            out.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
            out.extend(data);
            out
        };
        let flood: Vec<u8> = (0..10_000).flat_map(long).collect();
        assert!(flood.len() > IMA_SENT_MAX);
        append(&path, &flood);
        let mut list = ImaList::new(path.clone());
        let told = ImaPart { from: 0, list: Vec::new(), left_out: u64::try_from(IMA_SENT_MAX).unwrap() };
        assert!(list.read_from(0).unwrap() == told, "whole");
        // A daemon that has just started finds what follows a late entry, and an old one goes on.
        for mut list in [ImaList::new(path.clone()), list] {
            let part = list.read_from(9_998).unwrap();
            assert!((part.from, part.left_out, part.list) == (9_998, 0, [long(9_998), long(9_999)].concat()));
        }
        // The honest twin: a shorter list comes whole.
        let short: Vec<u8> = (0..100).flat_map(long).collect();
        std::fs::write(&path, &short).unwrap();
        assert!(ImaList::new(path).read_from(0).unwrap() == ImaPart { from: 0, list: short, left_out: 0 });
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
        assert_eq!(list.read_from(5).unwrap(), ImaPart { from: 0, list: vec![0xFF; 100], left_out: 0 });
        std::fs::remove_file(&path).unwrap();
        assert_eq!(list.read_from(0).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
