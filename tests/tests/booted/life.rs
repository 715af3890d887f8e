//! One host's life, in order: each thing that an attacker with root does, what the verifier must say, and how the host returns.

use std::time::{Duration, Instant};

use hostmark_attest::finding::Severity;
use hostmark_attest::tier::Submodule;
use hostmark_attest::wire::HostState;
use hostmark_tests::guest::Guest;
use hostmark_tests::wait::until;

use crate::world::*;

/// How long after its lease's end a permit may still be seen: one question.
const SLACK: Duration = Duration::from_secs(2);

/// A host and its world.
pub(crate) struct Life {
    pub(crate) world: World,
    pub(crate) guest: Guest,
    pub(crate) node: &'static str,
    started: Instant,
}

impl Life {
    pub(crate) fn new(world: World, guest: Guest, node: &'static str) -> Self {
        Self { world, guest, node, started: Instant::now() }
    }

    fn say(&self, what: &str, how: &str) {
        println!("{:6.1} s  {what}: {how}", self.started.elapsed().as_secs_f64());
    }

    pub(crate) fn sh(&mut self, script: &str) -> String {
        let said = self.guest.sh(script).unwrap();
        said.clone().good().unwrap_or_else(|error| panic!("{script}: {error}"));
        said.text
    }

    /// The host leaves its pool before its lease ends, and exactly these findings refuse it.
    pub(crate) fn disproven(&self, what: &str, since: Instant, expect: &[&str]) {
        self.world.wait_unplaced(self.node, what, LEASE + SLACK);
        let left = since.elapsed();
        self.found(what, Severity::Error, expect);
        let state = self.world.state(self.node);
        assert_eq!(state, Some(HostState::Disproven), "{what}: {}", self.world.explained(self.node));
        self.say(what, &format!("left its pool after {left:?}: {expect:?}"));
    }

    /// The findings of this severity or worse are exactly these, as soon as a round says so.
    pub(crate) fn found(&self, what: &str, least: Severity, expect: &[&str]) {
        let mut last = Vec::new();
        let seen = until(what, ROUND, || {
            last = self.world.findings(self.node, least);
            // Under emulation containerd may be too slow for its first question: told, and no reason to leave.
            last.retain(|one| one != "engine:engine.content-unknown");
            Ok((last == expect).then_some(()))
        });
        let explained = || self.world.explained(self.node);
        assert!(seen.is_ok(), "{what}: expected {expect:?}, found {last:?}\n{}", explained());
    }

    /// The host has its permit again, by a proof of after `since`.
    pub(crate) fn returns(&self, what: &str, since: Instant) {
        self.world.wait_proof(self.node, since, what);
        let took = self.world.wait_placed(self.node, what, ROUND);
        self.say(what, &format!("returned after {:?}", since.elapsed().max(took)));
    }

    /// A round at once, as an operator asks for one.
    fn attests_now(&mut self) {
        self.sh("systemctl reload hostmark-hostd");
    }

    /// The operator looks at what was found and accepts it: the kernel's list keeps what happened until the next boot.
    pub(crate) fn accept(&mut self, what: &str) {
        let since = Instant::now();
        self.world.accept_found(self.node);
        self.attests_now();
        self.returns(what, since);
    }

    /// A container works, and the host stays trusted.
    pub(crate) fn containers_run(&mut self) {
        engines_run(&mut self.guest);
        run_container(&mut self.guest);
        self.sh("docker run -d --name work bb /bin/sleep 100000");
        let since = Instant::now();
        self.returns("containers run", since);
        self.found("containers run", Severity::Error, &[]);
    }

    /// E6.
    pub(crate) fn runc_is_replaced(&mut self) {
        let since = Instant::now();
        self.sh("cp -a /usr/sbin/runc /root/runc.good && cp -a /usr/sbin/runc /usr/sbin/runc.new && printf x >>/usr/sbin/runc.new && \
                 mv /usr/sbin/runc.new /usr/sbin/runc");
        // Docker runs it when hostd asks for its version.
        self.disproven("E6 runc replaced", since, &["engine:engine.file-changed", "runtime:ima.unknown-file"]);
        self.sh("cp -a /root/runc.good /usr/sbin/runc.new && mv /usr/sbin/runc.new /usr/sbin/runc");
        self.accept("E6 runc put back");
    }

    /// B13, B20: what references permit may come and go; what they do not is refused, and what it was stays in the kernel's list.
    pub(crate) fn daemon_json_is_edited(&mut self) {
        let shipped = self.guest.read(DAEMON_JSON).unwrap();
        let since = Instant::now();
        self.guest.write(DAEMON_JSON, DAEMON_JSON_PERMITTED.as_bytes()).unwrap();
        self.returns("B20 another permitted daemon.json", since);
        let since = Instant::now();
        self.guest.write(DAEMON_JSON, &shipped).unwrap();
        self.returns("B20 the first daemon.json again", since);
        self.found("B20 A, B, A", Severity::Error, &[]);

        let since = Instant::now();
        self.guest.write(DAEMON_JSON, b"{ \"icc\": true }\n").unwrap();
        self.disproven(
            "daemon.json edited",
            since,
            &["engine:engine.file-changed", "engine:engine.setting", "runtime:ima.unknown-file"],
        );
        self.guest.write(DAEMON_JSON, &shipped).unwrap();
        self.accept("daemon.json mended");
    }

    /// A drop-in of an engine's unit.
    pub(crate) fn unit_drop_in_is_added(&mut self) {
        const DROP_IN: &str = "/etc/systemd/system/docker.service.d/x.conf";
        let since = Instant::now();
        self.sh(&format!("printf '[Service]\\nEnvironment=X=1\\n' >{DROP_IN}"));
        self.disproven("unit drop-in added", since, &["runtime:ima.unknown-file"]);
        let told = self.world.findings(self.node, Severity::Warning);
        assert!(told.iter().any(|one| one == "engine:engine.file-unknown"), "{told:?}");
        self.sh(&format!("rm {DROP_IN}"));
        self.accept("unit drop-in removed");
    }

    /// E9.
    pub(crate) fn privileged_container(&mut self) {
        let since = Instant::now();
        self.sh("docker run -d --name bad --privileged bb /bin/sleep 100000");
        self.disproven("E9 privileged container", since, &["engine:workload.privileged"]);
        let since = Instant::now();
        self.sh("docker rm -f bad");
        self.returns("E9 privileged container removed", since);
    }

    /// E14: a library of somebody else's in hostd's process.
    pub(crate) fn hostd_is_preloaded(&mut self) {
        const LIBRARY: &str = "/usr/local/lib/preload.so";
        const DROP_IN: &str = "/etc/systemd/system/hostmark-hostd.service.d";
        self.sh(&format!("cp /usr/lib/x86_64-linux-gnu/libz.so.1 {LIBRARY} && printf x >>{LIBRARY}"));
        let since = Instant::now();
        self.sh(&format!(
            "mkdir -p {DROP_IN} && printf '[Service]\\nUnsetEnvironment=\\nEnvironment=LD_PRELOAD={LIBRARY}\\n' >{DROP_IN}/x.conf && \
             systemctl daemon-reload && systemctl restart hostmark-hostd"
        ));
        self.disproven("E14 hostd preloaded", since, &["engine:hostd.preload", "runtime:ima.unknown-file"]);
        self.sh(&format!("rm -r {DROP_IN} && systemctl daemon-reload && systemctl restart hostmark-hostd"));
        self.accept("E14 preload removed");
    }

    /// B17: tmpfs and a memory file.
    pub(crate) fn memory_is_executed(&mut self) {
        let since = Instant::now();
        self.sh("cp /usr/bin/true /dev/shm/surprise && printf x >>/dev/shm/surprise && /dev/shm/surprise");
        self.disproven(
            "B17 executed from /dev/shm",
            since,
            &["runtime:ima.memory-execution", "runtime:ima.unknown-file"],
        );
        self.accept("B17 /dev/shm accepted");

        self.sh("cp /usr/bin/true /root/memory && printf xy >>/root/memory");
        let since = Instant::now();
        // memfd_create(2) is call 319; the file has no other name than the one in /proc.
        self.sh(
            "perl -e 'my $n = \"m\"; my $fd = syscall(319, $n, 0); open(my $to, \">&=\", $fd); open(my $from, \"<\", \"/root/memory\"); \
             binmode $to; print $to join(\"\", <$from>); $to->flush; exec {\"/proc/self/fd/$fd\"} \"m\"'",
        );
        self.disproven(
            "B17 executed from a memory file",
            since,
            &["runtime:ima.memory-execution", "runtime:ima.unknown-file"],
        );
        self.accept("B17 memory file accepted");
    }

    /// B17: a module that Debian signed and no reference names.
    pub(crate) fn module_is_loaded(&mut self) {
        let since = Instant::now();
        self.sh(&format!("modprobe {FOREIGN_MODULE} && grep -q {FOREIGN_MODULE} /proc/modules"));
        self.disproven("B17 module loaded", since, &["runtime:ima.unknown-file", "runtime:ima.unknown-module"]);
        self.sh(&format!("modprobe -r {FOREIGN_MODULE}"));
        self.accept("B17 module accepted");
    }

    /// B18: a container's own /usr/sbin/runc on a measured file system.
    pub(crate) fn container_runs_its_own_runc(&mut self) {
        self.sh("mkdir -p /srv/tenant && cp /bin/busybox /srv/tenant/runc && printf x >>/srv/tenant/runc");
        let since = Instant::now();
        self.sh("docker run --rm -v /srv/tenant:/usr/sbin bb /usr/sbin/runc true || :");
        self.found("B18 a container's own runc", Severity::Warning, &["runtime:ima.path-ambiguous"]);
        self.say("B18 a container's own runc", &format!("told after {:?}", since.elapsed()));
        assert_eq!(self.world.state(self.node), Some(HostState::Proven), "no eviction by a name");
        self.accept("B18 accepted");
    }

    /// A shorter list in the place of the kernel's, for hostd alone or for everybody.
    pub(crate) fn list_is_truncated(&mut self) {
        const LIST: &str = "/sys/kernel/security/ima/binary_runtime_measurements";
        let since = Instant::now();
        self.sh(&format!("head -c 20000 {LIST} >/run/shorter && mount --bind /run/shorter {LIST}"));
        self.attests_now();
        self.disproven("IMA list truncated", since, &["runtime:ima.replay"]);
        self.sh(&format!("umount {LIST}"));
        self.attests_now();
        self.returns("IMA list whole again", Instant::now());
    }

    /// No way to the verifier.
    pub(crate) fn network_is_cut(&mut self) {
        self.guest.link(false).unwrap();
        self.lapses("network cut");
        self.guest.link(true).unwrap();
        self.attests_now();
        self.returns("network back", Instant::now());
    }

    /// Nobody attests.
    pub(crate) fn hostd_is_stopped(&mut self) {
        self.sh("systemctl stop hostmark-hostd");
        self.lapses("E7 hostd stopped");
        self.sh("systemctl start hostmark-hostd");
        self.returns("E7 hostd started", Instant::now());
    }

    /// Nothing is proven any more: the permit ends with the lease at the latest.
    pub(crate) fn lapses(&self, what: &str) {
        let silent = Instant::now();
        self.world.wait_unplaced(self.node, what, LEASE + SLACK);
        let took = silent.elapsed();
        assert!(took <= LEASE + SLACK, "{what}: {took:?}");
        assert_eq!(self.world.state(self.node), Some(HostState::Lapsed), "{what}: {}", self.world.explained(self.node));
        self.say(what, &format!("lapsed after {took:?} of a lease of {LEASE:?}"));
    }

    /// E15: somebody in the group that may speak with the TPM extends hostd's PCR. Only a reboot undoes it.
    pub(crate) fn tss_member_extends(&mut self) {
        let since = Instant::now();
        let zeros = "0".repeat(64);
        self.sh(&format!(
            "setpriv --reuid=65534 --regid=tss --clear-groups env TPM2TOOLS_TCTI=device:/dev/tpmrm0 tpm2_pcrextend 13:sha256={zeros}"
        ));
        self.disproven("E15 a member of tss extended PCR 13", since, &["engine:host-log.replay"]);
    }

    /// A new boot: everything is proven anew, and what only the last boot's list held is gone.
    pub(crate) fn reboots(&mut self) {
        self.world.accept_nothing();
        let hosts = self.world.lab.hosts().unwrap().len();
        // A shutdown waits a minute and a half for a container that outlives its engine (live-restore) and hears no SIGTERM.
        self.sh("docker rm -f work");
        let since = Instant::now();
        self.guest.reboot().unwrap();
        self.returns("reboot", since);
        self.found("reboot", Severity::Error, &[]);
        assert_eq!(self.world.lab.hosts().unwrap().len(), hosts, "the same host");
    }

    pub(crate) fn tiers(&self, of: &[Submodule]) {
        for one in of {
            let tier = self.world.tier(self.node, *one);
            assert_eq!(
                tier,
                Some(hostmark_attest::tier::Tier::Affirming),
                "{one:?}: {}",
                self.world.explained(self.node)
            );
        }
    }

    /// How many entries the kernel's list has.
    pub(crate) fn entries(&mut self) -> u64 {
        self.sh("cat /sys/kernel/security/ima/runtime_measurements_count").trim().parse().unwrap()
    }

    /// After a boot: the verifier refuses what it gets, by exactly these findings, and grants nothing.
    pub(crate) fn refused(&self, what: &str, expect: &[&str]) {
        self.world.wait_refused(self.node, what, expect);
        self.say(what, &format!("refused: {expect:?}"));
    }

    /// A boot of another kernel image, on the disk of this host: refused by exactly these findings, in a result of its own.
    pub(crate) fn boots(&mut self, what: &str, uki: &str, expect: &[&str]) {
        let before = self.world.lab.standing(self.node).unwrap().result;
        let file = self.guest.image().file(uki);
        self.guest.disk().unwrap().install_uki(&file).unwrap();
        self.guest.start().unwrap();
        self.refused(what, expect);
        let fresh = || Ok((self.world.lab.standing(self.node)?.result != before).then_some(()));
        until("a result of this boot", BOOT, fresh).unwrap();
        self.found(what, Severity::Error, expect);
        self.guest.kill();
    }

    /// Firmware starts nothing that the enrolled keys did not sign: no kernel, no attestation.
    pub(crate) fn does_not_boot(&mut self, what: &str, uki: &str) {
        let file = self.guest.image().file(uki);
        self.guest.disk().unwrap().install_uki(&file).unwrap();
        self.guest.start().unwrap();
        let took = self.guest.wait_serial("Access Denied", BOOT).unwrap();
        assert!(!self.guest.serial().contains("Linux version"), "{what}: a kernel started");
        assert!(!self.world.placed(self.node), "{what}: a permit");
        self.guest.kill();
        self.say(what, &format!("the firmware refused it after {took:?}"));
    }
}
