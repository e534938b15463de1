//! Makes the machine able to build, check and test. Idempotent: looks first, says what it does, and is silent where
//! nothing is missing.

mod apt;
mod rust;

use anyhow::Result;

pub(crate) use self::apt::is_there as has_apt;
use crate::vm::{Arch, KEYRING};
use crate::workspace::Workspace;

/// What a command needs of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// A compiler and a linker for the eBPF programs.
    Toolchain,
    /// The programs with which the lab makes its networks.
    Lab,
    /// What runs containers.
    Containers,
    /// rustfmt and clippy.
    Style,
    /// cargo-deny.
    Deny,
    /// cargo-fuzz.
    Fuzz,
    /// Machines in software, of that processor, and what they are made of.
    Machines(Arch),
    /// A linker for that processor.
    Cross(Arch),
}

/// Installs what is missing.
///
/// # Errors
/// What could not be installed and what to do about it.
pub(crate) fn ensure(workspace: &Workspace, needs: &[Need]) -> Result<()> {
    for need in needs {
        match need {
            Need::Toolchain => rust::ensure_toolchain(workspace)?,
            Need::Lab => apt::ensure_programs(&LAB_PROGRAMS)?,
            Need::Containers => apt::ensure_programs(&CONTAINER_PROGRAMS)?,
            Need::Style => rust::ensure_style(workspace)?,
            Need::Deny => rust::ensure_deny(workspace)?,
            Need::Fuzz => rust::ensure_fuzz(workspace)?,
            Need::Machines(arch) => {
                apt::ensure_programs(&MACHINE_PROGRAMS)?;
                apt::ensure_programs(&[emulator(*arch)])?;
            }
            Need::Cross(arch) => apt::ensure_programs(&cross_programs(*arch))?,
        }
    }
    Ok(())
}

/// A program, or another file by its whole path, and the package that brings it.
struct Program {
    name: &'static str,
    package: &'static str,
}

const LAB_PROGRAMS: [Program; 8] = [
    Program { name: "ip", package: "iproute2" },
    Program { name: "ss", package: "iproute2" },
    Program { name: "nsenter", package: "util-linux" },
    Program { name: "unshare", package: "util-linux" },
    Program { name: "sysctl", package: "procps" },
    Program { name: "nft", package: "nftables" },
    Program { name: "iptables", package: "iptables" },
    Program { name: "ethtool", package: "ethtool" },
];

/// What machines are made of, whatever their processor.
const MACHINE_PROGRAMS: [Program; 7] = [
    Program { name: KEYRING, package: "debian-archive-keyring" },
    Program { name: "busybox", package: "busybox-static" },
    Program { name: "cpio", package: "cpio" },
    Program { name: "depmod", package: "kmod" },
    Program { name: "xz", package: "xz-utils" },
    Program { name: "ip", package: "iproute2" },
    Program { name: "strip", package: "binutils" },
];

const fn emulator(arch: Arch) -> Program {
    match arch {
        Arch::X86_64 => Program { name: "qemu-system-x86_64", package: "qemu-system-x86" },
        Arch::Arm64 => Program { name: "qemu-system-aarch64", package: "qemu-system-arm" },
    }
}

const fn cross_programs(arch: Arch) -> [Program; 2] {
    match arch {
        Arch::X86_64 => [
            Program { name: "x86_64-linux-gnu-gcc", package: "gcc-x86-64-linux-gnu" },
            Program { name: "/usr/x86_64-linux-gnu/lib/libc.a", package: "libc6-dev-amd64-cross" },
        ],
        Arch::Arm64 => [
            Program { name: "aarch64-linux-gnu-gcc", package: "gcc-aarch64-linux-gnu" },
            Program { name: "/usr/aarch64-linux-gnu/lib/libc.a", package: "libc6-dev-arm64-cross" },
        ],
    }
}

const CONTAINER_PROGRAMS: [Program; 3] = [
    Program { name: "containerd", package: "containerd" },
    Program { name: "ctr", package: "containerd" },
    Program { name: "runc", package: "runc" },
];
