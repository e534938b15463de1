//! The table of packet cases by the programs in this kernel, beside pure Rust: `cargo xtask test packets`. Needs root.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use weir_agent::source::Family;
use weir_tests::packets::beside::InKernel;
use weir_tests::packets::judge::judge;
use weir_tests::packets::table::cases;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    match trials() {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(error) => {
            println!("FAILED packets: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// They run at once, one after the other: this thread alone is in the namespace of the kernel's side.
fn trials() -> anyhow::Result<Vec<Trial>> {
    let mut kernel = InKernel::new()?;
    let mut trials = Vec::new();
    for case in cases() {
        for family in [Family::V4, Family::V6] {
            let result = judge(&case, family, &mut kernel);
            let name = format!("{} ({family:?})", case.name);
            trials.push(Trial::test(name, move || result.map_err(|how| format!("{how:#}").into())));
        }
    }
    Ok(trials)
}
