//! `make demo`: a verifier and three hosts on this machine, from nothing to "admitted until, because".
//!
//! Everything is real but the TPMs, which are software (class `simulated`, shown), and the engines, which are files. With a
//! terminal it stays until Ctrl-C, for you to play with; without one it tells its story once and its exit code says whether
//! everything that it told was true.

mod show;
mod story;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use hostmark_tests::wait::{interrupt, interrupted};
use show::Show;
use story::Story;

/// As shells report an end by SIGINT.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    match play() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupted() => ExitCode::from(INTERRUPTED),
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play() -> anyhow::Result<()> {
    let stay = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    watch_signals()?;
    let show = Show::new();
    // Gone with everything in it when this function ends, after the processes that use it.
    let directory = tempfile::Builder::new().prefix("hostmark-demo-").tempdir()?;
    let story = Story::tell(&show, directory.path())?;
    show.end();
    if stay {
        story.invite(&show)?;
        while !interrupted() {
            std::thread::sleep(Duration::from_millis(50));
        }
        show.line("");
        show.line("cleaning up");
    }
    drop(story);
    directory.close().context("the demo's directory")
}

/// SIGINT, SIGTERM and SIGHUP end every wait, so that processes and files are cleaned up on the way out.
fn watch_signals() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let mut signals = {
        let _inside = runtime.enter();
        kinds.into_iter().map(signal).collect::<Result<Vec<_>, _>>()?
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            if let [one, two, three] = signals.as_mut_slice() {
                tokio::select! {
                    _ = one.recv() => {}
                    _ = two.recv() => {}
                    _ = three.recv() => {}
                }
            }
            interrupt();
        });
    });
    Ok(())
}
