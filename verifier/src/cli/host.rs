//! `hostmark host`: who the hosts are, where they stand, and what people decide about them.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use hostmark_attest::finding::Finding;
use hostmark_attest::identity::tag::Tag;
use hostmark_attest::label::Label as LabelValue;
use hostmark_attest::span::Span;
use hostmark_attest::tpm::public::Public;
use hostmark_attest::wire::B64;
use serde::Serialize;

use super::answer::Answer;
use super::client::Client;
use super::connect::Connection;
use super::explain;
use super::failure::Failure;
use super::show::{Cell, Mood, Style, facts, name_of};
use super::{Outcome, input, key, when};
use crate::api::types::{
    Approve, Assign, Host, Imported, Label, Maintenance, PreregisteredHost, Preregistrations, Rebind, Retire, SetTag,
    Standing,
};
use crate::api::views::{StandingDetail, StandingSummary};

/// `hostmark host …`
#[derive(Debug, Subcommand)]
pub(super) enum HostCommand {
    /// List hosts: those that wait first, then where each stands and which pools admit it.
    List {
        /// Retired hosts too.
        #[arg(long)]
        all: bool,
    },
    /// Show one host's identity and assignment.
    Show {
        /// Node name or host id.
        host: String,
    },
    /// Explain a host: each subsystem with its findings, each pool with what it demands.
    Explain {
        /// Node name or host id.
        host: String,
    },
    /// Approve a waiting host and say what it becomes.
    Approve {
        /// Host id (hostmark host list).
        host: String,
        #[command(flatten)]
        to: Assignment,
    },
    /// Pre-register TPMs, so that their hosts need no approval: all rows of a file, or none.
    Import {
        /// CSV (EK id, node, scheduler, label, and a policy if not the default), or JSON as the API takes it.
        file: PathBuf,
    },
    /// Give a host another clearance.
    Label {
        /// Node name or host id.
        host: String,
        /// Such as restricted:phi@hospital-a.
        label: String,
    },
    /// Sign an asset tag for a host; it writes the tag into its TPM in its next round.
    Tag(TagOptions),
    /// Plan an absence: no new workloads, no alarm.
    Maintenance {
        /// Node name or host id.
        host: String,
        /// How long, such as 2h; 0s ends it.
        #[arg(long = "for", value_name = "DURATION")]
        span: Span,
    },
    /// Let a waiting TPM or AK take this host's place, after its board or TPM was replaced.
    RebindTpm {
        /// Node name or host id.
        host: String,
        /// The waiting enrolment, where there are several.
        #[arg(long, value_name = "ID")]
        enrolment: Option<String>,
    },
    /// End a host for good: its certificate is revoked, its permits end.
    Retire {
        /// Node name or host id.
        host: String,
    },
}

/// What an approver assigns.
#[derive(Debug, clap::Args)]
pub(super) struct Assignment {
    /// Its node name in the scheduler, RFC 1123.
    #[arg(long)]
    node: String,
    /// The scheduler whose node it is.
    #[arg(long, default_value = "default")]
    scheduler: String,
    /// Its clearance, such as restricted:phi@hospital-a.
    #[arg(long)]
    label: String,
    /// The appraisal policy that judges it. Without it, the verifier's default.
    #[arg(long)]
    policy: Option<String>,
}

impl From<Assignment> for Assign {
    fn from(to: Assignment) -> Self {
        Self { node: to.node, scheduler: to.scheduler, label: to.label, policy: to.policy }
    }
}

/// `hostmark host tag …`
#[derive(Debug, clap::Args)]
pub(super) struct TagOptions {
    /// Node name or host id.
    host: String,
    /// Where it stands, from the widest on, such as jp-east/rack-7.
    #[arg(long)]
    location: String,
    /// Its clearance. Without it, the one that it has.
    #[arg(long)]
    label: Option<String>,
    /// The EK's public area (TPM2B_PUBLIC or TPMT_PUBLIC; hostd's state, or tpm2_createek -u).
    #[arg(long, value_name = "FILE")]
    ek: PathBuf,
    /// The operator's signing key (hostmark key create).
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Grows with each tag of this host. Without it, one more than the last.
    #[arg(long)]
    serial: Option<u64>,
    /// How long it is valid.
    #[arg(long = "for", value_name = "DURATION", default_value = "365d")]
    span: Span,
}

/// What a command did, for `--output json`.
#[derive(Debug, Serialize)]
struct Done<'a> {
    host: &'a str,
    done: &'a str,
    /// What keeps it from having its effect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Finding>,
}

/// For whoever gave a host an appraisal policy that judges nobody yet.
pub(super) fn cannot_be_judged(style: Style, waits: &[Finding]) -> String {
    if waits.is_empty() {
        return String::new();
    }
    format!("the host cannot be judged yet, and enters no pool\n{}", style.warnings(waits))
}

impl HostCommand {
    pub(super) fn run(self, connection: &Connection, style: Style) -> Outcome {
        let client = Client::new(connection)?;
        match self {
            Self::List { all } => list(&client, all, style),
            Self::Show { host } => show(&client.get(&["v1", "hosts", &host])?, style),
            Self::Explain { host } => {
                let detail: StandingDetail = client.get(&["v1", "hosts", &host, "standing"])?;
                Answer::new(&detail, explain::host(&detail, style))
            }
            Self::Approve { host, to } => {
                let to = Assign::from(to);
                let text = format!("{host} is {} with clearance {}\n", to.node, to.label);
                client.order(&["v1", "hosts", &host, "approve"], &Approve { assignment: to })?;
                // The approval stands, whether its consequence can be told or not.
                let standing = client.get::<StandingDetail>(&["v1", "hosts", &host, "standing"]);
                let refused = standing.map(|one| one.refused).unwrap_or_default();
                let waits: Vec<Finding> = refused.into_iter().filter(|one| one.id.starts_with("policy.")).collect();
                let text = text + &cannot_be_judged(style, &waits);
                Answer::new(&Done { host: &host, done: "approve", warnings: waits }, text)
            }
            Self::Import { file } => import(&client, &file, style),
            Self::Label { host, label } => {
                let text = format!("{host} has clearance {label}");
                order(&client, &host, "label", &Label { label }, text)
            }
            Self::Tag(options) => tag(&client, &options),
            Self::Maintenance { host, span } => {
                let for_ = (!span.0.is_zero()).then_some(span);
                let text = match for_ {
                    Some(_) => format!("{host} is in maintenance"),
                    None => format!("{host} is in service again"),
                };
                order(&client, &host, "maintenance", &Maintenance { for_ }, text)
            }
            Self::RebindTpm { host, enrolment } => {
                let text = format!("{host} has its new TPM");
                order(&client, &host, "rebind", &Rebind { enrolment }, text)
            }
            Self::Retire { host } => {
                let text = format!("{host} is retired");
                order(&client, &host, "retire", &Retire {}, text)
            }
        }
    }
}

fn order(client: &Client, host: &str, verb: &str, body: &impl Serialize, text: String) -> Outcome {
    client.order(&["v1", "hosts", host, verb], body)?;
    Answer::new(&Done { host, done: verb, warnings: Vec::new() }, text + "\n")
}

/// One row of `host list`.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    host: Host,
    /// Where it stands now, for hosts that were approved.
    standing: Option<StandingSummary>,
}

fn list(client: &Client, all: bool, style: Style) -> Outcome {
    let hosts: Vec<Host> = client.get(&["v1", "hosts"])?;
    let mut standings: Vec<StandingSummary> = client.get(&["v1", "standings"])?;
    let rows: Vec<Row> = hosts
        .into_iter()
        .filter(|host| all || host.state != Standing::Retired)
        .map(|host| {
            let at = standings.iter().position(|one| one.fields.host == host.host);
            Row { standing: at.map(|at| standings.swap_remove(at)), host }
        })
        .collect();
    let cells = rows.iter().map(|Row { host, standing }| {
        let assigned = host.assignment.as_ref();
        let pools = standing.as_ref().map_or(&[][..], |one| &one.pools);
        let pools: Vec<&str> = pools.iter().map(|one| one.pool.as_str()).collect();
        let reason = standing.as_ref().and_then(|one| one.reason.as_ref());
        let next = match host.state {
            Standing::Pending => "approve it: hostmark host approve".to_owned(),
            Standing::RebindPending => "look at it: hostmark host rebind-tpm".to_owned(),
            // What is held against a proven host that has its place is no reason for anything: hostmark host explain tells it.
            _ if !pools.is_empty() => String::new(),
            _ => reason.map(|one| format!("{}: {}", one.id, one.message)).unwrap_or_default(),
        };
        vec![
            assigned.map_or("-", |one| one.node.as_str()).into(),
            state(host, standing.as_ref()),
            assigned.map_or("-", |one| one.label.as_str()).into(),
            host.class.as_str().into(),
            if pools.is_empty() { "-".into() } else { pools.join(",").into() },
            host.host.as_str().into(),
            next.into(),
        ]
    });
    let text = if rows.is_empty() {
        "no hosts: give one a join token (hostmark token create) and run hostd provision on it\n".to_owned()
    } else {
        style.table(&["node", "state", "label", "tpm", "pools", "host id", "reason"], cells)
    };
    Answer::new(&rows, text)
}

/// The state as of now: the standing knows the lease.
fn state(host: &Host, standing: Option<&StandingSummary>) -> Cell {
    let text = match standing {
        Some(standing) if host.state != Standing::Retired => name_of(&standing.fields.state),
        _ => name_of(&host.state),
    };
    let mood = match text.as_str() {
        "proven" => Mood::Good,
        "disproven" => Mood::Bad,
        "retired" => Mood::Quiet,
        _ => Mood::Careful,
    };
    Cell::mood(mood, text)
}

fn show(host: &Host, style: Style) -> Outcome {
    let mut rows = vec![("host id", host.host.clone())];
    if let Some(to) = &host.assignment {
        rows.extend([
            ("node", format!("{} in {}", to.node, to.scheduler)),
            ("label", to.label.clone()),
            ("policy", to.policy.clone().unwrap_or_else(|| "the default".to_owned())),
        ]);
    }
    rows.extend([
        ("state", name_of(&host.state)),
        ("TPM", host.class.clone()),
        ("EK id", host.ek_id.clone()),
        ("AK name", host.ak_name.clone()),
        ("since", host.since.clone()),
    ]);
    rows.extend(host.approved_by.clone().map(|who| ("approved by", who)));
    rows.extend(host.enrolment.clone().map(|id| ("enrolment", id)));
    rows.extend(host.maintenance_until.clone().map(|until| ("maintenance", format!("until {until}"))));
    if host.tag_serial > 0 {
        rows.push(("tag serial", host.tag_serial.to_string()));
    }
    let text = facts(rows) + &style.findings(&host.findings);
    Answer::new(host, text)
}

/// Reads `ek_id,node,scheduler,label[,policy]` lines; `#` begins a comment, a first line of names is skipped.
fn rows(file: &Path, text: &str) -> Result<Vec<PreregisteredHost>, Failure> {
    let mut rows = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let parts: Vec<&str> = line.split(',').map(str::trim).collect();
        let row = match parts.as_slice() {
            [""] => continue,
            ["ek_id" | "ek", ..] if rows.is_empty() => continue,
            [ek, node, scheduler, label] => (ek, node, scheduler, label, None),
            [ek, node, scheduler, label, policy] => (ek, node, scheduler, label, Some(*policy)),
            _ => {
                return Err(Failure::unusable(format!(
                    "{}: line {}: a row is ek_id,node,scheduler,label or ek_id,node,scheduler,label,policy",
                    file.display(),
                    number.saturating_add(1)
                )));
            }
        };
        let (ek, node, scheduler, label, policy) = row;
        let assignment = Assign {
            node: (*node).to_owned(),
            scheduler: (*scheduler).to_owned(),
            label: (*label).to_owned(),
            policy: policy.filter(|policy| !policy.is_empty()).map(str::to_owned),
        };
        rows.push(PreregisteredHost { ek_id: (*ek).to_owned(), assignment });
    }
    Ok(rows)
}

fn import(client: &Client, file: &Path, style: Style) -> Outcome {
    let text = input::read_text(file, "a list of TPMs", input::POLICY_MAX)?;
    let list: Preregistrations = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(|error| input::json_error(file, text.as_bytes(), &error))?
    } else {
        Preregistrations { hosts: rows(file, &text)? }
    };
    let done: Imported = client.post(&["v1", "preregistrations"], &list)?;
    let text = format!("{} TPMs are pre-registered\n", done.imported);
    Answer::new(&done, text + &style.warnings(&done.warnings))
}

fn tag(client: &Client, options: &TagOptions) -> Outcome {
    let (signer, _) = key::load(&options.key)?;
    let bytes = input::read(&options.ek, "a public area", input::SMALL_MAX)?;
    let public = Public::parse_tpm2b(&bytes)
        .or_else(|_| Public::parse(&bytes))
        .map_err(|error| Failure::malformed(&options.ek.display().to_string(), &error))?;
    let host: Host = client.get(&["v1", "hosts", &options.host])?;
    let label = options.label.clone().or_else(|| host.assignment.as_ref().map(|to| to.label.clone()));
    let label = label.ok_or_else(|| Failure::unusable("the host is not approved yet: approve it before tagging it"))?;
    let label: LabelValue = label.parse().map_err(|error| Failure::unusable(format!("--label: {error}")))?;
    let now = u64::try_from(when::now()?.unix_timestamp()).unwrap_or_default();
    let tag = Tag {
        ek: public.name().clone(),
        serial: options.serial.unwrap_or_else(|| host.tag_serial.saturating_add(1)),
        label,
        location: options.location.clone(),
        not_before: now,
        not_after: now.saturating_add(options.span.0.as_secs()),
    };
    let nv = tag.sign(&signer).map_err(|error| Failure::unusable(format!("the tag cannot be signed: {error}")))?;
    client.order(&["v1", "hosts", &options.host, "tag"], &SetTag { nv: B64(nv) })?;
    let text = format!("{} has tag {}: {} at {}\n", options.host, tag.serial, tag.label, tag.location);
    Answer::new(&tag, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_tpms_is_read_line_by_line() {
        let text = "ek_id,node,scheduler,label,policy\n# rack 7\nab, node-1, swarm-a, internal\ncd,node-2,swarm-a,public,lab # x\n\n";
        let seen = rows(Path::new("f"), text).unwrap();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[1].assignment.policy.as_deref(), Some("lab"));
        assert!(rows(Path::new("f"), "ab,node-1\n").unwrap_err().message().contains("line 1"));
    }
}
