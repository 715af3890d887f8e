//! What takes longer than `make test` may: further disks that were tampered with, power lost while provisioning, ten minutes of
//! containers.

use std::time::{Duration, Instant};

use hostmark_attest::tier::Submodule;
use hostmark_attest::wire::HostState;
use hostmark_tests::guest::{Guest, Image};
use hostmark_tests::wait::until;

use crate::life::Life;
use crate::world::*;

const NODE: &str = "node-1";
/// What the console says first of the unit that provisions; systemd shortens it in the middle.
const STARTING: &str = "verifier that its QEMU names";

/// A host in its pool.
fn admitted(image: &Image) -> Life {
    let world = World::start(image);
    let mut guest = world.guest(NODE);
    guest.start().unwrap();
    world.wait_placed(NODE, "power-on", BOOT);
    guest.wait_shell().unwrap();
    guest.forget_provisioning();
    Life::new(world, guest, NODE)
}

#[test]
#[ignore = "three boots: make vm-test"]
fn a_host_that_was_off() {
    let Some(image) = Image::available("a host that was off") else { return };
    let world = World::start(&image);
    let mut guest = world.guest(NODE);
    let first = world.directory.path().join("first-tpm-state");
    guest.snapshot_tpm(&first).unwrap();
    guest.start().unwrap();
    world.wait_placed(NODE, "power-on", BOOT);
    guest.wait_shell().unwrap();
    // Its next boots find nothing in fw_cfg and need nothing.
    guest.forget_provisioning();
    let mut life = Life::new(world, guest, NODE);
    life.containers_run();
    life.tss_member_extends();
    life.reboots();

    // The TPM as it was before all this, in the same machine: it has seen fewer resets than its verifier.
    life.guest.kill();
    let now = life.world.directory.path().join("tpm-state");
    life.guest.snapshot_tpm(&now).unwrap();
    life.guest.restore_tpm(&first).unwrap();
    life.lapses("power lost");
    life.guest.start().unwrap();
    life.refused("TPM state restored from a copy", &["refused:counters.reset-fell"]);
    life.guest.kill();
    life.guest.restore_tpm(&now).unwrap();
}

#[test]
#[ignore = "six boots: make vm-test"]
fn a_disk_that_was_tampered_with() {
    let Some(image) = Image::available("disks that were tampered with") else { return };
    let mut life = admitted(&image);
    life.guest.power_off().unwrap();
    life.lapses("powered off");

    life.does_not_boot("foreign signature", "foreign.efi");
    life.boots("other command line", "other-cmdline.signed.efi", &["boot:boot.reference"]);
    life.boots("other initrd", "other-initrd.signed.efi", &["boot:boot.reference"]);

    let good = life.guest.disk().unwrap().read("/usr/bin/hostd").unwrap();
    let other = [good.as_slice(), b"x"].concat();
    life.guest.disk().unwrap().replace("/usr/bin/hostd", &other).unwrap();
    life.boots("hostd replaced", "uki.signed.efi", &["runtime:ima.unknown-file"]);
    life.guest.disk().unwrap().replace("/usr/bin/hostd", &good).unwrap();

    // Another PCR 7, and the rule that wants it on.
    life.guest.secure_boot(false).unwrap();
    life.world.require_secure_boot();
    life.boots("Secure Boot off", "uki.efi", &["boot:boot.reference", "boot:boot.secure-boot"]);

    life.guest.secure_boot(true).unwrap();
    let since = Instant::now();
    life.guest.start().unwrap();
    life.returns("everything put back", since);
}

#[test]
#[ignore = "eight boots: make vm-test"]
fn provisioning_that_lost_power_is_completed_by_the_next_boot() {
    type Moment = fn(&World, &mut Guest, usize);
    let Some(image) = Image::available("power lost while provisioning") else { return };
    let world = World::start(&image);
    let moments: [(&str, Moment); 4] = [
        ("as the unit starts", |_, guest, _| {
            guest.wait_serial(STARTING, BOOT).unwrap();
        }),
        ("two seconds later", |_, guest, _| {
            guest.wait_serial(STARTING, BOOT).unwrap();
            std::thread::sleep(Duration::from_secs(2));
        }),
        ("as the verifier knows it", |world, _, before| {
            until("another host", BOOT, || Ok((world.lab.hosts()?.len() > before).then_some(()))).unwrap();
        }),
        ("a second after that", |world, _, before| {
            until("another host", BOOT, || Ok((world.lab.hosts()?.len() > before).then_some(()))).unwrap();
            std::thread::sleep(Duration::from_secs(1));
        }),
    ];
    for (number, (when, moment)) in moments.iter().enumerate() {
        let node = format!("cut-{number}");
        let before = world.lab.hosts().unwrap().len();
        let mut guest = world.guest(&node);
        guest.start().unwrap();
        moment(&world, &mut guest, before);
        guest.kill();
        guest.start().unwrap();
        let took = world.wait_placed(&node, when, BOOT);
        assert_eq!(world.lab.hosts().unwrap().len(), before + 1, "{when}: one host");
        println!("power lost {when}: the next boot completed it, with a permit after {took:?}");
        guest.kill();
    }
}

#[test]
#[ignore = "ten minutes: make vm-test"]
fn ten_minutes_with_containers() {
    const MINUTES: u64 = 10;
    let Some(image) = Image::available("ten minutes with containers") else { return };
    let mut life = admitted(&image);
    life.containers_run();
    let (start, first) = (Instant::now(), life.entries());
    let (mut runs, mut lapsed) = (0, 0);
    while start.elapsed() < Duration::from_secs(60 * MINUTES) {
        run_container(&mut life.guest);
        runs += 1;
        // A round that an emulated host has no time for is late, and says nothing against it.
        assert_ne!(life.world.state(NODE), Some(HostState::Disproven), "{}", life.world.explained(NODE));
        lapsed += u32::from(!life.world.placed(NODE));
        std::thread::sleep(Duration::from_secs(5));
    }
    let last = life.entries();
    println!(
        "IMA entries: {first} before, {last} after {MINUTES} minutes and {runs} containers; without a permit {lapsed} times"
    );
    life.returns("ten minutes with containers", Instant::now());
    life.tiers(&[Submodule::Boot, Submodule::Runtime]);
    let on_disk = std::fs::metadata(image.file("disk.img")).unwrap();
    let stored = std::os::unix::fs::MetadataExt::blocks(&on_disk) * 512 / (1 << 20);
    println!("image: {stored} MiB stored of {} MiB", on_disk.len() / (1 << 20));
}
