//! The host image that `make image` builds: where it is, and what is where on its disk.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

use crate::programs::workspace;

/// OVMF's code: without and with Secure Boot. Their variables come with the image.
const FIRMWARE: [&str; 2] = ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"];
/// What the harness starts: program and Debian package.
const TOOLS: [(&str, &str); 7] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("swtpm", "swtpm"),
    ("swtpm_setup", "swtpm-tools"),
    ("debugfs", "e2fsprogs"),
    ("mcopy", "mtools"),
    ("busybox", "busybox-static"),
    ("setpriv", "util-linux"),
];
/// Administration commands lie there, which a plain user's PATH may leave out.
const SBIN: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A part of the disk, in bytes.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Part {
    /// Where it begins.
    pub offset: u64,
    /// Its length.
    pub size: u64,
}

/// layout.json, as far as the harness needs it.
#[derive(Debug, Clone, Deserialize)]
pub struct Layout {
    /// The EFI system partition.
    pub esp: Part,
    /// The root file system.
    pub root: Part,
    /// The engines' configuration.
    pub engine: Part,
}

/// The built image.
#[derive(Debug, Clone)]
pub struct Image {
    directory: PathBuf,
    layout: Layout,
    key: String,
}

impl Image {
    /// The image, or None with a printed skip when it or a tool is missing.
    #[must_use]
    pub fn available(what: &str) -> Option<Self> {
        let missing: Vec<&str> =
            TOOLS.iter().filter(|(tool, _)| tool_path(tool).is_none()).map(|(_, of)| *of).collect();
        let firmware = FIRMWARE.iter().all(|file| Path::new(file).is_file());
        let why = if !missing.is_empty() || !firmware {
            format!("missing: {} (images/setup image)", if firmware { missing.join(", ") } else { "ovmf".to_owned() })
        } else {
            match Self::load(&workspace().join("images/out/host")) {
                Ok(image) => return Some(image),
                Err(error) => format!("no host image: {error:#} (make image)"),
            }
        };
        println!("skipped: {what}: {why}");
        None
    }

    fn load(directory: &Path) -> anyhow::Result<Self> {
        let directory = directory.canonicalize().context("images/out/host")?;
        let read = |name: &str| std::fs::read_to_string(directory.join(name)).context(name.to_owned());
        let layout = serde_json::from_str(&read("layout.json")?).context("layout.json")?;
        let key = read("key")?.trim().to_owned();
        Ok(Self { directory, layout, key })
    }

    /// A file of the image.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// What is where on its disk.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Equal for images that were built from equal inputs.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The firmware's code for this kind of boot.
    pub(super) const fn firmware(secure_boot: bool) -> &'static str {
        if secure_boot { FIRMWARE[1] } else { FIRMWARE[0] }
    }
}

/// A program on PATH, or where administration commands lie.
pub(super) fn tool_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = SBIN.iter().map(PathBuf::from);
    std::env::split_paths(&path).chain(known).map(|folder| folder.join(name)).find(|file| file.is_file())
}
