//! Makes the machine able to build, check and test. Idempotent: looks first, says what it does, and is silent where
//! nothing is missing.

mod apt;
mod rust;

use anyhow::Result;

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
        }
    }
    Ok(())
}

/// A program, and the package that brings it.
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

const CONTAINER_PROGRAMS: [Program; 3] = [
    Program { name: "containerd", package: "containerd" },
    Program { name: "ctr", package: "containerd" },
    Program { name: "runc", package: "runc" },
];
