//! What operators published: pools, admission policies, appraisal policies and their references, compiled once and shared.
//!
//! The database is the truth; what it holds is verified again when it is read: a policy or bundle whose signature no longer
//! holds judges nobody, and the hosts that need it are refused with its finding. Pools and admission policies are changed
//! over the API by an approver, and every change is in the audit chain.

use std::collections::BTreeMap;
use std::sync::Arc;

use hostmark_attest::admission::AdmissionPolicy;
use hostmark_attest::appraisal::{Judge, JudgeError};
use hostmark_attest::finding::{Finding, Severity};
use hostmark_attest::jws::KeySet;
use hostmark_attest::label::Levels;
use hostmark_attest::policy::{AppraisalPolicy, POLICY, PolicyError, REFERENCES, References, SignedFile};
use hostmark_attest::pool::Pool;

use crate::refusal::{Kind, Outcome, Refusal};

/// A published file as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Its name without `.toml`.
    pub name: String,
    /// Its exact text.
    pub toml: String,
    /// The detached signature, for kinds that are signed.
    pub signature: String,
}

/// Everything that is published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredRules {
    /// Pools.
    pub pools: Vec<StoredFile>,
    /// Admission policies.
    pub admission: Vec<StoredFile>,
    /// The newest version of each appraisal policy.
    pub appraisal: Vec<StoredFile>,
    /// The newest version of each reference bundle.
    pub references: Vec<StoredFile>,
}

/// A pool with the admission policy that it names.
#[derive(Debug, Clone)]
pub struct CompiledPool {
    /// The pool.
    pub pool: Arc<Pool>,
    /// Its admission policy.
    pub admission: Arc<AdmissionPolicy>,
}

/// The rules in force.
#[derive(Debug, Default)]
pub struct Rules {
    pools: BTreeMap<String, CompiledPool>,
    judges: BTreeMap<String, Result<Arc<Judge>, Box<Finding>>>,
    levels: Levels,
}

/// Verifies and compiles an appraisal policy.
///
/// # Errors
/// [`PolicyError`].
pub fn appraisal(file: &StoredFile, signers: &KeySet) -> Result<AppraisalPolicy, PolicyError> {
    let signed = SignedFile::verify(&file_name(file), &file.toml, &file.signature, &POLICY, signers)?;
    AppraisalPolicy::parse(&file.name, signed.text())
}

/// Verifies and compiles a reference bundle.
///
/// # Errors
/// [`PolicyError`].
pub fn references(file: &StoredFile, signers: &KeySet) -> Result<References, PolicyError> {
    let signed = SignedFile::verify(&file_name(file), &file.toml, &file.signature, &REFERENCES, signers)?;
    References::parse(&file.name, signed.text())
}

fn file_name(file: &StoredFile) -> String {
    format!("{}.toml", file.name)
}

fn unusable(id: &str, error: &impl std::fmt::Display) -> Box<Finding> {
    let finding = Finding::error(id, "what is published cannot be used").found(error);
    tracing::error!(%finding, "a published file is left out");
    Box::new(finding.fix("publish it again, signed by a key of the trust directory"))
}

/// A policy may be published before its references: until they come it judges nobody, and says for what it waits.
fn waiting(file: &StoredFile, bundle: &str) -> Box<Finding> {
    tracing::info!(policy = file.name, references = bundle, "a policy waits for references that are not published");
    let finding =
        Finding::error("policy.references-missing", "the policy waits for references that are not published yet");
    let finding = finding.expected(format!("references `{bundle}` for policy `{}`", file.name));
    Box::new(finding.fix("publish them: hostmark refs publish FILE --key KEY"))
}

impl Rules {
    /// Verifies and compiles everything. What cannot be used is left out and logged; nothing else is affected.
    #[must_use]
    pub fn compile(stored: &StoredRules, signers: &KeySet, levels: &Levels) -> Self {
        let bundles: Vec<Arc<References>> = stored
            .references
            .iter()
            .filter_map(|file| {
                references(file, signers).map_err(|error| unusable("references.unusable", &error)).ok().map(Arc::new)
            })
            .collect();
        let judge = |file: &StoredFile| {
            let policy = appraisal(file, signers).map_err(|error| unusable("policy.unusable", &error))?;
            let judge = Judge::new(Arc::new(policy), &bundles);
            judge.map(Arc::new).map_err(|error| match error {
                JudgeError::MissingReferences { bundle, .. } => waiting(file, &bundle),
                other => unusable("policy.unusable", &other),
            })
        };
        let judges = stored.appraisal.iter().map(|file| (file.name.clone(), judge(file))).collect();
        let pools = pools(stored, levels).unwrap_or_else(|error| {
            unusable("pool.unusable", &error);
            BTreeMap::new()
        });
        Self { pools, judges, levels: levels.clone() }
    }

    /// The judge of hosts under this appraisal policy.
    ///
    /// # Errors
    /// 503 with the finding that says why nobody can be judged by it.
    pub fn judge(&self, policy: &str) -> Outcome<Arc<Judge>> {
        match self.judges.get(policy) {
            Some(Ok(judge)) => Ok(Arc::clone(judge)),
            Some(Err(finding)) => Err(Refusal::new(Kind::Unavailable, (**finding).clone())),
            None => {
                let known: Vec<&str> = self.judges.keys().map(String::as_str).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let finding = Finding::error("policy.unpublished", "the host's appraisal policy is not published")
                    .expected(format!("a published policy ({known})"))
                    .found(policy)
                    .fix(format!("publish it: hostmark policy publish {policy}.toml --key KEY"));
                Err(Refusal::new(Kind::Unavailable, finding))
            }
        }
    }

    /// Why an appraisal policy judges nobody now, if so, as a warning to whoever makes something depend on it.
    #[must_use]
    pub fn unjudged(&self, policy: &str) -> Option<Finding> {
        let mut finding = *self.judge(policy).err()?.first;
        finding.severity = Severity::Warning;
        Some(finding)
    }

    /// Pools that admit nobody yet, because nobody can be judged by the policy that they require: one warning for each policy.
    #[must_use]
    pub fn waiting_pools(&self) -> Vec<Finding> {
        let mut waiting: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for one in self.pools.values() {
            waiting.entry(one.admission.requires_appraisal()).or_default().push(one.pool.name());
        }
        let told = waiting.into_iter().filter_map(|(policy, pools)| {
            let mut finding = self.unjudged(policy)?;
            let why = match finding.id.as_str() {
                "policy.unpublished" => "is not published",
                "policy.references-missing" => "waits for references",
                _ => "cannot be used",
            };
            let noun = if pools.len() == 1 { "the pool" } else { "the pools" };
            finding.message = format!(
                "{noun} {} can admit nobody yet: the appraisal policy `{policy}` that is required {why}",
                pools.join(", ")
            );
            Some(finding)
        });
        told.collect()
    }

    /// The pools in the order of their names.
    pub fn pools(&self) -> impl Iterator<Item = &CompiledPool> {
        self.pools.values()
    }

    /// A pool by name.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&CompiledPool> {
        self.pools.get(name)
    }

    /// The sensitivity levels.
    #[must_use]
    pub const fn levels(&self) -> &Levels {
        &self.levels
    }

    /// The longest lease of any pool, in milliseconds: how long a result can be of use. One minute where there is no pool.
    #[must_use]
    pub fn longest_lease_ms(&self) -> i64 {
        self.pools.values().map(|one| crate::clock::millis(one.pool.lease())).max().unwrap_or(60_000)
    }
}

/// Compiles pools with their admission policies. All of them, or none.
///
/// # Errors
/// [`PolicyError`] naming the file.
pub fn pools(stored: &StoredRules, levels: &Levels) -> Result<BTreeMap<String, CompiledPool>, PolicyError> {
    let mut admission = BTreeMap::new();
    for file in &stored.admission {
        admission.insert(file.name.as_str(), Arc::new(AdmissionPolicy::parse(&file.name, &file.toml)?));
    }
    let mut pools = BTreeMap::new();
    for file in &stored.pools {
        let pool = Pool::parse(&file.name, &file.toml, levels)?;
        let Some(policy) = admission.get(pool.admission()) else {
            return Err(PolicyError::Invalid {
                file: format!("pools/{}.toml", file.name),
                id: "pool.admission",
                problem: format!("there is no admission policy `{}`", pool.admission()),
            });
        };
        pools.insert(file.name.clone(), CompiledPool { pool: Arc::new(pool), admission: Arc::clone(policy) });
    }
    Ok(pools)
}
