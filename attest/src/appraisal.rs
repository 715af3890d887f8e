//! Appraisal: claims against policy and reference values, to findings and AR4SI claims with their basis.
//!
//! RFC 9334 §8.2, draft-ietf-rats-ar4si. Works on [`ReplayedLogs`] only, so nothing unproven is judged. Always yields an
//! [`Appraisal`], however bad the host is; never decides about pools. Every claim starts at none (law 1).

mod boot;
mod engine;
mod engine_ima;
mod runtime;
mod workload;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use time::OffsetDateTime;

use crate::digest::HashAlg;
use crate::finding::{Finding, Findings, Severity};
use crate::genuine::GenuineEvidence;
use crate::identity::class::TpmClass;
use crate::identity::tag::VerifiedTag;
use crate::ima::ImaPosition;
use crate::policy::{AppraisalPolicy, References, Window};
use crate::remembered::Remembered;
use crate::replay::{BootReplay, ReplayedBoot, ReplayedLogs, Resend};
use crate::result::{BootFacts, HostClaims, ResultClaims, SubmoduleClaims};
use crate::state::{RoundState, Strayed};
use crate::tier::{Basis, Submodule, Tier};

/// Changes whenever this library judges IMA entries otherwise than before, so that a newer verifier has them judged again.
const JUDGING: &str = "3";

/// A policy and the reference bundles that it names, at hand together.
#[derive(Debug, Clone)]
pub struct Judge {
    policy: Arc<AppraisalPolicy>,
    references: Vec<Arc<References>>,
    memory: Arc<Memory>,
}

/// What a judge worked out in earlier rounds.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) boots: Remembered<BootReplay>,
    pub(crate) engines: Remembered<engine::Said>,
}

/// Why a policy cannot judge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JudgeError {
    /// A reference bundle is not at hand.
    #[error("policy `{policy}` names the reference bundle `{bundle}`, which is not published")]
    MissingReferences {
        /// The policy.
        policy: String,
        /// The bundle.
        bundle: String,
    },
}

impl Judge {
    /// Brings a policy and its references together.
    ///
    /// # Errors
    /// [`JudgeError::MissingReferences`].
    pub fn new(policy: Arc<AppraisalPolicy>, published: &[Arc<References>]) -> Result<Self, JudgeError> {
        let find = |bundle: &String| {
            published.iter().find(|one| one.name() == bundle).cloned().ok_or_else(|| JudgeError::MissingReferences {
                policy: policy.name().to_owned(),
                bundle: bundle.clone(),
            })
        };
        let references = policy.references().iter().map(find).collect::<Result<_, _>>()?;
        Ok(Self { policy, references, memory: Arc::default() })
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &AppraisalPolicy {
        &self.policy
    }

    /// Windows that are open at `now`.
    fn open(&self, now: OffsetDateTime) -> Vec<&Window> {
        self.references.iter().flat_map(|bundle| bundle.open(now)).collect()
    }

    /// Whether references name this PCR by now: what they began to demand does not end with a window, and a planned change demands nothing yet.
    fn names(&self, bank: HashAlg, pcr: u8, now: OffsetDateTime) -> bool {
        self.references.iter().any(|bundle| bundle.names(bank, pcr, now))
    }

    /// What decides about a file now: policy, bundles and their open windows. When it changes, files must be judged again.
    #[must_use]
    pub fn fingerprint(&self, now: OffsetDateTime) -> String {
        let mut text = format!("{JUDGING} {} {}", self.policy.name(), self.policy.version());
        for bundle in &self.references {
            // Writing into a string cannot fail.
            let _ = write!(text, "; {} {} [", bundle.name(), bundle.version());
            for (nth, index) in bundle.open_indices(now).enumerate() {
                let comma = if nth > 0 { "," } else { "" };
                let _ = write!(text, "{comma}{index}");
            }
            text.push(']');
        }
        hex::encode(crate::digest::sha256(&[text.as_bytes()]))
    }
}

/// What is known of the host beside its evidence.
#[derive(Debug, Clone)]
pub struct Endorsed {
    /// The TPM's class, derived from the current root bundle for this round.
    pub class: TpmClass,
    /// Findings of that derivation (an expired EK certificate…).
    pub findings: Findings,
}

/// The outcome of a round.
#[derive(Debug)]
pub struct Appraisal {
    submodules: BTreeMap<Submodule, SubmoduleClaims>,
    host: HostClaims,
    state: RoundState,
}

impl Appraisal {
    /// Every finding, subsystem by subsystem.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.submodules.values().flat_map(|one| &one.findings)
    }

    /// One subsystem's tier.
    #[must_use]
    pub fn tier(&self, submodule: Submodule) -> Tier {
        self.submodules.get(&submodule).map_or(Tier::None, |one| one.status)
    }

    /// What the boot log proves, where it replays.
    #[must_use]
    pub const fn boot(&self) -> Option<&BootFacts> {
        self.host.boot.as_ref()
    }

    /// Whether any subsystem is contraindicated.
    #[must_use]
    pub fn disproven(&self) -> bool {
        self.submodules.values().any(|one| one.status == Tier::Contraindicated)
    }

    /// What to keep for the next round.
    #[must_use]
    pub const fn state(&self) -> &RoundState {
        &self.state
    }

    /// The result to sign. Times are seconds since 1970; the result begins when the nonce was issued.
    #[must_use]
    pub fn into_result(self, host: String, issued: i64, expires: i64) -> ResultClaims {
        ResultClaims::new(host, issued, expires, self.submodules, self.host)
    }
}

/// One subsystem while it is appraised.
#[derive(Debug, Default)]
struct Subject {
    claims: BTreeMap<&'static str, (Tier, Basis)>,
    findings: Findings,
}

impl Subject {
    /// Sets an AR4SI claim; its basis caps it.
    fn claim(&mut self, name: &'static str, tier: Tier, basis: Basis) {
        let uncapped = tier == Tier::Affirming && basis.cap() != Tier::Affirming;
        let capped = if crate::check::violated("result.reported-cap", uncapped) { basis.cap() } else { tier };
        self.claims.insert(name, (capped, basis));
    }

    /// A subsystem with an error finding is contraindicated, even where no claim could be made at all.
    fn status(&self) -> Tier {
        let worst = self.claims.values().map(|(tier, _)| *tier).max();
        worst.unwrap_or(Tier::None).after(self.findings.worst().filter(|worst| *worst == Severity::Error))
    }

    /// `policy`: name and version of the one that judged.
    fn into_claims(self, policy: &str) -> SubmoduleClaims {
        SubmoduleClaims {
            status: self.status(),
            vector: self.claims.iter().map(|(name, (tier, _))| ((*name).to_owned(), tier.value())).collect(),
            policy: policy.to_owned(),
            basis: self.claims.iter().map(|(name, (_, basis))| ((*name).to_owned(), *basis)).collect(),
            findings: self.findings.into_vec(),
        }
    }
}

/// Appraises a round of `host` (whose AK has the name `ak_name`, in hex) at `now`.
///
/// # Errors
/// [`Resend`]: the round continues from files that another policy or other references judged.
pub fn appraise(
    logs: &ReplayedLogs<'_>,
    judge: &Judge,
    endorsed: Endorsed,
    host: &str,
    ak_name: &str,
    state: Option<&RoundState>,
    now: OffsetDateTime,
) -> Result<Appraisal, Resend> {
    let policy = judge.policy();
    let windows = judge.open(now);
    let fingerprint = judge.fingerprint(now);
    let genuine = logs.genuine();
    let sources = genuine.unanchored().sources.clone();

    let mut subjects = BTreeMap::new();
    subjects.insert(Submodule::Boot, boot::appraise(logs, policy, &windows, |bank, pcr| judge.names(bank, pcr, now)));
    let told = engine::Told::of(logs, judge, &windows, &fingerprint);
    let (runtime, seen) = runtime::appraise(logs, policy, &windows, state, &fingerprint, &told)?;
    subjects.insert(Submodule::Runtime, runtime);
    let before = state.filter(|_| !logs.ima_is_whole());
    let (engine, engine_seen) = engine::appraise(logs, &told, before)?;
    subjects.insert(Submodule::Engine, engine);
    subjects.insert(Submodule::Profile, Subject::default());
    subjects.insert(Submodule::Tag, tag(genuine));
    subjects.insert(Submodule::Platform, platform(&endorsed, &sources, genuine.findings()));
    rules(policy, &facts(logs, endorsed.class), &mut subjects);

    let before = state.filter(|_| logs.same_boot());
    // Only a boot id that the host log bears out is held against later rounds of this boot.
    let boot_id = match logs.host_log() {
        Some(_) => genuine.unanchored().boot_id.as_str(),
        None => before.map_or("", RoundState::boot_id),
    };
    // A list that proves nothing moves nothing: the position stays, and with it what was judged up to there, and by what.
    let (ima_end, judged_by, engine_seen) = match (logs.ima(), before) {
        (Some(prefix), _) => (prefix.end().clone(), fingerprint.as_str(), engine_seen),
        (None, Some(before)) => (before.ima(), before.judged_by(), before.engine().clone()),
        (None, None) => (ImaPosition::default(), fingerprint.as_str(), engine_seen),
    };
    let mut now_kept =
        RoundState::new(host, ak_name, genuine.counters(), boot_id, &ima_end, judged_by, seen, engine_seen)
            .following(state);
    if logs.host_log_findings().has("host-log.boot-changed") {
        now_kept = now_kept.after_stray(Strayed::new(genuine.counters(), &genuine.unanchored().boot_id));
    }
    let tag = genuine.tag().ok().flatten().map(VerifiedTag::tag);
    let host = HostClaims {
        tpm_class: endorsed.class,
        appraisal: policy.name().to_owned(),
        appraisal_version: policy.version(),
        sources,
        tag_label: tag.map(|tag| tag.label.clone()),
        tag_location: tag.map(|tag| tag.location.clone()),
        tag_serial: tag.map(|tag| tag.serial),
        boot: logs.boot().map(boot_facts),
    };
    let policy = format!("{}@{}", policy.name(), policy.version());
    let submodules = subjects.into_iter().map(|(name, subject)| (name, subject.into_claims(&policy))).collect();
    Ok(Appraisal { submodules, host, state: now_kept })
}

/// What the boot log proves, for people: the policy's rules have judged it already.
fn boot_facts(boot: &ReplayedBoot) -> BootFacts {
    BootFacts {
        secure_boot: boot.claims.secure_boot.name().to_owned(),
        command_line: boot.command_line.clone(),
        lockdown: boot.lockdown,
        image: boot.claims.image.iter().map(|one| (one.name.to_owned(), one.digest.clone())).collect(),
        userspace: boot.userspace.clone(),
    }
}

fn tag(genuine: &GenuineEvidence) -> Subject {
    let mut subject = Subject::default();
    match genuine.tag() {
        Ok(Some(_)) => subject.claim("sourced-data", Tier::Affirming, Basis::HardwareSigned),
        Ok(None) => {}
        // A tag that merely ended is no proof any more, and no offence.
        Err(findings) if findings.as_slice().iter().all(|one| one.id == "tag.validity") => {
            for finding in findings.as_slice() {
                subject.findings.push(Finding { severity: Severity::Warning, ..finding.clone() });
            }
        }
        Err(findings) => subject.findings.append(findings.clone()),
    }
    subject
}

fn platform(endorsed: &Endorsed, sources: &[String], genuine: &Findings) -> Subject {
    let mut subject = Subject { findings: endorsed.findings.clone(), ..Subject::default() };
    subject.findings.append(genuine.clone());
    let tier = match endorsed.class {
        TpmClass::Hardware | TpmClass::Firmware => Tier::Affirming,
        TpmClass::Virtual | TpmClass::Simulated => Tier::Warning,
        _ => Tier::None,
    };
    subject.claim("instance-identity", tier, Basis::HardwareSigned);
    let foreign = !sources.is_empty();
    let severity = if endorsed.class == TpmClass::Simulated { Severity::Warning } else { Severity::Error };
    subject.findings.check("platform.sources", foreign, || {
        Finding::new("", severity, "evidence was read from elsewhere than the machine itself")
            .expected("the machine's own sources")
            .found(sources.join(", "))
            .fix("remove the [source] table from hostd.toml; only class simulated tolerates it")
    });
    subject
}

/// The claims that rules can name, with their values: all of them must be wanted, and none satisfies nothing.
type Facts = BTreeMap<&'static str, Vec<String>>;

/// The claims of this round.
fn facts(logs: &ReplayedLogs<'_>, class: TpmClass) -> Facts {
    let mut facts = Facts::from([("tpm_class", vec![class.to_string()])]);
    if let Some(boot) = logs.boot() {
        facts.insert("secure_boot", vec![boot.claims.secure_boot.name().to_owned()]);
        facts.extend(boot.key_databases.iter().map(|(claim, digest)| (*claim, vec![hex::encode(digest)])));
        if let Some(authorities) = &boot.authorities {
            facts.insert("secure_boot_authorities", authorities.used.iter().map(hex::encode).collect());
            facts.insert("sbat_level", authorities.sbat_level.iter().cloned().collect());
        }
        if let Some(line) = &boot.command_line {
            facts.insert("kernel_command_line", vec![line.clone()]);
        }
        if let Some(phase) = boot.phase {
            facts.insert("boot_phase", vec![phase.to_owned()]);
        }
        if let Some(id) = &boot.machine_id {
            facts.insert("machine_id", vec![id.clone()]);
        }
        if let Some(lockdown) = boot.lockdown {
            facts.insert("lockdown_boot", vec![lockdown.name().to_owned()]);
        }
    }
    let reported = &logs.genuine().unanchored().facts;
    for (claim, fact) in [("lockdown", "lockdown"), ("kernel_release", "kernel")] {
        if let Some(value) = reported.get(fact) {
            facts.insert(claim, vec![value.clone()]);
        }
    }
    facts
}

fn rules(policy: &AppraisalPolicy, facts: &Facts, subjects: &mut BTreeMap<Submodule, Subject>) {
    for rule in policy.rules() {
        let Some(subject) = rule.submodule().and_then(|home| subjects.get_mut(&home)) else { continue };
        let found = facts.get(rule.claim.as_str()).map(Vec::as_slice).unwrap_or_default();
        let bad = found.is_empty() || !found.iter().all(|found| rule.want.accepts(found));
        // A rule's id is the operator's own; the check behind all rules has one.
        if crate::check::violated("rule.want", bad) {
            let message = format!("the claim {} does not satisfy the policy's rule", rule.claim);
            subject.findings.push(
                Finding::new(rule.id.clone(), rule.otherwise.severity(), message)
                    .expected(&rule.want)
                    .found(if found.is_empty() { "no such claim is proven".to_owned() } else { found.join(", ") })
                    .fix("bring the host to what the rule wants, or change the policy"),
            );
            for (tier, _) in subject.claims.values_mut() {
                *tier = (*tier).max(rule.otherwise.tier());
            }
        } else if check_reported(&rule.claim) {
            // hostd's word may lower a claim, never carry an affirming one (law 8).
            for (tier, basis) in subject.claims.values_mut() {
                if *tier == Tier::Affirming {
                    (*tier, *basis) = (Basis::Reported.cap(), Basis::Reported);
                }
            }
        }
    }
}

/// Whether a claim is hostd's word.
fn check_reported(claim: &str) -> bool {
    crate::check::violated("rule.reported", matches!(claim, "lockdown" | "kernel_release"))
}
