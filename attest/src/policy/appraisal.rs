//! AppraisalPolicy: which PCRs are quoted and what is wanted of the claims.
//!
//! Validation refuses a policy that could say yes without proof: PCR 0–7 must be quoted, PCR 10 where IMA is judged, the host
//! log's PCR where engines are, and no other log's; PCR 16 and 23 can be reset by anyone and prove nothing; a SHA-1 bank is never enough.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::ima::{ImaRules, is_keyring};
use super::quirks::QUIRKS;
use super::{PolicyError, parse_toml};
use crate::cel::userspace::PCRS;
use crate::digest::HashAlg;
use crate::kernel_parameters::Words;
use crate::selection::PcrSelection;
use crate::tier::{Submodule, Tier};

/// The claim whose words rules can demand one by one.
const COMMAND_LINE: &str = "kernel_command_line";

/// Claims that a rule can name, with the submodule that each belongs to.
const CLAIMS: [(&str, Submodule); 14] = [
    ("secure_boot", Submodule::Boot),
    // SHA-256 of what the variable holds, in hex, as `hostmark inspect boot-log -v` shows it.
    ("secure_boot_pk", Submodule::Boot),
    ("secure_boot_kek", Submodule::Boot),
    ("secure_boot_db", Submodule::Boot),
    ("secure_boot_dbx", Submodule::Boot),
    // SHA-256 of the entry of a key database that vouched for a started program; each one must be wanted.
    ("secure_boot_authorities", Submodule::Boot),
    // shim's level, as `sbat,1,2021030218`.
    ("sbat_level", Submodule::Boot),
    (COMMAND_LINE, Submodule::Boot),
    // What the proven command line asks for; `lockdown` is what hostd reads in the running kernel.
    ("lockdown_boot", Submodule::Boot),
    // What systemd extended PCR 11 by last, and the machine id in PCR 15.
    ("boot_phase", Submodule::Boot),
    ("machine_id", Submodule::Boot),
    ("lockdown", Submodule::Boot),
    ("tpm_class", Submodule::Platform),
    ("kernel_release", Submodule::Platform),
];

/// An appraisal policy, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppraisalPolicy {
    name: String,
    raw: Raw,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    version: u64,
    pcrs: PcrSelection,
    references: Vec<String>,
    #[serde(default)]
    quirks: BTreeSet<String>,
    #[serde(default, rename = "rule")]
    rules: Vec<Rule>,
    ima: Option<ImaRules>,
    engine: Option<EngineRules>,
    #[serde(default)]
    workload: WorkloadRules,
}

/// One demand on one claim.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Id of the finding it makes; starts with its submodule's name.
    pub id: String,
    /// The claim.
    pub claim: String,
    /// What it must be. A claim that is absent never satisfies.
    pub want: Expectation,
    /// What the submodule becomes otherwise.
    #[serde(rename = "else")]
    pub otherwise: OnUnknown,
}

impl Rule {
    /// The subsystem that the rule's claim belongs to.
    #[must_use]
    pub fn submodule(&self) -> Option<Submodule> {
        CLAIMS.iter().find(|(claim, _)| *claim == self.claim).map(|(_, home)| *home)
    }
}

/// The values that satisfy a rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Expectation {
    /// Exactly this.
    Exactly(String),
    /// Any of these.
    AnyOf(Vec<String>),
    /// A command line with and without these words.
    Words(Words),
}

impl Expectation {
    /// Whether a value satisfies.
    #[must_use]
    pub fn accepts(&self, value: &str) -> bool {
        match self {
            Self::Exactly(one) => one == value,
            Self::AnyOf(list) => list.iter().any(|one| one == value),
            Self::Words(words) => words.accept(value),
        }
    }
}

impl std::fmt::Display for Expectation {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(one) => out.write_str(one),
            Self::AnyOf(list) => write!(out, "one of {}", list.join(", ")),
            Self::Words(words) => write!(out, "{words}"),
        }
    }
}

/// What an unsatisfied rule or an unknown file costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnknown {
    /// A reservation.
    Warning,
    /// A refusal.
    Contraindicated,
}

impl OnUnknown {
    /// As a finding's weight.
    #[must_use]
    pub const fn severity(self) -> crate::finding::Severity {
        match self {
            Self::Warning => crate::finding::Severity::Warning,
            Self::Contraindicated => crate::finding::Severity::Error,
        }
    }

    /// As a tier.
    #[must_use]
    pub const fn tier(self) -> Tier {
        match self {
            Self::Warning => Tier::Warning,
            Self::Contraindicated => Tier::Contraindicated,
        }
    }
}

/// How the engine manifest is judged.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineRules {
    /// The PCR that the host log extends (DESIGN §4: 13).
    #[serde(default = "host_log_pcr")]
    pub host_log_pcr: u8,
    /// Directories, each with a `/` at its end, of which the host's IMA policy measures every read (FILE_CHECK).
    #[serde(default)]
    pub ima_covers: Vec<String>,
    /// What a content costs that came and went unread since boot.
    #[serde(default = "strict")]
    pub content_unknown: OnUnknown,
    /// What a mount over an engine's file costs.
    #[serde(default = "strict")]
    pub bind_mount: OnUnknown,
}

impl EngineRules {
    /// Whether the kernel measures reads of this file.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        self.ima_covers.iter().any(|directory| path.starts_with(directory.as_str()))
    }
}

/// What containers cost that reach further than a workload should. Judged where engines are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadRules {
    /// A privileged container.
    pub privileged: OnUnknown,
    /// A container in a namespace of the host.
    pub host_namespace: OnUnknown,
    /// A container with a path mounted that rules the host.
    pub sensitive_mount: OnUnknown,
    /// A container with a capability, a device or a system path that is enough to rule the host.
    pub capability: OnUnknown,
    /// Paths that may be mounted nevertheless, exactly as they are.
    pub allowed_mounts: BTreeSet<String>,
    /// Capabilities that a container may have nevertheless, without `CAP_`.
    pub allowed_capabilities: BTreeSet<String>,
    /// Ids of images whose containers may do all of this under Docker (a node agent): `sha256:` and 64 hex digits, the digest of an image's
    /// content. The names that bundles of other engines carry are their maker's word, and exempt nothing.
    pub exempt_images: BTreeSet<String>,
    /// Runtimes that may run containers beside the engine's default.
    pub runtimes: BTreeSet<String>,
}

impl Default for WorkloadRules {
    fn default() -> Self {
        let (allowed_mounts, allowed_capabilities, exempt_images, runtimes) = Default::default();
        // hostd's word affirms nothing; where it accuses its own host it is believed.
        Self {
            privileged: strict(),
            host_namespace: strict(),
            sensitive_mount: strict(),
            capability: strict(),
            allowed_mounts,
            allowed_capabilities,
            exempt_images,
            runtimes,
        }
    }
}

impl WorkloadRules {
    /// Whether this path may be mounted although it rules the host.
    #[must_use]
    pub fn allows_mount(&self, path: &str) -> bool {
        self.allowed_mounts.contains(path)
    }

    /// Whether a container may have this capability although it rules the host.
    #[must_use]
    pub fn allows_capability(&self, name: &str) -> bool {
        self.allowed_capabilities.contains(name)
    }

    /// What a container costs of which nothing is known: it may do the worst of all.
    #[must_use]
    pub fn unknown(&self) -> OnUnknown {
        self.privileged.max(self.host_namespace).max(self.sensitive_mount).max(self.capability)
    }
}

const fn strict() -> OnUnknown {
    OnUnknown::Contraindicated
}

const fn host_log_pcr() -> u8 {
    13
}

impl AppraisalPolicy {
    /// Parses and validates. `name` is the file's name without `.toml`.
    ///
    /// # Errors
    /// [`PolicyError`] naming line and column, or the violated rule.
    pub fn parse(name: &str, text: &str) -> Result<Self, PolicyError> {
        let policy = Self { name: name.to_owned(), raw: parse_toml(&format!("{name}.toml"), text)? };
        policy.validate()?;
        Ok(policy)
    }

    fn validate(&self) -> Result<(), PolicyError> {
        let refuse = |id: &'static str, bad: bool, problem: &dyn Fn() -> String| {
            if crate::check::violated(id, bad) {
                let file = format!("{}.toml", self.name);
                return Err(PolicyError::Invalid { file, id, problem: problem() });
            }
            Ok(())
        };
        let selected = |index| self.raw.pcrs.contains(HashAlg::Sha256, index);
        let strong = |bank: HashAlg| bank.computable() && bank != HashAlg::Sha1;
        refuse("policy.bank", self.raw.pcrs.banks().iter().any(|one| !strong(one.bank)), &|| {
            "only SHA-2 banks prove anything; remove the others from `pcrs`".to_owned()
        })?;
        refuse("policy.boot-pcrs", !(0..8).all(selected), &|| {
            "`pcrs` must select sha256 PCR 0 to 7: leaving one out would leave part of the boot unproven".to_owned()
        })?;
        refuse("policy.resettable-pcr", self.selects_resettable(), &|| {
            "PCR 16 and 23 can be reset by anyone and prove nothing; remove them from `pcrs`".to_owned()
        })?;
        refuse("policy.ima-pcr", self.raw.ima.is_some() && !selected(10), &|| {
            "[ima] is judged but `pcrs` leaves sha256 PCR 10 out".to_owned()
        })?;
        let keyrings = self.raw.ima.iter().flat_map(|ima| &ima.keyrings);
        refuse("policy.keyring", !keyrings.clone().all(is_keyring), &|| {
            "[ima.keyrings] names keyrings of the kernel (\".ima\"), each with at least one key that issues its certificates"
                .to_owned()
        })?;
        let log_pcr = self.raw.engine.as_ref().map(|engine| engine.host_log_pcr);
        refuse(
            "policy.host-log-pcr",
            log_pcr.is_some_and(|pcr| !selected(pcr) || !(8..16).contains(&pcr) || pcr == 10),
            &|| {
                "[engine] is judged but `pcrs` leaves its host-log PCR out, or that PCR is not between 8 and 15, or is IMA's"
                .to_owned()
            },
        )?;
        refuse("policy.second-log", log_pcr.is_some_and(|pcr| PCRS.contains(&pcr)), &|| {
            "[engine] host_log_pcr: PCR 11 and 15 are systemd's, and no PCR has two logs of the running system; choose 8, 9, 12, 13 or 14"
                .to_owned()
        })?;
        let covers = self.raw.engine.as_ref().map(|engine| engine.ima_covers.as_slice()).unwrap_or_default();
        let plain = |path: &String| {
            let inside = path.strip_prefix('/').and_then(|path| path.strip_suffix('/'));
            inside.is_some_and(|path| path.split('/').all(|part| !matches!(part, "" | "." | "..")))
        };
        let bad = covers.iter().find(|path| !plain(path));
        refuse("policy.ima-covers", bad.is_some() || (!covers.is_empty() && self.raw.ima.is_none()), &|| match bad {
            Some(path) => format!("ima_covers: `{path}` is no absolute directory with `/` at its end"),
            None => "[engine] ima_covers needs [ima]: without the IMA list nothing covers a file".to_owned(),
        })?;
        let content = |image: &&String| {
            let hex = image.strip_prefix("sha256:").unwrap_or_default();
            hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let name = self.raw.workload.exempt_images.iter().find(|image| !content(image));
        refuse("policy.exempt-image", name.is_some(), &|| {
            let name = name.map(String::as_str).unwrap_or_default();
            format!(
                "[workload] exempt_images: `{name}` is no digest of an image (docker image inspect -f {{{{.Id}}}} IMAGE)"
            )
        })?;
        for quirk in &self.raw.quirks {
            refuse("policy.quirk", !QUIRKS.iter().any(|known| known.id == quirk), &|| {
                format!("unknown quirk `{quirk}`; known: {}", QUIRKS.map(|known| known.id).join(", "))
            })?;
        }
        let mut ids = BTreeSet::new();
        for rule in &self.raw.rules {
            let home = rule.submodule().map(Submodule::name);
            refuse("policy.claim", home.is_none(), &|| {
                format!(
                    "rule `{}`: unknown claim `{}`; known: {}",
                    rule.id,
                    rule.claim,
                    CLAIMS.map(|(c, _)| c).join(", ")
                )
            })?;
            if let Expectation::Words(words) = &rule.want {
                let unfit = rule.claim != COMMAND_LINE || !words.is_sound();
                refuse("policy.words", unfit, &|| {
                    format!(
                        "rule `{}`: `has` and `lacks` list words of `{COMMAND_LINE}`, each one `name` or `name=value`",
                        rule.id
                    )
                })?;
            }
            let prefix = rule.id.split_once('.').map(|(prefix, _)| prefix);
            refuse("policy.rule-id", prefix != home || !ids.insert(rule.id.clone()), &|| {
                format!("rule id `{}` must be unique and start with `{}.`", rule.id, home.unwrap_or_default())
            })?;
        }
        Ok(())
    }

    fn selects_resettable(&self) -> bool {
        self.raw.pcrs.banks().iter().any(|one| one.indices().any(|index| index == 16 || index == 23))
    }

    /// The policy's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version: never falls.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.raw.version
    }

    /// Exactly what hosts must quote.
    #[must_use]
    pub const fn selection(&self) -> &PcrSelection {
        &self.raw.pcrs
    }

    /// Names of the reference bundles that it judges against.
    #[must_use]
    pub fn references(&self) -> &[String] {
        &self.raw.references
    }

    /// Whether a named quirk is tolerated.
    #[must_use]
    pub fn tolerates(&self, quirk: &str) -> bool {
        self.raw.quirks.contains(quirk)
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.raw.rules
    }

    /// How IMA is judged, where it is.
    #[must_use]
    pub const fn ima(&self) -> Option<&ImaRules> {
        self.raw.ima.as_ref()
    }

    /// How engines are judged, where they are.
    #[must_use]
    pub const fn engine(&self) -> Option<&EngineRules> {
        self.raw.engine.as_ref()
    }

    /// How containers are judged, where engines are.
    #[must_use]
    pub const fn workload(&self) -> &WorkloadRules {
        &self.raw.workload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
version = 7
pcrs = { sha256 = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14] }
references = ["uki"]
quirks = ["pcrphase-unlogged"]
[[rule]]
id = "boot.secure-boot"
claim = "secure_boot"
want = "on"
else = "contraindicated"
[ima]
policy = "container-host"
unknown = "warning"
[engine]
"#;

    fn refused(text: &str) -> String {
        match AppraisalPolicy::parse("p", text) {
            Err(PolicyError::Invalid { id, .. }) => id.to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a5_a16_b12_a_policy_that_could_say_yes_without_proof_is_refused() {
        let good = AppraisalPolicy::parse("p", GOOD).unwrap();
        assert_eq!(good.version(), 7);
        let without = |n: &str| GOOD.replacen(&format!("{n}, "), "", 1);
        for index in 0..7 {
            assert_eq!(refused(&without(&index.to_string())), "policy.boot-pcrs", "PCR {index}");
        }
        let covering = GOOD.replace("[engine]", "[engine]\nima_covers = [\"/etc/docker/\"]");
        assert!(AppraisalPolicy::parse("p", &covering).is_ok());
        let exempting = format!("{GOOD}[workload]\nexempt_images = [\"sha256:{}\"]", "a".repeat(64));
        assert!(AppraisalPolicy::parse("p", &exempting).is_ok());
        let rows = [
            (GOOD.replace("10, 11", "11"), "policy.ima-pcr"),
            (GOOD.replace("12, 13,", "12,"), "policy.host-log-pcr"),
            (GOOD.replace("13, 14", "13, 14, 16"), "policy.resettable-pcr"),
            (GOOD.replace("13, 14", "13, 14, 23"), "policy.resettable-pcr"),
            (GOOD.replace("[engine]", "[engine]\nhost_log_pcr = 23"), "policy.host-log-pcr"),
            (GOOD.replace("[engine]", "[engine]\nhost_log_pcr = 11"), "policy.second-log"),
            (
                GOOD.replace("13, 14", "13, 14, 15").replace("[engine]", "[engine]\nhost_log_pcr = 15"),
                "policy.second-log",
            ),
            (GOOD.replace("{ sha256", "{ sha1 = [0], sha256"), "policy.bank"),
            (GOOD.replace("pcrphase-unlogged", "anything"), "policy.quirk"),
            (GOOD.replace("\"secure_boot\"", "\"trusted\""), "policy.claim"),
            (GOOD.replace("boot.secure-boot", "engine.x"), "policy.rule-id"),
            (GOOD.replace("[engine]", "[engine]\nima_covers = [\"/etc/docker\"]"), "policy.ima-covers"),
            (GOOD.replace("[engine]", "[engine]\nima_covers = [\"/etc/../\"]"), "policy.ima-covers"),
            (GOOD.replace("[engine]", "[engine]\nima_covers = [\"/\"]"), "policy.ima-covers"),
            (covering.replace("[ima]\npolicy = \"container-host\"\nunknown = \"warning\"\n", ""), "policy.ima-covers"),
            (GOOD.replace("want = \"on\"", "want = { has = [\"on\"] }"), "policy.words"),
            (format!("{GOOD}[workload]\nexempt_images = [\"agent:latest\"]"), "policy.exempt-image"),
            (format!("{GOOD}[workload]\nexempt_images = [\"sha256:{}\"]", "A".repeat(64)), "policy.exempt-image"),
            (format!("{GOOD}[workload]\nexempt_images = [\"sha256:{}\"]", "a".repeat(63)), "policy.exempt-image"),
            (
                GOOD.replace("secure_boot\"\nwant = \"on\"", "kernel_command_line\"\nwant = { lacks = [\"a b\"] }"),
                "policy.words",
            ),
            (
                GOOD.replace("secure_boot\"\nwant = \"on\"", "kernel_command_line\"\nwant = { has = [] }"),
                "policy.words",
            ),
        ];
        for (text, id) in rows {
            assert_eq!(refused(&text), id);
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_place() {
        let error = AppraisalPolicy::parse("p", "version = 1\ntrusted = true\n").unwrap_err();
        assert!(matches!(error, PolicyError::Toml { line: 2, column: 1, .. }), "{error}");
    }
}
