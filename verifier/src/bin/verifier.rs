//! `verifier`: sets a verifier up, serves it, and looks after it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use hostmark_verifier::config::Config;
use hostmark_verifier::files::write_atomic;
use hostmark_verifier::server::Server;
use hostmark_verifier::setup;

/// The Hostmark verifier.
#[derive(Debug, Parser)]
#[command(name = "verifier", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make keys, the CA, an empty store and the first admin.
    Init {
        /// State directory; made with mode 0700. Without it, the configuration's.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Configuration file.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Name of the first admin.
        #[arg(long, default_value = "admin")]
        admin: String,
        /// Print JSON.
        #[arg(long, value_parser = ["json", "text"], default_value = "text")]
        output: String,
    },
    /// Serve until SIGINT or SIGTERM.
    Serve {
        /// Configuration file.
        #[arg(long, default_value = "/etc/hostmark/verifier.toml")]
        config: PathBuf,
    },
    /// Check configuration, keys, store and audit chain, changing nothing.
    Doctor {
        /// Configuration file.
        #[arg(long, default_value = "/etc/hostmark/verifier.toml")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("HOSTMARK_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let outcome = match arguments.command {
        Command::Init { dir, config, admin, output } => init(dir, config.as_deref(), &admin, &output),
        Command::Serve { config } => serve(&config),
        Command::Doctor { config } => doctor(&config),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("verifier: {}", told(&error));
        ExitCode::from(2)
    })
}

/// The error with its causes, each told once: many of our errors tell theirs themselves.
fn told(error: &anyhow::Error) -> String {
    error
        .chain()
        .skip(1)
        .map(ToString::to_string)
        .fold(error.to_string(), |told, cause| if told.contains(&cause) { told } else { format!("{told}: {cause}") })
}

fn init(dir: Option<PathBuf>, config: Option<&Path>, admin: &str, output: &str) -> anyhow::Result<ExitCode> {
    let config = config.map_or_else(|| Ok(Config::default()), Config::load)?;
    let dir = dir.unwrap_or_else(|| config.state_dir.clone());
    let made = setup::init(&dir, admin, &config)?;
    if output == "json" {
        let text = serde_json::json!({
            "state_dir": dir, "ca_pin": made.ca_pin, "ca_certificate": made.ca_certificate,
            "admin_certificate": made.admin_certificate, "admin_key": made.admin_key,
            "client_file": made.client_file,
        });
        println!("{text}");
    } else {
        println!("state      {}", dir.display());
        println!("CA         {}", made.ca_certificate.display());
        println!("CA pin     {}   (give it to hosts: hostd provision --ca-pin)", made.ca_pin);
        println!("admin      {} and {}", made.admin_certificate.display(), made.admin_key.display());
        let client = made.client_file.display();
        match made.unknown_port {
            None => println!("client     hostmark --config {client} host list"),
            Some(url) => {
                println!("client     hostmark --config {client} --verifier {url} host list");
                println!("           listen has port 0: PORT is what `verifier serve` prints, another at each start");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn serve(path: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    let address_file = config.address_file.clone();
    let metrics = config.metrics_listen;
    let state = setup::load(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no async runtime")?;
    runtime.block_on(async {
        let server = Server::bind(state.clone()).await?;
        let address = server.address()?;
        if let Some(listen) = metrics {
            let bound = hostmark_verifier::server::serve_metrics(state.clone(), listen).await?;
            tracing::info!(address = %bound, "metrics, plain, on loopback");
        }
        if let Some(file) = address_file {
            write_atomic(&file, 0o644, format!("{address}\n").as_bytes())
                .with_context(|| file.display().to_string())?;
        }
        println!("listening {address}");
        std::io::stdout().flush()?;
        tracing::info!(%address, ca_pin = %state.ca.pin(), "verifier serves");
        server.run(stop_signal()).await;
        tracing::info!("verifier stopped");
        Ok(ExitCode::SUCCESS)
    })
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

fn doctor(path: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    println!("good  configuration {}", path.display());
    let trust = config.trust_dir.clone();
    let lacking = hostmark_verifier::trust::lacking(&trust);
    let state = setup::load(config)?;
    println!("good  keys and CA, pin {}", state.ca.pin());
    let mut good = true;
    match state.store.read_only() {
        None => println!("good  store and audit chain"),
        Some(finding) => {
            good = false;
            println!("bad   {finding}");
        }
    }
    if lacking.is_empty() {
        println!("good  trust directory {}", trust.display());
    }
    for one in lacking {
        good = false;
        println!("bad   {one}");
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
