//! A laboratory: a verifier whose rules are the shipped files, and hosts on software TPMs of one CA.
//!
//! The hosts run the recorded boot `systemd-again`; the references that judge them come from the other boot of that image,
//! `systemd`. Policies, pools and admission rules are the files of configs/, unchanged.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use hostmark_attest::policy::{POLICY, REFERENCES};
use hostmark_verifier::api::types::{
    Approve, Assign, CreateToken, CreatedToken, Host, PreregisteredHost, Preregistrations,
};
use hostmark_verifier::api::views::{
    ApplyPools, NamedFile, PlacementRequest, PlacementResponse, PoolVerdict, PublishFile, Published, Spread,
    StandingDetail,
};

use crate::client::Client;
use crate::hostd::Hostd;
use crate::machine::Machine;
use crate::operator::capture_references;
use crate::process::text_at;
use crate::programs::workspace;
use crate::recording::Recording;
use crate::swtpm::LocalCa;
use crate::verifier::{Options, Verifier};
use crate::wait::until;

/// The boot that the laboratory's hosts are in.
pub const HOST_BOOT: &str = "systemd-again";
/// The boot that their references are captured from.
pub const REFERENCE_BOOT: &str = "systemd";
/// The appraisal policy of the laboratory's hosts, and the name of its references.
pub const POLICY_NAME: &str = "lab-uki";
/// The enforcing pool that the laboratory's hosts enter.
pub const POOL: &str = "lab";
/// The label that the laboratory's hosts are given: it dominates the pool's.
pub const LABEL: &str = "internal";
/// The scheduler that the laboratory's nodes belong to.
pub const SCHEDULER: &str = "swarm-a";
/// How long anything may take that needs one round, on a loaded machine.
pub const ROUND: Duration = Duration::from_secs(60);

/// A verifier with its rules, and the CA of its hosts' software TPMs.
#[derive(Debug)]
pub struct Lab {
    directory: PathBuf,
    ca: LocalCa,
    /// The verifier.
    pub verifier: Verifier,
    /// The first admin.
    pub admin: Client,
}

impl Lab {
    /// Starts the verifier and publishes the shipped rules and the captured references. `extra` are lines of verifier.toml.
    ///
    /// # Errors
    /// When a program fails or a rule is refused.
    pub fn start(directory: &Path, extra: &str) -> anyhow::Result<Self> {
        let lab = Self::without_rules(directory, extra)?;
        lab.publish_rules()?;
        Ok(lab)
    }

    /// Publishes the shipped rules and the captured references.
    ///
    /// # Errors
    /// When one is refused.
    pub fn publish_rules(&self) -> anyhow::Result<()> {
        let references = reference_boot()?;
        judged_by_another_boot(&host_boot()?, &references)?;
        self.publish_references(POLICY_NAME, &capture_references(&references, 1)?)?;
        self.publish_policy(POLICY_NAME, &shipped("appraisal", POLICY_NAME)?)?;
        self.apply_shipped_pools()
    }

    /// As [`Lab::start`], with nothing published.
    ///
    /// # Errors
    /// When a program fails.
    pub fn without_rules(directory: &Path, extra: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let directory = directory.canonicalize()?;
        let ca = LocalCa::new(&directory.join("tpm-ca"))?;
        // The CA comes into being with the first TPM that it certifies; the verifier reads its trust when it starts.
        drop(crate::swtpm::Swtpm::start(&directory.join("first-tpm"), &ca)?);
        let ek_roots = ca.certificates().map(|file| ("simulated".to_owned(), file)).to_vec();
        Self::trusting(&directory, extra, ek_roots)
    }

    /// As [`Lab::without_rules`], with roots of EK certificates by class, whoever made them, and no software TPM yet.
    ///
    /// # Errors
    /// When a program fails.
    pub fn trusting(directory: &Path, extra: &str, ek_roots: Vec<(String, PathBuf)>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let directory = directory.canonicalize()?;
        let ca = LocalCa::new(&directory.join("tpm-ca"))?;
        let options = Options { toml: extra.to_owned(), ek_roots, port: 0 };
        let verifier = Verifier::start(&directory.join("verifier"), &options)?;
        let admin = verifier.client()?;
        Ok(Self { directory, ca, verifier, admin })
    }

    /// The CA of this laboratory's software TPMs.
    #[must_use]
    pub const fn ca(&self) -> &LocalCa {
        &self.ca
    }

    /// Signs and publishes an appraisal policy.
    ///
    /// # Errors
    /// When it is refused.
    pub fn publish_policy(&self, name: &str, toml: &str) -> anyhow::Result<Published> {
        let signature = self.verifier.operator().sign_file(&POLICY, toml.as_bytes())?;
        let file = PublishFile { name: name.to_owned(), toml: toml.to_owned(), signature };
        self.admin.post("/v1/policies", &file)?.read()
    }

    /// Signs and publishes references.
    ///
    /// # Errors
    /// When they are refused.
    pub fn publish_references(&self, name: &str, toml: &str) -> anyhow::Result<Published> {
        let signature = self.verifier.operator().sign_file(&REFERENCES, toml.as_bytes())?;
        let file = PublishFile { name: name.to_owned(), toml: toml.to_owned(), signature };
        self.admin.post("/v1/references", &file)?.read()
    }

    /// Applies the pools and admission policies of configs/.
    ///
    /// # Errors
    /// When they are refused.
    pub fn apply_shipped_pools(&self) -> anyhow::Result<()> {
        self.apply_pools(shipped_files("pools")?)
    }

    /// Applies these pools with the shipped admission policies.
    ///
    /// # Errors
    /// When they are refused.
    pub fn apply_pools(&self, pools: Vec<NamedFile>) -> anyhow::Result<()> {
        let apply = ApplyPools { pools, admission: shipped_files("admission")?, dry_run: false };
        let _: serde_json::Value = self.admin.post("/v1/pools", &apply)?.read()?;
        Ok(())
    }

    /// Applies the shipped enforcing pool alone, with another lease: what takes a minute for people takes seconds for a test.
    ///
    /// # Errors
    /// When it is refused.
    pub fn shorten_lease(&self, lease: &str) -> anyhow::Result<()> {
        let shipped = shipped("pools", POOL)?;
        let toml = shipped.replace("lease = \"60s\"", &format!("lease = \"{lease}\""));
        if toml == shipped {
            bail!("the shipped pool's lease is written otherwise");
        }
        self.apply_pools(vec![NamedFile { name: POOL.to_owned(), toml }])
    }

    /// A machine in the hosts' recorded boot, with a host daemon that does not run yet.
    ///
    /// # Errors
    /// When the machine cannot be made.
    pub fn host(&self, node: &str) -> anyhow::Result<Hostd> {
        let machine = Machine::boot(&self.directory.join(node), &self.ca, &host_boot()?)?;
        Hostd::new(node, machine, &self.verifier)
    }

    /// What an approver assigns to a host of this laboratory.
    #[must_use]
    pub fn assignment(node: &str) -> Assign {
        Assign {
            node: node.to_owned(),
            scheduler: SCHEDULER.to_owned(),
            label: LABEL.to_owned(),
            policy: Some(POLICY_NAME.to_owned()),
        }
    }

    /// As [`Lab::assignment`], for a host.
    #[must_use]
    pub fn assignment_of(host: &Hostd) -> Assign {
        Self::assignment(host.name())
    }

    /// Pre-registers the host's EK, as its maker's list would.
    ///
    /// # Errors
    /// When the verifier refuses.
    pub fn preregister(&self, host: &Hostd) -> anyhow::Result<()> {
        let row = PreregisteredHost { ek_id: ek_id(host)?, assignment: Self::assignment(host.name()) };
        let _: serde_json::Value =
            self.admin.post("/v1/preregistrations", &Preregistrations { hosts: vec![row] })?.read()?;
        Ok(())
    }

    /// A join token for this host's name, for any software TPM of the laboratory's CA.
    ///
    /// # Errors
    /// When the verifier refuses.
    pub fn token(&self, node: &str) -> anyhow::Result<CreatedToken> {
        let expires_in = "10m".parse().map_err(anyhow::Error::msg)?;
        let min_class = Some("simulated".to_owned());
        let new = CreateToken { assignment: Self::assignment(node), ek_id: None, min_class, expires_in };
        self.admin.post("/v1/tokens", &new)?.read()
    }

    /// Approves a waiting host by its id, as a person would.
    ///
    /// # Errors
    /// When the verifier refuses.
    pub fn approve(&self, host: &str, node: &str) -> anyhow::Result<()> {
        let answer =
            self.admin.post(&format!("/v1/hosts/{host}/approve"), &Approve { assignment: Self::assignment(node) })?;
        if answer.status == 204 { Ok(()) } else { bail!("{answer}") }
    }

    /// Enrols a host by its pre-registered EK.
    ///
    /// # Errors
    /// When it is refused.
    pub fn enrol(&self, host: &Hostd) -> anyhow::Result<()> {
        self.preregister(host)?;
        host.provision(None)?.good()?;
        Ok(())
    }

    /// A host that is enrolled, runs, and is admitted to [`POOL`].
    ///
    /// # Errors
    /// When it does not get there.
    pub fn admitted_host(&self, node: &str) -> anyhow::Result<Hostd> {
        let mut host = self.host(node)?;
        self.enrol(&host)?;
        host.run()?;
        self.wait_admitted(&mut host)?;
        Ok(host)
    }

    /// Where a host stands.
    ///
    /// # Errors
    /// When the verifier does not know it.
    pub fn standing(&self, node: &str) -> anyhow::Result<StandingDetail> {
        self.admin.get(&format!("/v1/hosts/{node}/standing"))?.read()
    }

    /// A pool's verdict on a host.
    ///
    /// # Errors
    /// When the verifier knows one of them not.
    pub fn verdict(&self, pool: &str, node: &str) -> anyhow::Result<PoolVerdict> {
        self.admin.get(&format!("/v1/pools/{pool}/hosts/{node}"))?.read()
    }

    /// Every host as `GET /v1/hosts` lists it.
    ///
    /// # Errors
    /// When the verifier does not answer.
    pub fn hosts(&self) -> anyhow::Result<Vec<Host>> {
        self.admin.get("/v1/hosts")?.read()
    }

    /// Asks for hosts that may carry a workload.
    ///
    /// # Errors
    /// When the verifier refuses.
    pub fn place(&self, label: &str, count: u32) -> anyhow::Result<PlacementResponse> {
        let request = PlacementRequest { label: label.to_owned(), count, spread: Spread::None, scheduler: None };
        self.admin.post("/v1/placements", &request)?.read()
    }

    /// Waits until a running host is admitted to [`POOL`]; returns how long that took.
    ///
    /// # Errors
    /// When it is not admitted within [`ROUND`], with what stands in the way.
    pub fn wait_admitted(&self, host: &mut Hostd) -> anyhow::Result<Duration> {
        self.wait_verdict(host, true)
    }

    /// Waits until a host is not admitted to [`POOL`]; returns how long that took.
    ///
    /// # Errors
    /// When it still is after [`ROUND`].
    pub fn wait_refused(&self, host: &mut Hostd) -> anyhow::Result<Duration> {
        self.wait_verdict(host, false)
    }

    fn wait_verdict(&self, host: &mut Hostd, admitted: bool) -> anyhow::Result<Duration> {
        let node = host.name().to_owned();
        let what = format!("{node} is {}admitted to {POOL}", if admitted { "" } else { "not " });
        let seen = until(&what, ROUND, || {
            if let Ok(process) = host.process() {
                process.must_run()?;
            }
            Ok((self.verdict(POOL, &node)?.admitted == admitted).then_some(()))
        });
        match seen {
            Ok(((), took)) => Ok(took),
            Err(error) => {
                let verdict = self.verdict(POOL, &node).map(|verdict| {
                    let unmet = verdict.conditions.into_iter().filter(|one| !one.met);
                    unmet.map(|one| format!("{}: expected {}, found {}", one.id, one.expected, one.found)).collect()
                });
                let unmet: Vec<String> = verdict.unwrap_or_default();
                Err(error.context(format!("conditions that are not met: {unmet:?}\nhostd: {}", host.log())))
            }
        }
    }
}

/// The boot that the laboratory's hosts are in, with the IMA policy that its appraisal policy wants.
///
/// # Errors
/// When there is no such recording.
pub fn host_boot() -> anyhow::Result<Recording> {
    Ok(Recording::named(HOST_BOOT)?.with_ima_policy())
}

/// The boot that their references are captured from.
///
/// # Errors
/// When there is no such recording.
pub fn reference_boot() -> anyhow::Result<Recording> {
    Ok(Recording::named(REFERENCE_BOOT)?.with_ima_policy())
}

/// Demands that references do not come from the boot that they judge: a host that is its own reference is always good.
///
/// # Errors
/// When both are one recording, or copies of one.
pub fn judged_by_another_boot(host: &Recording, references: &Recording) -> anyhow::Result<()> {
    // Two boots of one image measure the same firmware and kernel; what was executed, and in which order, tells them apart.
    let same = host == references || host.ima()? == references.ima()? || host.quote()? == references.quote()?;
    if same {
        bail!("the references come from the recording of the host that they judge");
    }
    Ok(())
}

/// The host's EK id, as `hostd doctor` shows it.
///
/// # Errors
/// When it does not.
pub fn ek_id(host: &Hostd) -> anyhow::Result<String> {
    let checks = host.hostd("doctor", &["--output", "json"])?.json()?;
    let checks = checks.pointer("/checks").and_then(serde_json::Value::as_array).context("doctor lists its checks")?;
    let one = checks.iter().find(|check| text_at(check, "/id").is_ok_and(|id| id == "tpm.ek-id"));
    text_at(one.context("doctor shows the EK id")?, "/found")
}

/// A file of configs/.
///
/// # Errors
/// When it cannot be read.
pub fn shipped(kind: &str, name: &str) -> anyhow::Result<String> {
    let path = workspace().join("configs").join(kind).join(format!("{name}.toml"));
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// All files of a directory of configs/.
///
/// # Errors
/// When they cannot be read.
pub fn shipped_files(kind: &str) -> anyhow::Result<Vec<NamedFile>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(workspace().join("configs").join(kind))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            files.push(NamedFile { name, toml: std::fs::read_to_string(&path)? });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}
