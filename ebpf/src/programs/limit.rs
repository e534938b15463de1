//! ICMP errors are limited in number (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 (f)): whoever sends what is refused
//! must not make this node a source of as many packets.

use weir_ebpf::datapath::Moment;

use crate::kernel_tables::Now;
use crate::maps::ALLOWANCE;

/// Errors a second, on each CPU; Linux' own limit is of the same order (`icmp_msgs_per_sec`, 10,000 in all).
const PER_SECOND: u32 = 1_000;

/// Row of the map: how many are left in this second.
#[repr(C)]
pub(crate) struct Allowance {
    second: u32,
    left: u32,
}

/// Takes one from the allowance; `false`: there is none left.
#[inline(always)]
pub(crate) fn take_one() -> bool {
    let Some(row) = ALLOWANCE.get_ptr_mut(0) else { return false };
    // SAFETY: the kernel checked the index, and the row is this CPU's own.
    let row = unsafe { &mut *row };
    let now_s = Now.seconds();
    if row.second != now_s {
        row.second = now_s;
        row.left = PER_SECOND;
    }
    if row.left == 0 {
        return false;
    }
    row.left -= 1;
    true
}
