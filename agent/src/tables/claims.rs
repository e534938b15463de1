//! Who has a frontend when several Services claim it: the oldest; among those of one age, or of unknown age, the
//! one that already has it. So a newcomer never disturbs what works.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use weir_ebpf::abi::FrontendKey;

use crate::compile::PortName;

#[derive(Clone, Debug)]
struct Claim {
    port: PortName,
    created_s: Option<i64>,
}

impl Claim {
    /// Known to be younger; of claims of unknown age neither is.
    fn is_younger_than(&self, other: &Self) -> bool {
        self.created_s.zip(other.created_s).is_some_and(|(this, other)| this > other)
    }
}

/// All claims. The first of each key's list has it.
#[derive(Debug, Default)]
pub(super) struct Claims {
    owners: HashMap<FrontendKey, Claim>,
    /// Who would follow, in this order. Nearly always empty.
    queues: HashMap<FrontendKey, Vec<Claim>>,
    /// The same by claimant.
    waiting: BTreeMap<PortName, Vec<FrontendKey>>,
    /// Whether [`Claims::waiting`] may say something else than when this was last asked.
    changed: bool,
}

impl Claims {
    /// The Service port that has this frontend.
    pub(super) fn owner(&self, key: &FrontendKey) -> Option<&PortName> {
        self.owners.get(key).map(|claim| &claim.port)
    }

    /// Every frontend at one of these addresses that somebody claims.
    pub(super) fn keys_at(&self, addresses: &BTreeSet<IpAddr>) -> Vec<FrontendKey> {
        let at = |key: &&FrontendKey| addresses.contains(&key.peer().addr.into());
        self.owners.keys().filter(at).copied().collect()
    }

    /// Every frontend that is claimed in vain, with the claimant.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&PortName, &FrontendKey)> {
        self.waiting.iter().flat_map(|(port, keys)| keys.iter().map(move |key| (port, key)))
    }

    /// Whether somebody began or ceased to claim in vain since this was last asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Adds or renews a claim.
    pub(super) fn add(&mut self, key: FrontendKey, port: &PortName, created_s: Option<i64>) {
        let mut queue = self.queue(&key);
        let mut at = match queue.iter().position(|claim| claim.port == *port) {
            Some(at) => {
                queue[at].created_s = created_s;
                at
            }
            None => {
                queue.push(Claim { port: port.clone(), created_s });
                queue.len() - 1
            }
        };
        while at > 0 && queue[at - 1].is_younger_than(&queue[at]) {
            queue.swap(at - 1, at);
            at -= 1;
        }
        while at + 1 < queue.len() && queue[at].is_younger_than(&queue[at + 1]) {
            queue.swap(at, at + 1);
            at += 1;
        }
        self.keep(key, queue);
    }

    /// Ends a claim; the next claimant, if there is one, has the frontend from now on.
    pub(super) fn remove(&mut self, key: FrontendKey, port: &PortName) {
        let mut queue = self.queue(&key);
        queue.retain(|claim| claim.port != *port);
        self.keep(key, queue);
    }

    fn queue(&self, key: &FrontendKey) -> Vec<Claim> {
        let waiting = self.queues.get(key).into_iter().flatten();
        self.owners.get(key).into_iter().chain(waiting).cloned().collect()
    }

    fn keep(&mut self, key: FrontendKey, queue: Vec<Claim>) {
        let contested = queue.len() > 1 || self.queues.contains_key(&key);
        self.changed |= contested && !ports(&self.queue(&key)).eq(ports(&queue));
        for claim in self.queues.remove(&key).into_iter().flatten() {
            if let Some(keys) = self.waiting.get_mut(&claim.port) {
                keys.retain(|other| *other != key);
                if keys.is_empty() {
                    self.waiting.remove(&claim.port);
                }
            }
        }
        let mut queue = queue.into_iter();
        match queue.next() {
            Some(first) => self.owners.insert(key, first),
            None => self.owners.remove(&key),
        };
        let losers: Vec<Claim> = queue.collect();
        for claim in &losers {
            self.waiting.entry(claim.port.clone()).or_default().push(key);
        }
        if !losers.is_empty() {
            self.queues.insert(key, losers);
        }
    }
}

fn ports(queue: &[Claim]) -> impl Iterator<Item = &PortName> {
    queue.iter().map(|claim| &claim.port)
}
