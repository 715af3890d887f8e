//! Unified kernel images: UAPI.5 "Unified Kernel Image", systemd-stub(7), and Linux's boot header (Documentation/arch/x86/boot).
//!
//! Establishes which sections the stub measures and in which order, and what the image says of its stub, kernel, operating
//! system and command line. Does **not** establish that its stub is systemd's: the `.sdmagic` section is the image's word.

use super::pe::{Image, Section};
use crate::bytes::{ParseError, Problem};

/// The sections that the stub measures into PCR 11, in its order, and the first systemd that does. `.pcrsig` is never measured:
/// it holds signatures over PCR 11 itself.
const MEASURED: [(&str, u32); 10] = [
    (".linux", 0),
    (".osrel", 0),
    (".cmdline", 0),
    (".initrd", 0),
    (".ucode", 256),
    (".splash", 0),
    (".dtb", 0),
    (".uname", 253),
    (".sbat", 253),
    (".pcrpkey", 0),
];

/// The names of the sections that stubs measure.
pub fn measured_sections() -> impl Iterator<Item = &'static str> {
    MEASURED.into_iter().map(|(name, _)| name)
}

/// Sections that the stub hands to the kernel as an initrd of its own making.
const PACKED: [&str; 2] = [".pcrsig", ".pcrpkey"];

/// Longest text that is shown of an image: a page. Linux's command line has at most 4096 bytes.
const TEXT_MAX: usize = 4096;

/// The release of systemd whose measurements were compared with booted machines.
pub const STUB_TESTED: u32 = 252;

/// A unified kernel image, framed.
#[derive(Debug, Clone)]
pub struct Uki<'a> {
    image: Image<'a>,
    kernel: Image<'a>,
    measured: Vec<(&'static str, &'a [u8])>,
    packs_initrd: bool,
    stub: Option<String>,
    kernel_version: Option<String>,
}

impl<'a> Uki<'a> {
    /// Frames an image and the kernel in it.
    ///
    /// # Errors
    /// What is no unified kernel image, or one whose sections are ambiguous, with the byte.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let image = Image::parse(bytes)?;
        unambiguous(&image)?;
        let find = |name: &str| image.sections().iter().find(|one| one.name() == name.as_bytes());
        let stub = find(".sdmagic").map(|one| image.data(one)).transpose()?.and_then(|(data, _)| stub_version(data));
        let release = stub.as_deref().and_then(major).unwrap_or(STUB_TESTED);
        let mut measured = Vec::new();
        for (name, _) in MEASURED.into_iter().filter(|(_, since)| release >= *since) {
            // The stub measures no empty section.
            if let Some((data, _)) =
                find(name).map(|one| image.data(one)).transpose()?.filter(|(data, _)| !data.is_empty())
            {
                measured.push((name, data));
            }
        }
        let Some((linux, at)) = find(".linux").map(|one| image.data(one)).transpose()? else {
            let problem = Problem::Malformed { what: "the image has no .linux section: it is no unified kernel image" };
            return Err(ParseError { at: 0, problem });
        };
        let kernel = Image::parse_at(linux, at)?;
        let packs_initrd = PACKED.into_iter().any(|name| find(name).is_some());
        let kernel_version = kernel_version(linux);
        Ok(Self { image, kernel, measured, packs_initrd, stub, kernel_version })
    }

    /// The image itself: what the firmware starts.
    #[must_use]
    pub const fn image(&self) -> &Image<'a> {
        &self.image
    }

    /// The kernel in it: what the stub starts.
    #[must_use]
    pub const fn kernel(&self) -> &Image<'a> {
        &self.kernel
    }

    /// The sections that the stub measures, in its order.
    #[must_use]
    pub fn measured(&self) -> &[(&'static str, &'a [u8])] {
        &self.measured
    }

    /// One measured section.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&'a [u8]> {
        self.measured.iter().find(|(known, _)| *known == name).map(|(_, data)| *data)
    }

    /// Whether the stub gives the kernel more than `.initrd`: it packs PCR signatures into an initrd of its own.
    #[must_use]
    pub const fn packs_initrd(&self) -> bool {
        self.packs_initrd
    }

    /// The version of the stub, as the image says.
    #[must_use]
    pub fn stub(&self) -> Option<&str> {
        self.stub.as_deref()
    }

    /// Whether the stub is of the release that predictions were compared with.
    #[must_use]
    pub fn stub_is_tested(&self) -> bool {
        self.stub().and_then(major) == Some(STUB_TESTED)
    }

    /// The kernel's version, as its boot header says.
    #[must_use]
    pub fn kernel_version(&self) -> Option<&str> {
        self.kernel_version.as_deref()
    }

    /// The command line, up to its first NUL.
    #[must_use]
    pub fn command_line(&self) -> Option<&'a str> {
        text(self.section(".cmdline")?)
    }

    /// The operating system's name in `.osrel`: PRETTY_NAME, else ID (os-release(5)).
    #[must_use]
    pub fn os_name(&self) -> Option<&'a str> {
        let release = text(self.section(".osrel")?)?;
        let value = |key: &str| release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        Some(value("PRETTY_NAME").or_else(|| value("ID"))?.trim_matches(['"', '\'']))
    }
}

/// Stubs compare only as many bytes of a section's name as their own name has, and differ in which of several they take. So a
/// measured name stands once, and no other name begins like it.
fn unambiguous(image: &Image<'_>) -> Result<(), ParseError> {
    for (name, _) in MEASURED {
        let alike: Vec<&Section> =
            image.sections().iter().filter(|one| one.name().starts_with(name.as_bytes())).collect();
        let refuse =
            |section: &Section, what| Err(ParseError { at: section.row(), problem: Problem::Malformed { what } });
        match alike.as_slice() {
            [] => {}
            [one] if one.name() == name.as_bytes() => {}
            [one] => return refuse(one, "a section's name begins like a measured one, which some stubs take for it"),
            [_, second, ..] => {
                return refuse(second, "a measured section stands twice, and stubs differ in which they take");
            }
        }
    }
    Ok(())
}

/// `#### LoaderInfo: systemd-stub 252.39-1~deb12u2 ####`
fn stub_version(data: &[u8]) -> Option<String> {
    let said = text(data)?.split_once("systemd-stub ")?.1;
    said.split_once(" #").map(|(version, _)| version.to_owned())
}

fn major(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The boot header's kernel_version: a 16-bit offset, less 0x200, of a text whose first word is the release.
fn kernel_version(linux: &[u8]) -> Option<String> {
    if linux.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let offset = u16::from_le_bytes(*linux.get(0x20e..)?.first_chunk::<2>()?);
    let start = usize::from(offset).checked_add(0x200)?;
    let line = linux.get(start..)?;
    let words = text(line.get(..128).unwrap_or(line))?;
    words.split_whitespace().next().map(str::to_owned)
}

/// Text up to the first NUL.
fn text(data: &[u8]) -> Option<&str> {
    let data = data.get(..TEXT_MAX).unwrap_or(data);
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    std::str::from_utf8(data.get(..end)?).ok()
}
