//! What is in a machine: an init, programs with their libraries, modules, tests. Packed as the kernel takes it, so that a
//! machine needs no disk.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::Job;
use crate::shell::{capture, run_quietly};

/// The programs that init and the tests run.
const PROGRAMS: [&str; 4] = ["busybox", "ip", "tc", "bridge"];
/// Where they may be.
const FOLDERS: [&str; 4] = ["usr/sbin", "usr/bin", "sbin", "bin"];

/// The files of a machine, in a folder that goes when this is dropped.
pub(super) struct Guest {
    root: tempfile::TempDir,
    jobs: String,
}

impl Guest {
    /// With programs and the libraries that they need.
    ///
    /// # Errors
    /// One is not there.
    pub(super) fn new(userland: &Userland) -> Result<Self> {
        let root = tempfile::tempdir()?;
        for folder in ["bin", "dev", "proc", "run", "sys", "tmp", "weir/bin", "weir/modules"] {
            fs::create_dir_all(root.path().join(folder))?;
        }
        let guest = Self { root, jobs: String::new() };
        fs::write(guest.path("init"), include_str!("init.sh"))?;
        fs::set_permissions(guest.path("init"), fs::Permissions::from_mode(0o755))?;
        match userland {
            Userland::Host => {
                for name in PROGRAMS {
                    guest.add_program(&find_program(Path::new("/"), name)?, &format!("bin/{name}"))?;
                }
            }
            Userland::Unpacked(folder) => {
                for name in PROGRAMS {
                    fs::copy(find_program(folder, name)?, guest.path("bin").join(name))?;
                }
                for libraries in ["lib", "lib64", "usr/lib"] {
                    if folder.join(libraries).is_dir() {
                        copy_folder(&folder.join(libraries), &guest.path(libraries))?;
                    }
                }
            }
        }
        Ok(guest)
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.root.path().join(inside)
    }

    /// A program of this machine's architecture, with the libraries that it needs here.
    fn add_program(&self, program: &Path, inside: &str) -> Result<()> {
        fs::copy(program, self.path(inside)).with_context(|| program.display().to_string())?;
        // It fails of a program that is linked statically.
        let said = capture(Command::new("ldd").arg(program)).unwrap_or_default();
        for library in parse_libraries(&said) {
            let to = self.path(library.trim_start_matches('/'));
            if !to.exists() {
                fs::create_dir_all(to.parent().context("a library without a folder")?)?;
                fs::copy(library, &to).with_context(|| library.to_owned())?;
            }
        }
        Ok(())
    }

    /// Modules, to be loaded in this order.
    ///
    /// # Errors
    /// One cannot be read.
    pub(super) fn add_modules(&self, modules: &[PathBuf]) -> Result<()> {
        for (at, module) in modules.iter().enumerate() {
            let name = module.file_name().context("a module without a name")?.to_string_lossy();
            let bytes = match name.rsplit_once('.') {
                Some((_, "ko")) => fs::read(module)?,
                Some((_, "xz")) => decompress(Command::new("xz").args(["-dc"]).arg(module))?,
                Some((_, "zst")) => decompress(Command::new("zstd").args(["-dcq"]).arg(module))?,
                _ => bail!("{}: nobody knows how to decompress it", module.display()),
            };
            let stem = name.split('.').next().unwrap_or_default();
            fs::write(self.path("weir/modules").join(format!("{at:02}-{stem}")), bytes)?;
        }
        Ok(())
    }

    /// A test to run; without what only a debugger would read.
    ///
    /// # Errors
    /// It is not there.
    pub(super) fn add_job(&mut self, job: &Job, strip: &str) -> Result<()> {
        let inside = format!("weir/bin/{}", job.name);
        self.add_program(&job.program, &inside)?;
        run_quietly(Command::new(strip).arg(self.path(&inside)))?;
        let arguments = job.arguments.join(" ");
        self.jobs += &format!("{} /{inside} --test-threads=1 --color=never {arguments}\n", job.name);
        Ok(())
    }

    /// The conformance vectors.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn add_vectors(&self, vectors: &Path) -> Result<()> {
        copy_folder(vectors, &self.path("weir/vectors"))
    }

    /// Packs everything into this file.
    ///
    /// # Errors
    /// What `cpio` said.
    pub(super) fn pack(&self, into: &Path) -> Result<()> {
        fs::write(self.path("weir/jobs"), &self.jobs)?;
        let file = fs::File::create(into)?;
        let mut find = Command::new("find");
        let mut found = find.arg(".").current_dir(self.root.path()).stdout(Stdio::piped()).spawn()?;
        let names = found.stdout.take().context("find says nothing")?;
        let mut cpio = Command::new("cpio");
        cpio.args(["--create", "--format=newc", "--quiet", "--owner=0:0"]).current_dir(self.root.path());
        let packed = cpio.stdin(names).stdout(file).status().context("cannot run cpio")?;
        if !found.wait()?.success() || !packed.success() {
            bail!("cpio failed ({packed})");
        }
        Ok(())
    }
}

/// Where a machine's programs are from.
pub(super) enum Userland {
    /// From here: the machine has the same architecture.
    Host,
    /// From packages that were unpacked into this folder.
    Unpacked(PathBuf),
}

fn find_program(root: &Path, name: &str) -> Result<PathBuf> {
    let candidates = FOLDERS.iter().map(|folder| root.join(folder).join(name));
    let found = candidates.into_iter().find(|path| path.is_file());
    found.with_context(|| format!("there is no {name} below {}", root.display()))
}

fn decompress(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.stderr(Stdio::inherit()).output().context("cannot decompress a module")?;
    if !output.status.success() {
        bail!("decompressing a module failed ({})", output.status);
    }
    Ok(output.stdout)
}

/// With its links as they are.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    run_quietly(Command::new("cp").args(["--archive", "--no-preserve=ownership"]).arg(from.join(".")).arg(to))
}

/// From what `ldd` says: `NAME => FILE (address)`, and `FILE (address)` of the loader.
fn parse_libraries(said: &str) -> impl Iterator<Item = &str> {
    said.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_file() {
        let said = "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n\t/lib64/ld.so.2 (0x7f)\n\
                    \tstatically linked\n";
        assert_eq!(parse_libraries(said).collect::<Vec<_>>(), ["/lib/libc.so.6", "/lib64/ld.so.2"]);
    }
}
