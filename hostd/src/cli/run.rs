//! `hostd run`.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use hostmark_hostd::apply::Applier;
use hostmark_hostd::collect::CollectError;
use hostmark_hostd::config::Config;
use hostmark_hostd::provision::Provisioned;
use hostmark_hostd::run::{RunError, run as run_daemon};
use hostmark_hostd::state;
use hostmark_hostd::tpm::{Tpm, TpmError};

use super::{Common, Exit, Failure, hold_state, tpm_auth};

/// Options of `hostd run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Wait until this host is provisioned, instead of ending with what to do.
    #[arg(long)]
    await_provisioning: bool,
}

/// Between two looks at the state directory.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// `hostd provision` ends right after it has written the certificate.
const PROVISION_ENDS: Duration = Duration::from_secs(60);

/// Threads for the network and the socket: one may wait for the TPM's signature in a handshake.
const THREADS: usize = 2;

pub(crate) fn run(common: &Common, args: &Args) -> Result<Exit, Failure> {
    let config = common.configuration()?;
    recover(&config);
    let _held = if args.await_provisioning { await_provisioning(&config)? } else { hold_state(&config)? };
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

/// What an apply left behind that was interrupted, or that nobody confirmed. It stops no proof: what is not put back shows in the next round.
fn recover(config: &Config) {
    match Applier::new(config).recover() {
        Ok(recovered) => {
            for receipt in recovered {
                tracing::warn!(receipt = receipt.receipt, "rolled back an apply that nobody confirmed");
            }
        }
        Err(error) => {
            tracing::error!(%error, "an unfinished apply cannot be rolled back from here; run `hostd rollback`")
        }
    }
}

/// Waits without the state's lock and without the TPM: `hostd provision` needs both.
fn await_provisioning(config: &Config) -> Result<state::Lock, Failure> {
    let provisioned = || Provisioned::load(&config.state_dir).map_err(|error| Failure::new(Exit::Usage, error));
    if provisioned()?.is_some() {
        return hold_state(config);
    }
    tracing::warn!("this host is not provisioned; waiting for `hostd provision`");
    while provisioned()?.is_none() {
        std::thread::sleep(LOOK_EVERY);
    }
    let start = Instant::now();
    loop {
        match hold_state(config) {
            Err(_) if start.elapsed() < PROVISION_ENDS => std::thread::sleep(LOOK_EVERY),
            held => return held,
        }
    }
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
