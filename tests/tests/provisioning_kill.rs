//! Provisioning by the real programs on a real software TPM, killed at each of its steps: the next start completes it.
//!
//! hostd is stopped at a step by an answer that it waits for, ended by SIGKILL, and started again on a machine whose TPM was reset, with
//! its state kept or put back to what it was before, and with half-written files beside the whole ones.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hostmark_tests::hostd::write_secret;
use hostmark_tests::lab::Lab;
use hostmark_tests::process::{Daemon, Finished, run};
use hostmark_tests::programs::program;
use hostmark_tests::swtpm::{LocalCa, Swtpm, available};
use hostmark_tests::tap::{Gate, Moment, Pass, Step, Tap};
use hostmark_tests::wait::until;
use hostmark_verifier::api::types::Token;

// TPM_CC (Part 2, 6.5.2).
const GET_CAPABILITY: u32 = 0x17A;
const NV_READ: u32 = 0x14E;
const CREATE_PRIMARY: u32 = 0x131;
const CREATE: u32 = 0x153;
const LOAD: u32 = 0x157;
const ACTIVATE_CREDENTIAL: u32 = 0x147;
const SIGN: u32 = 0x15D;
const CERTIFY: u32 = 0x148;

const KEPT: [&str; 3] = ["keys.json", "enrolment.json", "host.json"];
const WAIT: Duration = Duration::from_secs(30);

/// Where hostd is killed.
#[derive(Clone, Copy)]
enum Cut {
    /// While it waits for the TPM.
    Tpm(Step),
    /// While its first request is on its way.
    FirstRequest,
    /// While its activation is on its way.
    Activation,
    /// While the answer to its activation is on its way.
    Answer,
}

struct Machine<'l> {
    lab: &'l Lab,
    dir: PathBuf,
    ca: LocalCa,
    swtpm: Swtpm,
    tap: Tap,
    gate: Gate,
    token: String,
    token_id: String,
}

impl<'l> Machine<'l> {
    fn new(lab: &'l Lab, dir: &Path, ca: &LocalCa, node: &str) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let swtpm = Swtpm::start(&dir.join("tpm"), ca).unwrap();
        let tap = Tap::start(&swtpm.tcti()).unwrap();
        let gate = Gate::start(&lab.verifier.url()).unwrap();
        let token = lab.token(node).unwrap();
        let config = format!("tpm = \"{}\"\nstate_dir = \"{}\"\n", tap.tcti(), dir.join("state").display());
        std::fs::write(dir.join("hostd.toml"), config).unwrap();
        let input = format!(
            "verifier = \"{}\"\nca_pin = \"{}\"\ntoken = \"{}\"\n",
            gate.url(),
            lab.verifier.ca_pin(),
            token.token
        );
        write_secret(&dir.join("input"), &input).unwrap();
        Self { lab, dir: dir.to_owned(), ca: ca.clone(), swtpm, tap, gate, token: token.token, token_id: token.id }
    }

    fn kept(&self, name: &str) -> PathBuf {
        self.dir.join("state").join(name)
    }

    fn command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(program("hostd").unwrap());
        command.args(["provision", "--config"]).arg(self.dir.join("hostd.toml"));
        command.arg("--input").arg(self.dir.join("input"));
        command
    }

    fn provision(&self) -> Finished {
        run(&mut self.command()).unwrap()
    }

    fn used_by(&self) -> Option<String> {
        let tokens: Vec<Token> = self.lab.admin.get("/v1/tokens").unwrap().read().unwrap();
        tokens.into_iter().find(|one| one.id == self.token_id).unwrap().used_by
    }

    /// Starts hostd and kills it.
    fn cut(&self, cut: Cut) {
        let stop_at = |pass: Pass| {
            let gate = self.gate.clone();
            self.tap.at(Step(CERTIFY, 1, Moment::After), move || {
                gate.set(pass);
                false
            });
        };
        match cut {
            Cut::Tpm(step) => self.tap.at(step, || true),
            Cut::FirstRequest => self.gate.set(Pass::NoRequest),
            Cut::Activation => stop_at(Pass::NoRequest),
            Cut::Answer => stop_at(Pass::NoAnswer),
        }
        let mut hostd = Daemon::start("hostd", &mut self.command(), &self.dir.join("log")).unwrap();
        match cut {
            Cut::Tpm(_) => self.tap.wait().unwrap(),
            Cut::FirstRequest => drop(until("the keys are kept", WAIT, || {
                hostd.must_run()?;
                Ok(self.kept("keys.json").exists().then_some(()))
            })),
            Cut::Activation => drop(until("the enrolment is kept", WAIT, || {
                hostd.must_run()?;
                Ok(self.kept("enrolment.json").exists().then_some(()))
            })),
            Cut::Answer => drop(until("the verifier has a host", WAIT, || Ok(self.used_by())).unwrap()),
        }
        // Time for what hostd should not do.
        std::thread::sleep(Duration::from_millis(30));
        hostd.must_run().unwrap();
        hostd.kill();
        self.gate.set(Pass::All);
    }

    /// The next boot: another start of the TPM, perhaps from an older copy of its state.
    fn boot(&mut self, rolled_back: bool) {
        self.swtpm.stop();
        if rolled_back {
            copy(&self.dir.join("tpm-before"), &self.dir.join("tpm"));
        }
        self.swtpm.reset().unwrap();
        for name in KEPT {
            std::fs::write(self.kept(&format!("{name}.new")), "{\"half").unwrap();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().ends_with("permall") {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn provisioning_killed_at_any_step_is_completed_by_the_next_start() {
    if !available("kills at each step of provisioning") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let lab = Lab::without_rules(dir, "").unwrap();
    let ca = LocalCa::new(&dir.join("tpm-ca")).unwrap();
    let tpm = |code, nth, moment| Cut::Tpm(Step(code, nth, moment));
    use Moment::{After, Before};
    // name, where, what is kept, whether the token was used
    let rows: [(&str, Cut, &[&str], bool); 13] = [
        ("nothing-done", tpm(GET_CAPABILITY, 1, Before), &[], false),
        ("ek-certificate-read", tpm(NV_READ, 1, After), &[], false),
        ("ek-made", tpm(CREATE_PRIMARY, 1, After), &[], false),
        ("ak-made", tpm(CREATE, 1, After), &[], false),
        ("tls-key-made", tpm(CREATE, 2, After), &[], false),
        ("keys-kept", tpm(LOAD, 1, Before), &["keys.json"], false),
        ("enrolment-asked", Cut::FirstRequest, &["keys.json"], false),
        ("challenged", tpm(ACTIVATE_CREDENTIAL, 1, Before), &["keys.json"], false),
        ("credential-opened", tpm(ACTIVATE_CREDENTIAL, 1, After), &["keys.json"], false),
        ("request-signed", tpm(SIGN, 1, After), &["keys.json"], false),
        ("tls-key-certified", tpm(CERTIFY, 1, After), &["keys.json"], false),
        ("activation-sent", Cut::Activation, &["keys.json", "enrolment.json"], false),
        ("activated", Cut::Answer, &["keys.json", "enrolment.json"], true),
    ];
    let mut hosts = 0;
    for (name, cut, kept, used) in rows {
        // Nothing of an enrolment is in the TPM's state; shown where the most could depend on it.
        let put_back = ["keys-kept", "activation-sent", "activated"].contains(&name);
        for rolled_back in [false, true].into_iter().take(1 + usize::from(put_back)) {
            let what = format!("{name}, TPM state put back: {rolled_back}");
            let start = Instant::now();
            let node = format!("{name}-{}", u8::from(rolled_back));
            let mut machine = Machine::new(&lab, &dir.join(&node), &ca, &node);
            machine.swtpm.stop();
            copy(&machine.dir.join("tpm"), &machine.dir.join("tpm-before"));
            machine.swtpm.reset().unwrap();

            machine.cut(cut);
            let found: Vec<&str> = KEPT.into_iter().filter(|name| machine.kept(name).exists()).collect();
            assert_eq!(found, kept, "{what}");
            assert_eq!(machine.used_by().is_some(), used, "{what}");
            let keys = std::fs::read(machine.kept("keys.json")).ok();
            let enrolment = std::fs::read(machine.kept("enrolment.json")).ok();

            machine.boot(rolled_back);
            let done = machine.provision();
            assert_eq!(done.code, Some(0), "{what}: {done}");
            assert!(done.stdout.starts_with("provisioned at"), "{what}: {done}");
            hosts += 1;
            let all = lab.hosts().unwrap();
            assert_eq!(all.len(), hosts, "{what}: one host, not two");
            let host = all.iter().find(|host| host.assignment.as_ref().is_some_and(|to| to.node == node)).unwrap();
            assert_eq!(machine.used_by().as_deref(), Some(host.host.as_str()), "{what}: its token made this host");
            assert!(!machine.kept("enrolment.json").exists(), "{what}");
            if let Some(keys) = keys {
                assert_eq!(std::fs::read(machine.kept("keys.json")).unwrap(), keys, "{what}: the same keys");
            }
            // Cut off between the certificate and the end.
            if let Some(enrolment) = enrolment {
                std::fs::write(machine.kept("enrolment.json"), enrolment).unwrap();
            }
            machine.boot(rolled_back);
            let again = machine.provision();
            assert!(again.code == Some(0) && again.stdout.starts_with("already provisioned at"), "{what}: {again}");
            assert!(!machine.kept("enrolment.json").exists(), "{what}");
            assert_eq!(lab.hosts().unwrap().len(), hosts, "{what}");

            // Nobody else completes it: not with the token, not from another TPM with this machine's files.
            if used && !rolled_back {
                let thief = Machine::new(&lab, &dir.join("thief"), &ca, "thief");
                let own = std::fs::read_to_string(machine.dir.join("input")).unwrap();
                write_secret(&thief.dir.join("input"), &own).unwrap();
                let refused = thief.provision();
                assert!(refused.code == Some(1) && refused.stderr.contains("token.used"), "{refused}");
                std::fs::copy(machine.kept("keys.json"), thief.kept("keys.json")).unwrap();
                let refused = thief.provision();
                assert!(refused.code == Some(1) && refused.stderr.contains("TPM2_Load"), "{refused}");
                assert_eq!(lab.hosts().unwrap().len(), hosts);
                drop(thief.token);
            }
            println!("{what}: {} ms", start.elapsed().as_millis());
            drop((machine.ca, machine.token));
        }
    }
}
