//! A booted host, from power-on to permit and through what an attacker with root or with its disk does (issue 3).
//!
//! Firmware, kernel, systemd, engines and hostd are the image's own; the verifier is the real one. `make test` boots one host, takes
//! it through its life, and boots two disks that somebody had in hand beside it; the ignored tests are `make vm-test`'s.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod life;
mod long;
mod world;

use std::time::Instant;

use hostmark_attest::boot_log::BootLog;
use hostmark_attest::digest::{Digest, HashAlg};
use hostmark_attest::tier::Submodule;
use hostmark_tests::guest::{Guest, Image};

use life::Life;
use world::*;

const NODE: &str = "node-1";
const OTHER_NODE: &str = "node-2";
const FOREIGN_NODE: &str = "node-3";

/// PCRs 0 to 9, 11, 12 and 14 of two boots with two join tokens, and what firmware put into 13 before hostd's log.
fn two_tokens_give_equal_boot_pcrs(world: &World, guest: &mut Guest) {
    let (one, other) = (world.reference().pcrs(), pcrs(guest));
    for pcr in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 14] {
        assert_eq!(one[&pcr], other[&pcr], "PCR {pcr} of two guests");
    }
    let replayed = |log: &[u8]| BootLog::parse(log).unwrap().replay_bank(HashAlg::Sha256).get(&13).copied();
    assert_eq!(replayed(&world.reference().read("boot-log.bin")), replayed(&boot_log(guest)), "PCR 13's boot part");
}

/// What `refs predict` says of the kernel image, before any host booted it, is what this boot's quote holds.
fn the_prediction_is_the_quote(life: &mut Life) {
    let waited = "for i in $(seq 300); do case $(systemctl is-system-running) in running|degraded) exit 0;; esac; sleep 1; done; exit 1";
    life.guest.sh_within(waited, BOOT).unwrap().good().unwrap();
    let values = pcrs(&mut life.guest);
    let log = life.world.directory.path().join("boot-log.bin");
    std::fs::write(&log, boot_log(&mut life.guest)).unwrap();
    let uki = life.guest.image().file("uki.signed.efi");
    let arguments = ["--output", "json", "refs", "predict", uki.to_str().unwrap(), "--like", log.to_str().unwrap()];
    let said = life.world.lab.verifier.hostmark(&arguments).unwrap().good().unwrap().json().unwrap();
    for pcr in [4, 9, 11, 12] {
        let predicted = said["pcrs"][pcr.to_string()]["value"].as_str();
        assert_eq!(predicted, Some(values[&pcr].as_str()), "PCR {pcr}: {said}");
    }
    // hostd's log follows in PCR 13; nothing may stand before it.
    let before = BootLog::parse(&std::fs::read(&log).unwrap()).unwrap().replay_bank(HashAlg::Sha256).get(&13).copied();
    let predicted = said["pcrs"]["13"]["value"].as_str().map(str::to_owned);
    let zero = Digest::zero(HashAlg::Sha256).to_string();
    assert_eq!(before.map_or(zero.clone(), |value| value.to_string()), predicted.unwrap_or(zero), "PCR 13's boot part");
    println!("predicted PCRs 4, 9, 11, 12 and 13's boot part are the booted host's");
}

/// A new host whose disk was given another kernel image before its first boot, switched on.
fn switched_on(world: &World, node: &str, uki: &str) -> Guest {
    let mut guest = world.guest(node);
    guest.disk().unwrap().install_uki(&world.image.file(uki)).unwrap();
    guest.start().unwrap();
    guest
}

/// Firmware starts nothing that the enrolled keys did not sign: no kernel, and the verifier never hears of the host.
fn foreign_signature_is_refused(world: &World, guest: &mut Guest) {
    guest.wait_serial("Access Denied", BOOT).unwrap();
    assert!(!guest.serial().contains("Linux version"), "a kernel started");
    assert!(world.state(FOREIGN_NODE).is_none(), "{}", world.explained(FOREIGN_NODE));
    guest.kill();
}

#[test]
fn a_booted_host() {
    let Some(image) = Image::available("a booted host") else { return };
    let begun = Instant::now();
    let mut world = World::empty(&image);
    let mut guest = world.guest(NODE);
    guest.start().unwrap();
    let on = Instant::now();
    // Beside it, where references are still missing: until they are there, nothing admits it.
    world.make_ready();
    let ready = on.elapsed();
    world.wait_placed(NODE, "power-on", BOOT);
    println!("from power-on to the permit: {:?}, with references there after {ready:?}", on.elapsed());
    println!("{}", world.explained(NODE));
    guest.wait_shell().unwrap();
    two_tokens_give_equal_boot_pcrs(&world, &mut guest);
    // Its next boots find nothing in fw_cfg and need nothing.
    guest.forget_provisioning();
    let mut other = switched_on(&world, OTHER_NODE, "other-cmdline.signed.efi");
    let mut life = Life::new(world, guest, NODE);
    life.tiers(&[Submodule::Boot, Submodule::Runtime]);
    life.containers_run();
    life.tiers(&[Submodule::Boot, Submodule::Runtime]);

    the_prediction_is_the_quote(&mut life);

    life.daemon_json_is_edited();
    // While the host's own has stood unchanged since the boot: a name that was another file's once is no mere ambiguity.
    life.container_runs_its_own_runc();
    life.runc_is_replaced();
    life.unit_drop_in_is_added();
    life.privileged_container();
    life.list_is_truncated();
    life.world.wait_refused(OTHER_NODE, "another command line", &["boot:boot.reference"]);
    other.kill();
    let mut foreign = switched_on(&life.world, FOREIGN_NODE, "foreign.efi");
    life.network_is_cut();
    foreign_signature_is_refused(&life.world, &mut foreign);
    life.hostd_is_stopped();
    life.memory_is_executed();
    life.module_is_loaded();
    life.hostd_is_preloaded();
    println!("IMA entries at the end of the first boot: {}", life.entries());
    life.tss_member_extends();
    println!("a booted host: {:?} in all", begun.elapsed());
}
