//! Reading a whole hash in few system calls.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::sys::{self, Batch};

/// Rows asked for at once. A bucket with more rows than fit makes the kernel answer ENOSPC; then it is doubled.
const ROWS: u32 = 1024;

/// Every row of a hash that was there throughout; those that come and go meanwhile may be missing, and one may be
/// seen twice.
///
/// # Errors
/// The kernel's.
pub(super) fn read_all<K, V>(map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>>
where
    K: FromBytes + IntoBytes + Immutable + Copy,
    V: FromBytes + IntoBytes + Immutable + Copy,
{
    let mut all = Vec::new();
    read_each(map, |rows| all.extend(rows))?;
    Ok(all)
}

/// The same, some rows at a time.
///
/// # Errors
/// The kernel's.
pub(super) fn read_each<K, V>(
    map: BorrowedFd<'_>,
    mut each: impl FnMut(&mut dyn Iterator<Item = (K, V)>),
) -> io::Result<()>
where
    K: FromBytes + IntoBytes + Immutable + Copy,
    V: FromBytes + IntoBytes + Immutable + Copy,
{
    let mut rows = ROWS;
    // The position is opaque: four bytes in a hash, room for more.
    let (mut position, mut next) = ([0_u32; 8], [0_u32; 8]);
    let mut started = false;
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    loop {
        keys.resize(rows as usize, K::new_zeroed());
        values.resize(rows as usize, V::new_zeroed());
        let mut attr = Batch {
            in_batch: if started { position.as_mut_ptr().expose_provenance() as u64 } else { 0 },
            out_batch: next.as_mut_ptr().expose_provenance() as u64,
            keys: keys.as_mut_ptr().expose_provenance() as u64,
            values: values.as_mut_ptr().expose_provenance() as u64,
            count: rows,
            map_fd: map.as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        let result = sys::lookup_batch(&mut attr);
        let last = match result {
            Ok(()) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && rows < 1 << 20 => {
                rows *= 2;
                continue;
            }
            Err(error) => return Err(error),
        };
        let count = attr.count as usize;
        each(&mut keys.iter().copied().zip(values.iter().copied()).take(count));
        if last {
            return Ok(());
        }
        position = next;
        started = true;
    }
}
