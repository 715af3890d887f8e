//! `hostmark place`: where may this workload run, now. Hostmark never schedules: it answers, with permits.

use super::answer::Answer;
use super::client::Client;
use super::connect::Connection;
use super::explain;
use super::failure::Exit;
use super::show::Style;
use super::{Outcome, failure::one_line};
use crate::api::views::{PlacementRequest, PlacementResponse, Spread};

/// `hostmark place LABEL --count N`
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    /// The workload's label, such as restricted:phi@hospital-a.
    label: String,
    /// How many hosts.
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// Spread them over zones: the first part of the proven location.
    #[arg(long, value_parser = ["zone", "none"], default_value = "none")]
    spread: String,
    /// Only nodes of this scheduler.
    #[arg(long)]
    scheduler: Option<String>,
}

impl Place {
    pub(super) fn run(self, connection: &Connection, style: Style) -> Outcome {
        let client = Client::new(connection)?;
        let spread = if self.spread == "zone" { Spread::Zone } else { Spread::None };
        let request = PlacementRequest { label: self.label, count: self.count, spread, scheduler: self.scheduler };
        let answer: PlacementResponse = client.post(&["v1", "placements"], &request)?;
        let rows = answer.hosts.iter().map(|one| {
            vec![
                one.node.as_str().into(),
                one.pool.as_str().into(),
                one.location.as_deref().unwrap_or("-").into(),
                one.not_after.as_str().into(),
                one.host.as_str().into(),
            ]
        });
        let mut text = style.table(&["node", "pool", "location", "until", "host id"], rows);
        if answer.hosts.is_empty() {
            text = format!("no host may carry {} now\n", one_line(&answer.label));
        }
        for one in &answer.refused {
            text += &format!("\n{} cannot, in pool {}:\n", one_line(&one.node), one_line(&one.pool));
            for unmet in &one.unmet {
                text += &explain::condition(unmet, style);
            }
        }
        if let Some(reason) = &answer.reason {
            text += &format!("{}\n", one_line(&reason.to_string()));
        }
        let found = u32::try_from(answer.hosts.len()).unwrap_or(u32::MAX);
        let exit = match found {
            0 => Exit::Refused,
            found if found < answer.asked => Exit::Partial,
            _ => Exit::Good,
        };
        Ok(Answer::new(&answer, text)?.exit(exit))
    }
}
