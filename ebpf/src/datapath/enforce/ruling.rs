//! What policies say of a packet, for whoever carries it out or tells of it.

use crate::abi::{Counter, DropReason, Side};

/// How a packet passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Passed {
    /// Nothing is to be said about it.
    Plainly,
    /// With it a flow begins, or goes on under other policies, that one which only watches would deny, on this side of a
    /// pod. Once for each flow and set of policies; it is counted.
    Audited(Side),
}

impl Passed {
    /// What is to be said of a packet that passes twice, out of one pod and into another.
    #[inline(always)]
    pub const fn or(self, other: Self) -> Self {
        match self {
            Self::Plainly => other,
            Self::Audited(_) => self,
        }
    }

    /// What counts it.
    #[inline(always)]
    pub(super) const fn counter(self) -> Option<Counter> {
        match self {
            Self::Plainly => None,
            Self::Audited(Side::Ingress) => Some(Counter::WouldDropIngress),
            Self::Audited(Side::Egress) => Some(Counter::WouldDropEgress),
        }
    }
}

/// Why a packet does not pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Denied {
    /// What counts it.
    pub reason: DropReason,
    /// It is of a TCP connection that was allowed: both ends are to be told that it is over.
    pub cuts: bool,
}

impl From<DropReason> for Denied {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Self { reason, cuts: false }
    }
}

/// The same, and how a packet passes, as one number: what a subprogram can return, and the row of a decision keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
#[must_use]
pub struct Ruling(u32);

impl Ruling {
    /// It passes.
    pub const PASSES: Self = Self(0);
    /// In the low byte the number of the reason, and one more.
    const REASON: u32 = 0xff;
    const AUDITED_INGRESS: u32 = 1 << 8;
    const AUDITED_EGRESS: u32 = 1 << 9;
    const CUTS: u32 = 1 << 10;
    /// For whoever tells of what does not go on: nobody could read it,
    pub const UNREAD: u32 = 1 << 16;
    /// its translation stands in the row,
    pub const TRANSLATED: u32 = 1 << 17;
    /// and it was the pod to which that sends it, past the stack, whose policies were asked.
    pub const DELIVERED: u32 = 1 << 18;

    /// Whether the packet goes on.
    #[inline(always)]
    #[must_use]
    pub const fn passes(self) -> bool {
        self.0 & Self::REASON == 0
    }

    /// The same with these of the constants.
    #[inline(always)]
    pub const fn with(self, circumstances: u32) -> Self {
        Self(self.0 | circumstances)
    }

    /// Whether it has one of them.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, circumstance: u32) -> bool {
        self.0 & circumstance != 0
    }

    /// Why it does not, as an index of [`DropReason::ALL`].
    #[inline(always)]
    #[must_use]
    pub const fn reason_index(self) -> Option<u32> {
        (self.0 & Self::REASON).checked_sub(1)
    }

    /// Why it does not.
    #[must_use]
    pub fn reason(self) -> Option<DropReason> {
        let index = usize::try_from(self.reason_index()?).ok()?;
        DropReason::ALL.get(index).copied()
    }

    /// Whether both ends are to be told that their connection is over.
    #[inline(always)]
    #[must_use]
    pub const fn cuts(self) -> bool {
        self.0 & Self::CUTS != 0
    }

    /// Where a policy that only watches would deny it, if with this packet that is to be told.
    #[inline(always)]
    #[must_use]
    pub const fn audited(self) -> Option<Side> {
        if self.0 & Self::AUDITED_INGRESS != 0 {
            Some(Side::Ingress)
        } else if self.0 & Self::AUDITED_EGRESS != 0 {
            Some(Side::Egress)
        } else {
            None
        }
    }
}

impl From<DropReason> for Ruling {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Self(reason as u32 + 1)
    }
}

impl From<Result<Passed, Denied>> for Ruling {
    #[inline(always)]
    fn from(judged: Result<Passed, Denied>) -> Self {
        match judged {
            Ok(Passed::Plainly) => Self::PASSES,
            Ok(Passed::Audited(Side::Ingress)) => Self(Self::AUDITED_INGRESS),
            Ok(Passed::Audited(Side::Egress)) => Self(Self::AUDITED_EGRESS),
            Err(Denied { reason, cuts }) => Self((reason as u32 + 1) | if cuts { Self::CUTS } else { 0 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ruling_says_what_it_was_made_of() {
        assert!(Ruling::PASSES.passes() && Ruling::from(Ok(Passed::Plainly)) == Ruling::PASSES);
        for &reason in DropReason::ALL {
            for cuts in [false, true] {
                let ruling = Ruling::from(Err(Denied { reason, cuts }));
                assert!(!ruling.passes() && ruling.audited().is_none());
                assert_eq!((ruling.reason(), ruling.cuts()), (Some(reason), cuts));
            }
        }
        for side in [Side::Ingress, Side::Egress] {
            let ruling = Ruling::from(Ok(Passed::Audited(side)));
            assert!(ruling.passes() && ruling.reason().is_none());
            assert_eq!(ruling.audited(), Some(side));
        }
    }
}
