//! `hostd run`.

use tokio::signal::unix::{SignalKind, signal};

use hostmark_hostd::collect::CollectError;
use hostmark_hostd::run::{RunError, run as run_daemon};
use hostmark_hostd::tpm::{Tpm, TpmError};

use super::{Common, Exit, Failure, hold_state, tpm_auth};

/// Options of `hostd run`: none of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Threads for the network and the socket: one may wait for the TPM's signature in a handshake.
const THREADS: usize = 2;

pub(crate) fn run(common: &Common, _args: &Args) -> Result<Exit, Failure> {
    let config = common.configuration()?;
    let _held = hold_state(&config)?;
    let tpm = Tpm::open(&config.tcti()?, tpm_auth(&config)?).map_err(|error| failure(&error.into()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Usage, format!("no async runtime: {error}")))?;
    runtime.block_on(async {
        let signals = signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
        let (mut terminate, mut interrupt) =
            signals.map_err(|error| Failure::new(Exit::Usage, format!("no signals: {error}")))?;
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        run_daemon(&config, tpm, stop).await.map_err(|error| failure(&error))
    })?;
    Ok(Exit::Good)
}

fn failure(error: &RunError) -> Failure {
    let exit = match error {
        RunError::Tpm(TpmError::Unreachable { .. })
        | RunError::Collect(CollectError::Tpm(TpmError::Unreachable { .. })) => Exit::Unreachable,
        RunError::Tpm(TpmError::Response { .. }) => Exit::Refused,
        _ => Exit::Usage,
    };
    Failure::new(exit, error)
}
