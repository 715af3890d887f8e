//! `make bench`: each figure beside its floor, measured in turns in the same run.
//!
//! A floor is the least that anything of the kind must do: the bare signature, the bare hash, a bare TLS echo of the same bytes.
//! Figures go into README; no test asserts one. Arguments (`cargo bench --bench figures -- rounds ima`) pick sections: a profiler
//! wants one.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a figure that cannot be measured ends the run by panicking"
)]
#![allow(missing_docs, unreachable_pub, reason = "a program")]

mod boot_log;
mod ima;
mod measure;
mod memory;
mod pure;
mod rounds;
mod service;
mod wire;

use std::path::Path;
use std::time::Instant;

/// What can be measured by itself, in the order in which it is.
const SECTIONS: [&str; 7] = ["hashing", "quote", "ima", "boot-log", "rounds", "memory", "service"];

fn main() {
    let started = Instant::now();
    // cargo hands every bench `--bench`.
    let picked: Vec<String> = std::env::args().skip(1).filter(|one| !one.starts_with("--")).collect();
    if let [memory::LOAD, state, unix_ms, boot_ms] = picked.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return memory::load(Path::new(state), unix_ms, boot_ms);
    }
    for one in &picked {
        assert!(SECTIONS.contains(&one.as_str()), "{one} is none of {}", SECTIONS.join(", "));
    }
    let wanted = |section: &str| picked.is_empty() || picked.iter().any(|one| one == section);
    let mut table = measure::Table::default();
    if wanted("hashing") {
        pure::hashing(&mut table);
    }
    if wanted("quote") {
        pure::quote(&mut table);
    }
    if wanted("ima") {
        ima::replayed(&mut table);
        ima::with_references(&mut table);
    }
    if wanted("boot-log") {
        boot_log::figures(&mut table);
    }
    if ["rounds", "memory", "service"].into_iter().any(wanted) {
        let site = service::Site::start(if wanted("service") { service::HOSTS } else { 1 });
        if wanted("rounds") {
            rounds::figures(&mut table, &site.hosts[0], &site.ca);
        }
        if wanted("memory") {
            rounds::memory(&mut table, &site.hosts[0]);
        }
        if wanted("service") {
            site.figures(&mut table);
        }
    }
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
