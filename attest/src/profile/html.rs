//! A report as one page of HTML: what to do first, then every verdict by part, by CSA item and by who has to act.
//!
//! Self-contained: no script, no address that is fetched, a content security policy that forbids both. Establishes that every verdict is on the
//! page once with all that it rests on, and that a host's words are text and nothing else. Says no score: what counts is which controls fail.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::control::{Control, Fix, Role};
use super::export::escaped;
use super::layer::Profile;
use super::outcome::{Outcome, Status};
use super::report::{Counts, ProfileReport};
use super::{Part, ROWS, Severity};

/// The page's looks. Colours say nothing that a word beside them does not.
const STYLE: &str = include_str!("report.css");

/// What the page says of itself and no report holds, because a report has no time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heading {
    /// The host, or the directory that was looked at.
    pub subject: String,
    /// When, RFC 3339.
    pub at: String,
}

/// A control's verdict beside what was asked; `None` for an outcome that the profile does not know.
type Judged<'a> = (&'a Outcome, Option<&'a Control>);

impl ProfileReport {
    /// The report as a page of HTML.
    #[must_use]
    pub fn to_html(&self, profile: &Profile, heading: &Heading) -> String {
        let judged: Vec<Judged<'_>> = self.outcomes.iter().map(|one| (one, profile.control(&one.control))).collect();
        let mut out = String::with_capacity(1 << 18);
        let subject = escaped(&heading.subject);
        let _ = write!(
            out,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{subject}: {} hardening</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
            self.level
        );
        self.top(profile, heading, &judged, &mut out);
        first(&judged, &mut out);
        self.by_part(&judged, &mut out);
        by_item(&judged, &mut out);
        by_role(&judged, &mut out);
        coverage(profile, &mut out);
        out.push_str("</body>\n</html>\n");
        out
    }

    fn top(&self, profile: &Profile, heading: &Heading, judged: &[Judged<'_>], out: &mut String) {
        let (subject, at) = (escaped(&heading.subject), escaped(&heading.at));
        let parts: Vec<&str> = self.parts.iter().map(|part| part.name()).collect();
        let _ = writeln!(out, "<header>\n<p class=\"kind\">Container host hardening</p>\n<h1>{subject}</h1>");
        let _ = writeln!(out, "<p>Profile <b>{}</b> ({}), {at}</p>\n</header>", self.level, parts.join(", "));
        let _ = writeln!(
            out,
            "<nav><a href=\"#first\">What to do first</a><a href=\"#parts\">By layer</a><a href=\"#items\">By CSA item</a>\
             <a href=\"#roles\">By role</a><a href=\"#coverage\">Coverage</a></nav>\n<main>"
        );
        let _ = writeln!(out, "<section class=\"tiles\">");
        for status in Status::ALL {
            let count = self.counts.get(status);
            let _ = writeln!(
                out,
                "<div class=\"tile {}{}\"><b>{count}</b><span>{}</span></div>",
                status.name(),
                if count == 0 { " none" } else { "" },
                word(status)
            );
        }
        let _ = writeln!(out, "</section>\n{}", bar(&self.counts));
        let _ = writeln!(out, "<p class=\"lead\">{}</p>", lead(judged));
        let origin = if self.root_is_default {
            "The running host was observed. What it says is its own word until a verifier holds it against the TPM."
        } else {
            "A directory was looked at, no running kernel or engine: what only those can show is left to people."
        };
        let _ =
            writeln!(out, "<p class=\"note\">{origin} Profile digest <code>sha256:{}</code>.</p>", profile.digest());
    }

    /// Every control of each part, whole.
    fn by_part(&self, judged: &[Judged<'_>], out: &mut String) {
        let _ = writeln!(out, "<section id=\"parts\">\n<h2>By layer</h2>");
        for part in Part::ALL {
            let mut of_part: Vec<&Judged<'_>> =
                judged.iter().filter(|(outcome, _)| outcome.control.split('.').next() == Some(part.name())).collect();
            of_part.sort_by_key(|(outcome, _)| urgency(outcome.status));
            if of_part.is_empty() {
                continue;
            }
            let counts = counted(&of_part);
            let _ =
                writeln!(out, "<h3>{}</h3>\n{}\n<p class=\"counts\">{}</p>", layer(part), bar(&counts), said(&counts));
            for (outcome, control) in of_part {
                let waiver = self.waiver_of(outcome).unwrap_or_default();
                one(outcome, *control, &waiver, out);
            }
        }
        let _ = writeln!(out, "</section>");
    }
}

/// The statuses in words that a reader does not have to look up.
const fn word(status: Status) -> &'static str {
    match status {
        Status::Pass => "pass",
        Status::Fail => "fail",
        Status::Error => "could not be judged",
        Status::NotApplicable => "not applicable",
        Status::Manual => "for people to look at",
        Status::Waived => "waived",
    }
}

fn lead(judged: &[Judged<'_>]) -> String {
    let failing = |least| {
        let heavy = |control: Option<&Control>| control.is_none_or(|control| control.severity >= least);
        judged.iter().filter(|(outcome, control)| outcome.status == Status::Fail && heavy(*control)).count()
    };
    let open = judged.iter().filter(|(outcome, _)| matches!(outcome.status, Status::Error | Status::Manual)).count();
    let (all, high, critical) = (failing(Severity::Low), failing(Severity::High), failing(Severity::Critical));
    let mut text = match all {
        0 => "No control fails.".to_owned(),
        1 => "One control fails".to_owned(),
        _ => format!("{all} controls fail"),
    };
    if all > 0 {
        let _ = write!(text, ", of high severity or above: {high}, of critical severity: {critical}.");
    }
    if open > 0 {
        let _ = write!(text, " {open} are undecided: no pass, and no failure yet.");
    }
    text
}

/// The share of each status, as a strip.
fn bar(counts: &Counts) -> String {
    let mut out = "<div class=\"bar\" aria-hidden=\"true\">".to_owned();
    for status in Status::ALL {
        let count = counts.get(status);
        if count > 0 {
            let _ = write!(out, "<i class=\"{}\" style=\"flex:{count}\"></i>", status.name());
        }
    }
    out.push_str("</div>");
    out
}

/// What fails or could not be judged, the gravest first.
fn first(judged: &[Judged<'_>], out: &mut String) {
    let mut unmet: Vec<&Judged<'_>> =
        judged.iter().filter(|(outcome, _)| matches!(outcome.status, Status::Fail | Status::Error)).collect();
    let weight = |control: Option<&Control>| control.map_or(Severity::Critical, |control| control.severity);
    unmet.sort_by_key(|(outcome, control)| (std::cmp::Reverse(weight(*control)), outcome.status, &outcome.control));
    let _ = writeln!(out, "<section id=\"first\">\n<h2>What to do first</h2>");
    if unmet.is_empty() {
        let _ = writeln!(out, "<p>Nothing fails, and nothing that was to be judged could not be.</p>\n</section>");
        return;
    }
    let head = "<tr><th>Severity</th><th>Control</th><th>Holds now</th><th>Wanted</th><th>How it is mended</th></tr>";
    let _ = writeln!(out, "<table>\n<thead>{head}</thead>\n<tbody>");
    for (outcome, control) in unmet {
        let severity = weight(*control).name();
        let title = control.map_or("", |control| control.title.as_str());
        let _ = writeln!(
            out,
            "<tr><td><span class=\"severity {severity}\">{severity}</span></td><td><a href=\"#{id}\">{title}</a><br>\
             <code>{id}</code></td><td>{}</td><td>{}</td><td>{}</td></tr>",
            holds(outcome),
            escaped(&outcome.wanted),
            control.map_or_else(String::new, mend),
            id = escaped(&outcome.control),
            title = escaped(title),
        );
    }
    let _ = writeln!(out, "</tbody>\n</table>\n</section>");
}

/// What holds, as far as somebody said it.
fn holds(outcome: &Outcome) -> String {
    match (&outcome.effect, &outcome.effective) {
        (Some(effect), _) => escaped(&effect.to_string()),
        (None, Some(stated)) if outcome.status != Status::Error => escaped(&stated.value.to_string()),
        _ => format!("<em>{}</em>", escaped(&outcome.reason)),
    }
}

/// Who changes it, and what that asks for.
fn mend(control: &Control) -> String {
    let mut text = match control.fix {
        Fix::Automatic => "<code>hostd apply</code>".to_owned(),
        Fix::Gated => "<code>hostd apply</code>, when asked for".to_owned(),
        Fix::Evidence => "by hand: a decision or a rebuild".to_owned(),
        Fix::Prevention => "by hand: keep it from being started so".to_owned(),
    };
    if control.fix.changes() {
        let steps: Vec<&str> = control.activate.iter().map(|step| step.name()).collect();
        if !steps.is_empty() {
            let _ = write!(text, "; then {}", steps.join(", "));
        }
        if !control.reversible {
            text.push_str("; cannot be undone while the host runs");
        }
    }
    text
}

const fn layer(part: Part) -> &'static str {
    match part {
        Part::Audit => "Audit",
        Part::Containerd => "containerd",
        Part::Crio => "CRI-O",
        Part::Docker => "Docker Engine",
        Part::Host => "Kernel and host",
        Part::Kubelet => "Kubelet",
        Part::Podman => "Podman and what it shares",
        Part::Workload => "Containers",
    }
}

fn one(outcome: &Outcome, control: Option<&Control>, waiver: &str, out: &mut String) {
    let (id, status) = (escaped(&outcome.control), outcome.status.name());
    let title = control.map_or_else(|| id.clone(), |control| escaped(&control.title));
    // What needs attention is open when the page is.
    let open = if matches!(outcome.status, Status::Fail | Status::Error) { " open" } else { "" };
    let _ = writeln!(
        out,
        "<details id=\"{id}\"{open}>\n<summary><span class=\"status {status}\">{status}</span> {title} <code>{id}</code></summary>\n<dl>"
    );
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(out, "<dt>{name}</dt><dd>{value}</dd>");
        }
    };
    row("Wanted", escaped(&outcome.wanted));
    if let Some(stated) = &outcome.effective {
        row(
            "Holds",
            format!("{} <span class=\"by\">{}</span>", escaped(&stated.value.to_string()), escaped(&stated.source)),
        );
    }
    for stated in &outcome.others {
        row(
            "Also stated",
            format!("{} <span class=\"by\">{}</span>", escaped(&stated.value.to_string()), escaped(&stated.source)),
        );
    }
    row("Effect seen", outcome.effect.as_ref().map(|effect| escaped(&effect.to_string())).unwrap_or_default());
    row("Proof", escaped(&outcome.proof));
    row("Verdict", escaped(&outcome.reason));
    row("Waived", escaped(waiver));
    if let Some(control) = control {
        row("About", format!("<code>{}</code>", escaped(&control.resource.to_string())));
        row("Severity", format!("{}, for the {}", control.severity, role(control.role)));
        row("Mended", mend(control));
        row("Why", control.why.as_deref().map(escaped).unwrap_or_default());
        row("Asked for by", escaped(&control.refs.iter().map(|one| reference(one)).collect::<Vec<_>>().join(", ")));
    }
    let _ = writeln!(out, "</dl>\n</details>");
}

const fn role(role: Role) -> &'static str {
    match role {
        Role::Developer => "developer",
        Role::Operator => "operator",
    }
}

/// A reference with its document's name (BASELINE, "Numbers").
fn reference(short: &str) -> String {
    let document = [("D", "CIS Docker "), ("K", "CIS Kubernetes "), ("N", "NIST SP 800-190 "), ("S", "CSA 3.1.")];
    let known = document.iter().find_map(|(letter, name)| {
        short
            .strip_prefix(letter)
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            .map(|rest| (name, rest))
    });
    known.map_or_else(|| short.to_owned(), |(name, number)| format!("{name}{number}"))
}

/// The numbers of a dotted reference, so that 3.1.10 follows 3.1.9.
fn by_number(item: &str) -> Vec<u32> {
    item.split(['.', ' ']).filter_map(|word| word.parse().ok()).collect()
}

/// CSA's items, each with the controls that answer it.
fn by_item(judged: &[Judged<'_>], out: &mut String) {
    let mut items: BTreeMap<(Vec<u32>, String), Vec<&Judged<'_>>> = BTreeMap::new();
    for one in judged {
        for item in one.1.iter().flat_map(|control| &control.refs).map(|short| reference(short)) {
            if item.starts_with("CSA ") {
                items.entry((by_number(&item), item)).or_default().push(one);
            }
        }
    }
    let _ = writeln!(
        out,
        "<section id=\"items\">\n<h2>By CSA item</h2>\n<table>\n<thead><tr><th>Item</th><th>Counts</th><th>Controls</th></tr></thead>\n<tbody>"
    );
    for ((_, item), of_item) in &items {
        let item = escaped(item);
        let _ =
            writeln!(out, "<tr><td>{item}</td><td>{}</td><td>{}</td></tr>", said(&counted(of_item)), links(of_item));
    }
    let _ = writeln!(out, "</tbody>\n</table>\n</section>");
}

/// Who has to act.
fn by_role(judged: &[Judged<'_>], out: &mut String) {
    let _ = writeln!(out, "<section id=\"roles\">\n<h2>By role</h2>");
    for (one, says) in [
        (Role::Operator, "Operators run the host: kernel, engines, files, rules."),
        (Role::Developer, "Developers build images and declare how containers run."),
    ] {
        let of_role: Vec<&Judged<'_>> =
            judged.iter().filter(|(_, control)| control.is_some_and(|control| control.role == one)).collect();
        let counts = counted(&of_role);
        let _ = writeln!(
            out,
            "<h3>For the {}</h3>\n<p>{says}</p>\n{}\n<p class=\"counts\">{}</p>",
            role(one),
            bar(&counts),
            said(&counts)
        );
        let _ = writeln!(out, "<p class=\"links\">{}</p>", links(&of_role));
    }
    let _ = writeln!(out, "</section>");
}

/// Rows of the catalogue: which are controls here, and why others are not.
fn coverage(profile: &Profile, out: &mut String) {
    let coverage = profile.coverage();
    let _ = writeln!(
        out,
        "<section id=\"coverage\">\n<h2>Coverage</h2>\n<p>{} of the catalogue's {ROWS} rows are controls of this profile; {} belong to other levels or parts.</p>",
        coverage.covered.len(),
        coverage.forgotten.len()
    );
    if !coverage.absent.is_empty() {
        let _ = writeln!(out, "<dl>");
        for (row, reason) in &coverage.absent {
            let _ = writeln!(out, "<dt>Row {row}</dt><dd>{}</dd>", escaped(reason));
        }
        let _ = writeln!(out, "</dl>");
    }
    let _ = writeln!(out, "</section>\n</main>");
}

fn counted(judged: &[&Judged<'_>]) -> Counts {
    let mut counts = Counts::default();
    for (outcome, _) in judged {
        counts.add(outcome.status);
    }
    counts
}

/// The counts that are not zero, in words.
fn said(counts: &Counts) -> String {
    let some = Status::ALL.into_iter().filter(|status| counts.get(*status) > 0);
    let words: Vec<String> = some.map(|status| format!("{} {}", counts.get(status), status.name())).collect();
    words.join(", ")
}

/// The order in which a reader wants verdicts.
const fn urgency(status: Status) -> u8 {
    match status {
        Status::Fail => 0,
        Status::Error => 1,
        Status::Manual => 2,
        Status::Waived => 3,
        Status::Pass => 4,
        Status::NotApplicable => 5,
    }
}

/// Links to controls, the unmet first.
fn links(judged: &[&Judged<'_>]) -> String {
    let mut sorted: Vec<&Outcome> = judged.iter().map(|(outcome, _)| *outcome).collect();
    sorted.sort_by_key(|outcome| (urgency(outcome.status), &outcome.control));
    let link = |outcome: &Outcome| {
        let (id, status) = (escaped(&outcome.control), outcome.status.name());
        format!("<a class=\"status {status}\" href=\"#{id}\" title=\"{status}\">{id}</a>")
    };
    sorted.into_iter().map(link).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::export::tests::report;
    use super::*;

    fn page() -> String {
        let (profile, report) = report();
        let subject = "<script>alert(1)</script>\u{202e}".to_owned();
        report.to_html(&profile, &Heading { subject, at: "2026-11-22T12:00:00Z".to_owned() })
    }

    #[test]
    fn every_verdict_is_on_the_page_once_and_none_is_lost_in_a_count() {
        let page = page();
        for (id, status) in [
            ("host.a", "pass"),
            ("host.b", "waived"),
            ("host.c", "error"),
            ("host.d", "not-applicable"),
            ("host.e", "manual"),
        ] {
            assert_eq!(page.matches(&format!("<details id=\"{id}\"")).count(), 1, "{id}");
            let summary = format!("<span class=\"status {status}\">{status}</span> a &lt; b <code>{id}</code>");
            assert!(page.contains(&summary), "{id}: {page}");
        }
        assert!(page.contains("<details id=\"host.c\" open>"), "what could not be judged is open");
        assert!(page.contains("No control fails. 2 are undecided"), "{page}");
        assert!(
            page.contains("CSA 3.1.9.3</td><td>1 pass, 1 error, 1 not-applicable, 1 manual, 1 waived</td>"),
            "{page}"
        );
    }

    #[test]
    fn d6_a_hosts_words_are_text_and_the_page_fetches_nothing() {
        let page = page();
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;how&gt;") && !page.contains("<how>"), "{page}");
        for fetching in ["src=", "url(", "@import", "http://", "https://", "<link", "<img"] {
            assert!(!page.contains(fetching), "{fetching}");
        }
        assert!(page.contains("default-src 'none'"));
        assert!(!page.chars().any(|c| c.is_control() && c != '\n'));
    }

    #[test]
    fn references_name_their_document_and_sort_by_number() {
        for (short, long) in [
            ("S9.3", "CSA 3.1.9.3"),
            ("D2.2", "CIS Docker 2.2"),
            ("N4.5", "NIST SP 800-190 4.5"),
            ("K4.2.1", "CIS Kubernetes 4.2.1"),
            ("SLSA", "SLSA"),
        ] {
            assert_eq!(reference(short), long);
        }
        assert!(by_number("CSA 3.1.10") > by_number("CSA 3.1.9.3"));
    }
}
