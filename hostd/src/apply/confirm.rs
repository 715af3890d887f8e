//! Keeping an apply: who said so, and that it was in time.
//!
//! Establishes that exactly one confirmation of one pending apply counts, before its deadline on the clock that counts from the boot. Who it was
//! is what the system says of this process; root can be anybody.

use super::journal::{Journal, Step};
use super::receipt::{Receipt, State};
use super::{Applier, ApplyError, at};

/// Who confirms.
#[derive(Debug, Clone)]
pub struct Confirmer(pub String);

impl Confirmer {
    /// Who logged in to the session that this process belongs to, else its user.
    #[must_use]
    pub fn of_this_process() -> Self {
        let login =
            std::fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse::<u32>().ok());
        // The kernel's word for nobody.
        let uid = login.filter(|uid| *uid != u32::MAX).unwrap_or_else(|| nix::unistd::getuid().as_raw());
        let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
        Self(user.map_or_else(|| format!("uid {uid}"), |user| format!("{} (uid {uid})", user.name)))
    }
}

impl Applier<'_> {
    /// Keeps the apply that waits.
    ///
    /// # Errors
    /// [`ApplyError::NothingWaits`], [`ApplyError::TooLate`], after which it is undone.
    pub fn confirm(&self, by: &Confirmer) -> Result<Receipt, ApplyError> {
        let _held = self.lock()?;
        let late = self.recover_held()?;
        if let Some(receipt) = late.into_iter().next_back() {
            return Err(ApplyError::TooLate { became: became(&receipt), receipt: receipt.receipt });
        }
        let Some(receipt) = self.waiting()? else {
            let last = self.receipts()?.pop();
            return Err(ApplyError::NothingWaits {
                last: last.map(|last| format!("{}, {}", last.receipt, became(&last))),
            });
        };
        let directory = self.home().join(&receipt.receipt);
        let told = || ApplyError::io(directory.display().to_string());
        let (mut journal, _) = Journal::open(&directory).map_err(told())?;
        self.step(&mut journal, &Step::Confirmed { by: by.0.clone(), at: at() })?;
        let steps = Journal::read(&directory).map_err(told())?;
        let receipt = Receipt::of(&steps).ok_or_else(|| told()(std::io::ErrorKind::InvalidData.into()))?;
        self.settle(&directory, &receipt)?;
        Ok(receipt)
    }

    /// The apply that waits to be confirmed.
    pub(super) fn waiting(&self) -> Result<Option<Receipt>, ApplyError> {
        Ok(self.receipts()?.into_iter().rev().find(|receipt| matches!(receipt.state, State::Pending { .. })))
    }
}

/// What became of an apply, in words.
fn became(receipt: &Receipt) -> String {
    match &receipt.state {
        State::Unfinished => "is unfinished".to_owned(),
        State::Pending { .. } => "waits".to_owned(),
        State::Confirmed => {
            let by = receipt.confirmed.as_ref().map(|one| format!(" by {} at {}", one.by, one.at));
            format!("was confirmed{}", by.unwrap_or_default())
        }
        State::RolledBack { why, at, .. } => format!("was rolled back at {at}: {why}"),
    }
}
