//! Where seeds are found: the recorded boots below each crate's `testdata/`, the shipped files below `configs/`.

use std::path::{Path, PathBuf};

use crate::targets::{Seed, Target};

/// Every seed of a target, in a fixed order.
///
/// # Errors
/// When a folder cannot be read, or a seed that is named is not there.
pub fn of(target: &Target) -> std::io::Result<Vec<Vec<u8>>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut seeds = Vec::new();
    for seed in target.seeds {
        let before = seeds.len();
        match seed {
            Seed::Text(text) => seeds.push(text.as_bytes().to_vec()),
            Seed::Made(make) => seeds.push(make()),
            Seed::Recorded(name) => {
                for folder in ["attest/testdata", "hostd/testdata", "verifier/testdata"] {
                    read_below(&root.join(folder), &|path| path.file_name().is_some_and(|f| f == *name), &mut seeds)?;
                }
            }
            Seed::Config(part) => {
                read_below(&root.join("configs"), &|path| path.to_string_lossy().contains(part), &mut seeds)?;
            }
        }
        if seeds.get(before).is_none_or(Vec::is_empty) {
            let missing = format!("{}: no seed for {seed:?}", target.name);
            return Err(std::io::Error::new(std::io::ErrorKind::NotFound, missing));
        }
    }
    Ok(seeds)
}

fn read_below(folder: &Path, wanted: &dyn Fn(&Path) -> bool, seeds: &mut Vec<Vec<u8>>) -> std::io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            read_below(&path, wanted, seeds)?;
        } else if wanted(&path) {
            seeds.push(std::fs::read(&path)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::mutate::{Random, mutate};
    use crate::targets::TARGETS;

    #[test]
    fn every_target_has_seeds_and_returns_for_each_of_them() {
        let mut random = Random::new(1);
        for target in TARGETS {
            let seeds = super::of(target).unwrap();
            for seed in &seeds {
                (target.run)(seed);
                (target.run)(&mutate(&mut random, seed, &seeds[0]));
            }
            (target.run)(b"");
        }
    }
}
