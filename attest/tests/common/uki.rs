//! Makes small PE images and unified kernel images: laid out like real ones, with nothing in them that runs.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(unreachable_pub, missing_docs, reason = "shared by test binaries")]

/// Where the parts of a made image lie.
pub const PE: usize = 64;
/// The number of sections.
pub const COUNT: usize = PE + 6;
/// The optional header.
pub const OPTIONAL: usize = PE + 24;
/// SizeOfHeaders.
pub const HEADERS: usize = OPTIONAL + 60;
/// CheckSum.
pub const CHECKSUM: usize = OPTIONAL + 64;
/// The number of data directories of PE32+.
pub const DIRECTORIES: usize = OPTIONAL + 108;
/// The certificate table's directory entry of PE32+.
pub const CERTIFICATES: usize = OPTIONAL + 112 + 4 * 8;
/// The first row of the section table of PE32+.
pub const ROWS: usize = OPTIONAL + 240;

/// Sections and certificates are aligned to this in the file.
const ALIGNMENT: usize = 512;

fn put(image: &mut [u8], at: usize, value: usize) {
    image[at..at + 4].copy_from_slice(&u32::try_from(value).unwrap().to_le_bytes());
}

/// A PE32+ image of these sections, with certificates where there are any.
pub fn pe(sections: &[(&str, &[u8])], certificates: &[u8]) -> Vec<u8> {
    pe_of(true, sections, certificates)
}

/// As [`pe`], PE32+ or PE32.
pub fn pe_of(plus: bool, sections: &[(&str, &[u8])], certificates: &[u8]) -> Vec<u8> {
    let directories = if plus { 112 } else { 96 };
    let rows = OPTIONAL + directories + 128;
    let headers = (rows + 40 * sections.len()).next_multiple_of(ALIGNMENT);
    let mut image = vec![0; headers];
    image[..2].copy_from_slice(b"MZ");
    put(&mut image, 0x3c, PE);
    image[PE..PE + 4].copy_from_slice(b"PE\0\0");
    image[COUNT] = u8::try_from(sections.len()).unwrap();
    image[PE + 20] = u8::try_from(directories + 128).unwrap();
    image[OPTIONAL..OPTIONAL + 2].copy_from_slice(if plus { &[0x0b, 2] } else { &[0x0b, 1] });
    put(&mut image, HEADERS, headers);
    put(&mut image, OPTIONAL + directories - 4, 16);
    for (index, (name, data)) in sections.iter().enumerate() {
        let (row, start) = (rows + 40 * index, image.len());
        image.extend_from_slice(data);
        image.resize(image.len().next_multiple_of(ALIGNMENT), 0);
        image[row..row + name.len()].copy_from_slice(name.as_bytes());
        put(&mut image, row + 8, data.len());
        put(&mut image, row + 12, 0x1000 * (index + 1));
        let length = image.len() - start;
        put(&mut image, row + 16, length);
        put(&mut image, row + 20, start);
    }
    if !certificates.is_empty() {
        let (entry, start) = (OPTIONAL + directories + 32, image.len());
        put(&mut image, entry, start);
        put(&mut image, entry + 4, certificates.len());
        image.extend_from_slice(certificates);
    }
    image
}

/// A kernel whose boot header names its version.
pub fn kernel() -> Vec<u8> {
    let mut boot = vec![0; 512];
    boot[2..6].copy_from_slice(b"HdrS");
    boot[0xe..0x10].copy_from_slice(&0x100u16.to_le_bytes());
    boot[0x100..0x11a].copy_from_slice(b"6.1.0-56-cloud-amd64 (x) #");
    // The boot header lies at 0x200 of the file: where the first section's data begins.
    pe(&[(".setup", &boot), (".text", b"kernel text")], b"")
}

/// What stands in [`uki`], but for its kernel.
pub const OSREL: &[u8] = b"ID=made\nPRETTY_NAME=\"Made for a test\"\n";
/// Its command line.
pub const CMDLINE: &[u8] = b"ro lockdown=integrity";
/// Its initrd.
pub const INITRD: &[u8] = b"070701 an initrd";
/// Its stub's name.
pub const SDMAGIC: &[u8] = b"#### LoaderInfo: systemd-stub 252.39-1~deb12u2 ####\0";

/// The sections of a unified kernel image, in another order than they are measured in.
pub fn sections(kernel: &[u8]) -> Vec<(&'static str, &[u8])> {
    vec![
        (".text", b"stub text"),
        (".sdmagic", SDMAGIC),
        (".osrel", OSREL),
        (".cmdline", CMDLINE),
        (".initrd", INITRD),
        (".linux", kernel),
    ]
}

/// A unified kernel image, not signed.
pub fn uki() -> Vec<u8> {
    pe(&sections(&kernel()), b"")
}
