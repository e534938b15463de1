//! ABI rows as aya wants them.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A row of a map, seen through aya.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct Row<T>(pub(super) T);

// SAFETY: `IntoBytes` says that there is no padding, `FromBytes` that any bytes are a value.
unsafe impl<T: FromBytes + IntoBytes + Immutable + Copy + 'static> aya::Pod for Row<T> {}
