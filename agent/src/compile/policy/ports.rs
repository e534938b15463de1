//! Sets of ports: merged ranges, and the prefixes that they are looked up by.

use weir_ebpf::abi::{Port, PortRuleKey, PortRulesId};

use crate::source::Protocol;

/// Ports of one protocol, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct PortRange {
    pub(super) protocol: Protocol,
    pub(super) first: u16,
    pub(super) last: u16,
}

/// What a class may use. Two that allow the same are equal.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Ports {
    /// Everything, also what has no ports.
    All,
    /// These: in order, none touching the next.
    Ranges(Box<[PortRange]>),
}

impl AsRef<Self> for Ports {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Ports {
    /// Nothing.
    pub(super) fn none() -> Self {
        Self::Ranges(Box::default())
    }

    /// The union of ranges.
    pub(super) fn merge(mut ranges: Vec<PortRange>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<PortRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last)
                    if last.protocol == range.protocol
                        && u32::from(range.first) <= u32::from(last.last) + 1 =>
                {
                    last.last = last.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        Self::Ranges(merged.into())
    }

    /// The keys under which they are looked up; none for [`Ports::All`], which is a number.
    pub(super) fn keys(&self, id: PortRulesId) -> Vec<PortRuleKey> {
        let Self::Ranges(ranges) = self else { return Vec::new() };
        let keys = ranges.iter().flat_map(|range| {
            prefixes(range.first, range.last)
                .map(move |(port, bits)| PortRuleKey::new(id, range.protocol as u8, Port::new(port), bits))
        });
        keys.collect()
    }
}

/// The fewest prefixes that make up a range: 30 at most. Each is a port and how many of its bits count.
fn prefixes(first: u16, last: u16) -> impl Iterator<Item = (u16, u32)> {
    let mut next = Some(u32::from(first));
    let end = u32::from(last);
    std::iter::from_fn(move || {
        let start = next.filter(|start| *start <= end)?;
        // The largest block that begins here and does not reach beyond the end.
        let aligned = if start == 0 { 16 } else { start.trailing_zeros() };
        let fits = (end - start + 1).ilog2();
        let free = aligned.min(fits);
        next = Some(start + (1 << free));
        Some((u16::try_from(start).ok()?, 16 - free))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn covered(first: u16, last: u16) -> Vec<u32> {
        prefixes(first, last)
            .flat_map(|(port, bits)| u32::from(port)..u32::from(port) + (1 << (16 - bits)))
            .collect()
    }

    #[test]
    fn ranges_as_prefixes() {
        let all: Vec<_> = prefixes(0, u16::MAX).collect();
        assert_eq!(all, [(0, 0)]);
        assert_eq!(prefixes(80, 80).collect::<Vec<_>>(), [(80, 16)]);
        assert_eq!(prefixes(80, 81).collect::<Vec<_>>(), [(80, 15)]);
        assert_eq!(prefixes(81, 84).collect::<Vec<_>>(), [(81, 16), (82, 15), (84, 16)]);
        assert_eq!(prefixes(1, u16::MAX - 1).count(), 30, "the worst there is");
    }

    #[test]
    fn what_touches_is_one() {
        let range = |protocol, first, last| PortRange { protocol, first, last };
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let merged = Ports::merge(vec![
            range(udp, 82, 90),
            range(tcp, 82, 90),
            range(tcp, 80, 81),
            range(tcp, 85, 86),
            range(tcp, 92, 92),
            range(tcp, 65_535, 65_535),
            range(tcp, 60_000, 65_535),
        ]);
        let want = [range(tcp, 80, 90), range(tcp, 92, 92), range(tcp, 60_000, 65_535), range(udp, 82, 90)];
        assert_eq!(merged, Ports::Ranges(want.into()));
        assert_eq!(Ports::merge(Vec::new()), Ports::none());
    }

    proptest! {
        #[test]
        fn prefixes_make_up_the_range_and_nothing_else(first: u16, length: u16) {
            let last = first.saturating_add(length);
            prop_assert_eq!(covered(first, last), (u32::from(first)..=u32::from(last)).collect::<Vec<_>>());
            prop_assert!(prefixes(first, last).count() <= 30);
        }
    }
}
