//! A kernel of Debian's for clouds: its image, and the modules that tests need, in the order in which they are loaded.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::Arch;
use super::archive::{Archive, Part, find_file, select_newest, unpack};
use crate::shell::{announce, capture};

/// What Debian has as modules and the tests need. Those that a kernel has built in have no file; one that it does not
/// know makes the tests that need it fail there.
const MODULES: [&str; 10] = [
    "veth",
    "sch_ingress",
    "cls_bpf",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "bridge",
    "vxlan",
    "sctp",
    "crc32c_generic",
];

/// A series: `6.1`, `6.12`, `7.3`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Series {
    major: u32,
    minor: u32,
}

impl std::str::FromStr for Series {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (major, minor) = text.split_once('.')?;
            Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
        };
        parse().ok_or_else(|| format!("{text:?} is no series of kernels such as 6.1"))
    }
}

impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Series {
    /// That of these numbers.
    pub(crate) const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Where Debian has it. 6.1 and 6.12 are looked after for Debian 12; others come and go with those who use them.
    fn part(self) -> Part {
        if self <= Self::new(6, 12) { Part::Security } else { Part::Backports }
    }
}

/// A kernel that can be booted.
pub(super) struct Kernel {
    /// As `uname -r` says.
    pub(super) release: String,
    pub(super) image: PathBuf,
    /// A folder with `lib/modules`.
    root: PathBuf,
}

impl Kernel {
    /// The newest of its series that Debian had when it was first asked for; `folder` keeps it.
    ///
    /// # Errors
    /// There is none, or it cannot be fetched.
    pub(super) fn ensure(folder: &Path, arch: Arch, series: Series) -> Result<Self> {
        let root = folder.join(format!("linux-{series}"));
        if !root.is_dir() {
            let unpacked = folder.join(format!("linux-{series}.new"));
            let _left_by_one_that_was_interrupted = fs::remove_dir_all(&unpacked);
            fetch(folder, arch, series, &unpacked)?;
            fs::rename(&unpacked, &root)?;
        }
        let modules = root.join("lib/modules");
        let release =
            fs::read_dir(&modules)?.flatten().next().context("a kernel without modules")?.file_name();
        let release = release.to_string_lossy().into_owned();
        // Newer ones have it beside their modules.
        let image = find_file(&modules.join(&release), "vmlinuz");
        let image = image.or_else(|_| find_file(&root.join("boot"), "vmlinuz-"))?;
        Ok(Self { release, image, root })
    }

    /// The files of the modules, each after those that it needs.
    ///
    /// # Errors
    /// What `modprobe` said.
    pub(super) fn modules(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for module in MODULES {
            let mut modprobe = Command::new("modprobe");
            modprobe.arg("--dirname").arg(&self.root).args([
                "--set-version",
                &self.release,
                "--show-depends",
            ]);
            // One that this kernel does not have: whoever needs it says so.
            let Ok(said) = capture(modprobe.arg(module)) else { continue };
            for file in parse_modules(&said) {
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        ensure!(!files.is_empty(), "{}: no modules", self.release);
        Ok(files)
    }
}

fn fetch(folder: &Path, arch: Arch, series: Series, into: &Path) -> Result<()> {
    let archive = Archive::open(folder.join("apt-kernels"), arch, &[series.part()])?;
    let names = archive.names(&format!("linux-image-{series}."))?;
    let suffix = format!("-cloud-{}", arch.debian());
    let found: Vec<_> = names.into_iter().filter(|name| name.ends_with(&suffix)).collect();
    let Some(image) = select_newest(found) else {
        bail!("Debian has no kernel {series} for clouds of {} any more, or not yet", arch.debian());
    };
    // Newer ones are in several packages.
    let rest = archive.dependencies(&image)?;
    let is_piece = |name: &String| name.starts_with("linux-binary-") || name.starts_with("linux-modules-");
    let packages: Vec<_> = std::iter::once(image).chain(rest.into_iter().filter(is_piece)).collect();
    for package in archive.download(&packages)? {
        unpack(&package, into)?;
        fs::remove_file(package)?;
    }
    if !into.join("lib").exists() {
        symlink("usr/lib", into.join("lib"))?;
    }
    let modules = find_file(&into.join("lib/modules"), &series.to_string())?;
    let release = modules.file_name().context("a release without a name")?.to_os_string();
    announce(&format!("depmod {}", release.display()));
    crate::shell::run_quietly(Command::new("depmod").arg("--basedir").arg(into).arg(release))
}

/// From lines `insmod FILE [options]`, and `builtin NAME`.
fn parse_modules(said: &str) -> Vec<PathBuf> {
    let lines = said.lines().filter_map(|line| line.strip_prefix("insmod "));
    lines.filter_map(|line| line.split_whitespace().next()).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_two_numbers() {
        let series: Series = "6.12".parse().unwrap();
        assert_eq!((series, series.to_string().as_str()), (Series::new(6, 12), "6.12"));
        assert!(Series::new(6, 12) > Series::new(6, 1));
        for wrong in ["6", "6.1.4", "six.one", ""] {
            assert!(wrong.parse::<Series>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn built_in_modules_have_no_file() {
        let said = "insmod /lib/modules/6.1/a.ko \nbuiltin b\ninsmod /lib/modules/6.1/c.ko.xz x=1\n";
        assert_eq!(
            parse_modules(said),
            [Path::new("/lib/modules/6.1/a.ko"), Path::new("/lib/modules/6.1/c.ko.xz")]
        );
    }
}
