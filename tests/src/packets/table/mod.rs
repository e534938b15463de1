//! The cases.

mod begin;
mod errors;
mod life;
mod pieces;
mod ways;

use super::case::Case;

/// All of them, each for both families.
#[must_use]
pub fn cases() -> Vec<Case> {
    [ways::cases(), begin::cases(), life::cases(), pieces::cases(), errors::cases()]
        .into_iter()
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use weir_agent::source::Family;

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
}
