//! The project's own recorded boots (attest/testdata/recorded).

use std::path::PathBuf;

use anyhow::Context as _;

use crate::programs::workspace;

/// A recorded boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    directory: PathBuf,
}

impl Recording {
    /// By the name of its folder.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str) -> anyhow::Result<Self> {
        let directory = workspace().join("attest/testdata/recorded").join(name);
        let directory = directory.canonicalize().with_context(|| format!("no recording {name}"))?;
        Ok(Self { directory })
    }

    /// A file of it.
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    fn read(&self, file: &str) -> anyhow::Result<Vec<u8>> {
        std::fs::read(self.path(file)).with_context(|| self.path(file).display().to_string())
    }

    /// binary_bios_measurements.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn boot_log(&self) -> anyhow::Result<Vec<u8>> {
        self.read("boot-log.bin")
    }

    /// The binary IMA list.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn ima(&self) -> anyhow::Result<Vec<u8>> {
        self.read("ima.bin")
    }

    /// The recorded TPMS_ATTEST: its TPM's counters differ from every other boot's.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn quote(&self) -> anyhow::Result<Vec<u8>> {
        self.read("quote.msg")
    }

    /// The kernel command line.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn command_line(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8(self.read("cmdline")?)?)
    }
}
