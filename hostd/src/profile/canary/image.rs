//! The image of a canary: one program and nothing else, made on the spot.
//!
//! The archive is what `docker import` takes: ustar (POSIX.1-1988, "pax": ustar Interchange Format) with one file. Nothing is fetched, and what runs
//! in a container can be held against these bytes.

/// The program (canary/src/main.rs), linked statically.
pub(super) const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/canary"));
/// Where it is in the image.
pub(super) const PATH: &str = "/canary";
/// Unit of the archive.
const BLOCK: usize = 512;

/// The image's file system.
pub(super) fn archive() -> Vec<u8> {
    let size = PROGRAM.len();
    let padding = size.next_multiple_of(BLOCK).saturating_sub(size);
    let (root, file) = (header("./", "0000755", 0, "5"), header("canary", "0000555", size, "0"));
    [&root[..], &file[..], PROGRAM, &vec![0; padding], &[0; 2 * BLOCK]].concat()
}

fn header(name: &str, mode: &str, size: usize, kind: &str) -> [u8; BLOCK] {
    let mut header = [0u8; BLOCK];
    let mut put = |at: usize, text: &str| {
        for (byte, letter) in header.iter_mut().skip(at).zip(text.bytes()) {
            *byte = letter;
        }
    };
    put(0, name);
    put(100, mode);
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    // The checksum counts its own field as spaces.
    put(148, "        ");
    put(156, kind);
    put(257, "ustar");
    put(263, "00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    for (byte, letter) in header.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()) {
        *byte = letter;
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::arithmetic_side_effects, reason = "offsets of one program")]
    fn the_archive_is_one_static_program() {
        let archive = archive();
        assert_eq!(archive.len() % BLOCK, 0);
        assert_eq!(&archive[2 * BLOCK..2 * BLOCK + PROGRAM.len()], PROGRAM);
        assert_eq!(&PROGRAM[..4], b"\x7fELF");
        // elf(5), 64 bits: offset, size and number of the program headers; type 3 asks for an interpreter.
        let number = |at: usize, size: usize| {
            PROGRAM[at..at + size].iter().rev().fold(0, |all, byte| all * 256 + usize::from(*byte))
        };
        let (offset, size, count) = (number(32, 8), number(54, 2), number(56, 2));
        assert!(count > 0 && (0..count).all(|index| number(offset + index * size, 4) != 3), "no interpreter");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.tar"), &archive).unwrap();
        let listed = std::process::Command::new("tar").arg("-tvf").arg(dir.path().join("a.tar")).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let lines: Vec<&str> = listed.lines().collect();
        assert!(lines[0].starts_with("drwxr-xr-x") && lines[0].ends_with(" ./"), "{listed}");
        assert!(lines[1].starts_with("-r-xr-xr-x") && lines[1].ends_with(" canary"), "{listed}");
        assert_eq!(lines.len(), 2);
    }
}
