//! The project's own recorded boots (attest/testdata/recorded).

use std::path::PathBuf;

use anyhow::Context as _;

use crate::forge::policy_entry;
use crate::programs::workspace;

/// A recorded boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    directory: PathBuf,
    with_policy: bool,
}

impl Recording {
    /// By the name of its folder.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str) -> anyhow::Result<Self> {
        let directory = workspace().join("attest/testdata/recorded").join(name);
        let directory = directory.canonicalize().with_context(|| format!("no recording {name}"))?;
        Ok(Self { directory, with_policy: false })
    }

    /// The same boot with the shipped IMA policy's entry and `ima_policy=tcb`, where it was recorded without them (see
    /// [`policy_entry`]): what a host needs for an affirming `runtime`. Its quote does not fit then.
    #[must_use]
    pub fn with_ima_policy(self) -> Self {
        Self { with_policy: true, ..self }
    }

    /// A file of it.
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    fn booted(&self) -> anyhow::Result<(Vec<u8>, Vec<u8>, String)> {
        let recorded = (self.read("boot-log.bin")?, self.read("ima.bin")?, String::from_utf8(self.read("cmdline")?)?);
        Ok(if self.with_policy { policy_entry::with_policy(recorded.0, recorded.1, &recorded.2) } else { recorded })
    }

    fn read(&self, file: &str) -> anyhow::Result<Vec<u8>> {
        std::fs::read(self.path(file)).with_context(|| self.path(file).display().to_string())
    }

    /// binary_bios_measurements.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn boot_log(&self) -> anyhow::Result<Vec<u8>> {
        Ok(self.booted()?.0)
    }

    /// The binary IMA list.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn ima(&self) -> anyhow::Result<Vec<u8>> {
        Ok(self.booted()?.1)
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
        Ok(self.booted()?.2)
    }
}
