//! A guest's disk while the guest is off: a copy of the image, edited in place by debugfs and mtools. Nothing is mounted.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::image::{Image, Part, tool_path};

/// Where firmware looks for what it starts.
const BOOT_FILE: &str = "::EFI/BOOT/BOOTX64.EFI";

/// A sparse copy of the image's disk, with the copy's own firmware variables beside it.
#[derive(Debug, Clone)]
pub struct Disk {
    path: PathBuf,
    esp: Part,
    root: Part,
    engine: Part,
}

impl Disk {
    /// Copies the image's disk to `path`.
    ///
    /// # Errors
    /// When there is no room.
    pub fn copy_of(image: &Image, path: &Path) -> anyhow::Result<Self> {
        copy_sparse(&image.file("disk.img"), path)?;
        let layout = image.layout();
        Ok(Self { path: path.to_owned(), esp: layout.esp, root: layout.root, engine: layout.engine })
    }

    /// The image file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts another unified kernel image where firmware looks for one.
    ///
    /// # Errors
    /// What mtools says.
    pub fn install_uki(&self, uki: &Path) -> anyhow::Result<()> {
        let esp = format!("{}@@{}", self.path.display(), self.esp.offset);
        ran(Command::new("mcopy").env("MTOOLS_SKIP_CHECK", "1").args(["-o", "-n", "-i", &esp]).arg(uki).arg(BOOT_FILE))
    }

    /// Replaces a file of the root file system, keeping its mode.
    ///
    /// # Errors
    /// What debugfs says.
    pub fn replace(&self, path: &str, content: &[u8]) -> anyhow::Result<()> {
        let scratch = tempfile::tempdir()?;
        let from = scratch.path().join("content");
        std::fs::write(&from, content)?;
        let mode = mode_of(&self.debugfs(self.root, &[&format!("stat {path}")])?).unwrap_or(0o100_755);
        let commands = [
            format!("rm {path}"),
            format!("write {} {path}", from.display()),
            format!("set_inode_field {path} mode 0{mode:o}"),
        ];
        let said = self.debugfs(self.root, &commands.each_ref().map(String::as_str))?;
        if self.read(path)? != content {
            bail!("debugfs did not write {path}: {said}");
        }
        Ok(())
    }

    /// Reads a file of the root file system.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let scratch = tempfile::tempdir()?;
        let to = scratch.path().join("content");
        let said = self.debugfs(self.root, &[&format!("dump {path} {}", to.display())])?;
        std::fs::read(&to).with_context(|| format!("debugfs did not read {path}: {said}"))
    }

    /// Copies a whole directory of the root file system to `to`; what must stay unread (devices, owners) is left out.
    ///
    /// # Errors
    /// When debugfs cannot be run.
    pub fn dump(&self, path: &str, to: &Path) -> anyhow::Result<()> {
        self.debugfs(self.root, &[&format!("rdump {path} {}", to.display())]).map(drop)
    }

    /// As [`Disk::dump`], of the engines' file system.
    ///
    /// # Errors
    /// When debugfs cannot be run.
    pub fn dump_engine(&self, to: &Path) -> anyhow::Result<()> {
        self.debugfs(self.engine, &[&format!("rdump / {}", to.display())]).map(drop)
    }

    fn debugfs(&self, part: Part, commands: &[&str]) -> anyhow::Result<String> {
        let scratch = tempfile::NamedTempFile::new()?;
        std::fs::write(scratch.path(), format!("{}\n", commands.join("\n")))?;
        let debugfs = tool_path("debugfs").context("debugfs is not installed")?;
        let device = format!("{}?offset={}", self.path.display(), part.offset);
        let done = Command::new(debugfs).args(["-w", "-f"]).arg(scratch.path()).arg(device).output()?;
        let said = [done.stdout, done.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        if done.status.success() { Ok(said) } else { bail!("debugfs {commands:?}: {said}") }
    }
}

/// Copies a file and leaves its holes out.
fn copy_sparse(from: &Path, to: &Path) -> anyhow::Result<()> {
    ran(Command::new("cp").args(["--sparse=always", "--reflink=auto", "--"]).arg(from).arg(to))
}

/// The mode in what debugfs's `stat` says: `Type: regular    Mode:  0755   Flags: …`.
fn mode_of(said: &str) -> Option<u32> {
    let after = said.split("Mode:").nth(1)?;
    u32::from_str_radix(after.split_whitespace().next()?, 8).ok().map(|mode| mode | 0o100_000)
}

fn ran(command: &mut Command) -> anyhow::Result<()> {
    let done = command.output().with_context(|| format!("{command:?}"))?;
    if !done.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}
