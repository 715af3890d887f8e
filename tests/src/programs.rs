//! Where the programs under test are: beside the test itself, built when they are missing or older than their sources.
//!
//! Cargo builds no binaries of other packages for a test. `make test` and `make demo` build them first; this is for
//! `cargo nextest run` by hand. A directory that is not the workspace's own `target/debug` (`make mutants`) is used as it is.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};

/// Package and program.
const PROGRAMS: [(&str, &str); 3] =
    [("hostmark-hostd", "hostd"), ("hostmark-verifier", "verifier"), ("hostmark-verifier", "hostmark")];
/// Directories whose newest file decides whether a program is stale.
const SOURCES: [&str; 5] = ["attest/src", "canary/src", "hostd/src", "verifier/src", "Cargo.lock"];

/// The root of the workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The path of `hostd`, `verifier` or `hostmark`.
///
/// # Errors
/// When it is not there and cannot be built.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    static DIRECTORY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| ready().map_err(|error| format!("{error:#}")));
    match directory {
        Ok(directory) => Ok(directory.join(name)),
        Err(error) => bail!("{error}"),
    }
}

fn ready() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let mut directory = own.parent().context("a program lies in a directory")?;
    if directory.ends_with("deps") {
        directory = directory.parent().context("deps lies in a directory")?;
    }
    let ours = workspace().join("target/debug").canonicalize().is_ok_and(|debug| debug == directory);
    if !ours {
        for (package, name) in PROGRAMS {
            if !directory.join(name).exists() {
                bail!("{} is missing: build {package} into this directory first", directory.join(name).display());
            }
        }
        return Ok(directory.to_owned());
    }
    // Tests run as processes in parallel: one of them builds, the others wait and find it done.
    let lock = File::create(directory.join(".hostmark-programs.lock"))?;
    let _held = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    if stale(directory)? {
        // The same packages as `make demo` builds: another set is another choice of features, and compiles again.
        let packages = ["-p", "hostmark-hostd", "-p", "hostmark-verifier", "-p", "hostmark-tests"];
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--quiet", "--bins"])
            .args(packages)
            .current_dir(workspace())
            .status()?;
        if !status.success() {
            bail!("the programs under test could not be built");
        }
        // Cargo leaves alone what did not change; without a new time it would look stale for ever.
        for (_, name) in PROGRAMS {
            match File::open(directory.join(name)) {
                Ok(file) => file.set_modified(SystemTime::now())?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(directory.to_owned())
}

fn stale(directory: &Path) -> anyhow::Result<bool> {
    let mut oldest = SystemTime::now();
    for (_, name) in PROGRAMS {
        match std::fs::metadata(directory.join(name)) {
            Ok(metadata) => oldest = oldest.min(metadata.modified()?),
            Err(_) => return Ok(true),
        }
    }
    for source in SOURCES {
        if newest(&workspace().join(source))? > oldest {
            return Ok(true);
        }
    }
    Ok(false)
}

fn newest(path: &Path) -> anyhow::Result<SystemTime> {
    let metadata = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    let mut time = metadata.modified()?;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            time = time.max(newest(&entry?.path())?);
        }
    }
    Ok(time)
}
