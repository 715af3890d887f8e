//! Where a new bundle of reference values goes, and which version it has: what `refs capture`, `predict`, `ima` and `import` share.
//!
//! An existing file is not overwritten: its windows may be somebody's work. `--replace` takes its place under the next version and keeps
//! its model, so that what is published next is newer than what was.

use std::path::{Path, PathBuf};

use clap::Args;

use super::document::{Document, Kind, write_beside};
use super::failure::Failure;

/// `… [--version N] [-o FILE [--replace]]`
#[derive(Debug, Args)]
pub(super) struct BundleFile {
    /// The bundle's version; it must grow with each publication. Without it 1, or the next after the bundle that this one replaces.
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Write here instead of standard output. An existing file is not overwritten.
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    out: Option<PathBuf>,
    /// Let FILE be a bundle that this one replaces: its version plus one and its model are taken where none is given.
    #[arg(long, requires = "out")]
    replace: bool,
}

/// A place that was looked at before anything is computed.
#[derive(Debug)]
pub(super) struct Place<'a> {
    out: Option<&'a Path>,
    /// The bundle that is there, and may go.
    old: Option<Document>,
    version: u64,
}

impl BundleFile {
    /// The file, where one is named.
    pub(super) fn path(&self) -> Option<&Path> {
        self.out.as_deref()
    }

    /// Looks at the place. `also` is a bundle that is replaced under another name: the version is newer than its too.
    pub(super) fn look(&self, also: Option<&Document>) -> Result<Place<'_>, Failure> {
        let out = self.path();
        let old = match out.filter(|path| exists(path)) {
            Some(path) if !self.replace => return Err(taken(path)),
            Some(path) => Some(bundle(path)?),
            None => None,
        };
        let before = old.iter().chain(also).filter_map(|one| Some((one.version?, &one.path))).max();
        let version = match (self.version, before) {
            (Some(version), Some((old, path))) if version <= old => {
                return Err(Failure::unusable(format!(
                    "--version {version}: {path} has version {old}, and versions only grow: name a higher one, or none for the next"
                )));
            }
            (Some(version), _) => version,
            (None, Some((old, path))) => old
                .checked_add(1)
                .ok_or_else(|| Failure::unusable(format!("{path}: its version is the highest there is")))?,
            (None, None) => 1,
        };
        Ok(Place { out, old, version })
    }
}

impl<'a> Place<'a> {
    /// The new bundle's version.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// This text, with the model of the bundle that goes where it names none.
    pub(super) fn with_model(&self, text: String) -> Result<String, Failure> {
        let Some(model) = self.old.as_ref().and_then(|old| old.table.get("model")) else { return Ok(text) };
        let mut table: toml::Table = toml::from_str(&text)
            .map_err(|error| Failure::unusable(format!("the bundle cannot be read back: {error}")))?;
        table.entry("model").or_insert_with(|| model.clone());
        toml::to_string(&table).map_err(|error| Failure::unusable(format!("the bundle cannot be written: {error}")))
    }

    /// Writes the bundle, if a file was named, and says which.
    pub(super) fn write(&self, text: &str) -> Result<Option<&'a Path>, Failure> {
        let Some(path) = self.out else { return Ok(None) };
        // Reading the sources may have taken a while.
        if self.old.is_none() && exists(path) {
            return Err(taken(path));
        }
        write_beside(path, text.as_bytes())?;
        Ok(Some(path))
    }
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn taken(path: &Path) -> Failure {
    Failure::unusable(format!(
        "{}: exists, and is not overwritten: name another file, or add --replace to take its place under the next version",
        path.display()
    ))
}

/// What may be replaced.
fn bundle(path: &Path) -> Result<Document, Failure> {
    let document = Document::load(path)?;
    if document.kind == Kind::References {
        return Ok(document);
    }
    Err(Failure::unusable(format!(
        "{}: is a file of {}, and no bundle replaces it: name another file",
        document.path,
        document.kind.name()
    )))
}
