//! `hostd measure`.

use std::process::ExitCode;

use hostmark_hostd::measure::{MeasureArgs, run_measure};

use super::{Common, Failure, Output};

/// Measures what the configuration names, or `--root`.
pub(super) fn run(common: &Common, args: &MeasureArgs) -> Result<ExitCode, Failure> {
    Ok(run_measure(args, &common.configuration()?.engines, common.output == Output::Json))
}
