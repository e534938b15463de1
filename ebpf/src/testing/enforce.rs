//! [`EnforceTables`] as maps.

use std::ops::Deref;

use super::MemoryTables;
use crate::abi::{
    Addr, BoundPod, ClassId, Enforcement, Judged, JudgedKey, NetworkKey, PortRule, PortRuleKey, PortRulesId,
    Share, Side, Signs, Standing, VerdictKey,
};
use crate::datapath::Full;
use crate::datapath::enforce::EnforceTables;
use crate::datapath::policy::PolicyTables;

/// A row of `judged` as it was when it was looked up.
#[derive(Debug)]
pub struct JudgedCopy {
    key: JudgedKey,
    row: Judged,
}

impl Deref for JudgedCopy {
    type Target = Judged;

    fn deref(&self) -> &Judged {
        &self.row
    }
}

impl PolicyTables for MemoryTables {
    fn lookup_address_class(&self, addr: Addr) -> Option<ClassId> {
        self.policy.lookup_address_class(addr)
    }

    fn lookup_network_class(&self, key: &NetworkKey) -> Option<ClassId> {
        self.policy.lookup_network_class(key)
    }

    fn lookup_verdict(&self, key: &VerdictKey) -> Option<PortRulesId> {
        self.policy.lookup_verdict(key)
    }

    fn lookup_port_rule(&self, key: &PortRuleKey) -> Option<PortRule> {
        self.policy.lookup_port_rule(key)
    }
}

impl EnforceTables for MemoryTables {
    type JudgedRef<'a> = JudgedCopy;

    fn enforcement(&self) -> Enforcement {
        self.enforcement
    }

    fn lookup_pod(&self, device: u32) -> Option<BoundPod> {
        self.pods.get(&device).copied()
    }

    fn lookup_pod_netns(&self, device: u32) -> u64 {
        self.devices.get(&device).map_or(0, |device| device.netns)
    }

    fn lookup_judged(&self, key: &JudgedKey) -> Option<JudgedCopy> {
        self.judged.borrow().get(key).map(|row| JudgedCopy { key: *key, row: *row })
    }

    fn confirm_judged(&self, row: &JudgedCopy, basis: u64, generation: u32, standing: Standing) {
        if let Some(row) = self.judged.borrow_mut().get_mut(&row.key) {
            row.standing = standing;
            row.set_basis(basis);
            row.generation = generation;
        }
    }

    fn note_standing(&self, row: &JudgedCopy, standing: Standing) {
        if let Some(row) = self.judged.borrow_mut().get_mut(&row.key) {
            row.standing = standing;
        }
    }

    fn touch_judged(&self, row: &JudgedCopy, side: Side, seen_s: u32, signs: Signs) {
        if let Some(row) = self.judged.borrow_mut().get_mut(&row.key) {
            row.seen_s = seen_s;
            match side {
                Side::Egress => row.outward = signs,
                Side::Ingress => row.inward = signs,
            }
        }
    }

    fn put_judged(&self, key: &JudgedKey, row: &Judged) -> Result<(), Full> {
        let mut judged = self.judged.borrow_mut();
        if !judged.contains_key(key) {
            self.room()?;
        }
        judged.insert(*key, *row);
        Ok(())
    }

    fn lookup_share(&self, device: u32) -> Option<Share> {
        self.shares.borrow().get(&device).copied()
    }

    fn add_share(&self, device: u32, now_s: u32) {
        self.shares.borrow_mut().entry(device).or_insert(Share { rows: 0, since_s: now_s }).rows += 1;
    }

    fn note_unremembered(&self, device: u32, now_s: u32) {
        self.shares.borrow_mut().entry(device).or_default().since_s = now_s;
    }
}
