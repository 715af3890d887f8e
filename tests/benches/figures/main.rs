//! `make bench`: each figure beside its floor, measured in turns in the same run.
//!
//! A floor is the least that anything of the kind must do: the bare signature, the bare hash, a bare TLS echo of the same bytes.
//! Figures go into README; no test asserts one.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a figure that cannot be measured ends the run by panicking"
)]
#![allow(missing_docs, unreachable_pub, reason = "a program")]

mod measure;
mod pure;
mod service;
mod wire;

use std::time::Instant;

fn main() {
    let started = Instant::now();
    let mut table = measure::Table::default();
    pure::hashing(&mut table);
    pure::quote(&mut table);
    pure::ima(&mut table);
    pure::ima_with_references(&mut table);
    pure::boot_log(&mut table);
    let site = service::Site::start();
    pure::appraisal(&mut table, &site.hosts[0], &site.ca);
    site.figures(&mut table);
    println!("{}", machine());
    table.print();
    println!("Measured in {:.0} s.", started.elapsed().as_secs_f64());
}

/// The machine, as far as it matters: processor, how many, and how busy it was.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    format!("{cores} cores, {}; load average {load}\n", model.unwrap_or("processor unknown"))
}
