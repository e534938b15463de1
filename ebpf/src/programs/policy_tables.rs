//! The tables of policies as this object's maps.

use core::ops::Deref;
use core::ptr::NonNull;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::maps::lpm_trie::Key;
use weir_ebpf::abi::{
    Addr, BoundPod, ClassId, Enforcement, Judged, JudgedKey, NetworkKey, PortRule, PortRuleKey, PortRulesId,
    Share, Side, Signs, Standing, VerdictKey,
};
use weir_ebpf::datapath::Full;
use weir_ebpf::datapath::enforce::EnforceTables;
use weir_ebpf::datapath::policy::PolicyTables;

use crate::kernel_tables::KernelTables;
use crate::maps::{
    ADDRESS_CLASSES, DEVICES, ENFORCEMENT, JUDGED, JUDGED_SHARES, NETWORK_CLASSES, POD_POLICIES, PORT_RULES,
    VERDICTS,
};

impl PolicyTables for KernelTables {
    #[inline(always)]
    fn lookup_address_class(&self, addr: Addr) -> Option<ClassId> {
        // SAFETY: copied at once; without preallocation an element is not reused before a grace period.
        unsafe { ADDRESS_CLASSES.get(addr) }.copied()
    }

    #[inline(always)]
    fn lookup_network_class(&self, key: &NetworkKey) -> Option<ClassId> {
        NETWORK_CLASSES.get(Key::new(key.prefix_len, key.addr().words())).copied()
    }

    #[inline(always)]
    fn lookup_verdict(&self, key: &VerdictKey) -> Option<PortRulesId> {
        // SAFETY: as for the classes of addresses.
        unsafe { VERDICTS.get(key) }.copied()
    }

    #[inline(always)]
    fn lookup_port_rule(&self, key: &PortRuleKey) -> Option<PortRule> {
        PORT_RULES.get(Key::new(key.prefix_len, key.words())).copied()
    }
}

/// A row of `judged` in place. The kernel may give its element to another flow as soon as the row is removed, and rows are
/// removed of flows alone that have been idle for long, or are over, and of pods that are gone.
pub(crate) struct JudgedRow(NonNull<Judged>);

impl Deref for JudgedRow {
    type Target = Judged;

    #[inline(always)]
    fn deref(&self) -> &Judged {
        // SAFETY: the kernel gave the pointer, and whatever changes in the row is of a type without invalid values.
        unsafe { self.0.as_ref() }
    }
}

impl EnforceTables for KernelTables {
    type JudgedRef<'a> = JudgedRow;

    #[inline(always)]
    fn enforcement(&self) -> Enforcement {
        ENFORCEMENT.get(0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn lookup_pod(&self, device: u32) -> Option<BoundPod> {
        // SAFETY: as for the classes of addresses.
        unsafe { POD_POLICIES.get(device) }.copied()
    }

    #[inline(always)]
    fn lookup_pod_netns(&self, device: u32) -> u64 {
        // SAFETY: one number, read at once.
        DEVICES.get_ptr(device).map_or(0, |row| unsafe { (*row).netns })
    }

    #[inline(always)]
    fn lookup_judged(&self, key: &JudgedKey) -> Option<JudgedRow> {
        // One value, and none of two of which the other is undefined: the verifier wants every register written.
        NonNull::new(JUDGED.get_ptr_mut(key).unwrap_or(core::ptr::null_mut())).map(JudgedRow)
    }

    #[inline(always)]
    fn confirm_judged(&self, row: &JudgedRow, basis: u64, generation: u32, standing: Standing) {
        // SAFETY: the kernel gave the pointer. Each is written at once.
        unsafe {
            (&raw mut (*row.0.as_ptr()).standing).write_volatile(standing);
            Judged::basis_of_row(row.0.as_ptr()).write_volatile(basis);
            (&raw mut (*row.0.as_ptr()).generation).write_volatile(generation);
        }
    }

    #[inline(always)]
    fn note_standing(&self, row: &JudgedRow, standing: Standing) {
        // SAFETY: as above. Of two CPUs that count at once one may not be counted.
        unsafe { (&raw mut (*row.0.as_ptr()).standing).write_volatile(standing) };
    }

    #[inline(always)]
    fn touch_judged(&self, row: &JudgedRow, side: Side, seen_s: u32, signs: Signs) {
        // SAFETY: as above. Two CPUs that write for one direction at once may lose a sign, which the next packet brings
        // back or a longer lifetime makes up for.
        unsafe {
            (&raw mut (*row.0.as_ptr()).seen_s).write_volatile(seen_s);
            match side {
                Side::Egress => (&raw mut (*row.0.as_ptr()).outward).write_volatile(signs),
                Side::Ingress => (&raw mut (*row.0.as_ptr()).inward).write_volatile(signs),
            }
        }
    }

    #[inline(always)]
    fn put_judged(&self, key: &JudgedKey, row: &Judged) -> Result<(), Full> {
        JUDGED.insert(key, row, u64::from(BPF_ANY)).map_err(|_| Full)
    }

    #[inline(always)]
    fn lookup_share(&self, device: u32) -> Option<Share> {
        // SAFETY: two numbers, read at once.
        unsafe { JUDGED_SHARES.get(device) }.copied()
    }

    #[inline(always)]
    fn add_share(&self, device: u32, now_s: u32) {
        match JUDGED_SHARES.get_ptr_mut(device) {
            // SAFETY: the kernel gave the pointer. Of two CPUs that add at once one may not be counted, for BPF in Rust has no
            // atomic addition; the sweeper counts them all, and a pod's packets seldom come by two.
            Some(share) => unsafe {
                let rows = &raw mut (*share).rows;
                rows.write_volatile(rows.read_volatile() + 1);
            },
            None => put_share(device, Share { rows: 1, since_s: now_s }),
        }
    }

    #[inline(always)]
    fn note_unremembered(&self, device: u32, now_s: u32) {
        match JUDGED_SHARES.get_ptr_mut(device) {
            // SAFETY: as above.
            Some(share) => unsafe { (&raw mut (*share).since_s).write_volatile(now_s) },
            None => put_share(device, Share { rows: 0, since_s: now_s }),
        }
    }
}

#[inline(always)]
fn put_share(device: u32, share: Share) {
    let _there_already = JUDGED_SHARES.insert(device, share, u64::from(BPF_NOEXIST));
}
