//! Verdicts for people: where a host stands, what was found, what each pool demands, and what to do.

use hostmark_attest::admission::Condition;
use hostmark_attest::kernel_parameters::Lockdown;
use hostmark_attest::result::BootFacts;

use super::failure::one_line;
use super::show::{Mood, Style, facts, name_of, tier};
use crate::api::views::{PoolVerdict, StandingDetail};

/// `host explain`.
pub(super) fn host(detail: &StandingDetail, style: Style) -> String {
    let fields = &detail.fields;
    let age = fields.age_ms.map_or_else(
        || "never, or not since this verifier's machine started".to_owned(),
        |age| format!("{}.{:03} s ago", age.div_euclid(1000), age.rem_euclid(1000)),
    );
    let mut out = facts([
        ("node", format!("{} in {}", fields.node, fields.scheduler)),
        ("host id", fields.host.clone()),
        ("state", name_of(&fields.state)),
        ("label", fields.label.clone()),
        ("TPM", fields.tpm_class.clone()),
        ("appraisal", detail.appraisal.clone().unwrap_or_else(|| "none yet".to_owned())),
        ("last proof", age),
    ]);
    if let Some(boot) = &detail.boot {
        out += &format!("\nboot, proven by PCRs\n{}", booted(boot));
    }
    if !detail.refused.is_empty() {
        out += &format!("\n{}\n", style.paint(Mood::Bad, "evidence"));
        out += &style.findings(&detail.refused);
    }
    if !detail.subsystems.is_empty() {
        out.push('\n');
        let rows = detail
            .subsystems
            .iter()
            .map(|(name, one)| vec![name.name().into(), tier(one.tier), one.findings.len().to_string().into()]);
        out += &style.table(&["subsystem", "tier", "findings"], rows);
    }
    for (name, one) in detail.subsystems.iter().filter(|(_, one)| !one.findings.is_empty()) {
        out += &format!("\n{}\n{}", name.name(), style.findings(&one.findings));
    }
    for verdict in &detail.pools {
        out.push('\n');
        out += &pool(verdict, style);
    }
    if detail.pools.is_empty() {
        out += "\nno pools: publish them with hostmark pool apply DIR\n";
    }
    out
}

/// What the boot log proves.
fn booted(boot: &BootFacts) -> String {
    let line = boot.command_line.as_deref().unwrap_or("not proven: hostd did not tell it, or PCR 9 holds another");
    let mut rows = vec![
        ("secure boot", boot.secure_boot.clone()),
        ("command line", one_line(line)),
        ("lockdown asked", boot.lockdown.map_or("not proven", Lockdown::name).to_owned()),
    ];
    rows.extend(boot.image.iter().map(|(name, digest)| (name.as_str(), one_line(digest))));
    let told = boot.userspace.iter().map(|(pcr, texts)| (format!("systemd, PCR {pcr}"), one_line(&texts.join(", "))));
    let told: Vec<_> = told.collect();
    rows.extend(told.iter().map(|(name, texts)| (name.as_str(), texts.clone())));
    facts(rows)
}

/// One pool's verdict: admitted until when by which rule, or every unmet condition with what to do.
pub(super) fn pool(verdict: &PoolVerdict, style: Style) -> String {
    let unmet: Vec<&Condition> = verdict.conditions.iter().filter(|one| !one.met).collect();
    let observed = if verdict.mode == "observe" { " (observed only, without effect)" } else { "" };
    let mut out = match &verdict.not_after {
        Some(until) if verdict.admitted => format!(
            "pool {}: {} until {until}, because every condition of {} is met{observed}\n",
            verdict.pool,
            style.paint(Mood::Good, "admitted"),
            verdict.rule
        ),
        _ => format!(
            "pool {}: {}: {} of {} conditions of {} not met{observed}\n",
            verdict.pool,
            style.paint(Mood::Bad, "not admitted"),
            unmet.len(),
            verdict.conditions.len(),
            verdict.rule
        ),
    };
    for one in unmet {
        out += &condition(one, style);
    }
    if style.verbose {
        for one in verdict.conditions.iter().filter(|one| one.met) {
            out += &format!("  {}      {}: {}\n", style.paint(Mood::Good, "met"), one.id, one.found);
        }
    }
    out
}

/// An unmet condition and the findings behind it.
pub(super) fn condition(one: &Condition, style: Style) -> String {
    let mut out = format!("  {}  {}\n", style.paint(Mood::Bad, "not met"), one.id);
    let details = [("expected", Some(&one.expected)), ("found", Some(&one.found)), ("fix", one.fix.as_ref())];
    for (name, value) in details {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            out += &format!("           {name:<8}  {}\n", one_line(value));
        }
    }
    for line in style.findings(&one.findings).lines() {
        out += &format!("           {line}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostmark_attest::finding::Finding;
    use serde_json::json;

    fn verdict(admitted: bool) -> PoolVerdict {
        let conditions = json!([
            { "id": "admission.label", "met": true, "expected": "a clearance that dominates internal", "found": "internal" },
            {
                "id": "admission.tier.engine", "met": admitted, "expected": "warning", "found": "contraindicated",
                "fix": "see the findings of this subsystem",
                "findings": [Finding::error("engine.setting", "docker.icc is not what the reference allows")
                    .expected("false").found("true").fix("set icc to false in /etc/docker/daemon.json")],
            },
        ]);
        PoolVerdict {
            pool: "lab".into(),
            mode: "enforce".into(),
            admitted,
            not_after: admitted.then(|| "2026-11-22T12:04:31Z".into()),
            rule: "lab-rule".into(),
            conditions: serde_json::from_value(conditions).unwrap(),
        }
    }

    #[test]
    fn a_verdict_says_until_when_and_why_or_what_to_do() {
        let style = Style::of_stdout(false);
        let good = pool(&verdict(true), style);
        assert!(
            good.contains("admitted until 2026-11-22T12:04:31Z, because every condition of lab-rule is met"),
            "{good}"
        );
        let bad = pool(&verdict(false), style);
        for part in [
            "not admitted: 1 of 2 conditions of lab-rule not met",
            "admission.tier.engine",
            "expected  warning",
            "found     contraindicated",
            "engine.setting: docker.icc is not what the reference allows",
            "expected  false",
            "found     true",
            "fix       set icc to false in /etc/docker/daemon.json",
        ] {
            assert!(bad.contains(part), "{part} in\n{bad}");
        }
        assert!(!bad.contains("admission.label"), "what is met is told with -v only");
    }

    #[test]
    fn a_host_is_explained_by_subsystem_and_pool() {
        let detail: StandingDetail = serde_json::from_value(json!({
            "host": "8d9f6b1e-7c3b-4d0e-9a55-9f6f2d1c0b7a", "node": "node-1", "scheduler": "swarm-a",
            "label": "internal", "state": "disproven", "tpm_class": "hardware", "age_ms": 1500,
            "appraisal": "server-uki@7",
            "boot": { "secure_boot": "on", "command_line": "ro lockdown=integrity", "lockdown": "integrity",
                "image": { ".osrel": "3fb9e4" } },
            "subsystems": { "boot": { "tier": "contraindicated", "findings": [
                Finding::error("boot.replay", "PCR 4 is not explained by the log").expected("aa").found("bb").fix("reinstall"),
            ] } },
            "refused": [], "pools": [verdict(false)], "result": null,
        }))
        .unwrap();
        let text = host(&detail, Style::of_stdout(false));
        for part in [
            "disproven",
            "1.500 s ago",
            "server-uki@7",
            "ro lockdown=integrity",
            "3fb9e4",
            "contraindicated",
            "boot.replay",
            "reinstall",
            "pool lab: not admitted",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
