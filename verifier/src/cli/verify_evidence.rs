//! `hostmark verify evidence`: a round that the verifier kept, judged again offline and held against what it recorded.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use hostmark_attest::appraisal::Judge;
use hostmark_attest::finding::{Findings, Severity};
use hostmark_attest::policy::{AppraisalPolicy, References};
use hostmark_attest::result::ResultClaims;
use hostmark_attest::stored_round::{STORED_ROUND_MAX, StoredRound, StoredRoundError};
use hostmark_attest::tools::Outcome as Verdict;
use serde::Serialize;
use time::OffsetDateTime;

use super::answer::Answer;
use super::document::{Document, Kind};
use super::failure::Failure;
use super::show::{Style, facts, tier};
use super::verify::{outcome, verdict_text};
use super::{Outcome, input, jwks, when};

/// `… evidence FILE --keys JWKS --policy F --references F…`
#[derive(Debug, Args)]
pub(super) struct Evidence {
    /// The kept round.
    file: PathBuf,
    /// The verifier's public keys (hostmark key fetch).
    #[arg(long, value_name = "JWKS")]
    keys: PathBuf,
    /// The appraisal policy, named as the verifier knows it: NAME.toml.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// A bundle of reference values that the policy names: NAME.toml.
    #[arg(long, value_name = "FILE")]
    references: Vec<PathBuf>,
    /// Judge at this time (RFC 3339, or seconds since 1970). Without it, when the verifier judged.
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    at: Option<OffsetDateTime>,
}

#[derive(Debug, Serialize)]
struct View<'a> {
    verdict: Verdict,
    findings: Findings,
    /// The round, where the file is the verifier's.
    #[serde(skip_serializing_if = "Option::is_none")]
    round: Option<RoundView<'a>>,
    /// What the evidence comes to now.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a ResultClaims>,
}

#[derive(Debug, Serialize)]
struct RoundView<'a> {
    host: &'a str,
    at: String,
    policy: &'a str,
    policy_version: u64,
    /// `proven` or `disproven`, as recorded.
    recorded: &'static str,
}

impl Evidence {
    pub(super) fn run(self, style: Style) -> Outcome {
        let bytes = input::read(&self.file, "a kept round", STORED_ROUND_MAX)?;
        let keys = jwks::read(&self.keys, "results")?;
        let judge = self.judge()?;
        let stored = match StoredRound::verify(&bytes, &keys) {
            Ok(stored) => stored,
            Err(StoredRoundError::Malformed(error)) => {
                return Err(Failure::malformed(&self.file.display().to_string(), &error));
            }
            Err(StoredRoundError::Refused(findings)) => {
                let text = verdict_text(style, false, &findings);
                let view = View { verdict: Verdict::Refused, findings, round: None, result: None };
                return Ok(Answer::new(&view, text)?.refused_if(true));
            }
            Err(_) => return Err(Failure::unusable(format!("{}: cannot be read", self.file.display()))),
        };
        let replay = stored.replay(&judge, self.at.unwrap_or_else(|| stored.at()));
        // Findings of the evidence itself explain a disproven round; only those of the replay refuse.
        let same = !replay.findings.has("evidence.replay");
        let (policy, policy_version) = stored.policy();
        let recorded = if stored.recorded().disproven { "disproven" } else { "proven" };
        let round = RoundView {
            host: stored.host(),
            at: when::from_seconds(stored.at().unix_timestamp()),
            policy,
            policy_version,
            recorded,
        };
        let mut text = verdict_text(style, same, &replay.findings);
        text += &facts([
            ("host", round.host.to_owned()),
            ("judged", round.at.clone()),
            ("by", format!("{policy} version {policy_version}")),
            ("recorded", recorded.to_owned()),
            ("replayed", if same { "the same, claim by claim" } else { "not the same" }.to_owned()),
        ]);
        if let Some(claims) = &replay.claims {
            let weighty = |findings: &[hostmark_attest::finding::Finding]| {
                findings.iter().filter(|one| one.severity != Severity::Info).count().to_string()
            };
            let rows = claims
                .submods
                .iter()
                .map(|(name, one)| vec![name.name().into(), tier(one.status), weighty(&one.findings).into()]);
            text += &format!("\n{}", style.table(&["subsystem", "tier", "findings"], rows));
        }
        let view = View {
            verdict: outcome(same),
            findings: replay.findings,
            round: Some(round),
            result: replay.claims.as_ref(),
        };
        Ok(Answer::new(&view, text)?.refused_if(!same))
    }

    /// The judge that these files make.
    fn judge(&self) -> Result<Judge, Failure> {
        let load = |path: &Path, kind: Kind| {
            let document = Document::load(path)?;
            if document.kind == kind {
                return Ok(document);
            }
            Err(Failure::unusable(format!("{}: is a file of {}", document.path, document.kind.name())))
        };
        let policy = load(&self.policy, Kind::Appraisal)?;
        let parsed = AppraisalPolicy::parse(&policy.name, &policy.text)
            .map_err(|error| Failure::policy(&policy.path, &error))?;
        let mut bundles = Vec::new();
        for path in &self.references {
            let bundle = load(path, Kind::References)?;
            let read =
                References::parse(&bundle.name, &bundle.text).map_err(|error| Failure::policy(&bundle.path, &error))?;
            bundles.push(Arc::new(read));
        }
        Judge::new(Arc::new(parsed), &bundles)
            .map_err(|error| Failure::unusable(format!("{}: {error}: name it with --references", policy.path)))
    }
}
