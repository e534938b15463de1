//! The table of packet cases by the programs in this kernel, beside pure Rust: `cargo xtask test packets`. Needs root.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use weir_agent::source::Family;
use weir_ebpf::testing::Outcome;
use weir_tests::packets::beside::InKernel;
use weir_tests::packets::judge::{Beside, Passed, judge};
use weir_tests::packets::node::Node;
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
    let mut altered = Altered { kernel, packets: 0 };
    let proof = cases().iter().try_for_each(|case| {
        [Family::V4, Family::V6].iter().try_for_each(|family| judge(case, *family, &mut altered))
    });
    let name = format!("each of {} altered packets is told from the kernel's", altered.packets);
    trials.push(Trial::test(name, move || proof.map_err(|how| format!("{how:#}").into())));
    Ok(trials)
}

/// Says of every packet that something else became of it, which the kernel's side has to notice.
struct Altered {
    kernel: InKernel,
    packets: usize,
}

impl Beside for Altered {
    fn begin(&mut self, node: &Node) -> anyhow::Result<()> {
        self.kernel.begin(node)
    }

    fn change(&mut self, node: &Node) -> anyhow::Result<()> {
        self.kernel.change(node)
    }

    fn compare(&mut self, node: &Node, passed: &Passed<'_>) -> anyhow::Result<()> {
        self.packets += 1;
        let mut after = passed.after.to_vec();
        // The last byte: no hook writes there, so that nothing but looking at it tells.
        if let Some(last) = after.last_mut() {
            *last ^= 1;
        }
        let outcome = match passed.outcome {
            Outcome::Dropped(_) => Outcome::Untouched,
            // What the kernel makes of it is compared with no bytes of ours.
            Outcome::Routed if passed.is_too_long() => Outcome::Untouched,
            outcome => outcome,
        };
        let altered = Passed { after: &after, outcome, ..*passed };
        anyhow::ensure!(self.kernel.compare(node, &altered).is_err(), "it went unnoticed");
        Ok(())
    }
}
