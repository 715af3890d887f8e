//! The way back of a running dockerd: contents that stand in daemon.json for a moment, so that the daemon is as before and containers live.
//!
//! moby reloads at SIGHUP only keys that the file has: one that is gone keeps its value. And a dockerd that starts without live-restore stops
//! every container that it finds. Establishes that the running daemon has what the old file says, without stopping a container that the apply
//! kept alive. The old file itself is put back after.

use std::time::{Duration, Instant};

use hostmark_attest::manifest::Setting;
use hostmark_attest::profile::{Activate, Part};
use serde_json::{Value, json};

use super::activate::{Activation, Outcome, live};
use super::changes::docker_file;
use super::journal::{Journal, Step};
use super::receipt::Receipt;
use super::snapshot::{Access, Facts, Item, Now, Place};
use super::{Applier, ApplyError, edit};

/// Longest until a daemon has taken what it was signalled.
const TAKE_MAX: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Keys that moby reloads, and what they are where nobody states them.
fn reloaded() -> [(&'static str, Value); 4] {
    [
        ("debug", json!(false)),
        ("insecure-registries", json!([])),
        ("live-restore", json!(false)),
        ("registry-mirrors", json!([])),
    ]
}

impl Applier<'_> {
    /// Brings the running dockerd back; None: putting the file back and telling it as before is enough. Else what did not go well.
    pub(super) fn bridge(
        &self,
        journal: &mut Journal,
        place: &mut Place<'_>,
        receipt: &Receipt,
    ) -> Result<Option<Vec<String>>, ApplyError> {
        let tried = |step: Activate| {
            let same = |one: &&Activation| (one.part, one.step) == (Part::Docker, step);
            receipt.activation.iter().filter(same).any(|one| !matches!(one.outcome, Outcome::Left(_)))
        };
        let (restarted, signalled) = (tried(Activate::EngineRestart), tried(Activate::Sighup));
        let file = docker_file(&self.host()).ok().map(|path| place.root.leads_to(&path).unwrap_or(path));
        let found = receipt.items.iter().enumerate().find(|(_, item)| file.as_deref() == Some(item.path()));
        let Some((number, item @ Item::File { path, before, after })) = found else { return Ok(None) };
        let told = || ApplyError::io(path.clone());
        if !(restarted || signalled) || place.look(item).map_err(told())? != Now::Ours {
            return Ok(None);
        }
        let old = String::from_utf8(place.held_before(number).map_err(told())?).unwrap_or_default();
        let new = place.held_after(number).map_err(told())?;
        let parsed = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap_or_default();
        let (was, is) = (parsed(old.as_bytes()), parsed(&new));
        let keeps = |value: &Value| value.get("live-restore") == Some(&json!(true));
        let keep = restarted && keeps(&is) && !keeps(&was);
        // A restart reads everything anew but what the bridge itself brings.
        let lost = reloaded().into_iter().filter(|(key, _)| {
            let gone = is.get(key).is_some() && was.get(key).is_none();
            if restarted { keep && *key == "live-restore" } else { gone }
        });
        let lost: Vec<(&str, Value)> = lost.collect();
        let access = before.as_ref().unwrap_or(after).access;
        let mut trouble = Vec::new();
        if keep {
            self.stand(journal, place, (number, path, access), &old, &[("live-restore", json!(true))])?;
            trouble.extend(self.tell(journal, Activate::EngineRestart)?);
        }
        if lost.is_empty() {
            return Ok(keep.then_some(trouble));
        }
        self.stand(journal, place, (number, path, access), &old, &lost)?;
        trouble.extend(self.tell(journal, Activate::Sighup)?);
        self.taken(&lost);
        Ok(Some(trouble))
    }

    /// Puts the old content with these keys in the file's place.
    fn stand(
        &self,
        journal: &mut Journal,
        place: &mut Place<'_>,
        (number, path, access): (usize, &str, Access),
        old: &str,
        keys: &[(&str, Value)],
    ) -> Result<(), ApplyError> {
        let mut text = old.to_owned();
        for (key, value) in keys {
            // An old file that cannot be edited stays as it was: what is lost then is told by the daemon itself.
            if let Ok(edited) = edit::json::edit(&text, &[(*key).to_owned()], Some(value)) {
                text = edited;
            }
        }
        let sha256 = Facts::of(text.as_bytes(), access).sha256;
        self.step(journal, &Step::Bridging { item: number, sha256 })?;
        place.bridges.push(sha256);
        place
            .replace(number, path, text.as_bytes(), access, &mut |moment| self.say(moment))
            .map_err(ApplyError::io(path))
    }

    /// Tells the daemon; what did not go well.
    fn tell(&self, journal: &mut Journal, step: Activate) -> Result<Option<String>, ApplyError> {
        let directory = journal.directory().to_owned();
        let mut what = Activation { part: Part::Docker, step, outcome: Outcome::Planned };
        self.step(journal, &Step::Activating { what: what.clone() })?;
        what.outcome = self.activator(&directory).activate(Part::Docker, step);
        self.step(journal, &Step::Activated { what: what.clone() })?;
        Ok(match what.outcome {
            Outcome::Failed(why) => Some(why),
            _ => None,
        })
    }

    /// Waits until the daemon says that it has taken what it says anything about.
    fn taken(&self, keys: &[(&str, Value)]) {
        let end = Instant::now().checked_add(TAKE_MAX);
        loop {
            let host = self.host();
            let wrong = keys.iter().filter_map(|(key, value)| Some((live(&host, key)?, value.as_bool()?)));
            let all = wrong.into_iter().all(|(live, value)| live == Setting::Flag(value));
            if all || end.is_none_or(|end| Instant::now() > end) {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}
