//! Putting everything back: after a failure, an interruption, a deadline that passed, or on request.
//!
//! Establishes that a file is restored only from its snapshot and only where it is still what the apply wrote; what somebody else made of it is
//! left and named. Undoing can itself be interrupted: the next call goes on with it.

use std::collections::BTreeSet;
use std::io;

use hostmark_attest::profile::{Activate, Part};

use super::activate::{Activation, Outcome};
use super::journal::{Journal, Step};
use super::receipt::{Receipt, State};
use super::snapshot::{Item, Now, Place};
use super::{Applier, ApplyError, Moment, at, dead_man};
use crate::profile::root::Root;
use crate::state;

impl Applier<'_> {
    /// Undoes what was interrupted, and what nobody confirmed in time. What still waits in time is left alone.
    ///
    /// # Errors
    /// [`ApplyError`]; the next call goes on.
    pub fn recover(&self) -> Result<Vec<Receipt>, ApplyError> {
        if self.names()?.is_empty() {
            return Ok(Vec::new());
        }
        let _held = self.lock()?;
        self.recover_held()
    }

    pub(super) fn recover_held(&self) -> Result<Vec<Receipt>, ApplyError> {
        let mut recovered = Vec::new();
        for name in self.names()? {
            let directory = self.home().join(&name);
            let steps = Journal::read(&directory).map_err(ApplyError::io(name.clone()))?;
            let Some(receipt) = Receipt::of(&steps) else {
                // Nothing began: what is in there changed nothing.
                std::fs::remove_dir_all(&directory).map_err(ApplyError::io(name))?;
                continue;
            };
            if receipt.is_settled() {
                if !directory.join("receipt.json").exists() {
                    self.settle(&directory, &receipt)?;
                }
                continue;
            }
            let Some(why) = self.over(&receipt, &steps)? else { continue };
            let (mut journal, _) = Journal::open(&directory).map_err(ApplyError::io(name))?;
            recovered.push(self.undo(&mut journal, &why, false)?);
        }
        Ok(recovered)
    }

    /// Why an unsettled apply must be undone now; None: it waits in time.
    pub(super) fn over(&self, receipt: &Receipt, steps: &[Step]) -> Result<Option<String>, ApplyError> {
        let State::Pending { deadline, boot } = &receipt.state else {
            let began = steps.iter().rev().find_map(|step| match step {
                Step::RollingBack { why, .. } => Some(why.clone()),
                _ => None,
            });
            return Ok(Some(began.unwrap_or_else(|| "it was interrupted".to_owned())));
        };
        let told = || ApplyError::io("the clock");
        if *boot != self.config.source.boot_id().map_err(told())? {
            return Ok(Some("the host was started again before anybody confirmed it".to_owned()));
        }
        let over = dead_man::now_ms().map_err(told())? >= *deadline;
        Ok(over.then(|| "nobody confirmed it in time".to_owned()))
    }

    /// Undoes an apply, confirmed or not. Files that are no longer what it wrote are left and named, unless they may be overwritten.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub fn rollback(&self, receipt: &str, overwrite: bool) -> Result<Receipt, ApplyError> {
        let _held = self.lock()?;
        let names = self.names()?;
        if !names.iter().any(|name| name == receipt) {
            return Err(ApplyError::Unknown { receipt: receipt.to_owned(), known: names });
        }
        let (mut journal, steps) = Journal::open(&self.home().join(receipt)).map_err(ApplyError::io(receipt))?;
        let told = Receipt::of(&steps);
        if let Some(Receipt { state: State::RolledBack { at, left, .. }, .. }) = &told
            && (left.is_empty() || !overwrite)
        {
            return Err(ApplyError::AlreadyBack { receipt: receipt.to_owned(), at: at.clone() });
        }
        let why = match told.as_ref().map(|told| self.over(told, &steps)).transpose()?.flatten() {
            Some(why) if !told.as_ref().is_some_and(Receipt::is_settled) => why,
            _ => "it was asked for".to_owned(),
        };
        self.undo(&mut journal, &why, overwrite)
    }

    /// Puts everything back and settles the receipt. The lock is held.
    pub(super) fn undo(&self, journal: &mut Journal, why: &str, overwrite: bool) -> Result<Receipt, ApplyError> {
        let directory = journal.directory().to_owned();
        let told = || ApplyError::io(directory.display().to_string());
        let steps = Journal::read(&directory).map_err(told())?;
        let begun = match steps.first() {
            Some(Step::Begun(begun)) if begun.root == self.config.engines.root => begun.clone(),
            Some(Step::Begun(begun)) => {
                return Err(ApplyError::OtherRoot { receipt: begun.receipt.clone(), root: begun.root.clone() });
            }
            _ => return Err(told()(io::ErrorKind::InvalidData.into())),
        };
        let receipt = Receipt::of(&steps).ok_or_else(|| told()(io::ErrorKind::InvalidData.into()))?;
        self.say(&Moment::Stage("roll back"));
        self.step(journal, &Step::RollingBack { why: why.to_owned(), at: at() })?;
        let root = Root::new(&begun.root);
        let own = begun.root == std::path::Path::new("/");
        let kernel = begun.kernel.as_ref().map(Root::new).or_else(|| own.then(|| Root::new("/")));
        let bridges = steps.iter().filter_map(|step| match step {
            Step::Bridging { sha256, .. } => Some(*sha256),
            _ => None,
        });
        let (bridges, id) = (bridges.collect(), begun.receipt.as_str());
        let mut place = Place { root: &root, kernel: kernel.as_ref(), directory: &directory, receipt: id, bridges };
        let bridged = self.bridge(journal, &mut place, &receipt)?;
        let left = self.put_back(journal, &place, &receipt.items, overwrite)?;
        for one in receipt.directories.iter().rev() {
            match std::fs::remove_dir(root.real(one)) {
                Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                    return Err(ApplyError::io(one.clone())(error));
                }
                _ => {}
            }
        }
        let rest = |one: &&Activation| bridged.is_none() || one.part != Part::Docker;
        let again: Vec<Activation> = receipt.activation.iter().filter(rest).cloned().collect();
        let mut trouble = self.activate_again(journal, &again)?;
        trouble.extend(bridged.into_iter().flatten());
        self.step(journal, &Step::RolledBack { why: why.to_owned(), at: at(), left, trouble })?;
        let steps = Journal::read(&directory).map_err(told())?;
        let receipt = Receipt::of(&steps).ok_or_else(|| told()(io::ErrorKind::InvalidData.into()))?;
        self.settle(&directory, &receipt)?;
        Ok(receipt)
    }

    /// Writes the receipt's document.
    pub(super) fn settle(&self, directory: &std::path::Path, receipt: &Receipt) -> Result<(), ApplyError> {
        state::write(&directory.join("receipt.json"), &receipt.to_canonical())
            .map_err(ApplyError::io(directory.display().to_string()))
    }

    fn put_back(
        &self,
        journal: &mut Journal,
        place: &Place<'_>,
        items: &[Item],
        overwrite: bool,
    ) -> Result<Vec<String>, ApplyError> {
        let mut left = Vec::new();
        for (number, item) in items.iter().enumerate().rev() {
            let told = || ApplyError::io(item.path().to_owned());
            place.sweep(number, item).map_err(told())?;
            match place.look(item).map_err(told())? {
                Now::Before => continue,
                Now::Foreign if !overwrite => {
                    left.push(item.path().to_owned());
                    continue;
                }
                Now::Ours | Now::Foreign => {}
            }
            place.restore(number, item, &mut |moment| self.say(moment)).map_err(told())?;
            self.step(journal, &Step::Restored { item: number })?;
        }
        Ok(left)
    }

    /// Daemons that were told of the new configuration are told of the old one.
    fn activate_again(&self, journal: &mut Journal, activation: &[Activation]) -> Result<Vec<String>, ApplyError> {
        let directory = journal.directory().to_owned();
        let activator = self.activator(&directory);
        let tried = |one: &&Activation| !matches!(one.outcome, Outcome::Left(_));
        let restarted: BTreeSet<Part> = activation
            .iter()
            .filter(tried)
            .filter(|one| one.step == Activate::EngineRestart)
            .map(|one| one.part)
            .collect();
        let mut trouble = Vec::new();
        let mut done = BTreeSet::new();
        for one in activation.iter().filter(tried) {
            // A restart reads everything anew.
            let covered = one.step == Activate::Sighup && restarted.contains(&one.part);
            if covered || !done.insert((one.part, one.step)) {
                continue;
            }
            let mut what = Activation { part: one.part, step: one.step, outcome: Outcome::Planned };
            self.step(journal, &Step::Activating { what: what.clone() })?;
            what.outcome = activator.activate(one.part, one.step);
            self.step(journal, &Step::Activated { what: what.clone() })?;
            if let Outcome::Failed(why) = &what.outcome {
                trouble.push(why.clone());
            }
        }
        Ok(trouble)
    }
}
