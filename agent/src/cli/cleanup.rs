//! `weir cleanup`

use std::process::ExitCode;

use clap::Args;

use super::{PinArgs, RunArgs};
use crate::kernel;
use crate::observe;

#[derive(Args, Debug)]
pub(super) struct CleanupArgs {
    #[command(flatten)]
    pins: PinArgs,
    #[command(flatten)]
    run: RunArgs,
}

pub(super) fn run(args: &CleanupArgs) -> anyhow::Result<ExitCode> {
    if let Ok(Some(report)) = observe::ask(&args.run.run_dir) {
        eprintln!(
            "weir: an agent is running (process {}); it would go on without tables: stop it first",
            report.pid
        );
        return Ok(ExitCode::FAILURE);
    }
    let removed = kernel::cleanup(&args.pins.root())?;
    for path in &removed {
        println!("removed {}", path.display());
    }
    if removed.is_empty() {
        println!("nothing to remove under {}", args.pins.pin_root.display());
    }
    Ok(ExitCode::SUCCESS)
}
