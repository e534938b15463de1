//! Debian's packages for machines that are not this one: fetched and unpacked, never installed. What apt knows of them
//! stands in a folder of our own, beside this machine's apt.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::Arch;
use crate::shell::{announce, capture, run_quietly};

/// Brought by the package `debian-archive-keyring`.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where packages come from if this machine has no mirror of Debian's: their server for everybody.
const MIRROR: &str = "http://deb.debian.org/debian/";
const SECURITY_MIRROR: &str = "http://deb.debian.org/debian-security/";

/// A part of the archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// 6.1 and 6.12, as they are maintained for Debian 12. A short list.
    Security,
    /// Debian 12 itself: what kernels and programs are made of.
    Stable,
    /// What is newer, as Debian 13 has it from those who prepare the next one. A short list.
    Backports,
}

impl Part {
    fn source(self, [main, security]: &[String; 2]) -> String {
        let (mirror, suite) = match self {
            Self::Security => (security, "bookworm-security"),
            Self::Stable => (main, "bookworm"),
            Self::Backports => (main, "trixie-backports"),
        };
        format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n")
    }
}

/// Parts of the archive, for machines of one architecture.
pub(super) struct Archive {
    folder: PathBuf,
    arch: Arch,
}

impl Archive {
    /// With lists that are up to date.
    ///
    /// # Errors
    /// What apt said.
    pub(super) fn open(folder: PathBuf, arch: Arch, parts: &[Part]) -> Result<Self> {
        ensure!(Path::new(KEYRING).is_file(), "{KEYRING} is missing (package debian-archive-keyring)");
        for inside in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(inside))?;
        }
        // Nothing is installed there.
        fs::write(folder.join("status"), "")?;
        let mirrors = lookup_mirrors();
        let sources: String = parts.iter().map(|part| part.source(&mirrors)).collect();
        fs::write(folder.join("sources.list"), sources)?;
        let archive = Self { folder, arch };
        announce(&format!("apt-get update, for kernels of {}", arch.debian()));
        run_quietly(archive.apt("apt-get").arg("update"))?;
        Ok(archive)
    }

    /// The names of packages that begin so.
    ///
    /// # Errors
    /// What apt said.
    pub(super) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = capture(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// The packages that it depends on directly, by name; of alternatives the first.
    ///
    /// # Errors
    /// What apt said.
    pub(super) fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let said = capture(self.apt("apt-cache").args(["show", "--no-all-versions", package]))?;
        Ok(parse_dependencies(&said))
    }

    /// Fetches the packages; returns their files.
    ///
    /// # Errors
    /// What apt said.
    pub(super) fn download(&self, packages: &[String]) -> Result<Vec<PathBuf>> {
        announce(&format!("apt-get download {}", packages.join(" ")));
        let folder = tempfile::tempdir_in(&self.folder)?;
        let mut download = self.apt("apt-get");
        // Without the sandbox: its user may not write into our folders.
        download.args(["-o", "APT::Sandbox::User=root", "download"]).args(packages);
        run_quietly(download.current_dir(&folder))?;
        let kept = self.folder.join("cache");
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let to = kept.join(entry.file_name());
            fs::rename(entry.path(), &to)?;
            files.push(to);
        }
        ensure!(files.len() == packages.len(), "{} of {} packages came", files.len(), packages.len());
        Ok(files)
    }

    /// Fetches the packages with everything that they depend on, and unpacks all of it.
    ///
    /// # Errors
    /// What apt or dpkg said.
    pub(super) fn unpack_with_dependencies(&self, packages: &[&str], into: &Path) -> Result<()> {
        announce(&format!("apt-get install --download-only {}", packages.join(" ")));
        let mut install = self.apt("apt-get");
        install.args(["-o", "APT::Sandbox::User=root", "--download-only", "--yes"]);
        run_quietly(install.args(["--no-install-recommends", "install"]).args(packages))?;
        for entry in fs::read_dir(self.folder.join("cache/archives"))? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "deb") {
                unpack(&file, into)?;
                fs::remove_file(file)?;
            }
        }
        Ok(())
    }

    /// Debian's library for its own compiler of that version.
    ///
    /// # Errors
    /// It is not there in this version, or what apt said.
    pub(super) fn unpack_library(&self, version: &str, into: &Path) -> Result<()> {
        let name = "libstd-rust-web";
        let upstream = version.split('.').take(2).collect::<Vec<_>>().join(".");
        let packages = [format!("{name}-dev={version}"), format!("{name}-{upstream}={version}")];
        for package in self.download(&packages)? {
            unpack(&package, into)?;
            fs::remove_file(package)?;
        }
        Ok(())
    }

    /// One of apt's programs, about this archive. Proxies and the like are those of the machine.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-qq");
        let mut set = |name: &str, value: &str| {
            command.arg("-o").arg(format!("{name}={value}"));
        };
        let inside = |name: &str| self.folder.join(name).display().to_string();
        set("Dir::State", &inside("state"));
        set("Dir::State::status", &inside("status"));
        set("Dir::Cache", &inside("cache"));
        set("Dir::Etc::sourcelist", &inside("sources.list"));
        set("Dir::Etc::sourceparts", "/dev/null");
        set("Dir::Etc::preferences", "/dev/null");
        set("Dir::Etc::preferencesparts", "/dev/null");
        set("APT::Architecture", self.arch.debian());
        set("APT::Architectures", self.arch.debian());
        set("Acquire::Languages", "none");
        for index in ["DEP-11", "DEP-11-icons-small", "DEP-11-icons", "CNF"] {
            set(&format!("Acquire::IndexTargets::deb::{index}::DefaultEnabled"), "false");
        }
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

/// Unpacks a package's files.
///
/// # Errors
/// What dpkg said.
pub(super) fn unpack(package: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    run_quietly(Command::new("dpkg-deb").arg("--extract").arg(package).arg(into))
}

/// Of Debian itself and of its security updates: those that this machine's apt uses, if it does.
fn lookup_mirrors() -> [String; 2] {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"]);
    let said = capture(&mut targets).unwrap_or_default();
    let of = |label: &str, default: &str| {
        let found = said.lines().filter_map(|line| line.split_once(' ')).find(|(of, _)| *of == label);
        found.map_or(default, |(_, mirror)| mirror).to_owned()
    };
    [of("Debian", MIRROR), of("Debian-Security", SECURITY_MIRROR)]
}

fn parse_dependencies(said: &str) -> Vec<String> {
    let fields = said.lines().filter_map(|line| line.strip_prefix("Depends: "));
    let first = |one: &str| {
        let one = one.split('|').next()?;
        Some(one.split_whitespace().next()?.to_owned())
    };
    fields.flat_map(|field| field.split(',')).filter_map(first).collect()
}

/// The newest of these names, which differ in the numbers in them.
pub(super) fn select_newest(names: Vec<String>) -> Option<String> {
    let numbers = |name: &String| -> Vec<u64> {
        let digits = name.split(|character: char| !character.is_ascii_digit());
        digits.filter_map(|digits| digits.parse().ok()).collect()
    };
    names.into_iter().max_by_key(numbers)
}

/// The one file in a folder whose name begins so.
///
/// # Errors
/// There is none.
pub(super) fn find_file(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let found = entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    found.with_context(|| format!("no {prefix}* in {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_alternatives_the_first_is_what_is_depended_on() {
        let said = "Package: a\nDepends: dracut | initramfs-tools (>= 0.12), linux-binary-7.3 (= 7.3.4-1), kmod\n\
                    Description: Depends: nothing\n";
        assert_eq!(parse_dependencies(said), ["dracut", "linux-binary-7.3", "kmod"]);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let names =
            ["linux-6.12.90+deb13.1-cloud", "linux-6.12.117+deb12-cloud", "linux-6.12.90+deb13-cloud"];
        let newest = |names: &[&str]| select_newest(names.iter().copied().map(str::to_owned).collect());
        assert_eq!(newest(&names).as_deref(), Some("linux-6.12.117+deb12-cloud"));
        assert_eq!(newest(&[names[2], names[0]]).as_deref(), Some("linux-6.12.90+deb13.1-cloud"));
        assert_eq!(newest(&[]), None);
    }
}
