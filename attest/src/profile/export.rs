//! Reports in the forms that build pipelines read: SARIF and JUnit.
//!
//! SARIF 2.1.0 (OASIS), one result per control that is not met; JUnit's XML as its readers agree on it, one case per control. Establishes that no
//! verdict is lost: what could not be judged is an error in both, and what was left out is counted as skipped with its reason.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::control::{Control, Severity};
use super::layer::Profile;
use super::outcome::{Outcome, Status};
use super::report::ProfileReport;

/// What a SARIF reader shows as the tool.
const TOOL: &str = "hostmark";

impl ProfileReport {
    /// The report as a SARIF log. Passes are results of kind `pass`, so that readers can count them.
    #[must_use]
    pub fn to_sarif(&self, profile: &Profile) -> Value {
        let rules: Vec<Value> = profile.controls().map(rule).collect();
        let results: Vec<Value> = self.outcomes.iter().map(|outcome| self.result(profile, outcome)).collect();
        json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": { "driver": { "name": TOOL, "rules": rules } },
                "results": results,
                "properties": { "level": self.level, "parts": self.parts, "profile": self.profile },
            }],
        })
    }

    fn result(&self, profile: &Profile, outcome: &Outcome) -> Value {
        let control = profile.control(&outcome.control);
        let kind = match outcome.status {
            Status::Pass => "pass",
            Status::Fail | Status::Waived => "fail",
            Status::NotApplicable => "notApplicable",
            Status::Manual => "review",
            Status::Error => "open",
        };
        // SARIF has levels for failures only.
        let level = match (outcome.status, control) {
            (Status::Fail | Status::Waived, Some(control)) => level(control.severity),
            (Status::Fail | Status::Waived, None) => "error",
            _ => "none",
        };
        let text = if outcome.reason.is_empty() { outcome.wanted.as_str() } else { outcome.reason.as_str() };
        let resource = control.map(|control| control.resource.to_string()).unwrap_or_default();
        let mut result = json!({
            "ruleId": outcome.control,
            "kind": kind,
            "level": level,
            "message": { "text": text },
            "locations": [{ "logicalLocations": [{ "fullyQualifiedName": resource, "kind": "resource" }] }],
            "properties": { "wanted": outcome.wanted, "effective": outcome.effective, "others": outcome.others, "proof": outcome.proof },
        });
        let waiver = self.waiver_of(outcome).unwrap_or_default();
        if outcome.status == Status::Waived
            && let Some(table) = result.as_object_mut()
        {
            table.insert("suppressions".to_owned(), json!([{ "kind": "external", "justification": waiver }]));
        }
        result
    }

    /// The report as JUnit's XML.
    #[must_use]
    pub fn to_junit(&self, profile: &Profile) -> String {
        let counts = &self.counts;
        let skipped = counts.not_applicable.saturating_add(counts.manual).saturating_add(counts.waived);
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let _ = writeln!(
            out,
            "<testsuite name=\"{TOOL} {}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{skipped}\">",
            self.level,
            self.outcomes.len(),
            counts.fail,
            counts.error,
        );
        for outcome in &self.outcomes {
            let title = profile.control(&outcome.control).map_or("", |control| control.title.as_str());
            let part = outcome.control.split('.').next().unwrap_or_default();
            let (id, title) = (escaped(&outcome.control), escaped(title));
            let _ = write!(out, "  <testcase classname=\"{}\" name=\"{id}: {title}\"", escaped(part));
            let reason = escaped(&outcome.reason);
            let inside = match outcome.status {
                Status::Pass => None,
                Status::Fail => {
                    Some(format!("<failure message=\"{reason}\">wanted {}</failure>", escaped(&outcome.wanted)))
                }
                Status::Error => Some(format!("<error message=\"{reason}\"/>")),
                Status::NotApplicable | Status::Manual => {
                    Some(format!("<skipped message=\"{}: {reason}\"/>", outcome.status))
                }
                Status::Waived => {
                    let waiver = escaped(&self.waiver_of(outcome).unwrap_or_default());
                    Some(format!("<skipped message=\"waived: {waiver}; {reason}\"/>"))
                }
            };
            match inside {
                None => out.push_str("/>\n"),
                Some(inside) => {
                    let _ = writeln!(out, ">{inside}</testcase>");
                }
            }
        }
        out.push_str("</testsuite>\n");
        out
    }
}

fn rule(control: &Control) -> Value {
    json!({
        "id": control.id,
        "shortDescription": { "text": control.title },
        "fullDescription": { "text": control.why.as_deref().unwrap_or(&control.title) },
        "defaultConfiguration": { "level": level(control.severity) },
        "properties": { "tags": control.refs, "severity": control.severity, "role": control.role },
    })
}

const fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Low => "note",
        Severity::Medium => "warning",
        Severity::High | Severity::Critical => "error",
    }
}

/// Text for attributes and content of XML and HTML; characters that XML 1.0 has not become U+FFFD.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::manifest::Setting;
    use crate::profile::{Layer, Level, Observation, Observed, Part, SignedWaiver, SourceKind, Stated, judge};

    pub(in crate::profile) fn report() -> (Profile, ProfileReport) {
        let one = |id: &str| {
            format!(
                "[[control]]\nid = '{id}'\ntitle = 'a < b'\nrefs = ['N4.5', 'S9.3']\nrole = 'operator'\nseverity = 'medium'\nfix = 'automatic'\nresource = {{ sysctl = 'a.b' }}\nwant = 'x'\nprove = 'kernel'\n"
            )
        };
        let ids = ["host.a", "host.b", "host.c", "host.d", "host.e"];
        let layer = Layer::parse(Part::Host, Level::Baseline, &ids.map(one).concat()).unwrap();
        let profile = Profile::build(Level::Baseline, vec![layer]).unwrap();
        let seen = |text: &str| {
            let value = Observed::Value(Setting::Text(text.to_owned()));
            Observation::Seen { effective: Stated::new(SourceKind::Kernel, "/proc/sys", value), others: Vec::new() }
        };
        let reason = || "\"why\" & <how>\u{1b}".to_owned();
        let mut outcomes: Vec<Outcome> = [
            seen("x"),
            seen("y"),
            Observation::Failed { reason: reason() },
            Observation::NotApplicable { reason: reason() },
            Observation::OutOfSight { reason: reason(), files: Vec::new() },
        ]
        .into_iter()
        .zip(ids)
        .map(|(observation, id)| judge(profile.control(id).unwrap(), observation, None))
        .collect();
        let text = "controls = ['host.b']\nhosts = ['a']\nreason = 'not before spring'\napprover = 'A. Person'\nexpires = '2027-01-31T00:00:00Z'\n";
        let waiver = SignedWaiver { text: text.to_owned(), signature: String::new() };
        (outcomes[1].status, outcomes[1].waiver) = (Status::Waived, Some(waiver.digest()));
        let mut report = ProfileReport::new(&profile, true, outcomes);
        report.waivers.push(waiver);
        (profile, report)
    }

    #[test]
    fn sarif_loses_no_verdict_and_shows_no_waiver_as_a_pass() {
        let (profile, report) = report();
        let sarif = report.to_sarif(&profile);
        let run = &sarif["runs"][0];
        let kinds: Vec<&str> =
            run["results"].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["pass", "fail", "open", "notApplicable", "review"]);
        let waiver = &run["results"][1]["suppressions"][0];
        assert_eq!(
            (&waiver["kind"], waiver["justification"].as_str().unwrap().contains("not before spring")),
            (&json!("external"), true)
        );
        assert_eq!(run["results"][1]["level"], "warning");
        assert_eq!(run["results"][0]["level"], "none");
        assert_eq!(run["tool"]["driver"]["rules"].as_array().unwrap().len(), 5);
    }

    #[test]
    fn junit_is_escaped_and_counts_what_it_holds() {
        let (profile, report) = report();
        let xml = report.to_junit(&profile);
        assert!(xml.contains("tests=\"5\" failures=\"0\" errors=\"1\" skipped=\"3\""), "{xml}");
        assert!(xml.contains("name=\"host.a: a &lt; b\"/>"), "{xml}");
        assert!(xml.contains("<error message=\"&quot;why&quot; &amp; &lt;how&gt;"), "{xml}");
        assert!(
            xml.contains(
                "<skipped message=\"waived: not before spring (A. Person, until 2027-01-31T00:00:00Z); /proc/sys says"
            ),
            "{xml}"
        );
        assert!(!xml.chars().any(|c| c.is_control() && c != '\n'), "{xml}");
        assert_eq!(xml.matches("<testcase").count(), 5);
    }
}
