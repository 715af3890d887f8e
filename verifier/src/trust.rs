//! The trust directory: whose TPMs and whose signatures count.
//!
//! SURFACE.md: `trust/ek/<class>/*` holds roots, intermediates and CRLs of EK certificates, and the directory decides the class;
//! `trust/signers/*.pem` holds operators' public keys (P-256) for tags, policies and references. Files are the operator's word: nothing in
//! the database can add a root.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use hostmark_attest::identity::class::{BundleError, TpmClass, TrustBundle};
use hostmark_attest::jws::{KeySet, SignerKeyError};

/// Largest trust file: all TPM makers' CAs in one PEM bundle have about 1.5 MB.
const FILE_MAX: u64 = 4 * 1024 * 1024;

/// Why the trust directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A directory below `ek/` that is no class.
    #[error("{path} is not a class that a root can give; the classes are simulated, virtual, firmware, hardware")]
    Class {
        /// The directory.
        path: PathBuf,
    },
    /// A file that holds no usable certificates.
    #[error("{path}: {source}")]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Why.
        source: BundleError,
    },
    /// A configured quirk that is not known.
    #[error("ek_quirks: {0}")]
    Quirk(BundleError),
    /// A signer's file without a P-256 public key.
    #[error("{path} holds no P-256 public key in PEM (BEGIN PUBLIC KEY)")]
    Signer {
        /// The file.
        path: PathBuf,
    },
    /// A private key where public ones belong.
    #[error(
        "{path} holds a private key, which must not lie on the verifier: put its public half there (FILE.pub of `hostmark key create`), \
         and make a new key if others could read this one"
    )]
    Private {
        /// The file.
        path: PathBuf,
    },
    /// Larger than any trust file is.
    #[error("{path} has more than {FILE_MAX} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// What the trust directory held when it was read.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Roots and intermediates of EK certificates, by class.
    pub ek: TrustBundle,
    /// Operators' keys for tags, policies and references.
    pub signers: KeySet,
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> TrustError {
    let path = path.to_path_buf();
    move |source| TrustError::Io { path, source }
}

/// The entries of a directory, sorted; none when it does not exist.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, TrustError> {
    let list = match std::fs::read_dir(dir) {
        Ok(list) => list,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(dir)(error)),
    };
    let mut paths =
        list.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(io(dir))?;
    paths.retain(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')));
    paths.sort();
    Ok(paths)
}

fn content(path: &Path) -> Result<Vec<u8>, TrustError> {
    if std::fs::metadata(path).map_err(io(path))?.len() > FILE_MAX {
        return Err(TrustError::TooLarge { path: path.into() });
    }
    std::fs::read(path).map_err(io(path))
}

fn signers(path: &Path, into: &mut KeySet) -> Result<(), TrustError> {
    into.add_pem(&content(path)?).map_err(|error| match error {
        SignerKeyError::Private => TrustError::Private { path: path.into() },
        SignerKeyError::NoKey => TrustError::Signer { path: path.into() },
    })
}

impl Trust {
    /// Reads the directory. What does not exist is empty, and trusts nobody.
    ///
    /// # Errors
    /// [`TrustError`]: one unusable file refuses all, so that a typing error never shrinks trust silently.
    pub fn load(dir: &Path, quirks: &[String]) -> Result<Self, TrustError> {
        let mut trust = Self::default();
        for quirk in quirks {
            trust.ek.tolerate(quirk).map_err(TrustError::Quirk)?;
        }
        for class_dir in entries(&dir.join("ek"))? {
            let name = class_dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let class = TpmClass::from_name(&name).filter(|class| TpmClass::CERTIFIED.contains(class));
            let class = class.ok_or_else(|| TrustError::Class { path: class_dir.clone() })?;
            for path in entries(&class_dir)? {
                trust.ek.add(class, &content(&path)?).map_err(|source| TrustError::Bundle { path, source })?;
            }
        }
        for path in entries(&dir.join("signers"))? {
            signers(&path, &mut trust.signers)?;
        }
        Ok(trust)
    }
}

/// What tells that the directory changed: each file's path, and what its file system says of it.
pub type Stamp = Vec<(PathBuf, FileStamp)>;

/// What changes with a file. Whoever replaces a file can give it the old size and time of modification; ctime and inode are the
/// kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    place: (u64, u64),
}

impl From<&Metadata> for FileStamp {
    fn from(of: &Metadata) -> Self {
        Self {
            size: of.size(),
            modified: (of.mtime(), of.mtime_nsec()),
            changed: (of.ctime(), of.ctime_nsec()),
            place: (of.dev(), of.ino()),
        }
    }
}

/// The present stamp of a trust directory; empty where it cannot be read.
#[must_use]
pub fn stamp(dir: &Path) -> Stamp {
    let mut stamp = Stamp::new();
    let mut dirs = vec![dir.join("signers")];
    dirs.extend(entries(&dir.join("ek")).unwrap_or_default());
    for path in dirs.iter().flat_map(|dir| entries(dir).unwrap_or_default()) {
        if let Ok(metadata) = std::fs::metadata(&path) {
            stamp.push((path, FileStamp::from(&metadata)));
        }
    }
    stamp
}

/// What a trust directory lacks, for whoever sets a verifier up: each with the file to copy and where.
#[must_use]
pub fn lacking(dir: &Path) -> Vec<String> {
    let files = stamp(dir);
    let (ek, signers) = (dir.join("ek"), dir.join("signers"));
    let none_in = |part: &Path| !files.iter().any(|(path, _)| path.starts_with(part));
    let mut lacking = Vec::new();
    if none_in(&ek) {
        lacking.push(format!(
            "{ek} holds no root of any TPM maker, so no TPM's certificate counts: cp -r configs/trust/ek {dir}/ (software TPMs: \
             mkdir -p {ek}/simulated && cp /var/lib/swtpm-localca/*cert.pem {ek}/simulated/)",
            ek = ek.display(),
            dir = dir.display()
        ));
    }
    if none_in(&signers) {
        lacking.push(format!(
            "{signers} holds no signer's key, so no policy and no references can be published: hostmark key create signer.pem, then \
             mkdir -p {signers} && cp signer.pem.pub {signers}/signer.pem",
            signers = signers.display()
        ));
    }
    lacking
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path and content.
    type Files<'f> = &'f [(&'f str, &'f [u8])];

    #[test]
    fn a_directory_is_used_whole_or_refused_by_name() {
        let root = include_bytes!("../../attest/testdata/recorded/swtpm-localca-rootca-cert.pem");
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let (secret, both) = (key.serialize_pem(), key.public_key_pem() + &key.serialize_pem());
        let (key, other) = (key.public_key_pem(), other.public_key_pem());
        let private = Some("signers/ann.pem holds a private key");
        let rows: [(&str, Files<'_>, Option<&str>); 8] = [
            ("nothing", &[], None),
            ("honest", &[("ek/simulated/ca.pem", root), ("signers/ann.pem", key.as_bytes())], None),
            ("unknown class", &[("ek/genuine/ca.pem", root)], Some("ek/genuine is not a class")),
            ("unverified is no class of roots", &[("ek/unverified/ca.pem", root)], Some("is not a class")),
            ("no certificate", &[("ek/hardware/ca.pem", b"x")], Some("ek/hardware/ca.pem: neither PEM")),
            ("other curve", &[("signers/ann.pem", other.as_bytes())], Some("signers/ann.pem holds no P-256")),
            ("private key", &[("signers/ann.pem", secret.as_bytes())], private),
            ("private key beside", &[("signers/ann.pem", both.as_bytes())], private),
        ];
        for (name, files, expect) in rows {
            let dir = tempfile::tempdir().unwrap();
            for (path, bytes) in files {
                let path = dir.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
            match (Trust::load(dir.path(), &[]), expect) {
                (Ok(trust), None) => assert_eq!(trust.signers.iter().count(), usize::from(name == "honest")),
                (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{name}: {error}"),
                (got, want) => panic!("{name}: {got:?}, expected {want:?}"),
            }
            assert_eq!(stamp(dir.path()).len(), files.len());
        }
    }

    #[test]
    fn what_a_trust_directory_lacks_is_told_with_the_file_to_copy() {
        let dir = tempfile::tempdir().unwrap();
        let told = lacking(dir.path());
        let signers = dir.path().join("signers");
        assert!(
            told.len() == 2 && told[0].contains(&format!("cp -r configs/trust/ek {}/", dir.path().display())),
            "{told:?}"
        );
        assert!(told[1].contains(&format!("cp signer.pem.pub {}/signer.pem", signers.display())), "{told:?}");
        for file in ["ek/hardware/maker.pem", "signers/ann.pem"] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"x").unwrap();
        }
        assert!(lacking(dir.path()).is_empty());
    }

    #[test]
    fn the_shipped_bundle_is_a_trust_directory() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/trust");
        Trust::load(&shipped, &["critical-policies".to_owned()]).unwrap();
        assert!(stamp(&shipped).len() >= 8);
    }

    #[test]
    fn a_file_replaced_by_one_of_the_same_size_and_time_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let signers = dir.path().join("signers");
        std::fs::create_dir_all(&signers).unwrap();
        let file = signers.join("ann.pem");
        std::fs::write(&file, b"one").unwrap();
        let before = stamp(dir.path());
        assert_eq!(stamp(dir.path()), before, "nothing changed");
        let times = std::fs::FileTimes::new().set_modified(std::fs::metadata(&file).unwrap().modified().unwrap());
        // In place, and by a new file under the same name. The kernel's clock for ctime ticks every few milliseconds.
        for renamed in [false, true] {
            std::thread::sleep(std::time::Duration::from_millis(50));
            let before = stamp(dir.path());
            let new = if renamed { signers.join(".new") } else { file.clone() };
            std::fs::write(&new, b"two").unwrap();
            std::fs::File::options().write(true).open(&new).unwrap().set_times(times).unwrap();
            std::fs::rename(&new, &file).unwrap();
            let after = stamp(dir.path());
            assert_eq!((after[0].1.size, after[0].1.modified), (before[0].1.size, before[0].1.modified));
            assert_ne!(after, before, "renamed: {renamed}");
        }
    }
}
