//! The loop: a challenge, evidence, an appraisal, a signed result, and what the pools make of it.
//!
//! RATS Verifier first, Relying Party after: the pools see nothing but the signed result. The nonce is used up in the same
//! transaction that renews what was proven, before the answer; whatever fails before that grants nothing (D20). The lease
//! counts from the issue of the nonce.

use std::path::PathBuf;
use std::time::Instant;

use hostmark_attest::appraisal::{Endorsed, Judge};
use hostmark_attest::check::violated;
use hostmark_attest::evidence::Evidence;
use hostmark_attest::finding::{Finding, Severity};
use hostmark_attest::identity::ek::verify_ek;
use hostmark_attest::policy::AppraisalPolicy;
use hostmark_attest::replay::Resend;
use hostmark_attest::round::{Known, Stop, judge_round};
use hostmark_attest::state::RoundState;
use hostmark_attest::stored_round::{Recorded, keep};
use hostmark_attest::wire::{Challenge, PoolPlace, RoundOutcome, SignedTag};

use crate::clock::{Now, rfc3339};
use crate::enrol::enrolled::Enrolled;
use crate::enrol::wall;
use crate::kept_rounds::KeptRounds;
use crate::metrics;
use crate::refusal::{Kind, Outcome, Refusal};
use crate::state::AppState;
use crate::store::{Purpose, RoundRecord};

/// The AK's Name in hex.
fn ak_hex(host: &Enrolled) -> String {
    hex::encode(host.ak().name().as_bytes())
}

/// What was kept of a host. A state that does not open, or is gone, is no state for a challenge, and a refusal for a round: without it
/// nobody would notice a TPM whose counters went back.
pub(crate) fn kept(state: &AppState, host: &Enrolled) -> Outcome<Option<(Vec<u8>, RoundState)>> {
    let sealed = state.store.host_state(&host.row().id)?;
    if violated("state.missing", host.row().kept_state && sealed.is_none()) {
        let finding = Finding::error("state.missing", "what was kept of this host between its rounds is gone");
        let fix = "restore the database from a backup, or retire the host and enrol it again; look for who wrote the database";
        return Err(Refusal::findings(finding.fix(fix).into()));
    }
    let Some(sealed) = sealed else { return Ok(None) };
    let opened = RoundState::open(&sealed, &state.keys.seal, &host.row().id, &ak_hex(host));
    opened.map(|opened| Some((sealed, opened))).map_err(Refusal::findings)
}

/// What a challenge asks for depends on this; evidence for another is asked for again.
fn asked(host: &Enrolled, policy: &AppraisalPolicy) -> String {
    format!("{}@{} {}", policy.name(), policy.version(), host.row().generation)
}

/// Issues a challenge to a host.
///
/// # Errors
/// 404, 409 and 422 of the host; 503 when its policy cannot judge.
pub fn challenge(state: &AppState, host: &str) -> Outcome<Challenge> {
    let now = state.now();
    state.refresh(&now)?;
    let host = state.store.enrolled(host)?;
    let row = host.row();
    let judge = state.standings.rules().judge(&row.assignment.policy)?;
    let kept = kept(state, &host).ok().flatten().map(|(_, kept)| kept);
    // Files that another policy or other references judged are judged again, and so are those of a round that did not fit.
    let kept = kept.filter(|kept| kept.judged_by() == judge.fingerprint(wall(&now)) && !state.resend.contains(&row.id));
    let issued = state.store.issue_nonce(
        &now,
        &row.id,
        Purpose::Round,
        state.config.nonce_life.0,
        &asked(&host, judge.policy()),
    )?;
    Ok(Challenge {
        nonce: issued.nonce,
        expires_in_ms: issued.expires_in_ms,
        selection: judge.policy().selection().clone(),
        ima_from: kept.as_ref().map_or(0, |kept| kept.ima().entries),
        reset_count: kept.as_ref().map_or(0, |kept| kept.counters().reset_count),
        tag: row.tag_nv.clone().map(|nv| SignedTag { nv: hostmark_attest::wire::B64(nv) }),
    })
}

/// Takes a round's evidence: appraises it, records what it came to, and answers.
///
/// # Errors
/// 400 for evidence that cannot be read, 422 `nonce.*` for a nonce that does not count, and whatever keeps the verifier from
/// judging. Bad evidence is no error: the answer says so. After `deadline` nothing is recorded: whoever asked has been told so.
pub fn round(state: &AppState, host: &str, body: &[u8], deadline: Instant) -> Outcome<RoundOutcome> {
    let outcome = take(state, host, body, deadline);
    let word = match &outcome {
        Ok(outcome) if outcome.resend => "resend",
        Ok(outcome) if outcome.result.is_none() => "refused",
        Ok(outcome) if outcome.state == hostmark_attest::wire::HostState::Disproven => "disproven",
        Ok(_) => "proven",
        Err(_) => "error",
    };
    ::metrics::counter!(metrics::ROUNDS, "outcome" => word).increment(1);
    outcome
}

fn take(state: &AppState, host: &str, body: &[u8], deadline: Instant) -> Outcome<RoundOutcome> {
    let now = state.now();
    let evidence = Evidence::parse(body)
        .map_err(|error| Refusal::new(Kind::Malformed, Finding::error("evidence.malformed", error.to_string())))?;
    let nonce = evidence.unanchored().nonce;
    let issued = state.store.nonce_issue(&now, &nonce, host)?;
    state.refresh(&now)?;
    let host = state.store.enrolled(host)?;
    let rules = state.standings.rules();
    let judge = rules.judge(&host.row().assignment.policy)?;
    let now_asked = asked(&host, judge.policy());
    if violated("round.outdated", issued.detail != now_asked) {
        let finding =
            Finding::error("round.outdated", "the host or its policy was changed after this challenge was issued")
                .expected(now_asked)
                .found(issued.detail)
                .fix("ask for a new challenge");
        return again(state, &now, &host, &nonce, Resend { findings: finding.into() });
    }
    let (sealed, kept) = kept(state, &host)?.unzip();

    let mut record = RoundRecord {
        host: host.row().id.clone(),
        generation: host.row().generation,
        nonce,
        disproven: true,
        result: None,
        findings: Vec::new(),
        kept: sealed,
        sealed: None,
        ak_name: host.ak().name().as_bytes().to_vec(),
        policy: (judge.policy().name().to_owned(), judge.policy().version()),
        tag_serial: None,
    };
    let at = wall(&now);
    let trust = state.trust();
    let row = host.row();
    let ek = verify_ek(host.ek(), row.ek_certificate.as_deref(), &row.ek_intermediates, &trust.ek, at)
        // The EK's chain no longer holds: our trust directory's doing, not the evidence's. Nothing is recorded, and the host lapses.
        .map_err(Refusal::findings)?;
    let endorsed = Endorsed { class: ek.class(), findings: ek.advice().clone() };
    let known = Known {
        host: &row.id,
        ek: host.ek(),
        ak: host.ak(),
        endorsed: &endorsed,
        tag_signers: &trust.signers,
        tag_serial: Some(row.tag_serial).filter(|serial| *serial > 0),
        kept: kept.as_ref(),
        nonce,
        at,
    };
    match judge_round(evidence, &known, &judge) {
        Ok(appraisal) => {
            state.resend.remove(&record.host);
            let issued_s = issued.issued_unix_ms.div_euclid(1000);
            let expires_s =
                issued.issued_unix_ms.saturating_add(rules.longest_lease_ms()).div_euclid(1000).saturating_add(1);
            record.disproven = appraisal.disproven();
            record.sealed = Some(appraisal.state().seal(&state.keys.seal));
            if record.disproven {
                record.findings = appraisal.findings().filter(|one| one.severity == Severity::Error).cloned().collect();
            }
            let claims = appraisal.into_result(record.host.clone(), issued_s, expires_s);
            record.tag_serial = claims.hostmark.tag_serial;
            record.result = Some(claims.sign(&state.keys.results).map_err(Refusal::internal)?);
        }
        Err(Stop::NotGenuine(findings)) => record.findings = findings.into_vec(),
        Err(Stop::Strayed(findings, kept)) => {
            record.findings = findings.into_vec();
            record.sealed = Some(kept.seal(&state.keys.seal));
        }
        Err(Stop::Resend(resend)) => return again(state, &now, &host, &nonce, resend),
        Err(_) => return Err(Refusal::internal("a round ended in a way that is not known here")),
    }
    let evidence = keep_if_changed(state, &now, &record, body, &known, &judge);
    let recorded = state.store.record_round(&now, &record, || Instant::now() >= deadline);
    if let (Err(_), Some(path)) = (&recorded, evidence) {
        KeptRounds::discard(&path);
    }
    recorded?;
    answer(state, &record.host, Vec::new(), record.result)
}

/// Keeps the evidence of a round that changes the host's verdict. What cannot be kept is logged: the verdict counts all the same.
fn keep_if_changed(
    state: &AppState,
    now: &Now,
    record: &RoundRecord,
    body: &[u8],
    known: &Known<'_>,
    judge: &Judge,
) -> Option<PathBuf> {
    let before =
        state.standings.host(&record.host).and_then(|(standing, _)| standing.last.as_ref().map(|last| last.disproven));
    if before == Some(record.disproven) && !record.suspects_a_clone() {
        return None;
    }
    let findings = if record.result.is_some() { Vec::new() } else { record.findings.clone() };
    let recorded = Recorded { disproven: record.disproven, result: record.result.clone(), findings };
    let kept =
        keep(body, known, judge, recorded, &state.keys.results).map_err(std::io::Error::other).and_then(|bytes| {
            KeptRounds::below(&state.config.state_dir).keep(&record.host, now.unix_ms, &record.nonce.0, &bytes)
        });
    kept.inspect_err(
        |error| tracing::error!(host = record.host, %error, "the evidence of a changed verdict is not kept"),
    )
    .ok()
}

/// Asks for whole logs. The nonce is used up; trust neither ends nor grows.
fn again(
    state: &AppState,
    now: &Now,
    host: &Enrolled,
    nonce: &hostmark_attest::wire::Nonce,
    resend: Resend,
) -> Outcome<RoundOutcome> {
    let id = &host.row().id;
    state.store.consume_nonce(now, nonce, id, Purpose::Round)?;
    state.resend.insert(id.clone());
    let mut outcome = answer(state, id, resend.findings.into_vec(), None)?;
    outcome.resend = true;
    outcome.next_in_ms = 0;
    Ok(outcome)
}

fn answer(state: &AppState, host: &str, findings: Vec<Finding>, result: Option<String>) -> Outcome<RoundOutcome> {
    let now = state.now();
    state.refresh(&now)?;
    let (standing, rules) = state.standings.host(host).ok_or_else(|| Refusal::not_found("host"))?;
    let pools = standing
        .pools(&rules, &now)
        .into_iter()
        .map(|(pool, left)| PoolPlace { pool, not_after: rfc3339(now.unix_ms.saturating_add_unsigned(left)) })
        .collect();
    let findings = if findings.is_empty() { standing.findings() } else { findings };
    Ok(RoundOutcome {
        state: standing.state(&now, rules.longest_lease_ms()),
        findings,
        result,
        pools,
        next_in_ms: standing.interval_ms(&rules),
        resend: false,
    })
}
