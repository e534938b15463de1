//! The cases.

mod begin;
mod errors;
mod life;
mod pieces;
mod policy;
mod ways;

use super::case::Case;

/// All of them, each for both families.
#[must_use]
pub fn cases() -> Vec<Case> {
    [ways::cases(), begin::cases(), life::cases(), pieces::cases(), errors::cases(), policy::cases()]
        .into_iter()
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use weir_agent::source::Family;

    use super::super::case::{Becomes, Ends, Step, Who};
    use super::super::judge::{Alone, judge};
    use super::*;

    #[test]
    fn every_case_holds_in_pure_rust() {
        for case in cases() {
            for family in [Family::V4, Family::V6] {
                judge(&case, family, &mut Alone)
                    .unwrap_or_else(|how| panic!("{} ({family:?}): {how:#}", case.name));
            }
        }
    }

    /// What is never the same as the expectation.
    fn other(becomes: Becomes) -> Becomes {
        let stranger = |ends| match ends {
            Ends::Shown(_) | Ends::ShownAs(..) => Ends::Shown(Who::Pod(99)),
            Ends::Hidden(to) => Ends::Shown(to),
            Ends::Of(src, _) => Ends::Of(src, Who::Pod(99)),
            Ends::Quoting(ends, [_, to]) => Ends::Quoting(ends, [Who::Pod(99), to]),
        };
        match becomes {
            Becomes::Stack(ends) => Becomes::Stack(stranger(ends)),
            Becomes::Routed(ends) => Becomes::Routed(stranger(ends)),
            Becomes::Delivered(ends, pod) => Becomes::Delivered(stranger(ends), pod),
            Becomes::Untouched => Becomes::Silenced,
            Becomes::Refused => Becomes::Echoed,
            Becomes::Expired | Becomes::Echoed => Becomes::Dropped(weir_ebpf::abi::DropReason::NoEndpoint),
            Becomes::Cut(src, _) => Becomes::Cut(src, Who::Pod(99)),
            Becomes::TooLong | Becomes::Dropped(_) | Becomes::Silenced => Becomes::Untouched,
        }
    }

    #[test]
    fn every_altered_expectation_fails() {
        let packets = |case: &Case| {
            (0..case.steps.len()).filter(|at| matches!(case.steps[*at], Step::Packet(_))).count()
        };
        let mut altered = 0;
        for at in 0.. {
            let mut cases: Vec<Case> = cases().into_iter().filter(|case| packets(case) > at).collect();
            if cases.is_empty() {
                break;
            }
            for case in &mut cases {
                let sent = case.steps.iter_mut().filter_map(|step| match step {
                    Step::Packet(sent) => Some(sent),
                    Step::Change(_) => None,
                });
                let sent = sent.into_iter().nth(at).expect("counted above");
                sent.becomes = other(sent.becomes);
                for family in [Family::V4, Family::V6] {
                    let name = case.name;
                    assert!(
                        judge(case, family, &mut Alone).is_err(),
                        "{name} ({family:?}), packet {at}: unnoticed"
                    );
                    altered += 1;
                }
            }
        }
        assert!(altered > 100, "{altered} are fewer than there are");
    }
}
