//! `hostmark verify`: a quote, a permit or an Attestation Result, offline, from files.
//!
//! A refusal is an answer (exit 1) with its findings; only what cannot be read is an error (exit 2).

use std::path::{Path, PathBuf};

use clap::Subcommand;
use hostmark_attest::bytes::{ParseError, Problem};
use hostmark_attest::finding::{Finding, Findings};
use hostmark_attest::jws::TOKEN_MAX;
use hostmark_attest::permit::{Permit, PermitClaims};
use hostmark_attest::result::{ResultClaims, VerifiedResult};
use hostmark_attest::selection::PcrSelection;
use hostmark_attest::tools::{Outcome as Verdict, QuoteFile, QuoteFiles, verify_quote_files};
use serde::Serialize;
use time::OffsetDateTime;

use super::answer::Answer;
use super::failure::Failure;
use super::show::{Mood, Style, facts, tier};
use super::verify_evidence::Evidence;
use super::{Outcome, input, jwks, when};

/// `hostmark verify …`
#[derive(Debug, Subcommand)]
pub(super) enum Verify {
    /// A TPM quote, from the files that tpm2_quote writes.
    Quote(Quote),
    /// A permit: whether this host may carry this pool's workloads now.
    Permit {
        /// The permit, or a file that holds it; `-` is standard input.
        #[arg(value_name = "FILE|TOKEN")]
        permit: PathBuf,
        /// The verifier's public keys (hostmark key fetch).
        #[arg(long, value_name = "JWKS")]
        keys: PathBuf,
        /// Judge at this time (RFC 3339, or seconds since 1970). Without it, now.
        #[arg(long, value_name = "TIME", value_parser = when::parse)]
        at: Option<OffsetDateTime>,
        /// The node that must be allowed.
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
        /// The pool that must be allowed.
        #[arg(long, value_name = "POOL")]
        pool: Option<String>,
    },
    /// A round that the verifier kept (state directory, evidence/HOST/): its signature, and that the same evidence comes to the
    /// recorded result under these policies.
    Evidence(Evidence),
    /// An Attestation Result (EAR) of one host.
    Result {
        /// The result, or a file that holds it; `-` is standard input.
        #[arg(value_name = "FILE|TOKEN")]
        result: PathBuf,
        /// The verifier's public keys (hostmark key fetch).
        #[arg(long, value_name = "JWKS")]
        keys: PathBuf,
        /// The host's id, a UUID.
        #[arg(long, value_name = "ID")]
        host: String,
        /// Judge at this time (RFC 3339, or seconds since 1970). Without it, now.
        #[arg(long, value_name = "TIME", value_parser = when::parse)]
        at: Option<OffsetDateTime>,
    },
}

/// The files of `hostmark verify quote`.
#[derive(Debug, clap::Args)]
pub(super) struct Quote {
    /// tpm2_quote -m: TPMS_ATTEST or TPM2B_ATTEST.
    #[arg(long, value_name = "FILE")]
    attest: PathBuf,
    /// tpm2_quote -s: TPMT_SIGNATURE, or a bare RSA or DER ECDSA signature.
    #[arg(long, value_name = "FILE")]
    signature: PathBuf,
    /// The AK: TPM2B_PUBLIC, TPMT_PUBLIC, or a public key in PEM or DER.
    #[arg(long, value_name = "FILE")]
    ak: PathBuf,
    /// tpm2_quote -o, serialized or values.
    #[arg(long, value_name = "FILE")]
    pcrs: PathBuf,
    /// The raw qualifyingData in hex; `''` for none.
    #[arg(long, value_name = "HEX", value_parser = nonce)]
    nonce: Nonce,
    /// Exactly the PCRs that must be covered, such as sha256:0,1,4,7.
    #[arg(long, value_name = "SELECTION", value_parser = selection)]
    select: Option<PcrSelection>,
}

/// Raw qualifyingData. A type of its own: clap takes a `Vec` for a list of values.
#[derive(Debug, Clone)]
struct Nonce(Vec<u8>);

fn nonce(text: &str) -> Result<Nonce, String> {
    hex::decode(text.strip_prefix("0x").unwrap_or(text)).map(Nonce).map_err(|error| format!("not hex: {error}"))
}

fn selection(text: &str) -> Result<PcrSelection, String> {
    PcrSelection::from_text(text).ok_or_else(|| {
        "write a bank and its PCRs (0 to 23), as in sha256:0,1,4,7; several banks joined by +".to_owned()
    })
}

impl Verify {
    pub(super) fn run(self, style: Style) -> Outcome {
        match self {
            Self::Quote(files) => quote(&files, style),
            Self::Evidence(command) => command.run(style),
            Self::Permit { permit: token, keys, at, node, pool } => {
                let at = at.map_or_else(when::now, Ok)?;
                permit(&token, &keys, at, node.as_deref(), pool.as_deref(), style)
            }
            Self::Result { result: token, keys, host, at } => {
                let at = at.map_or_else(when::now, Ok)?;
                result(&token, &keys, &host, at, style)
            }
        }
    }
}

fn quote(files: &Quote, style: Style) -> Outcome {
    let read = |path: &Path, what| input::read(path, what, input::SMALL_MAX);
    let attest = read(&files.attest, "a TPMS_ATTEST")?;
    let signature = read(&files.signature, "a signature")?;
    let ak = read(&files.ak, "a public key")?;
    let pcrs = read(&files.pcrs, "a file of PCR values")?;
    let verdict = verify_quote_files(&QuoteFiles {
        attest: &attest,
        signature: &signature,
        ak: &ak,
        pcrs: &pcrs,
        nonce: &files.nonce.0,
        select: files.select.as_ref(),
    })
    .map_err(|error| {
        let path = match error.file {
            QuoteFile::Attest => &files.attest,
            QuoteFile::Signature => &files.signature,
            QuoteFile::Ak => &files.ak,
            _ => &files.pcrs,
        };
        Failure::malformed(&path.display().to_string(), &error.error)
    })?;
    let mut text = verdict_text(style, verdict.verdict == Verdict::Verified, &verdict.findings);
    if let Some(quote) = &verdict.quote {
        let name = quote.ak_name.clone().unwrap_or_else(|| "unknown: --ak is a public key alone".to_owned());
        let values: usize = quote.pcrs.values().map(std::collections::BTreeMap::len).sum();
        text += "\n";
        text += &facts([
            ("AK name", name),
            ("AK", quote.ak_key.clone()),
            ("PCRs", quote.selection.clone()),
            ("pcrDigest", format!("{} (of the {values} given values)", quote.pcr_digest)),
            ("clock", format!("{} ms{}", quote.clock, if quote.safe { "" } else { ", not safe" })),
            ("resets", quote.reset_count.to_string()),
            ("restarts", quote.restart_count.to_string()),
            ("firmware", quote.firmware_version.clone()),
        ]);
        if style.verbose {
            let rows = quote.pcrs.iter().flat_map(|(bank, values)| {
                values.iter().map(|(pcr, value)| vec![(*bank).into(), pcr.to_string().into(), value.as_str().into()])
            });
            text += &format!("\n{}", style.table(&["bank", "pcr", "quoted value"], rows));
        }
    }
    Ok(Answer::new(&verdict, text)?.refused_if(verdict.verdict == Verdict::Refused))
}

/// The JSON of `verify permit` and `verify result`.
#[derive(Debug, Serialize)]
struct TokenVerdict<'a> {
    verdict: Verdict,
    findings: Findings,
    /// What a verified permit says.
    #[serde(skip_serializing_if = "Option::is_none")]
    permit: Option<&'a PermitClaims>,
    /// What a verified result says.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a ResultClaims>,
}

impl TokenVerdict<'_> {
    fn answer(self, style: Style, more: &str) -> Outcome {
        let good = self.verdict == Verdict::Verified;
        let mut text = verdict_text(style, good, &self.findings);
        text += more;
        Ok(Answer::new(&self, text)?.refused_if(!good))
    }
}

pub(super) const fn outcome(good: bool) -> Verdict {
    if good { Verdict::Verified } else { Verdict::Refused }
}

fn permit(
    token: &Path,
    keys: &Path,
    at: OffsetDateTime,
    node: Option<&str>,
    pool: Option<&str>,
    style: Style,
) -> Outcome {
    let token = read_token(token)?;
    let keys = jwks::read(keys, "permits")?;
    let now = when::millis(at);
    let permit = match Permit::verify(&token, &keys, now) {
        Ok(permit) => permit,
        Err(findings) => {
            let verdict = TokenVerdict { verdict: Verdict::Refused, findings, permit: None, result: None };
            return verdict.answer(style, "");
        }
    };
    let claims = permit.claims();
    let (node, pool) = (node.unwrap_or(&claims.node), pool.unwrap_or(&claims.pool));
    let mut findings = Findings::new();
    findings.check("permit.node", claims.node != node, || {
        Finding::error("", "the permit is another node's").expected(node).found(&claims.node).fix(ASK)
    });
    findings.check("permit.pool", claims.pool != pool, || {
        Finding::error("", "the permit is for another pool").expected(pool).found(&claims.pool).fix(ASK)
    });
    let good = findings.acceptable() && permit.allows(node, pool, now);
    let verdict = TokenVerdict { verdict: outcome(good), findings, permit: good.then_some(claims), result: None };
    let text = facts([
        ("host", claims.host.clone()),
        ("node", claims.node.clone()),
        ("pool", claims.pool.clone()),
        ("label", claims.label.to_string()),
        ("by rule", claims.rule.clone()),
        ("until", when::from_millis(claims.not_after)),
    ]);
    verdict.answer(style, if good { &text } else { "" })
}

const ASK: &str = "ask the verifier for a permit of this node and this pool";

fn result(token: &Path, keys: &Path, host: &str, at: OffsetDateTime, style: Style) -> Outcome {
    let token = read_token(token)?;
    let keys = jwks::read(keys, "results")?;
    let verified = match VerifiedResult::verify(&token, &keys, host, at.unix_timestamp()) {
        Ok(verified) => verified,
        Err(findings) => {
            let verdict = TokenVerdict { verdict: Verdict::Refused, findings, permit: None, result: None };
            return verdict.answer(style, "");
        }
    };
    let claims = verified.claims();
    let mut text = facts([
        ("host", claims.sub.clone()),
        ("TPM", claims.hostmark.tpm_class.to_string()),
        ("appraisal", format!("{} version {}", claims.hostmark.appraisal, claims.hostmark.appraisal_version)),
        ("until", when::from_seconds(claims.exp)),
    ]);
    let rows = claims
        .submods
        .iter()
        .map(|(submodule, one)| vec![submodule.name().into(), tier(one.status), one.findings.len().to_string().into()]);
    text += &format!("\n{}", style.table(&["subsystem", "tier", "findings"], rows));
    for one in claims.submods.values() {
        text += &style.findings(&one.findings);
    }
    let verdict =
        TokenVerdict { verdict: Verdict::Verified, findings: Findings::new(), permit: None, result: Some(&claims) };
    verdict.answer(style, &text)
}

pub(super) fn verdict_text(style: Style, good: bool, findings: &Findings) -> String {
    let word = if good { style.paint(Mood::Good, "verified") } else { style.paint(Mood::Bad, "refused") };
    format!("verdict  {word}\n{}", style.findings(findings.as_slice()))
}

/// The token itself, or the content of the file that is named. Its framing is checked here, so that an error names the byte.
fn read_token(given: &Path) -> Result<String, Failure> {
    let literal = given.to_str().filter(|text| text.starts_with("eyJ") && text.matches('.').count() == 2);
    let (name, text) = match literal {
        Some(text) => ("the token".to_owned(), text.to_owned()),
        None => (given.display().to_string(), input::read_text(given, "a token", TOKEN_MAX)?),
    };
    let token = text.trim_end();
    let mut dots = 0usize;
    for (at, byte) in token.bytes().enumerate() {
        let problem = match byte {
            b'.' if dots == 2 => "a compact JWS has three parts, and this has more",
            b'.' => {
                dots = dots.saturating_add(1);
                continue;
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => continue,
            _ => "a compact JWS is base64url and dots, and this byte is neither",
        };
        return Err(Failure::malformed(&name, &ParseError { at, problem: Problem::Malformed { what: problem } }));
    }
    if dots < 2 {
        let problem = Problem::Malformed { what: "a compact JWS has three parts, and this ends before the third" };
        return Err(Failure::malformed(&name, &ParseError { at: token.len(), problem }));
    }
    Ok(token.to_owned())
}
