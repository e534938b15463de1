//! The layout of every row as text, to be compared with `ebpf/abi.lock`.

use core::fmt::{self, Write};
use core::mem::{offset_of, size_of};

use super::{
    ABI_VERSION, AffinityKey, AffinityRow, Backend, Connection, Counter, DatagramKey, DatagramRow, Frontend,
    FrontendKey, ServiceName, SetWord,
};

macro_rules! describe {
    ($out:ident, $($row:ident { $($field:tt),* })*) => {
        $(
            write!($out, "{} {}:", stringify!($row), size_of::<$row>())?;
            $(write!($out, " {}@{}", stringify!($field), offset_of!($row, $field))?;)*
            writeln!($out)?;
        )*
    };
}

/// Writes one line per row: its name, its size in bytes and the offset of each field.
///
/// # Errors
/// Those of `out`.
pub fn describe(out: &mut impl Write) -> fmt::Result {
    writeln!(out, "version {ABI_VERSION}")?;
    describe!(out,
        FrontendKey { addr, port, protocol, zero }
        Frontend { service, affinity_s }
        SetWord { 0 }
        Backend { addr, port, flags }
        ServiceName { lengths, protocol, family, zero, text }
        Connection { dialled_addr, backend_addr, dialled_port, backend_port, service, protocol, zero }
        DatagramKey { cookie, addr, port, direction, zero }
        DatagramRow { addr, port, zero, service }
        AffinityKey { client, service }
        AffinityRow { addr, port, zero, last_seen_s }
    );
    write!(out, "Counter {}:", size_of::<u64>())?;
    for (index, counter) in Counter::ALL.iter().enumerate() {
        write!(out, " {}@{index}", counter.label())?;
    }
    writeln!(out)
}
