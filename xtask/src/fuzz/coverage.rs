//! Which lines a corpus reaches: every input once more, by a program with the compiler's counters.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use super::tools::Tools;
use super::{Places, Target};
use crate::shell::{Style, describe, run_quietly};
use crate::workspace::Workspace;

/// What counts: the code that bytes from outside reach.
const FOLDERS: [&str; 6] = [
    "ebpf/src/wire",
    "ebpf/src/datapath",
    "ebpf/src/act",
    "agent/src/compile/policy",
    "agent/src/source/manifests",
    "agent/src/source/parse",
];

/// Lines of a file, and of these those that were reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Lines {
    all: u64,
    reached: u64,
}

/// Prints the lines of each file and of each folder.
pub(super) fn report(
    workspace: &Workspace,
    tools: &Tools,
    places: &Places,
    targets: &[Target],
) -> Result<ExitCode> {
    let programs = tools
        .lookup_llvm(workspace, "llvm-profdata")
        .and_then(|profdata| Ok((profdata, tools.lookup_llvm(workspace, "llvm-cov")?)));
    let (profdata, cov) = match programs {
        Ok(programs) => programs,
        Err(reason) => {
            println!("{} coverage: {reason:#}", Style::of(&std::io::stdout()).open("not run:"));
            return Ok(ExitCode::from(2));
        }
    };
    let folder = places.root.join("coverage");
    let replay = build_replay(workspace, tools, &folder)?;
    let counters = replay_all(&replay, places, targets, &folder)?;
    let profile = folder.join("all.profdata");
    run_quietly(Command::new(profdata).args(["merge", "--sparse", "-o"]).arg(&profile).args(counters))?;
    let mut export = Command::new(cov);
    export.args(["export", "--format=lcov", "--summary-only", "--instr-profile"]).arg(&profile).arg(&replay);
    let output = export.output().with_context(|| format!("cannot run {}", describe(&export)))?;
    if !output.status.success() {
        bail!("{} failed:\n{}", describe(&export), String::from_utf8_lossy(&output.stderr));
    }
    print_lines(&read_lcov(&String::from_utf8_lossy(&output.stdout), &workspace.root));
    Ok(ExitCode::SUCCESS)
}

fn build_replay(workspace: &Workspace, tools: &Tools, folder: &Path) -> Result<PathBuf> {
    let mut build = tools.nightly("cargo".as_ref());
    build.args(["build", "--package=weir-fuzz", "--bin=replay", "--target-dir"]).arg(folder);
    // With a target named, build scripts and macros are built without counters.
    build.args(["--target", &tools.triple]);
    run_quietly(
        build.current_dir(&workspace.root).env("RUSTFLAGS", "-Cinstrument-coverage -Clink-dead-code"),
    )?;
    Ok(folder.join(&tools.triple).join("debug/replay"))
}

/// The files with the counters, one for each target.
fn replay_all(replay: &Path, places: &Places, targets: &[Target], folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for target in targets {
        let counters = folder.join(target.name()).with_extension("profraw");
        let mut command = Command::new(replay);
        command.arg(target.name()).args(places.inputs(*target));
        run_quietly(command.env("LLVM_PROFILE_FILE", &counters))?;
        fs::metadata(&counters).with_context(|| counters.display().to_string())?;
        files.push(counters);
    }
    Ok(files)
}

/// The files of [`FOLDERS`], from LLVM's export (the format of lcov's geninfo(1): SF is a file, LF and LH are its lines
/// and those hit).
fn read_lcov(text: &str, root: &Path) -> BTreeMap<String, Lines> {
    let mut files = BTreeMap::new();
    let (mut file, mut lines) = (String::new(), Lines::default());
    for line in text.lines() {
        match line.split_once(':').unwrap_or((line, "")) {
            ("SF", path) => {
                let path = Path::new(path);
                file = path.strip_prefix(root).unwrap_or(path).display().to_string();
            }
            ("LF", number) => lines.all = number.parse().unwrap_or_default(),
            ("LH", number) => lines.reached = number.parse().unwrap_or_default(),
            ("end_of_record", _) => {
                if lookup_folder(&file).is_some() {
                    files.insert(file.clone(), lines);
                }
                lines = Lines::default();
            }
            _ => {}
        }
    }
    files
}

fn lookup_folder(file: &str) -> Option<&'static str> {
    FOLDERS.into_iter().find(|folder| Path::new(file).starts_with(folder))
}

fn print_lines(files: &BTreeMap<String, Lines>) {
    for (file, lines) in files {
        println!("{:>6} % {:>5} of {:>5} lines  {file}", percent(*lines), lines.reached, lines.all);
    }
    for folder in FOLDERS {
        let mut sum = Lines::default();
        for (_, lines) in files.iter().filter(|(file, _)| lookup_folder(file) == Some(folder)) {
            sum.all += lines.all;
            sum.reached += lines.reached;
        }
        println!("figure fuzz.lines.{folder} {}/{} ({} %)", sum.reached, sum.all, percent(sum));
    }
}

fn percent(lines: Lines) -> String {
    let permille = (lines.reached * 1000).checked_div(lines.all).unwrap_or_default();
    format!("{}.{}", permille / 10, permille % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_for_what_counts() {
        let text = "SF:/w/ebpf/src/wire/parse.rs\nFNF:1\nLF:40\nLH:38\nend_of_record\n\
                    SF:/w/ebpf/fuzz/src/lib.rs\nLF:9\nLH:9\nend_of_record\n\
                    SF:/w/ebpf/src/datapath/select.rs\nLF:3\nend_of_record\n";
        let files = read_lcov(text, Path::new("/w"));
        assert_eq!(files.len(), 2);
        assert_eq!(files["ebpf/src/wire/parse.rs"], Lines { all: 40, reached: 38 });
        assert_eq!(files["ebpf/src/datapath/select.rs"], Lines { all: 3, reached: 0 });
    }

    #[test]
    fn percents_have_one_digit_and_round_down() {
        assert_eq!(percent(Lines { all: 1000, reached: 999 }), "99.9");
        assert_eq!(percent(Lines { all: 3, reached: 2 }), "66.6");
        assert_eq!(percent(Lines::default()), "0.0");
    }
}
