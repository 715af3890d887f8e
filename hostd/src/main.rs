//! The host daemon's program: see `hostd --help`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
