//! Options on waivers, of the commands that judge a profile.

use std::path::{Path, PathBuf};

use hostmark_attest::profile::ProfileReport;
use hostmark_hostd::profile::{SIGNERS, WAIVERS, Waivers};
use hostmark_hostd::provision::Provisioned;
use time::OffsetDateTime;

use super::{Common, Exit, Failure};

/// Where waivers are and whom they are for.
#[derive(Debug, clap::Args)]
pub(crate) struct WaiverOptions {
    /// Where waivers are, each with its signature: NAME.toml, NAME.toml.sig.
    #[arg(long, value_name = "DIR", default_value = WAIVERS)]
    waivers: PathBuf,
    /// Where the public keys are of those who may sign waivers: *.pem.
    #[arg(long, value_name = "DIR", default_value = SIGNERS)]
    signers: PathBuf,
    /// For which host waivers count; default: this one by its node name and id, once it is provisioned.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
}

impl WaiverOptions {
    /// The report with what waivers excuse in it. Waivers that excuse nothing are told on stderr.
    pub(crate) fn on(
        &self,
        common: &Common,
        root: Option<&Path>,
        report: ProfileReport,
    ) -> Result<ProfileReport, Failure> {
        let names = match (&self.host, root) {
            (Some(name), _) => vec![name.clone()],
            // A directory is no host.
            (None, Some(_)) => Vec::new(),
            (None, None) => {
                let known = Provisioned::load(&common.configuration()?.state_dir);
                let known = known.map_err(|error| Failure::new(Exit::Usage, error))?;
                known.map_or_else(Vec::new, |known| vec![known.identity.node, known.identity.host])
            }
        };
        let waivers = Waivers { directory: self.waivers.clone(), signers: self.signers.clone(), names };
        let waived = waivers.on(report, OffsetDateTime::now_utc());
        let (report, findings) = waived.map_err(|error| Failure::new(Exit::Usage, error))?;
        for finding in findings.as_slice() {
            eprintln!("{finding}");
        }
        Ok(report)
    }
}
