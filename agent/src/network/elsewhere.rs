//! Pods in network namespaces that none of our veths leads into (macvlan, SR-IOV), as far as they were sought. For `search`.
//!
//! Nothing announces such a namespace, nor its end. So the process by which each was found is looked at from time to time; when
//! one is gone they are sought again.

use std::collections::HashMap;
use std::time::Instant;

use super::owner::{Owner, Witness, witness};
use super::search::{LATEST, Wait, cookie_of};
use crate::host::Process;
use crate::source::PodUid;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// Since when they are sought.
    seeking: Option<Wait>,
    /// By the inodes of their namespaces.
    found: HashMap<u64, Found>,
    /// When to look whether those are still there.
    check: Option<Instant>,
}

#[derive(Debug)]
struct Found {
    cookie: u64,
    uid: PodUid,
    witness: Witness,
}

impl Elsewhere {
    /// Whether there are some to be sought.
    pub(super) fn seek(&mut self, seeks: bool, now: Instant) {
        if seeks != self.seeking.is_some() {
            self.seeking = seeks.then(|| Wait::new(now));
        }
    }

    /// When there is something to do; `None`: never.
    pub(super) fn due(&self) -> Option<Instant> {
        self.seeking.iter().map(|wait| wait.due).chain(self.check).min()
    }

    /// Whether to look through the processes now.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        if self.seeking.is_some_and(|wait| wait.due <= now) {
            return true;
        }
        if self.check.is_none_or(|check| now < check) {
            return false;
        }
        self.check = Some(now + LATEST);
        self.found.iter().any(|(inode, found)| !found.witness.is_still_in(*inode))
    }

    /// Takes in the processes of all namespaces but our own and those behind our veths.
    pub(super) fn take(&mut self, processes: &HashMap<u64, Vec<&Process>>, init: &str, now: Instant) {
        if let Some(wait) = &mut self.seeking {
            wait.again(now);
        }
        let before = std::mem::take(&mut self.found);
        for (inode, inside) in processes {
            let Some(witness) = witness(inside, init) else { continue };
            let Owner::Pod(uid) = witness.owner else { continue };
            // The kernel gives a number to another namespace as soon as it is free.
            let known = before.get(inode).filter(|found| found.witness.is_same(&witness));
            let cookie = || inside.iter().find_map(|process| cookie_of(process.pid));
            if let Some(cookie) = known.map(|found| found.cookie).or_else(cookie) {
                self.found.insert(*inode, Found { cookie, uid, witness });
            }
        }
        self.check = (!self.found.is_empty()).then_some(now + LATEST);
    }

    /// Cookies and UIDs.
    pub(super) fn pods(&self) -> impl Iterator<Item = (u64, PodUid)> {
        self.found.values().map(|found| (found.cookie, found.uid))
    }
}
