//! Builds the object: a cargo of its own, for another target, with an environment that is the same wherever it is
//! called from. The same sources and compiler give the same bytes, in whichever folder they are.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use crate::btf::{BtfError, normalize};
use crate::find::{Kind, TARGET, Toolchain};

/// What to build, and where.
#[derive(Clone, Debug)]
pub struct ObjectRequest<'a> {
    /// The workspace's root.
    pub workspace: &'a Path,
    /// For everything in between. Not the target folder of a cargo that waits for this one: it holds the lock.
    pub target_dir: &'a Path,
    /// The machine on which the programs will run, as in `cfg(target_arch)`: it decides where a context keeps its
    /// registers.
    pub arch: &'a str,
    /// Whether the programs say what they do (feature `log`).
    pub log: bool,
    /// Where the finished object goes.
    pub object: &'a Path,
}

/// Why there is no object.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A program could not be started.
    #[error("cannot run {program}: {source}")]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program failed.
    #[error("{what} failed ({status}):\n{stderr}")]
    Failed {
        /// What it was doing.
        what: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// The finished object cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The object.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its type information cannot be put in order.
    #[error(transparent)]
    Btf(#[from] BtfError),
}

/// Files and folders that the object is made from: when none of them changes, nothing needs to be built.
#[must_use]
pub fn inputs(workspace: &Path, toolchain: &Toolchain) -> Vec<PathBuf> {
    let mut inputs: Vec<PathBuf> =
        ["ebpf/src", "ebpf/Cargo.toml", "Cargo.toml", "Cargo.lock"].map(|path| workspace.join(path)).into();
    inputs.push(toolchain.linker.clone());
    match &toolchain.kind {
        Kind::Packaged { rustc, .. } => inputs.push(rustc.clone()),
        Kind::Nightly { sysroot, .. } => inputs.push(sysroot.join("bin/rustc")),
    }
    inputs
}

impl Toolchain {
    /// Builds the object into `request.object` and returns the compiler's warnings, empty without any. Does nothing
    /// that was done before, but warns again: cargo sees to both.
    ///
    /// # Errors
    /// With the compiler's own words when it refuses the programs.
    pub fn build_object(&self, request: &ObjectRequest<'_>) -> Result<String, BuildError> {
        let warnings = run("compiling the eBPF programs", &mut self.cargo(request))?;
        let linked = request.target_dir.join(TARGET).join("release/weir-programs");
        // The loader reads .BTF and .BTF.ext; DWARF is six times as large and served only to make them.
        let mut strip = Command::new(&self.objcopy);
        if let Kind::Nightly { sysroot, .. } = &self.kind {
            // rustc's own objcopy does not find rustc's LLVM by itself.
            strip.env("LD_LIBRARY_PATH", sysroot.join("lib"));
        }
        strip.arg("--strip-debug").arg(&linked).arg(request.object);
        run("removing debug sections", &mut strip)?;
        let file = |source| BuildError::File { path: request.object.into(), source };
        let mut object = fs::read(request.object).map_err(file)?;
        normalize(&mut object)?;
        fs::write(request.object, object).map_err(file)?;
        Ok(warnings)
    }

    fn cargo(&self, request: &ObjectRequest<'_>) -> Command {
        let mut command = match &self.kind {
            Kind::Packaged { rustc, .. } => {
                // The cargo that called us, if one did: build scripts and `cargo run` are told which.
                let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                scrub(&mut command);
                // aya-ebpf declares its helpers with unstable attributes; no other crate may use any.
                command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "aya_ebpf");
                command.arg("build");
                command
            }
            Kind::Nightly { rustup, .. } => {
                let mut command = Command::new(rustup);
                scrub(&mut command);
                command.args(["run", "nightly", "cargo", "build", "-Zbuild-std=core"]);
                command
            }
        };
        command
            .current_dir(request.workspace)
            .args(["--quiet", "--locked", "--release", "--package=weir-ebpf", "--bin=weir-programs"])
            .args(["--no-default-features", "--target", TARGET, "--target-dir"])
            .arg(request.target_dir)
            .arg(if request.log { "--features=log" } else { "--features=bpf" })
            .env("PATH", self.path())
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags(request))
            // BTF is made from debug information; the linker optimizes across crates by itself.
            .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
            .env("CARGO_PROFILE_RELEASE_STRIP", "none")
            .env("CARGO_PROFILE_RELEASE_LTO", "off");
        command
    }

    /// PATH with the toolchain's programs first.
    fn path(&self) -> OsString {
        let mut folders: Vec<PathBuf> = self.linker.parent().map(Path::to_owned).into_iter().collect();
        if let Kind::Packaged { llvm_bin, .. } = &self.kind {
            folders.push(llvm_bin.clone());
        }
        let inherited = env::var_os("PATH").unwrap_or_default();
        folders.extend(env::split_paths(&inherited));
        // A folder with a colon in its name cannot be said in PATH.
        env::join_paths(folders).unwrap_or(inherited)
    }

    fn rustflags(&self, request: &ObjectRequest<'_>) -> OsString {
        let mut flags: Vec<OsString> = vec![
            "-Clinker=bpf-linker".into(),
            "-Clink-arg=--btf".into(),
            // Arithmetic and jumps of 32 bits (Linux 5.1).
            "-Ctarget-cpu=v3".into(),
            format!("--cfg=bpf_target_arch=\"{}\"", request.arch).into(),
        ];
        let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
            let home = env::var_os("HOME")?;
            Some(Path::new(&home).join(".cargo"))
        });
        // File names stand in BTF. Of several prefixes that fit, rustc takes the last: the narrowest comes last.
        let mut names = vec![(Some(request.workspace), "/weir"), (cargo_home.as_deref(), "/cargo")];
        if let Kind::Nightly { sysroot, .. } = &self.kind {
            names.push((Some(sysroot), "/rust"));
        }
        names.push((Some(request.target_dir), "/target"));
        for (place, name) in names {
            let Some(place) = place else { continue };
            let mut flag = OsString::from("--remap-path-prefix=");
            flag.push(place);
            flag.push("=");
            flag.push(name);
            flags.push(flag);
        }
        flags.join(OsStr::new("\u{1f}"))
    }
}

/// Removes what the calling cargo, its rustc and its user said about *their* build. What says how to reach the
/// registry stays, and so does the job server: both builds together use as many processors as were asked for.
fn scrub(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_foreign) {
            command.env_remove(name);
        }
    }
}

fn is_foreign(name: &str) -> bool {
    const KEPT: [&str; 2] = ["CARGO_HOME", "CARGO_MAKEFLAGS"];
    const KEPT_GROUPS: [&str; 4] = ["CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_"];
    // From HOST on: what cargo tells a build script; a dependency's build script that reads one of these would
    // run again whenever the agent's build and xtask take turns.
    const FOREIGN: [&str; 11] = [
        "RUSTFLAGS",
        "RUSTDOCFLAGS",
        "RUSTUP_TOOLCHAIN",
        "RUSTDOC",
        "HOST",
        "TARGET",
        "PROFILE",
        "OPT_LEVEL",
        "DEBUG",
        "NUM_JOBS",
        "OUT_DIR",
    ];
    if name.starts_with("CARGO_") {
        return !KEPT.contains(&name) && !KEPT_GROUPS.iter().any(|group| name.starts_with(group));
    }
    name.starts_with("RUSTC") || FOREIGN.contains(&name)
}

/// Returns what a program that succeeded said on its standard error.
fn run(what: &'static str, command: &mut Command) -> Result<String, BuildError> {
    let Output { status, stderr, .. } = command
        .output()
        .map_err(|source| BuildError::Start { program: command.get_program().into(), source })?;
    let stderr = String::from_utf8_lossy(&stderr).trim_end().to_owned();
    if status.success() {
        return Ok(stderr);
    }
    Err(BuildError::Failed { what, status, stderr })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolchain() -> Toolchain {
        Toolchain {
            kind: Kind::Packaged { rustc: "/usr/bin/rustc".into(), llvm_bin: "/usr/lib/llvm-22/bin".into() },
            linker: "/w/target/bpf-tools/bin/bpf-linker".into(),
            objcopy: "/usr/lib/llvm-22/bin/llvm-objcopy".into(),
        }
    }

    fn request<'a>() -> ObjectRequest<'a> {
        ObjectRequest {
            workspace: Path::new("/w"),
            target_dir: Path::new("/w/target/bpf"),
            arch: "aarch64",
            log: false,
            object: Path::new("/o"),
        }
    }

    #[test]
    fn the_callers_build_does_not_leak_in() {
        for foreign in [
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_FEATURE_KERNEL",
            "CARGO_PROFILE_RELEASE_LTO",
        ] {
            assert!(is_foreign(foreign), "{foreign}");
        }
        for foreign in ["RUSTFLAGS", "RUSTC", "RUSTC_WRAPPER", "RUSTC_BOOTSTRAP", "RUSTUP_TOOLCHAIN", "HOST"]
        {
            assert!(is_foreign(foreign), "{foreign}");
        }
        for kept in ["PATH", "CARGO_HOME", "CARGO_NET_OFFLINE", "RUSTUP_HOME", "CARGO_MAKEFLAGS", "RUST_LOG"]
        {
            assert!(!is_foreign(kept), "{kept}");
        }
    }

    #[test]
    fn the_narrowest_prefix_is_renamed_last() {
        let flags = toolchain().rustflags(&request());
        let flags: Vec<&str> = flags.to_str().unwrap().split('\u{1f}').collect();
        let position = |flag: &str| flags.iter().position(|candidate| *candidate == flag);
        let workspace = position("--remap-path-prefix=/w=/weir").expect("the workspace is renamed");
        let target = position("--remap-path-prefix=/w/target/bpf=/target").expect("the target is renamed");
        assert!(workspace < target, "{flags:?}");
        assert!(position("--cfg=bpf_target_arch=\"aarch64\"").is_some(), "{flags:?}");
    }

    #[test]
    fn the_linkers_folder_is_first_in_path() {
        let path = toolchain().path();
        let folders: Vec<PathBuf> = env::split_paths(&path).take(2).collect();
        assert_eq!(
            folders,
            [PathBuf::from("/w/target/bpf-tools/bin"), PathBuf::from("/usr/lib/llvm-22/bin")]
        );
    }

    #[test]
    fn warnings_are_returned() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'warning: unused map' >&2"]);
        assert_eq!(run("compiling", &mut command).unwrap(), "warning: unused map");
    }

    #[test]
    fn a_failure_carries_what_the_compiler_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'error: no such map' >&2; exit 3"]);
        let error = run("compiling", &mut command).unwrap_err().to_string();
        assert!(error.contains("compiling failed") && error.contains("error: no such map"), "{error}");

        let error = run("compiling", &mut Command::new("/nonexistent/cargo")).unwrap_err().to_string();
        assert!(error.starts_with("cannot run /nonexistent/cargo"), "{error}");
    }
}
