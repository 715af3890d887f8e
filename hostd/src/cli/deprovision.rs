//! `hostd deprovision`: this host forgets who it was.

use hostmark_hostd::provision::{Provisioned, deprovision};
use hostmark_hostd::tpm::Tpm;

use super::{Common, Exit, Failure, hold_state, print, tpm_auth};

/// Options of `hostd deprovision`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Really forget: the keys of this host can not be made again.
    #[arg(long)]
    yes: bool,
}

pub(crate) fn run(common: &Common, args: &Args) -> Result<Exit, Failure> {
    let config = common.configuration()?;
    let dir = config.state_dir.display();
    if !args.yes {
        let message = format!(
            "this removes the host's keys and certificate in {dir} and the asset tag in the TPM, for good; say --yes to do it"
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    let _held = hold_state(&config)?;
    let host = Provisioned::load(&config.state_dir).ok().flatten();
    deprovision(&config.state_dir).map_err(|error| Failure::new(Exit::Usage, error))?;
    // The tag goes last: without it the host is nobody's either way.
    let tag = Tpm::open(&config.tcti()?, tpm_auth(&config)?).and_then(|tpm| tpm.remove_tag());
    if !common.quiet {
        print(&format!("removed the host's keys and certificate from {dir}"));
        if let Some(host) = host {
            print(&format!(
                "the record at {} stays until an operator retires it: hostmark host retire {}",
                host.verifier, host.identity.host
            ));
        }
    }
    match tag {
        Ok(()) => Ok(Exit::Good),
        Err(error) => Err(Failure::new(Exit::Partial, format!("the asset tag is still in the TPM: {error}"))),
    }
}
