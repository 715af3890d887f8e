//! `hostd provision`.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use hostmark_hostd::client::ClientError;
use hostmark_hostd::config::{Config, ConfigError, parse_pin};
use hostmark_hostd::provision::input::Input;
use hostmark_hostd::provision::{Progress, ProvisionError, Provisioned, Request, provision};
use hostmark_hostd::tpm::{Tpm, TpmError};

use super::{Common, Exit, Failure, Output, block_on, hold_state, print, read_secret, tpm_auth};

/// Options of `hostd provision`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The verifier's address, https://HOST:PORT.
    #[arg(long, value_name = "URL")]
    verifier: Option<String>,
    /// SHA-256 of the verifier's CA certificate (`verifier init` prints it).
    #[arg(long, value_name = "SHA256")]
    ca_pin: Option<String>,
    /// TOML file with `verifier`, `ca_pin` and `token`, readable by its owner only, instead of the three options.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["verifier", "ca_pin", "token_file"])]
    input: Option<PathBuf>,
    /// File with a join token, readable by its owner only. Tokens have no place on a command line.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Wait so long for an approver: 30s, 10m, 2h.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    wait: Duration,
}

pub(crate) fn run(common: &Common, args: &Args) -> Result<Exit, Failure> {
    let config = common.configuration()?;
    let kept = Provisioned::load(&config.state_dir).map_err(failure)?;
    let Input { verifier, ca_pin, token } = asked(args, &config, kept.as_ref())?;
    let request = Request { verifier: &verifier, ca_pin, token, ek: config.ek, state_dir: &config.state_dir };
    let held = hold_state(&config);
    // The daemon that holds the state shows that the host is provisioned: nothing is left to do.
    if let (Err(_), Some(host)) = (&held, &kept) {
        host.check(&request).map_err(failure)?;
        tell(common, host, true);
        return Ok(Exit::Good);
    }
    let _held = held?;
    let tpm = Tpm::open(&config.tcti()?, tpm_auth(&config)?).map_err(|error| failure(error.into()))?;
    block_on(until_decided(common, &tpm, &request, args.wait, kept.is_some()))?
}

/// What is asked for: by the input, or by the options before hostd.toml before what is kept.
fn asked(args: &Args, config: &Config, kept: Option<&Provisioned>) -> Result<Input, Failure> {
    if let Some(file) = &args.input {
        let input = Input::parse(&file.display().to_string(), &read_secret(file)?)?;
        input.check_against(config)?;
        return Ok(input);
    }
    let missing =
        |key, what: &str| ConfigError::Value { key, problem: format!("{what} is needed, here or in hostd.toml") };
    let verifier = args.verifier.as_ref().or(config.verifier.as_ref()).or(kept.map(|host| &host.verifier));
    let ca_pin = match (args.ca_pin.as_ref().or(config.ca_pin.as_ref()), kept) {
        (Some(pin), _) => parse_pin("--ca-pin", pin)?,
        (None, Some(host)) => host.ca_pin(),
        (None, None) => return Err(missing("--ca-pin", "the CA's pin").into()),
    };
    let token = match &args.token_file {
        Some(file) => Some(Zeroizing::new(read_secret(file)?.trim().to_owned())),
        None => None,
    };
    let verifier = verifier.ok_or_else(|| missing("--verifier", "the verifier's address"))?.clone();
    Ok(Input { verifier, ca_pin, token })
}

async fn until_decided(
    common: &Common,
    tpm: &Tpm,
    request: &Request<'_>,
    wait: Duration,
    again: bool,
) -> Result<Exit, Failure> {
    let start = Instant::now();
    let show_progress = std::io::stderr().is_terminal() && !common.quiet;
    loop {
        let (enrolment, ek_id, retry) = match provision(tpm, request).await {
            Ok(Progress::Provisioned(host)) => {
                tell(common, &host, again);
                return Ok(Exit::Good);
            }
            Ok(Progress::Pending { enrolment, ek_id, retry }) => (enrolment, ek_id, retry),
            Err(error) => return Err(failure(error)),
        };
        let left = wait.saturating_sub(start.elapsed());
        if left.is_zero() {
            if common.output == Output::Json {
                print(&serde_json::json!({ "state": "pending", "enrolment": enrolment, "ek_id": ek_id }).to_string());
            }
            let message = format!(
                "this host waits for an approver: `hostmark host list` shows it with the EK id {ek_id}, `hostmark host approve` admits it; \
                 then run this command again (or now, with --wait 10m)"
            );
            return Err(Failure::new(Exit::Refused, message));
        }
        if show_progress {
            eprint!("\rwaiting for an approver of enrolment {enrolment} ({} s) ", start.elapsed().as_secs());
            // A progress line that is not shown is no loss.
            let _ = std::io::stderr().flush();
        }
        tokio::time::sleep(retry.min(left)).await;
    }
}

fn tell(common: &Common, host: &Provisioned, again: bool) {
    let identity = &host.identity;
    if common.output == Output::Json {
        let shown = serde_json::json!({
            "state": "provisioned", "verifier": host.verifier, "host": identity.host, "node": identity.node,
            "not_after": identity.not_after,
        });
        print(&shown.to_string());
    } else if !common.quiet {
        print(&format!(
            "{}provisioned at {}\n  host         {}\n  node         {}\n  certificate  until {}",
            if again { "already " } else { "" },
            host.verifier,
            identity.host,
            identity.node,
            identity.not_after
        ));
    }
}

fn failure(error: ProvisionError) -> Failure {
    let exit = match &error {
        ProvisionError::Tpm(TpmError::Unreachable { .. }) | ProvisionError::Client(ClientError::Unreachable { .. }) => {
            Exit::Unreachable
        }
        ProvisionError::Client(ClientError::Address(_))
        | ProvisionError::State { .. }
        | ProvisionError::OtherVerifier { .. } => Exit::Usage,
        ProvisionError::Client(client) if client.is_temporary() => Exit::Unreachable,
        _ => Exit::Refused,
    };
    Failure::new(exit, error)
}

/// Reads `90`, `90s`, `10m`, `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text.get(digits.len()..) {
        Some("" | "s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        _ => return Err("write 30s, 10m or 2h".to_owned()),
    };
    let count: u64 = digits.parse().map_err(|_| "write 30s, 10m or 2h".to_owned())?;
    Ok(Duration::from_secs(count.saturating_mul(factor)))
}
