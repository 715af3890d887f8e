//! One target of the table, named by HOSTMARK_FUZZ_TARGET, under libFuzzer. See `../run`.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use hostmark_fuzz::seeds;
use hostmark_fuzz::targets::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("HOSTMARK_FUZZ_TARGET").unwrap_or_default();
    TARGETS.iter().find(|target| target.name == name).expect("HOSTMARK_FUZZ_TARGET names a target of the table")
});

fuzz_target!(
    init: {
        // The table's seeds join the corpus under names of their own.
        if let Some(corpus) = std::env::args().next_back().filter(|last| Path::new(last).is_dir()) {
            for (number, seed) in seeds::of(&TARGET).expect("seeds can be read").iter().enumerate() {
                std::fs::write(Path::new(&corpus).join(format!("seed-{number}")), seed).expect("the corpus is writable");
            }
        }
    },
    |bytes: &[u8]| (TARGET.run)(bytes)
);
