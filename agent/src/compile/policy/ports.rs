//! Sets of ports: a verdict for each, and the prefixes that they are looked up by.

use weir_ebpf::abi::{Port, PortRule, PortRuleKey, PortRulesId};

use crate::source::Protocol;

/// Ports of one protocol, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct PortRange {
    pub(super) protocol: Protocol,
    pub(super) first: u16,
    pub(super) last: u16,
}

/// What becomes of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Verdict {
    Deny,
    /// It passes, and an audited policy would deny it.
    Audit,
    Allow,
}

impl Verdict {
    /// The same where an audited policy denies.
    pub(super) fn audited(self) -> Self {
        if self == Self::Deny { self } else { Self::Audit }
    }

    fn row(self) -> PortRule {
        match self {
            Self::Deny => PortRule::DENY,
            Self::Audit => PortRule::AUDIT,
            Self::Allow => PortRule::ALLOW,
        }
    }
}

/// A value for each port of each protocol that has ports, and one for all else. Two that say the same are equal.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct ByPort<T> {
    otherwise: T,
    /// In the order of [`PROTOCOLS`].
    protocols: [Runs<T>; PROTOCOLS.len()],
}

/// Ports from which on a value holds, in order: the first is 0, and neighbours differ.
type Runs<T> = Vec<(u16, T)>;

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// What a class may use.
pub(super) type Ports = ByPort<Verdict>;

impl<T: Copy + PartialEq> ByPort<T> {
    /// One value for everything.
    pub(super) fn all(value: T) -> Self {
        Self { otherwise: value, protocols: PROTOCOLS.map(|_| vec![(0, value)]) }
    }

    /// Both values together, port by port.
    pub(super) fn zip<U: Copy, V: Copy + PartialEq>(
        &self,
        other: &ByPort<U>,
        f: impl Fn(T, U) -> V,
    ) -> ByPort<V> {
        let mut protocols = self.protocols.iter().zip(&other.protocols);
        let mut next = || protocols.next().map(|(one, other)| zip_runs(one, other, &f)).unwrap_or_default();
        ByPort { otherwise: f(self.otherwise, other.otherwise), protocols: PROTOCOLS.map(|_| next()) }
    }
}

impl ByPort<bool> {
    /// Whether a port is in one of these ranges; what has none is not.
    pub(super) fn within(mut ranges: Vec<PortRange>) -> Self {
        ranges.sort_unstable();
        let of_protocol = |protocol| {
            let mut runs = vec![(0, false)];
            // The first port that is beyond all so far; `None`: there is none.
            let mut beyond = Some(0);
            for range in ranges.iter().filter(|range| range.protocol == protocol) {
                let Some(end) = beyond else { break };
                if range.first > end || runs.len() == 1 {
                    put_run(&mut runs, range.first, true);
                } else if range.last < end {
                    continue;
                } else {
                    // It goes on where the one before ended.
                    runs.pop();
                }
                beyond = range.last.checked_add(1);
                beyond.into_iter().for_each(|port| put_run(&mut runs, port, false));
            }
            runs
        };
        Self { otherwise: false, protocols: PROTOCOLS.map(of_protocol) }
    }

    /// `yes` where this is true, else `no`.
    pub(super) fn choose<T: Copy + PartialEq>(&self, yes: &ByPort<T>, no: &ByPort<T>) -> ByPort<T> {
        let both = yes.zip(no, |yes, no| (yes, no));
        self.zip(&both, |choice, (yes, no)| if choice { yes } else { no })
    }
}

impl AsRef<Self> for Ports {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Ports {
    /// What holds for everything, if one verdict does.
    pub(super) fn uniform(&self) -> Option<Verdict> {
        let is_same = self.protocols.iter().all(|runs| **runs == [(0, self.otherwise)]);
        is_same.then_some(self.otherwise)
    }

    /// The rows by which they are looked up: what holds otherwise, unless that is denied, and whatever differs from it.
    pub(super) fn rows(&self, id: PortRulesId) -> Vec<(PortRuleKey, PortRule)> {
        let mut rows = Vec::new();
        if self.otherwise != Verdict::Deny {
            rows.push((PortRuleKey::otherwise(id), self.otherwise.row()));
        }
        for (protocol, runs) in PROTOCOLS.iter().zip(&self.protocols) {
            for (n, (first, verdict)) in
                runs.iter().enumerate().filter(|(_, (_, verdict))| *verdict != self.otherwise)
            {
                let last = runs.get(n + 1).map_or(u16::MAX, |(next, _)| next - 1);
                rows.extend(prefixes(*first, last).map(|(port, bits)| {
                    (PortRuleKey::new(id, *protocol as u8, Port::new(port), bits), verdict.row())
                }));
            }
        }
        rows
    }
}

/// From this port on it is this value.
fn put_run<T: PartialEq>(runs: &mut Runs<T>, port: u16, value: T) {
    if runs.last().is_some_and(|(last, _)| *last == port) {
        runs.pop();
    }
    if runs.last().is_none_or(|(_, last)| *last != value) {
        runs.push((port, value));
    }
}

fn zip_runs<T: Copy, U: Copy, V: PartialEq>(
    one: &[(u16, T)],
    other: &[(u16, U)],
    f: &impl Fn(T, U) -> V,
) -> Runs<V> {
    let mut runs = Runs::with_capacity(one.len().max(other.len()));
    let (mut a, mut b) = (0, 0);
    while let (Some((first, one_value)), Some((second, other_value))) = (one.get(a), other.get(b)) {
        put_run(&mut runs, *first.max(second), f(*one_value, *other_value));
        // The next port at which either changes.
        match (one.get(a + 1), other.get(b + 1)) {
            (None, None) => break,
            (Some((next, _)), Some((after, _))) => {
                (a, b) = (a + usize::from(next <= after), b + usize::from(after <= next));
            }
            (Some(_), None) => a += 1,
            (None, Some(_)) => b += 1,
        }
    }
    runs
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

    fn range(protocol: Protocol, first: u16, last: u16) -> PortRange {
        PortRange { protocol, first, last }
    }

    #[test]
    fn what_touches_is_one() {
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let within = ByPort::within(vec![
            range(udp, 82, 90),
            range(tcp, 82, 90),
            range(tcp, 80, 81),
            range(tcp, 85, 86),
            range(tcp, 92, 92),
            range(tcp, 65_535, 65_535),
            range(tcp, 60_000, 65_535),
        ]);
        let of_tcp = vec![(0, false), (80, true), (91, false), (92, true), (93, false), (60_000, true)];
        let of_udp = vec![(0, false), (82, true), (91, false)];
        assert_eq!(within.protocols, [of_tcp, of_udp, vec![(0, false)]]);
        assert_eq!(ByPort::within(Vec::new()), ByPort::all(false));
        let all = ByPort::within(PROTOCOLS.map(|protocol| range(protocol, 0, u16::MAX)).into());
        assert_eq!(all.protocols, ByPort::all(true).protocols);
        assert_ne!(all, ByPort::all(true), "what has no ports");
    }

    #[test]
    fn rows_are_what_differs_from_the_rest() {
        let id = PortRulesId(9);
        let web = ByPort::within(vec![range(Protocol::Tcp, 80, 81)]);
        let (allow, deny) = (ByPort::all(Verdict::Allow), ByPort::all(Verdict::Deny));
        let key = PortRuleKey::new(id, 6, Port::new(80), 15);
        assert_eq!(web.choose(&allow, &deny).rows(id), [(key, PortRule::ALLOW)]);
        let otherwise = (PortRuleKey::otherwise(id), PortRule::ALLOW);
        assert_eq!(web.choose(&deny, &allow).rows(id), [otherwise, (key, PortRule::DENY)]);
        assert_eq!(web.choose(&allow, &allow).uniform(), Some(Verdict::Allow));
        assert_eq!(web.choose(&deny, &allow).uniform(), None);
    }

    proptest! {
        #[test]
        fn prefixes_make_up_the_range_and_nothing_else(first: u16, length: u16) {
            let last = first.saturating_add(length);
            prop_assert_eq!(covered(first, last), (u32::from(first)..=u32::from(last)).collect::<Vec<_>>());
            prop_assert!(prefixes(first, last).count() <= 30);
        }

        #[test]
        fn each_port_has_what_both_say_of_it(
            one in prop::collection::vec((0..40_u16, 0..20_u16, any::<bool>()), 0..6),
            other in prop::collection::vec((0..40_u16, 0..20_u16, any::<bool>()), 0..6),
        ) {
            // Close to the end as well.
            let ranges = |list: &[(u16, u16, bool)]| -> Vec<PortRange> {
                let place = |end: bool, port: u16| if end { (u16::MAX - 30).saturating_add(port) } else { port };
                list.iter().map(|(first, more, end)| range(Protocol::Udp, place(*end, *first), place(*end, first + more))).collect()
            };
            let (one, other) = (ranges(&one), ranges(&other));
            let both = ByPort::within(one.clone()).zip(&ByPort::within(other.clone()), |one, other| (one, other));
            let has = |list: &[PortRange], port: u16| list.iter().any(|range| (range.first..=range.last).contains(&port));
            for port in (0..80).chain(u16::MAX - 40..=u16::MAX) {
                let found = both.protocols[1].iter().rev().find(|(first, _)| *first <= port).map(|(_, value)| *value);
                prop_assert_eq!(found, Some((has(&one, port), has(&other, port))));
            }
            prop_assert!(both.protocols[1].windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1));
        }
    }
}
