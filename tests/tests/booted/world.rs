//! The surroundings of booted guests: a verifier that they reach, references that come from another guest's boot.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hostmark_attest::finding::Severity;
use hostmark_attest::policy::capture::{Capture, capture};
use hostmark_attest::tier::{Submodule, Tier};
use hostmark_attest::wire::HostState;
use hostmark_tests::guest::{Guest, Image, VERIFIER_ADDRESS};
use hostmark_tests::lab::{LABEL, Lab, POLICY_NAME, POOL, shipped};
use hostmark_tests::programs::workspace;
use hostmark_tests::wait::until;

/// Longer than one round takes in an emulated host on a crowded machine.
pub(crate) const ROUND: Duration = Duration::from_secs(180);
/// Firmware, kernel, systemd, one round.
pub(crate) const BOOT: Duration = Duration::from_secs(900);
/// The pool's lease: rounds come at a third of it, and an emulated host needs some seconds for one.
pub(crate) const LEASE: Duration = Duration::from_secs(24);
/// A module that belongs to the image's kernel and to no host: the references leave it out.
pub(crate) const FOREIGN_MODULE: &str = "dummy";
/// Another configuration of Docker that the references permit.
pub(crate) const DAEMON_JSON_PERMITTED: &str = r#"{
  "deprecated-key-path": "/var/lib/docker/key.json",
  "icc": false,
  "live-restore": true,
  "log-driver": "local",
  "max-concurrent-downloads": 2,
  "no-new-privileges": true,
  "userland-proxy": false
}
"#;
/// Where it lies.
pub(crate) const DAEMON_JSON: &str = "/etc/docker/daemon.json";
/// What a guest runs containers from.
const CONTAINER_TAR: &str = "/usr/share/hostmark-test/busybox.tar";
/// The format of what is kept of a reference guest.
const KEPT: &str = "3";

/// A verifier, and what it judges by.
pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) image: Image,
    reference: Reference,
    accepted: BTreeMap<String, Vec<String>>,
    version: u64,
    pub(crate) directory: tempfile::TempDir,
}

/// What a good guest of this image showed, in a boot of its own.
pub(crate) struct Reference {
    directory: PathBuf,
}

impl World {
    /// A verifier whose references come from a reference guest: one boot, kept for as long as the image stays the same.
    pub(crate) fn start(image: &Image) -> Self {
        let mut this = Self::empty(image);
        this.make_ready();
        this
    }

    /// A verifier that knows nothing to judge by yet.
    pub(crate) fn empty(image: &Image) -> Self {
        let target = workspace().join("target");
        let directory = tempfile::Builder::new().prefix("guests-").tempdir_in(target).unwrap();
        let names = format!("names = [\"localhost\", \"127.0.0.1\", \"{VERIFIER_ADDRESS}\"]\n");
        let lab = Lab::without_rules(&directory.path().join("lab"), &names).unwrap();
        let reference =
            Reference { directory: workspace().join("target/guest-reference").join(image.key()).join(KEPT) };
        Self { lab, image: image.clone(), reference, accepted: BTreeMap::new(), version: 0, directory }
    }

    /// Publishes pool, policy and references.
    pub(crate) fn make_ready(&mut self) {
        if self.reference.directory.exists() {
            self.publish();
            self.publish_policy();
        } else {
            self.make_reference();
            self.publish();
        }
        self.lab.shorten_lease(&format!("{}s", LEASE.as_secs())).unwrap();
    }

    /// A host that boots without Secure Boot is refused from now on, and not only warned of.
    pub(crate) fn require_secure_boot(&self) {
        self.publish_policy_with(|text| {
            let stricter = text.replace("else = \"warning\"", "else = \"contraindicated\"");
            assert_ne!(stricter, text);
            stricter.replace("version = 1\n", "version = 2\n")
        });
    }

    fn publish_policy(&self) {
        self.publish_policy_with(|text| text);
    }

    fn publish_policy_with(&self, edit: impl FnOnce(String) -> String) {
        let text = shipped("appraisal", POLICY_NAME).unwrap();
        let covered = "# ima_covers = [";
        assert!(text.contains(covered), "the shipped policy names what FILE_CHECK covers");
        let text = text.replace(covered, "ima_covers = [");
        let text = edit(text);
        self.lab.publish_policy(POLICY_NAME, &text).unwrap();
    }

    /// A guest with its own disk, TPM and join token, switched off.
    pub(crate) fn guest(&self, node: &str) -> Guest {
        let mut guest = Guest::new(node, &self.directory.path().join(node), &self.image, self.lab.ca()).unwrap();
        self.give_token(&mut guest, node);
        guest
    }

    pub(crate) fn give_token(&self, guest: &mut Guest, node: &str) {
        let token = self.lab.token(node).unwrap();
        let port = self.lab.verifier.url().rsplit(':').next().unwrap().parse().unwrap();
        guest.provision_at(port, self.lab.verifier.ca_pin(), &token.token).unwrap();
    }

    /// Boots a guest that no other test judges, lets it do what hosts do, and keeps what it measured.
    fn make_reference(&mut self) {
        let start = Instant::now();
        let kept = self.reference.directory.clone();
        let new = tempfile::tempdir_in(self.directory.path()).unwrap();
        let at = |name: &str| new.path().join(name);
        let mut guest = self.guest("reference");
        let root = at("root");
        std::fs::create_dir(&root).unwrap();
        guest.disk().unwrap().dump("/", &root).unwrap();
        let files = ["refs", "ima", root.to_str().unwrap(), "--also", "/etc/ld.so.cache"];
        let files = self.lab.verifier.hostmark(&files).unwrap().good().unwrap().stdout;
        std::fs::write(at("files.toml"), files).unwrap();
        std::fs::remove_dir_all(&root).unwrap();
        println!("references of the image's files: {:?}", start.elapsed());
        // Judged by its files alone: nobody enters a pool by that.
        self.publish_bundle(self.files(&std::fs::read_to_string(at("files.toml")).unwrap()));
        self.publish_policy();

        guest.boot().unwrap();
        self.wait_known("reference");
        engines_run(&mut guest);
        let manifest = "hostd measure --config /etc/hostmark/hostd.toml --output json";
        std::fs::write(at("manifest-0"), guest.sh(manifest).unwrap().good().unwrap()).unwrap();
        run_container(&mut guest);
        let shipped = guest.read(DAEMON_JSON).unwrap();
        guest.write(DAEMON_JSON, DAEMON_JSON_PERMITTED.as_bytes()).unwrap();
        std::fs::write(at("manifest-1"), guest.sh(manifest).unwrap().good().unwrap()).unwrap();
        guest.write(DAEMON_JSON, &shipped).unwrap();
        // Engines that do not run yet are a state that each boot passes through.
        guest.sh("systemctl stop docker.socket docker containerd").unwrap().good().unwrap();
        std::fs::write(at("manifest-2"), guest.sh(manifest).unwrap().good().unwrap()).unwrap();
        std::fs::write(at("boot-log.bin"), boot_log(&mut guest)).unwrap();
        std::fs::write(at("ima.bin"), ima_list(&mut guest)).unwrap();
        std::fs::write(at("pcrs.json"), serde_json::to_vec(&pcrs(&mut guest)).unwrap()).unwrap();
        guest.kill();

        std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
        // Whole or not at all: another test process may have been faster.
        if std::fs::rename(new.keep(), &kept).is_err() {
            assert!(kept.exists());
        }
        println!("reference guest: {:?}", start.elapsed());
    }

    pub(crate) const fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Publishes the references: what the reference guest showed, the image's files, what was accepted since.
    pub(crate) fn publish(&mut self) {
        let read = |name: &str| self.reference.read(name);
        let (boot_log, ima) = (read("boot-log.bin"), read("ima.bin"));
        let manifests = ["manifest-0", "manifest-1", "manifest-2"].map(read);
        let manifests: Vec<&[u8]> = manifests.iter().map(Vec::as_slice).collect();
        let captured =
            capture(&Capture { boot_log: &boot_log, ima: &ima, manifests: &manifests, ..Capture::default() }, 1)
                .unwrap();
        let mut bundle: toml::Table = captured.parse().unwrap();
        let files = self.files(&String::from_utf8(read("files.toml")).unwrap());
        bundle["window"].as_array_mut().unwrap().extend(files["window"].as_array().unwrap().clone());
        self.publish_bundle(bundle);
    }

    /// References for the image's files, and for those that were accepted; not for the module that belongs to no host.
    fn files(&self, of_image: &str) -> toml::Table {
        let mut bundle: toml::Table = of_image.parse().unwrap();
        let named = bundle["window"][0]["ima"].as_table_mut().unwrap();
        let module = format!("/{FOREIGN_MODULE}.ko");
        assert!(named.keys().any(|path| path.ends_with(&module)), "the image has the module {FOREIGN_MODULE}");
        named.retain(|path, _| !path.ends_with(&module));
        for (path, digests) in &self.accepted {
            named.insert(format!("accepted {path}"), digests.clone().into());
        }
        bundle
    }

    fn publish_bundle(&mut self, mut bundle: toml::Table) {
        self.version += 1;
        bundle.insert("version".to_owned(), i64::try_from(self.version).unwrap().into());
        self.lab.publish_references(POLICY_NAME, &toml::to_string(&bundle).unwrap()).unwrap();
    }

    /// Publishes references that also name what the findings on a node show: what an operator does who has looked at it.
    pub(crate) fn accept_found(&mut self, node: &str) {
        let standing = self.lab.standing(node).unwrap();
        for finding in
            standing.subsystems.values().flat_map(|one| &one.findings).filter(|one| one.id.starts_with("ima."))
        {
            let found = finding.found.clone().unwrap_or_default();
            if let Some((path, digest)) = found.rsplit_once(" sha256:") {
                let digest = digest.get(..64).unwrap_or_default();
                self.accepted.entry(path.to_owned()).or_default().push(format!("sha256:{digest}"));
            }
        }
        self.publish();
    }

    /// Takes back every acceptance: a file that was accepted is unknown again.
    pub(crate) fn accept_nothing(&mut self) {
        self.accepted.clear();
        self.publish();
    }

    pub(crate) fn state(&self, node: &str) -> Option<HostState> {
        self.lab.standing(node).ok().map(|standing| standing.fields.state)
    }

    /// Whether a placement gives a permit for this node now.
    pub(crate) fn placed(&self, node: &str) -> bool {
        let hosts = self.lab.place(LABEL, 10).unwrap().hosts;
        hosts.iter().any(|one| one.node == node && !one.permit.is_empty())
    }

    pub(crate) fn tier(&self, node: &str, of: Submodule) -> Option<Tier> {
        self.lab.standing(node).unwrap().subsystems.get(&of).map(|one| one.tier)
    }

    /// Every finding of this severity or worse, as `subsystem:id`, each once.
    pub(crate) fn findings(&self, node: &str, least: Severity) -> Vec<String> {
        let standing = self.lab.standing(node).unwrap();
        let mut found: Vec<String> = standing
            .refused
            .iter()
            .filter(|one| one.severity >= least)
            .map(|one| format!("refused:{}", one.id))
            .collect();
        for (subsystem, detail) in &standing.subsystems {
            let name = serde_json::to_value(subsystem).unwrap();
            for one in detail.findings.iter().filter(|one| one.severity >= least) {
                found.push(format!("{}:{}", name.as_str().unwrap(), one.id));
            }
        }
        found.sort();
        found.dedup();
        found
    }

    /// What stands in the way of a node, for people.
    pub(crate) fn explained(&self, node: &str) -> String {
        let Ok(standing) = self.lab.standing(node) else { return format!("{node} is unknown to the verifier") };
        let mut out = format!("{:?}, refused: {:#?}\n", standing.fields, standing.refused);
        for (subsystem, detail) in &standing.subsystems {
            out += &format!("{subsystem:?} {:?}\n", detail.tier);
            for finding in &detail.findings {
                out += &format!("  {finding}\n");
            }
        }
        for pool in standing.pools.iter().filter(|pool| pool.pool == POOL) {
            for one in pool.conditions.iter().filter(|one| !one.met) {
                out += &format!("unmet {}: expected {}, found {}\n", one.id, one.expected, one.found);
            }
        }
        out
    }

    /// Waits until the verifier has judged a first round of this node.
    pub(crate) fn wait_known(&self, node: &str) -> Duration {
        let judged = until(&format!("a first round of {node}"), BOOT, || {
            Ok(self
                .lab
                .standing(node)
                .ok()
                .filter(|one| one.fields.age_ms.is_some() || !one.refused.is_empty())
                .map(drop))
        });
        judged.unwrap_or_else(|error| panic!("{error}\n{}", self.explained(node))).1
    }

    /// Waits until the node holds a permit. Gives how long that took.
    pub(crate) fn wait_placed(&self, node: &str, what: &str, within: Duration) -> Duration {
        let seen = until(&format!("{what}: a permit"), within, || Ok(self.placed(node).then_some(())));
        seen.unwrap_or_else(|error| panic!("{error}\n{}", self.explained(node))).1
    }

    /// Waits until the node holds no permit. Gives how long that took.
    pub(crate) fn wait_unplaced(&self, node: &str, what: &str, within: Duration) -> Duration {
        let seen = until(&format!("{what}: no permit"), within, || Ok((!self.placed(node)).then_some(())));
        seen.unwrap_or_else(|error| panic!("{error}\n{}", self.explained(node))).1
    }

    /// After a boot: the verifier refuses what it gets, by exactly these findings, and grants nothing.
    pub(crate) fn wait_refused(&self, node: &str, what: &str, expect: &[&str]) {
        // What an earlier boot was refused for stands until this one's first round.
        let seen = until(what, BOOT, || {
            assert!(!self.placed(node), "{what}: a permit");
            let refused = self.state(node) == Some(HostState::Disproven);
            Ok((refused && self.findings(node, Severity::Error) == expect).then_some(()))
        });
        seen.unwrap_or_else(|error| panic!("{error}\n{}", self.explained(node)));
        assert!(!self.placed(node), "{what}: a permit");
    }

    /// Waits for a good round whose nonce was issued after `since`.
    pub(crate) fn wait_proof(&self, node: &str, since: Instant, what: &str) {
        let seen = until(&format!("{what}: a newer proof"), ROUND, || {
            let fields = self.lab.standing(node)?.fields;
            let age = Duration::from_millis(fields.age_ms.unwrap_or(u64::MAX));
            Ok((fields.state == HostState::Proven && age < since.elapsed()).then_some(()))
        });
        seen.unwrap_or_else(|error| panic!("{error}\n{}", self.explained(node)));
    }
}

impl Reference {
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.directory.join(name)).unwrap()
    }

    /// The values of the PCRs that nothing extends after the boot, as the reference guest showed them.
    pub(crate) fn pcrs(&self) -> BTreeMap<u8, String> {
        serde_json::from_slice(&self.read("pcrs.json")).unwrap()
    }
}

/// PCRs 0 to 15 as the kernel reads them.
pub(crate) fn pcrs(guest: &mut Guest) -> BTreeMap<u8, String> {
    let script = "cd /sys/class/tpm/tpm0/pcr-sha256 && for i in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do echo $i $(cat $i); done";
    let text = guest.sh(script).unwrap().good().unwrap();
    let pair = |line: &str| {
        let (index, value) = line.split_once(' ').unwrap();
        (index.parse().unwrap(), value.to_lowercase())
    };
    text.lines().map(pair).collect()
}

pub(crate) fn boot_log(guest: &mut Guest) -> Vec<u8> {
    guest.read("/sys/kernel/security/tpm0/binary_bios_measurements").unwrap()
}

pub(crate) fn ima_list(guest: &mut Guest) -> Vec<u8> {
    guest.read("/sys/kernel/security/ima/binary_runtime_measurements").unwrap()
}

/// Waits for the engines: hostd attests before they start.
pub(crate) fn engines_run(guest: &mut Guest) {
    let script = "for i in $(seq 300); do docker info >/dev/null 2>&1 && exit 0; sleep 1; done; systemctl status docker containerd; exit 1";
    guest.sh_within(script, BOOT).unwrap().good().unwrap();
}

/// Makes the local image, once, and runs a container from it.
pub(crate) fn run_container(guest: &mut Guest) {
    let script = format!(
        "docker image inspect bb >/dev/null 2>&1 || docker import {CONTAINER_TAR} bb >/dev/null\n\
         docker run --rm bb /bin/sh -c 'echo contained'"
    );
    let said = guest.sh_within(&script, ROUND).unwrap().good().unwrap();
    assert!(said.ends_with("contained\n"), "{said}");
}
