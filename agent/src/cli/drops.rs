//! `weir drops`

use std::io::{ErrorKind, Write as _, stdout};
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::RunArgs;
use crate::observe::{DropRecord, Followed, read_drops};

#[derive(Args, Debug)]
pub(super) struct DropsArgs {
    /// Show only those in whose line this text stands: a pod, an address, a policy, a reason.
    #[arg(value_name = "TEXT")]
    text: Option<String>,
    /// Go on with those that come.
    #[arg(long, short)]
    follow: bool,
    /// Print JSON, a line for each.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: RunArgs,
}

pub(super) fn run(args: &DropsArgs) -> anyhow::Result<ExitCode> {
    let mut shown = 0_usize;
    let show = |followed| {
        let line = match followed {
            Followed::Missed { missed } => {
                eprintln!("weir: {missed} more came too fast to be shown");
                return Ok(());
            }
            Followed::Record(record) => line(&record, args)?,
        };
        let Some(line) = line else { return Ok(()) };
        shown += 1;
        match writeln!(stdout(), "{line}") {
            // Whoever read this has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
            written => Ok(written?),
        }
    };
    if !read_drops(&args.run.run_dir, args.follow, show)? {
        bail!(
            "no agent runs with --run-dir {}: drops are counted (`weir status`) and the last of them wait for the next agent",
            args.run.run_dir.display()
        );
    }
    if shown == 0 && !args.json {
        eprintln!("none");
    }
    Ok(ExitCode::SUCCESS)
}

/// What is printed of it, if anything.
fn line(record: &DropRecord, args: &DropsArgs) -> anyhow::Result<Option<String>> {
    let line = record.to_string();
    if args.text.as_ref().is_some_and(|text| !line.contains(text.as_str())) {
        return Ok(None);
    }
    Ok(Some(if args.json { serde_json::to_string(record)? } else { line }))
}
