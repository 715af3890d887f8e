//! An enrolled host's keys, as a proof: read from the store and held against the seal that enrolment put on them.
//!
//! A19. The seal is a MAC whose key is not in the database: whoever writes the database can neither give a host another EK or AK, nor another
//! node, label or policy. It does **not** show that a whole row was put back to an older state of the same host.

use hostmark_attest::check::violated;
use hostmark_attest::finding::Finding;
use hostmark_attest::identity::ak::{AkPublic, verify_ak};
use hostmark_attest::tpm::public::Public;

use crate::keys::Keys;
use crate::refusal::{Outcome, Refusal};
use crate::store::HostRow;

/// A host whose row is as enrolment and its approvers wrote it. Only [`Enrolled::verify`] makes one.
#[derive(Debug, Clone)]
pub struct Enrolled {
    row: HostRow,
    ek: Public,
    ak: AkPublic,
}

impl Enrolled {
    /// Holds a row against its seal and reads its keys.
    ///
    /// # Errors
    /// 409 `host.retired`; 422 `host.sealed` for a row that was changed from outside.
    pub fn verify(row: HostRow, keys: &Keys) -> Outcome<Self> {
        if violated("host.retired", row.retired) {
            return Err(Refusal::conflict("host.retired", "this host was retired; enrol it again"));
        }
        if violated("host.sealed", !keys.sealed(&row.seal_message(), &row.seal)) {
            let finding =
                Finding::error("host.sealed", "the stored identity of this host was changed outside the verifier");
            return Err(Refusal::findings(
                finding.fix("retire the host and enrol it again; look for who wrote the database").into(),
            ));
        }
        let ek = Public::parse(&row.ek_public).map_err(Refusal::internal)?;
        let ak = Public::parse(&row.ak_public).map_err(Refusal::internal)?;
        let ak = verify_ak(&ak).map_err(Refusal::findings)?;
        Ok(Self { row, ek, ak })
    }

    /// The row.
    #[must_use]
    pub const fn row(&self) -> &HostRow {
        &self.row
    }

    /// The EK.
    #[must_use]
    pub const fn ek(&self) -> &Public {
        &self.ek
    }

    /// The AK.
    #[must_use]
    pub const fn ak(&self) -> &AkPublic {
        &self.ak
    }
}
