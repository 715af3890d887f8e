//! What the demo tells, step by step, each with its checks on the verifier's own answers.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use hostmark_attest::finding::{Finding, Severity};
use hostmark_attest::tier::Submodule;
use hostmark_attest::wire::HostState;
use hostmark_tests::engine_files::{
    DAEMON_JSON, DAEMON_JSON_LOCAL_LOGS, DAEMON_JSON_OPEN, DAEMON_JSON_PATH, EngineFiles,
};
use hostmark_tests::hostd::{Hostd, write_secret};
use hostmark_tests::lab::{
    HOST_BOOT, LABEL, Lab, POLICY_NAME, POOL, REFERENCE_BOOT, ROUND, SCHEDULER, ek_id, host_boot,
    judged_by_another_boot, reference_boot,
};
use hostmark_tests::machine::change_last_event;
use hostmark_tests::process::run;
use hostmark_tests::programs::{program, workspace};
use hostmark_tests::wait::until;
use hostmark_verifier::api::types::Standing;

use crate::show::Show;

const HONEST: [&str; 3] = ["node-1", "node-2", "node-3"];
const TAMPERED: &str = "node-4";
/// The production pool of the shipped configuration.
const PRODUCTION: &str = "phi-a";

/// Everything that runs. Hosts end before their verifier.
pub(crate) struct Story {
    hosts: Vec<Hostd>,
    lab: Lab,
    directory: PathBuf,
}

impl Story {
    /// Tells the whole story, or says which part of it was not true.
    pub(crate) fn tell(show: &Show, directory: &Path) -> anyhow::Result<Self> {
        show.line("Hostmark demo: hosts prove themselves, enter a pool, and leave it when they change.");
        show.say(&format!(
            "Processes and files of this demo live in {}; all of it listens on loopback only.",
            directory.display()
        ));
        show.say("TPMs are software (class `simulated`: never admitted to a production pool). Engines are files only:");
        show.say("configuration and units as Debian ships them, programs that stand for the real ones, no daemon.");
        let mut story = Self::start(show, directory)?;
        story.publish(show)?;
        story.enrol(show)?;
        story.admit(show)?;
        story.place(show)?;
        story.change(show)?;
        story.refuse(show)?;
        story.audit(show)?;
        Ok(story)
    }

    fn start(show: &Show, directory: &Path) -> anyhow::Result<Self> {
        show.step("A verifier, and four machines with TPMs of their own");
        for name in ["hostd", "verifier", "hostmark"] {
            program(name)?;
        }
        let lab = Lab::without_rules(&directory.join("lab"), "default_policy = \"lab-uki\"")?;
        show.say(&format!("verifier      {}, embedded store, keys and CA made by `verifier init`", lab.verifier.url()));
        show.say(&format!("CA pin        {}", lab.verifier.ca_pin()));
        let lab_here = &lab;
        let hosts = std::thread::scope(|scope| {
            let nodes = HONEST.into_iter().chain([TAMPERED]);
            let threads: Vec<_> = nodes.map(|node| scope.spawn(move || lab_here.host(node))).collect();
            let ended = threads.into_iter().map(|one| one.join().map_err(|_| anyhow!("a machine's thread ended"))?);
            ended.collect::<anyhow::Result<Vec<_>>>()
        })?;
        for host in &hosts {
            show.say(&format!("{:<13} {}, booted as recorded in {HOST_BOOT}", host.name(), host.machine.tcti()));
        }
        let client = format!(
            "verifier = \"{}\"\nca = \"{}\"\ncert = \"{}\"\nkey = \"{}\"\n",
            lab.verifier.url(),
            lab.verifier.ca().display(),
            lab.verifier.admin().0.display(),
            lab.verifier.admin().1.display()
        );
        std::fs::write(directory.join("client.toml"), client)?;
        write_secret(&directory.join("operator.key"), lab.verifier.operator().private_pem())?;
        Ok(Self { hosts, lab, directory: directory.to_owned() })
    }

    fn publish(&self, show: &Show) -> anyhow::Result<()> {
        show.step("What a good host is: references from another boot, and the shipped policies as they are");
        let (judged, known_good) = (host_boot()?, reference_boot()?);
        let independent = judged_by_another_boot(&judged, &known_good).is_ok();
        show.check(
            independent,
            &format!("the references come from {REFERENCE_BOOT}, the hosts are {HOST_BOOT}: two boots, two TPMs"),
        )?;
        // A machine of the operator's own, with each configuration that the laboratory permits.
        let files = EngineFiles::create(&self.directory.join("operators-machine"))?;
        let mut manifests = Vec::new();
        for (number, permitted) in [DAEMON_JSON, DAEMON_JSON_LOCAL_LOGS].into_iter().enumerate() {
            files.write(DAEMON_JSON_PATH, permitted)?;
            let mut measure = std::process::Command::new(program("hostd")?);
            measure.args(["measure", "--output", "json", "--root"]).arg(files.root());
            let file = self.directory.join(format!("manifest-{number}.json"));
            std::fs::write(&file, run(&mut measure)?.good()?.stdout)?;
            manifests.push(file.display().to_string());
        }
        let at = |path: &Path| path.display().to_string();
        let logs = [("boot-log.bin", known_good.boot_log()?), ("ima.bin", known_good.ima()?)];
        for (name, bytes) in &logs {
            std::fs::write(self.directory.join(name), bytes)?;
        }
        let [boot_log, ima] = logs.map(|(name, _)| at(&self.directory.join(name)));
        let (bundle, key) = (at(&self.directory.join("lab-uki.toml")), at(&self.directory.join("operator.key")));
        let mut capture = vec!["refs", "capture", "--boot-log", &boot_log, "--ima", &ima];
        capture.extend(manifests.iter().flat_map(|file| ["--manifest", file.as_str()]));
        capture.extend(["-o", &bundle]);
        self.hostmark(show, &capture)?;
        self.hostmark(show, &["refs", "publish", &bundle, "--key", &key])?;
        let configs = workspace().join("configs").canonicalize()?;
        self.hostmark(show, &["policy", "publish", &at(&configs.join("appraisal/lab-uki.toml")), "--key", &key])?;
        self.hostmark(show, &["pool", "apply", &at(&configs)])
    }

    fn enrol(&mut self, show: &Show) -> anyhow::Result<()> {
        show.step("Three hosts become known: by their EK, by a join token, by a person");
        let [one, two, three, ..] = self.hosts.as_slice() else { anyhow::bail!("there are four hosts") };
        let list = self.directory.join("delivered.csv");
        std::fs::write(&list, format!("{},{},{SCHEDULER},{LABEL},{POLICY_NAME}\n", ek_id(one)?, one.name()))?;
        self.hostmark(show, &["host", "import", &list.display().to_string()])?;
        provision(show, one, None)?;

        let token = self.directory.join("node-2.token");
        let to = ["--node", two.name(), "--scheduler", SCHEDULER, "--label", LABEL, "--policy", POLICY_NAME];
        let file = token.display().to_string();
        let mut create = vec!["token", "create"];
        create.extend(to);
        create.extend(["--min-class", "simulated", "-o", &file]);
        self.hostmark(show, &create)?;
        provision(show, two, Some(std::fs::read_to_string(&token)?.trim()))?;

        let waiting = three.provision(None)?;
        show.command("hostd provision   (on node-3, with nothing prepared)", &waiting.stderr);
        let ek = ek_id(three)?;
        let pending = self.lab.hosts()?.into_iter().find(|host| host.ek_id == ek).context("node-3 waits nowhere")?;
        let waits = waiting.code == Some(1) && pending.state == Standing::Pending;
        show.check(waits, "nobody is let in by asking: it waits for a person")?;
        let mut approve = vec!["host", "approve", pending.host.as_str(), "--node", three.name()];
        approve.extend(["--scheduler", SCHEDULER, "--label", "public", "--policy", POLICY_NAME]);
        self.hostmark(show, &approve)?;
        provision(show, three, None)?;
        let hosts = self.lab.hosts()?;
        let unproven = hosts.iter().filter(|host| host.state == Standing::Unproven).count();
        show.check(
            hosts.len() == 3 && unproven == 3,
            "three hosts are known, and none is trusted: they have proven nothing",
        )
    }

    fn admit(&mut self, show: &Show) -> anyhow::Result<()> {
        show.step("They prove themselves and are admitted");
        let (lab, hosts) = (&self.lab, &mut self.hosts);
        for host in hosts.iter_mut().take(HONEST.len()) {
            if host.name() == "node-2" {
                host.machine.engines().write(DAEMON_JSON_PATH, DAEMON_JSON_LOCAL_LOGS)?;
            }
            host.run()?;
        }
        show.say(
            "node-2 logs to disk instead of the journal: other contents of daemon.json, which the references permit",
        );
        for host in hosts.iter_mut().take(2) {
            lab.wait_admitted(host)?;
        }
        let (state, _) = until("node-3 is proven", ROUND, || {
            let state = lab.standing("node-3")?.fields.state;
            Ok((state == HostState::Proven).then_some(state))
        })?;
        let outside = !lab.verdict(POOL, "node-3")?.admitted;
        show.check(
            state == HostState::Proven && outside,
            "node-3 is proven, and outside: its label does not reach the pool's",
        )?;
        self.hostmark(show, &["host", "label", "node-3", LABEL])?;
        if let Some(host) = self.hosts.get_mut(2) {
            self.lab.wait_admitted(host)?;
        }
        self.hostmark(show, &["host", "list"])?;
        self.hostmark(show, &["pool", "list"])?;
        self.hostmark(show, &["pool", "explain", "node-2", POOL, "-v"])?;
        for node in HONEST {
            let (inside, production) = (self.lab.verdict(POOL, node)?, self.lab.verdict(PRODUCTION, node)?);
            let ends = inside.not_after.clone().unwrap_or_default();
            show.check(
                inside.admitted && !production.admitted,
                &format!("{node} is in {POOL} until {ends}, and not in {PRODUCTION}: a software TPM enters no production pool"),
            )?;
        }
        Ok(())
    }

    fn place(&self, show: &Show) -> anyhow::Result<()> {
        show.step("A scheduler asks where an internal workload may run, now");
        self.hostmark(show, &["place", LABEL, "--count", "2"])?;
        let answer = self.lab.place(LABEL, 2)?;
        let permitted = answer.hosts.iter().filter(|one| one.pool == POOL && !one.permit.is_empty()).count();
        show.check(permitted == 2, "two nodes, each with a signed permit that ends by itself")?;
        let none = self.lab.place("restricted:phi@hospital-a", 1)?.hosts.is_empty();
        show.check(none, "no node for a patient's data: none of these hosts may carry it")
    }

    fn change(&mut self, show: &Show) -> anyhow::Result<()> {
        show.step("Somebody opens Docker's API to the network on node-2");
        let host = self.hosts.get_mut(1).context("node-2")?;
        let written = Instant::now();
        host.machine.engines().write(DAEMON_JSON_PATH, DAEMON_JSON_OPEN)?;
        let lab = &self.lab;
        until("node-2 is placed no more", ROUND, || {
            let nodes = lab.place(LABEL, 3)?.hosts;
            Ok(nodes.iter().all(|one| one.node != "node-2").then_some(()))
        })?;
        let took = written.elapsed();
        show.say(&format!(
            "{} edited: {}",
            host.machine.engines().root().join(DAEMON_JSON_PATH).display(),
            DAEMON_JSON_OPEN.replace('\n', " ")
        ));
        self.hostmark_expecting(show, &["pool", "explain", "node-2", POOL], 1)?;
        let standing = self.lab.standing("node-2")?;
        let engine = errors(standing.subsystems.get(&Submodule::Engine).map(|one| one.findings.as_slice()));
        let named =
            engine.iter().any(|one| one.id == "engine.file-changed" && one.message.contains("/etc/docker/daemon.json"));
        let set = engine.iter().any(|one| one.id == "engine.setting" && one.message.contains("docker.icc"));
        show.check(
            standing.fields.state == HostState::Disproven,
            &format!("node-2 left its pool {} ms after the file was written", took.as_millis()),
        )?;
        show.check(named && set, "the verdict names the file and the setting, with what was expected")?;
        let others = self.lab.place(LABEL, 3)?.hosts;
        show.check(others.len() == 2, "the other two still carry workloads")?;

        let host = self.hosts.get_mut(1).context("node-2")?;
        host.machine.engines().write(DAEMON_JSON_PATH, DAEMON_JSON_LOCAL_LOGS)?;
        let took = self.lab.wait_admitted(host)?;
        show.check(true, &format!("the file is as it was, and node-2 is back {} ms later", took.as_millis()))
    }

    fn refuse(&mut self, show: &Show) -> anyhow::Result<()> {
        show.step("A fourth host shows a boot log in which one event was changed");
        let host = self.hosts.get_mut(3).context("node-4")?;
        let token = self.lab.token(host.name())?;
        provision(show, host, Some(&token.token))?;
        host.machine.tamper_boot_log(change_last_event)?;
        host.run()?;
        let lab = &self.lab;
        until("node-4 is judged", ROUND, || {
            Ok((lab.standing(TAMPERED)?.fields.state == HostState::Disproven).then_some(()))
        })?;
        self.hostmark_expecting(show, &["pool", "explain", TAMPERED, POOL], 1)?;
        let standing = self.lab.standing(TAMPERED)?;
        let boot = errors(standing.subsystems.get(&Submodule::Boot).map(|one| one.findings.as_slice()));
        let replay = boot.iter().find(|one| one.id == "boot.replay");
        let reason = replay.map(|one| one.message.clone()).unwrap_or_default();
        show.check(replay.is_some() && reason.contains("PCR"), &format!("{TAMPERED} is refused: {reason}"))?;
        let nodes: Vec<String> = self.lab.place(LABEL, 10)?.hosts.into_iter().map(|one| one.node).collect();
        show.check(nodes.len() == 3 && !nodes.contains(&TAMPERED.to_owned()), "no workload is placed there")
    }

    fn audit(&self, show: &Show) -> anyhow::Result<()> {
        show.step("Every decision is in the audit chain");
        self.hostmark(show, &["audit", "verify"])
    }

    /// What to do while everything runs.
    pub(crate) fn invite(&self, show: &Show) -> anyhow::Result<()> {
        let hostmark = program("hostmark")?.canonicalize()?;
        let host = self.hosts.first().context("node-1")?;
        show.line("");
        show.line("Everything still runs. In another terminal:");
        show.say(&format!("export HOSTMARK_CONFIG={}", self.directory.join("client.toml").display()));
        show.say(&format!("alias hostmark={}", hostmark.display()));
        show.say("hostmark host list; hostmark pool list; hostmark host explain node-1");
        show.say("hostmark host maintenance node-3 --for 2h; hostmark place internal --count 3");
        show.say(&format!(
            "{} status --config {}",
            program("hostd")?.canonicalize()?.display(),
            host.config().display()
        ));
        show.say(&format!("edit {}", host.machine.engines().root().join(DAEMON_JSON_PATH).display()));
        show.say(&format!("curl --cacert {} {}/readyz", self.lab.verifier.ca().display(), self.lab.verifier.url()));
        show.line("Ctrl-C ends it and removes everything.");
        Ok(())
    }

    fn hostmark(&self, show: &Show, words: &[&str]) -> anyhow::Result<()> {
        self.hostmark_expecting(show, words, 0)
    }

    /// Runs `hostmark`, shows command and output, and demands its exit code.
    fn hostmark_expecting(&self, show: &Show, words: &[&str], code: i32) -> anyhow::Result<()> {
        let done = self.lab.verifier.hostmark(words)?;
        let root = workspace().canonicalize()?.display().to_string();
        let here = self.directory.display().to_string();
        let short = |text: String| text.replace(&format!("{root}/"), "").replace(&format!("{here}/"), "");
        show.command(
            &format!("hostmark {}", short(words.join(" "))),
            &short(format!("{}{}", done.stdout, done.stderr)),
        );
        if done.code == Some(code) {
            Ok(())
        } else {
            anyhow::bail!("hostmark {} ended with {:?}, not {code}", words.join(" "), done.code)
        }
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        // Politely first, so that no log ends in the middle; what does not listen is killed when its owner is dropped.
        for host in &mut self.hosts {
            let _ = host.stop();
        }
        let _ = self.lab.verifier.stop();
    }
}

fn provision(show: &Show, host: &Hostd, token: Option<&str>) -> anyhow::Result<()> {
    let done = host.provision(token)?.good()?.json()?;
    let how = if token.is_some() { " --token-file FILE" } else { "" };
    let node = done.pointer("/node").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    show.command(&format!("hostd provision{how}   (on {})", host.name()), "");
    show.check(node == host.name(), &format!("{node}: certificate for a key that never leaves its TPM"))
}

/// The findings that count against a host.
fn errors(findings: Option<&[Finding]>) -> Vec<Finding> {
    findings.unwrap_or_default().iter().filter(|one| one.severity == Severity::Error).cloned().collect()
}
