//! The driver that CI runs: mutates seeds for a number of seconds per target.
//!
//! `fuzz [--seconds N] [--seed N] [TARGET…]`. An input that panics, or takes longer than [`HANG`], is saved below
//! `crashes/` and ends the run with exit code 1.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "a tool for tests: stopping with a message is what it is for"
)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hostmark_fuzz::mutate::{Random, mutate};
use hostmark_fuzz::seeds;
use hostmark_fuzz::targets::{TARGETS, Target};

/// No input of at most 256 KiB needs this long, even without optimisation on a busy machine.
const HANG: Duration = Duration::from_secs(10);

/// What is being tried now, for the watchdog.
struct Trial {
    target: &'static str,
    input: Vec<u8>,
    since: Instant,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut seconds = 5_u64;
    let mut seed = 1_u64;
    let mut names = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => seconds = arguments.next().ok_or("--seconds needs a number")?.parse()?,
            "--seed" => seed = arguments.next().ok_or("--seed needs a number")?.parse()?,
            "--list" => {
                TARGETS.iter().for_each(|target| println!("{}", target.name));
                return Ok(());
            }
            name => names.push(name.to_owned()),
        }
    }
    if let Some(unknown) = names.iter().find(|name| !TARGETS.iter().any(|t| t.name == **name)) {
        return Err(format!("no such target: {unknown} (--list shows them)").into());
    }

    let trial = Arc::new(Mutex::new(None::<Trial>));
    let watched = Arc::clone(&trial);
    std::thread::spawn(move || watch(&watched));
    std::panic::set_hook(Box::new(|_| {}));

    for target in TARGETS.iter().filter(|t| names.is_empty() || names.iter().any(|name| name == t.name)) {
        let inputs = fuzz(target, Duration::from_secs(seconds), seed, &trial)?;
        println!("fuzz {:<16} {inputs:>8} inputs in {seconds} s, seed {seed}", target.name);
    }
    Ok(())
}

fn fuzz(target: &'static Target, time: Duration, seed: u64, trial: &Mutex<Option<Trial>>) -> std::io::Result<u64> {
    let seeds = seeds::of(target)?;
    let mut random = Random::new(seed);
    let end = Instant::now() + time;
    let mut inputs = 0;
    while Instant::now() < end {
        let (first, second) = (random.below(seeds.len()), random.below(seeds.len()));
        let input = mutate(&mut random, &seeds[first], &seeds[second]);
        *trial.lock().expect("the watchdog never panics") =
            Some(Trial { target: target.name, input: input.clone(), since: Instant::now() });
        if let Err(panic) = std::panic::catch_unwind(|| (target.run)(&input)) {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            let path = save(target.name, &input)?;
            eprintln!("fuzz {}: PANIC: {said}\n  input: {}", target.name, path.display());
            std::process::exit(1);
        }
        inputs += 1;
    }
    *trial.lock().expect("the watchdog never panics") = None;
    Ok(inputs)
}

fn watch(trial: &Mutex<Option<Trial>>) {
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let Ok(now) = trial.lock() else { return };
        if let Some(trial) = now.as_ref().filter(|trial| trial.since.elapsed() > HANG) {
            let saved = save(trial.target, &trial.input).map(|path| path.display().to_string());
            eprintln!("fuzz {}: HANG: more than {HANG:?}\n  input: {saved:?}", trial.target);
            std::process::exit(1);
        }
    }
}

fn save(target: &str, input: &[u8]) -> std::io::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crashes");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{target}-{}", std::process::id()));
    std::fs::write(&path, input)?;
    Ok(path)
}
