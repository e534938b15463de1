//! Debian's and Ubuntu's packages.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::Program;
use crate::shell::{announce, is_root, run_quietly, succeeds};

/// Programs that users have in PATH and those that only root has.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Installs the packages of the programs that are not there.
pub(super) fn ensure_programs(programs: &[Program]) -> Result<()> {
    let packages =
        select_missing(programs, |name| FOLDERS.iter().any(|folder| Path::new(folder).join(name).is_file()));
    if packages.is_empty() {
        return Ok(());
    }
    if !is_there() {
        bail!("please install {} (Debian's names) and try again", packages.join(", "));
    }
    install(&packages)
}

/// The packages of the programs that are not there, each once.
fn select_missing(programs: &[Program], is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages: Vec<_> =
        programs.iter().filter(|program| !is_there(program.name)).map(|program| program.package).collect();
    packages.dedup();
    packages
}

/// Whether this is a machine with apt.
pub(crate) fn is_there() -> bool {
    Path::new("/usr/bin/apt-get").is_file()
}

/// Whether the package can be installed, as far as the lists know that apt has.
pub(super) fn offers(package: &str) -> bool {
    // `show` succeeds for real packages only, and not for names that others merely refer to.
    succeeds(Command::new("apt-cache").args(["show", "--no-all-versions", package]))
}

/// Brings the lists of packages up to date.
pub(super) fn update() -> Result<()> {
    announce("apt-get update");
    run_quietly(apt_get().arg("update"))
}

/// Installs these packages, with what they depend on and nothing else.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    if !is_root() {
        bail!(
            "packages are missing; as root: apt-get update && apt-get install --no-install-recommends {}",
            packages.join(" ")
        );
    }
    if !packages.iter().all(|package| offers(package)) {
        update()?;
    }
    announce(&format!("apt-get install {}", packages.join(" ")));
    let install = |packages: &[&str]| {
        run_quietly(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(packages))
    };
    // Lists that are some days old name packages that their server no longer has.
    install(packages).or_else(|_| update().and_then(|()| install(packages)))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-qq", "-o", "DPkg::Lock::Timeout=300"]).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_installed_once_and_only_where_a_program_is_missing() {
        let programs = [
            Program { name: "nsenter", package: "util-linux" },
            Program { name: "unshare", package: "util-linux" },
            Program { name: "ip", package: "iproute2" },
        ];
        assert_eq!(select_missing(&programs, |name| name == "ip"), ["util-linux"]);
        assert!(select_missing(&programs, |_| true).is_empty());
    }
}
