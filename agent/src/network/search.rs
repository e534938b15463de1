//! When to look through the processes of the node, and what came of it: whose the network namespaces behind our veths are.
//!
//! A namespace announces neither its first process nor whose that is. So while one's owner is not known it is looked for: at
//! once, and then again and again after a quarter of the time that it has been there, between 25 ms and ten seconds. When all
//! owners are known nothing is looked for; nor in a namespace that was empty for a minute, while no pod is being made.

use std::collections::HashMap;
use std::fs::File;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::elsewhere::Elsewhere;
use super::facts::{Facts, Seeks};
use super::mirror::{Namespace, Nsid};
use super::netns;
use super::owner::{Owner, Witness, witness};
use super::query::cookie_here;
use crate::host::{Process, cgroup_of_init, own_netns_inode, processes_in};

/// The least and the most between two looks.
const SOONEST: Duration = Duration::from_millis(25);
pub(super) const LATEST: Duration = Duration::from_secs(10);

/// One in which no process is for so long is nobody's, unless a pod is being made.
const EMPTY: Duration = Duration::from_mins(1);

/// A process that is still there after this long was not there to make a pod.
const SURE: Duration = Duration::from_secs(1);

/// What is known of the owners of namespaces.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// By their cookies.
    namespaces: HashMap<u64, Sought>,
    /// Since when some namespace is there that nobody has found a way into, and when to try again.
    unreached: Option<Wait>,
    /// Pods that are behind none of our veths.
    elsewhere: Elsewhere,
    /// Whether a pod of this node has no place yet: it may come into a namespace that seems to be nobody's.
    is_making: bool,
}

/// A namespace whose owner is sought, or was found.
#[derive(Debug)]
struct Sought {
    inode: u64,
    wait: Wait,
    /// Who said whose it is, and since when.
    found: Option<(Witness, Instant)>,
    is_settled: bool,
    is_empty: bool,
    /// The addresses that were there when a pod was found to be the owner, each with the device that led to it.
    early: Option<Vec<(u32, IpAddr)>>,
}

/// How long something has been waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    since: Instant,
    pub(super) due: Instant,
}

impl Wait {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, due: now }
    }

    pub(super) fn again(&mut self, now: Instant) {
        self.due = now + (now.saturating_duration_since(self.since) / 4).clamp(SOONEST, LATEST);
    }
}

impl Search {
    /// The namespaces behind our veths, as they are now. `unreached`: there are others, which nobody has found a way into.
    pub(super) fn set_namespaces(
        &mut self,
        namespaces: &HashMap<Nsid, Namespace>,
        unreached: bool,
        now: Instant,
    ) {
        let inodes: HashMap<u64, u64> =
            namespaces.values().map(|namespace| (namespace.cookie, namespace.inode)).collect();
        self.namespaces.retain(|cookie, _| inodes.contains_key(cookie));
        for (cookie, inode) in inodes {
            self.namespaces.entry(cookie).or_insert_with(|| Sought::new(inode, now));
        }
        match &mut self.unreached {
            Some(wait) if unreached && wait.due <= now => wait.again(now),
            Some(_) if unreached => {}
            wait => {
                *wait = unreached.then(|| {
                    let mut wait = Wait::new(now);
                    wait.again(now);
                    wait
                });
            }
        }
    }

    /// What else is to be sought.
    pub(super) fn seek(&mut self, seeks: Seeks, now: Instant) {
        self.elsewhere.seek(seeks.elsewhere, now);
        if seeks.making && !self.is_making {
            self.namespaces
                .values_mut()
                .filter(|sought| sought.is_empty)
                .for_each(|sought| sought.wait.due = now);
        }
        self.is_making = seeks.making;
    }

    /// When there is something to do without any announcement; `None`: never.
    pub(super) fn due(&self) -> Option<Instant> {
        let sought = self.namespaces.values().filter(|sought| sought.is_open(self.is_making));
        let sought = sought.map(|sought| sought.wait.due);
        sought.chain(self.unreached.map(|wait| wait.due)).chain(self.elsewhere.due()).min()
    }

    /// Looks through the processes, if it is time. `addresses`: those behind our veths into a namespace, by its cookie, and which of
    /// them has each.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub(super) fn look(
        &mut self,
        now: Instant,
        addresses: impl Fn(u64) -> Vec<(u32, IpAddr)>,
    ) -> std::io::Result<()> {
        let is_due = |wait: &Wait| wait.due <= now;
        let seeks = self.elsewhere.is_due(now);
        let is_wanted = |sought: &Sought| sought.is_open(self.is_making) && is_due(&sought.wait);
        if !seeks && !self.namespaces.values().any(is_wanted) {
            return Ok(());
        }
        let host = own_netns_inode()?;
        let settled: HashMap<u64, bool> =
            self.namespaces.values().map(|sought| (sought.inode, sought.is_settled)).collect();
        let is_wanted = |inode: u64| match settled.get(&inode) {
            Some(is_settled) => !is_settled,
            None => seeks && inode != host,
        };
        let found = processes_in(is_wanted)?;
        let mut processes: HashMap<u64, Vec<&Process>> = HashMap::new();
        for process in &found {
            processes.entry(process.netns).or_default().push(process);
        }
        let init = cgroup_of_init();
        for (cookie, sought) in self.namespaces.iter_mut().filter(|(_, sought)| !sought.is_settled) {
            let inside = processes.remove(&sought.inode).unwrap_or_default();
            sought.take(witness(&inside, &init), now, || addresses(*cookie));
        }
        if seeks {
            self.elsewhere.take(&processes, &init, now);
        }
        Ok(())
    }

    /// Writes down whose everything is.
    pub(super) fn annotate(&self, facts: &mut Facts) {
        for (index, pod) in &mut facts.pods {
            let Some(sought) = pod.netns.and_then(|cookie| self.namespaces.get(&cookie)) else { continue };
            pod.owner = sought.owner();
            if let Some(early) = &sought.early {
                pod.early = early.iter().filter(|(at, _)| at == index).map(|(_, ip)| *ip).collect();
            }
        }
        facts.elsewhere = self.elsewhere.pods().collect();
    }
}

impl Sought {
    fn new(inode: u64, now: Instant) -> Self {
        Self { inode, wait: Wait::new(now), found: None, is_settled: false, is_empty: false, early: None }
    }

    fn take(
        &mut self,
        witness: Option<Witness>,
        now: Instant,
        addresses: impl FnOnce() -> Vec<(u32, IpAddr)>,
    ) {
        let since = match (&self.found, &witness) {
            (Some((before, since)), Some(witness)) if before.is_same(witness) => *since,
            _ => now,
        };
        if self.found.is_some() && witness.is_none() {
            self.wait = Wait::new(now);
        }
        self.found = witness.map(|witness| (witness, since));
        self.is_empty = self.found.is_none() && now.saturating_duration_since(self.wait.since) >= EMPTY;
        if self.found.is_none() {
            return self.wait.again(now);
        }
        if self.early.is_none() && matches!(self.owner(), Owner::Pod(_)) {
            self.early = Some(addresses());
        }
        self.wait.due = since + SURE;
        self.is_settled = self.wait.due <= now;
    }

    fn owner(&self) -> Owner {
        match &self.found {
            Some((witness, _)) if witness.is_sure || self.is_settled => witness.owner.clone(),
            None if self.is_empty => Owner::Nobody,
            _ => Owner::Unknown,
        }
    }

    /// Whether somebody may be found in it yet.
    fn is_open(&self, is_making: bool) -> bool {
        !self.is_settled && (is_making || !self.is_empty)
    }
}

pub(super) fn cookie_of(pid: u32) -> Option<u64> {
    let file = File::open(format!("/proc/{pid}/ns/net")).ok()?;
    netns::inside(&file, cookie_here).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "0::/kubepods/pod0b6fcf3e-7a0c-4a4e-9d7d-1f0a6e2b3c4d/x";

    fn said(pid: u32, cgroup: &str) -> Option<Witness> {
        let process = Process { pid, started: u64::from(pid), netns: 1, cgroup: cgroup.into() };
        witness(&[&process], "")
    }

    #[test]
    fn it_looks_at_once_then_less_and_less_often() {
        let begun = Instant::now();
        let mut sought = Sought::new(1, begun);
        assert_eq!(sought.wait.due, begun);
        let mut looks = 0;
        while sought.wait.due < begun + Duration::from_mins(10) {
            let now = sought.wait.due;
            sought.take(None, now, Vec::new);
            let wait = sought.wait.due - now;
            assert!((SOONEST..=LATEST).contains(&wait));
            looks += 1;
        }
        assert!(looks < 100, "{looks} looks in ten minutes");
        assert_eq!(sought.owner(), Owner::Nobody);
    }

    #[test]
    fn a_pod_is_known_at_once_and_looked_at_once_more() {
        let now = Instant::now();
        let mut sought = Sought::new(1, now);
        let early = vec![(3, IpAddr::from([10, 0, 0, 1]))];
        sought.take(said(7, POD), now, || early.clone());
        assert!(matches!(sought.owner(), Owner::Pod(_)) && !sought.is_settled);
        assert_eq!(sought.wait.due, now + SURE);
        sought.take(said(7, POD), now + SURE, Vec::new);
        assert!(sought.is_settled);
        assert_eq!(sought.early, Some(early), "those of the first time");
    }

    #[test]
    fn what_makes_a_pod_is_not_taken_for_its_owner() {
        let now = Instant::now();
        let mut sought = Sought::new(1, now);
        sought.take(said(7, "0::/system.slice/containerd.service"), now, Vec::new);
        assert_eq!(sought.owner(), Owner::Unknown);
        sought.take(said(8, "0::/system.slice/containerd.service"), now + SURE, Vec::new);
        assert_eq!((sought.owner(), sought.is_settled), (Owner::Unknown, false), "another process");
        sought.take(said(9, POD), now + SURE, Vec::new);
        assert!(matches!(sought.owner(), Owner::Pod(_)));
        let mut other = Sought::new(1, now);
        other.take(said(7, "0::/user.slice"), now, Vec::new);
        other.take(said(7, "0::/user.slice"), now + SURE, Vec::new);
        assert_eq!((other.owner(), other.is_settled), (Owner::Other("/user.slice".into()), true));
        assert_eq!(other.early, None);
    }

    #[test]
    fn nothing_is_due_when_all_is_known() {
        let now = Instant::now();
        let mut search = Search::default();
        assert_eq!(search.due(), None);
        let namespaces = HashMap::from([(3, Namespace { cookie: 30, inode: 300 })]);
        search.set_namespaces(&namespaces, false, now);
        assert_eq!(search.due(), Some(now));
        let sought = search.namespaces.get_mut(&30).unwrap();
        sought.take(said(7, POD), now, Vec::new);
        sought.take(said(7, POD), now + SURE, Vec::new);
        assert_eq!(search.due(), None);
        search.seek(Seeks { elsewhere: true, making: false }, now);
        assert_eq!(search.due(), Some(now));
        search.seek(Seeks::default(), now);
        search.set_namespaces(&namespaces, true, now);
        assert_eq!(search.due(), Some(now + SOONEST), "one that cannot be reached");
        search.set_namespaces(&HashMap::new(), false, now);
        assert_eq!((search.due(), search.namespaces.len()), (None, 0));
    }

    #[test]
    fn where_nobody_was_for_a_minute_nobody_is_sought_but_for_a_pod_in_the_making() {
        let begun = Instant::now();
        let mut search = Search::default();
        search.set_namespaces(&HashMap::from([(3, Namespace { cookie: 30, inode: 300 })]), false, begun);
        let mut now = begun;
        while let Some(due) = search.due() {
            now = due;
            search.namespaces.get_mut(&30).unwrap().take(None, now, Vec::new);
        }
        let owner = |search: &Search| search.namespaces[&30].owner();
        assert!(now >= begun + EMPTY && now <= begun + EMPTY + LATEST);
        assert_eq!(owner(&search), Owner::Nobody);
        now += EMPTY;
        search.seek(Seeks { elsewhere: false, making: true }, now);
        assert_eq!(search.due(), Some(now), "at once");
        let sought = search.namespaces.get_mut(&30).unwrap();
        sought.take(None, now, Vec::new);
        assert_eq!(owner(&search), Owner::Nobody);
        assert_eq!(search.due(), Some(now + LATEST));
        search.namespaces.get_mut(&30).unwrap().take(said(7, POD), now, Vec::new);
        assert!(matches!(owner(&search), Owner::Pod(_)));
        // Its process may be one that made it, and is gone: then a minute passes again.
        search.namespaces.get_mut(&30).unwrap().take(None, now, Vec::new);
        assert_eq!(owner(&search), Owner::Unknown);
    }
}
