//! The command line: one module per subcommand, each a translation into a call of the library.
//!
//! SURFACE: exit codes are the same everywhere, tables by default, `--output json`, progress on a terminal only.

mod apply;
mod deprovision;
mod doctor;
mod explain;
mod measure;
mod plan;
mod provision;
mod run;
mod status;
mod waivers;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use zeroize::Zeroizing;

use hostmark_hostd::config::{Config, ConfigError};
use hostmark_hostd::state;
use hostmark_hostd::tpm::Auth;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Good = 0,
    Refused = 1,
    Usage = 2,
    Unreachable = 3,
    Partial = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Good => 0u8,
            Exit::Refused => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
            Exit::Partial => 4,
        })
    }
}

/// A command that did not end well: one line for people, one code for scripts.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl std::fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Usage, error)
    }
}

/// The form of what is printed on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Options that every subcommand has.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// The configuration file (default: /etc/hostmark/hostd.toml, if it exists).
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The TPM: device:/dev/tpmrm0 or swtpm:host=…,port=….
    #[arg(long, global = true, value_name = "TCTI")]
    pub(crate) tpm: Option<String>,
    /// TOML file with the TPM's `owner` and `endorsement` authorizations.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) tpm_auth_file: Option<PathBuf>,
    /// Where keys, certificate and progress are kept.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// The form of the output.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub(crate) output: Output,
    /// Print results only.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Say more (repeatable).
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

impl Common {
    /// The configuration with the command line's values in it.
    pub(crate) fn configuration(&self) -> Result<Config, Failure> {
        let mut config = Config::load(self.config.as_deref())?;
        if let Some(tpm) = &self.tpm {
            config.tpm.clone_from(tpm);
        }
        if let Some(file) = &self.tpm_auth_file {
            config.tpm_auth_file = Some(file.clone());
        }
        if let Some(dir) = &self.state_dir {
            config.state_dir.clone_from(dir);
        }
        config.tcti()?;
        Ok(config)
    }
}

/// The TPM authorizations of the configured file; empty ones without a file.
pub(crate) fn tpm_auth(config: &Config) -> Result<Auth, Failure> {
    #[derive(Default, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct File {
        owner: String,
        endorsement: String,
    }
    let Some(path) = &config.tpm_auth_file else { return Ok(Auth::default()) };
    let text = read_secret(path)?;
    let file: File = hostmark_attest::policy::parse_toml(&path.display().to_string(), &text)
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    let bytes = |text: String| Zeroizing::new(text.into_bytes());
    Ok(Auth { owner: bytes(file.owner), endorsement: bytes(file.endorsement) })
}

/// Reads a small file that nobody but its owner may read.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, Failure> {
    use std::os::unix::fs::MetadataExt as _;
    const LIMIT: u64 = 16 * 1024;
    let usage = |problem: String| Failure::new(Exit::Usage, format!("{}: {problem}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|error| usage(error.to_string()))?;
    if metadata.is_file() && metadata.mode() & 0o077 != 0 {
        return Err(usage("others can read this secret; chmod 600 it".to_owned()));
    }
    let bytes = hostmark_hostd::state::read(path, LIMIT)
        .and_then(|bytes| bytes.ok_or_else(|| std::io::ErrorKind::NotFound.into()))
        .map_err(|error| usage(error.to_string()))?;
    let bytes = Zeroizing::new(bytes);
    let text = std::str::from_utf8(&bytes).map_err(|_| usage("it is not UTF-8 text".to_owned()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Holds the state directory for this process.
pub(crate) fn hold_state(config: &Config) -> Result<state::Lock, Failure> {
    state::lock(&config.state_dir).map_err(|error| {
        let problem = match error.kind() {
            std::io::ErrorKind::WouldBlock => "another hostd uses it".to_owned(),
            _ => error.to_string(),
        };
        Failure::new(Exit::Usage, format!("{}: {problem}", config.state_dir.display()))
    })
}

/// Prints to standard output; a reader that went away ends the program quietly.
pub(crate) fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).is_err() {
        std::process::exit(0);
    }
}

#[derive(Debug, Parser)]
#[command(name = "hostd", version, about = "Hostmark's host daemon: proves this host to a verifier")]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enrol this host at a verifier, or continue where an earlier call stopped.
    Provision(provision::Args),
    /// Prove this host to its verifier, until a signal ends it.
    Run(run::Args),
    /// Show what the running daemon knows. Exit code 0: proven, 1: not, 3: not running.
    Status(status::Args),
    /// Look for what stands in the way, and say how to mend it.
    Doctor(doctor::Args),
    /// Show what of the container engines would be stated in a round; asks no TPM.
    Measure(hostmark_hostd::measure::MeasureArgs),
    /// Show what a profile would change on this host or in a directory; changes nothing.
    ///
    /// Exit code 0: every control holds or does not apply, 1: one fails, 4: none fails and one could not be judged.
    Plan(plan::Args),
    /// Make this host hold a profile; what nobody confirms in time is undone.
    ///
    /// Exit code 0: applied and waiting, or nothing to change, 1: refused or rolled back, 4: not everything is as before.
    Apply(apply::Args),
    /// Keep what was applied and waits.
    Confirm,
    /// Put back what an apply changed: bytes, rights, owners.
    ///
    /// Exit code 0: all is as before, 4: files that somebody changed since were left.
    Rollback(apply::RollbackArgs),
    /// Wait for a confirmation, and undo what nobody confirms in time.
    #[command(hide = true)]
    DeadMan(apply::GuardArgs),
    /// Say what a control wants, why, and what holds here.
    Explain(explain::Args),
    /// Remove this host's keys, certificate and asset tag.
    Deprovision(deprovision::Args),
}

/// Parses the command line, runs, prints a failure.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Good };
            // Nothing to do when even this cannot be printed.
            let _ = error.print();
            return exit.into();
        }
    };
    log(&cli.common);
    let outcome = match &cli.command {
        Command::Provision(args) => provision::run(&cli.common, args).map(ExitCode::from),
        Command::Run(args) => run::run(&cli.common, args).map(ExitCode::from),
        Command::Status(args) => status::run(&cli.common, args).map(ExitCode::from),
        Command::Measure(args) => measure::run(&cli.common, args),
        Command::Doctor(args) => doctor::run(&cli.common, args).map(ExitCode::from),
        Command::Plan(args) => plan::run(&cli.common, args).map(ExitCode::from),
        Command::Apply(args) => apply::run(&cli.common, args).map(ExitCode::from),
        Command::Confirm => apply::confirm(&cli.common).map(ExitCode::from),
        Command::Rollback(args) => apply::rollback(&cli.common, args).map(ExitCode::from),
        Command::DeadMan(args) => apply::wait(&cli.common, args).map(ExitCode::from),
        Command::Explain(args) => explain::run(&cli.common, args).map(ExitCode::from),
        Command::Deprovision(args) => deprovision::run(&cli.common, args).map(ExitCode::from),
    };
    match outcome {
        Ok(exit) => exit,
        Err(failure) => {
            eprintln!("hostd: {}", failure.message);
            failure.exit.into()
        }
    }
}

fn log(common: &Common) {
    let level = match (common.quiet, common.verbose) {
        (true, _) => "error",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("HOSTMARK_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(format!("warn,hostd={level},hostmark_hostd={level}")));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::env::var_os("NO_COLOR").is_none() && std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}

/// A runtime for a command that speaks to the verifier once.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Usage, format!("no async runtime: {error}")))?;
    Ok(runtime.block_on(future))
}
