//! The layer check: data flows one way, and a module uses only what is to its left (ARCHITECTURE.md). Each library
//! we share with others is imported by one module, so that the rest is plain data and can be tested as such.
//!
//! Tests may look at what comes after their module (a source is best judged by the state that it leads to); for
//! libraries they are as strict as the rest.

mod imports;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::Finding;
use crate::workspace::Workspace;
use imports::{Import, collect_imports};

/// What holds in one crate.
struct Rules {
    /// Its sources.
    folder: &'static str,
    /// Its name in paths: its binaries call its library by it.
    name: &'static str,
    /// Its modules; each may use itself and those before it.
    order: &'static [&'static str],
    /// Files and folders beside the modules: they put the modules together, and may use any of them.
    roots: &'static [&'static str],
    /// Libraries, and the only places that may import them.
    libraries: &'static [(&'static [&'static str], &'static [&'static str])],
}

const AYA: &[&str] = &["aya", "aya_obj", "aya_log"];
const AYA_EBPF: &[&str] = &["aya_ebpf", "aya_ebpf_bindings", "aya_log_ebpf"];
const KUBE: &[&str] = &["kube", "kube_core", "kube_client", "kube_runtime", "k8s_openapi"];

const CRATES: [Rules; 2] = [
    Rules {
        folder: "agent/src",
        name: "weir_agent",
        order: &[
            "host", "source", "network", "state", "compile", "tables", "kernel", "observe", "daemon", "cli",
        ],
        roots: &["lib", "main"],
        libraries: &[(AYA, &["kernel"]), (KUBE, &["source"]), (AYA_EBPF, &[])],
    },
    Rules {
        folder: "ebpf/src",
        name: "weir_ebpf",
        order: &["abi", "repeat", "wire", "datapath", "act", "testing"],
        roots: &["lib", "main", "programs"],
        libraries: &[(AYA, &[]), (KUBE, &[]), (AYA_EBPF, &["main", "programs"])],
    },
];

/// One import that should not be.
struct Violation {
    file: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

pub(super) fn check(workspace: &Workspace) -> Result<Finding> {
    let mut violations = Vec::new();
    for rules in &CRATES {
        violations.extend(judge_crate(rules, &workspace.root)?);
    }
    if violations.is_empty() {
        return Ok(Finding::Good);
    }
    let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
    bail!("{}", lines.join("\n"));
}

fn judge_crate(rules: &Rules, root: &Path) -> Result<Vec<Violation>> {
    let folder = root.join(rules.folder);
    let mut files = Vec::new();
    collect_files(&folder, &mut files)?;
    if files.is_empty() {
        bail!("{} has no sources", folder.display());
    }
    files.sort();
    let mut violations = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let inside = file.strip_prefix(&folder).context("a file outside its folder")?;
        let imports = collect_imports(&text, &module_path(inside))
            .with_context(|| format!("{} does not parse", file.display()))?;
        let shown = file.strip_prefix(root).unwrap_or(&file);
        violations.extend(judge_file(rules, shown, inside, &imports));
    }
    Ok(violations)
}

fn collect_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The module that a file holds: `compile/plan.rs` is `compile::plan`, `compile/mod.rs` is `compile`, `lib.rs` the root.
fn module_path(inside: &Path) -> Vec<String> {
    let mut path: Vec<String> =
        inside.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let is_root = path.len() == 1 && path.last().is_some_and(|name| name == "lib" || name == "main");
    if is_root || path.last().is_some_and(|name| name == "mod") {
        path.pop();
    }
    path
}

fn judge_file(rules: &Rules, shown: &Path, inside: &Path, imports: &[Import]) -> Vec<Violation> {
    let violation = |line, what| Violation { file: shown.into(), line, what };
    // The module under the crate's root that the file belongs to.
    let first = inside.iter().next().map(|part| Path::new(part).with_extension(""));
    let place = first.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default();
    let position = rules.order.iter().position(|module| *module == place);
    if position.is_none() && !rules.roots.contains(&place.as_str()) {
        let what = format!("`{place}` has no place in the order of layers ({})", rules.order.join(" -> "));
        return vec![violation(1, what)];
    }
    let is_test_file = inside.with_extension("").iter().any(|part| part == "tests");
    let mut violations = Vec::new();
    for Import { root, rest, line, in_test } in imports {
        for (names, places) in rules.libraries {
            if names.contains(&root.as_str()) && !places.contains(&place.as_str()) {
                let only = if places.is_empty() { "nothing here".into() } else { places.join(", ") };
                let what = format!("`{place}` imports `{root}`; only {only} may");
                violations.push(violation(*line, what));
            }
        }
        let own = (root == "crate" || root == rules.name) && !in_test && !is_test_file;
        let used = rest.as_deref().filter(|_| own);
        let used = used.and_then(|used| rules.order.iter().position(|module| *module == used));
        if let (Some(position), Some(used)) = (position, used)
            && used > position
        {
            let what = format!("`{place}` uses `{}`, which comes after it", rules.order[used]);
            violations.push(violation(*line, what));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in a workspace that holds these files of the agent's.
    fn judge(files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join("agent/src").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let violations = judge_crate(&CRATES[0], folder.path()).unwrap();
        violations.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn to_the_left_is_allowed() {
        let files = [
            ("lib.rs", "pub mod compile; pub mod kernel; pub use crate::kernel::Loader;"),
            ("main.rs", "use weir_agent::cli::run;"),
            ("compile/service.rs", "use crate::source::Service; use super::plan::Plan; use std::kube;"),
            (
                "kernel/mod.rs",
                "use aya::Ebpf; fn f() -> crate::tables::Rows { aya::include_bytes_aligned!(1) }",
            ),
            ("source/mod.rs", "use k8s_openapi::api; use kube::{Api, api::ListParams};"),
            ("cli/mod.rs", "use crate::{kernel, observe::health}; fn f(kube: u8) -> u8 { kube }"),
        ];
        assert_eq!(judge(&files), [""; 0]);
    }

    #[test]
    fn to_the_right_is_found_in_every_disguise() {
        for text in [
            "use crate::kernel::Maps;",
            "use crate::{source::Event, kernel};",
            "use super::super::kernel::Maps;",
            "fn f() { crate::kernel::load() }",
            "fn f() -> Option<crate::kernel::Maps> { None }",
            "mod tests { use super::super::super::kernel::Maps; }",
            "fn f() { println!(\"{}\", crate::kernel::count()) }",
            "use weir_agent::kernel as k;",
            "pub(in crate::kernel) fn f() {}",
        ] {
            let found = judge(&[("compile/plan.rs", text)]);
            assert_eq!(
                found,
                ["agent/src/compile/plan.rs:1: `compile` uses `kernel`, which comes after it"],
                "{text}"
            );
        }
    }

    #[test]
    fn tests_may_look_further_but_import_nothing_else() {
        let files = [
            ("source/mod.rs", "#[cfg(test)] mod tests { use crate::state::State; }"),
            ("source/tests/live.rs", "use crate::state::State;"),
            ("state/tests.rs", "use crate::compile::Plan;"),
            ("state/mod.rs", "#[cfg(test)] mod tests { use aya::Ebpf; }"),
        ];
        assert_eq!(judge(&files), ["agent/src/state/mod.rs:1: `state` imports `aya`; only kernel may"]);
    }

    #[test]
    fn a_library_outside_its_module_is_found() {
        for text in [
            "use aya::maps::HashMap;",
            "use ::aya as a;",
            "extern crate aya;",
            "fn f(maps: &aya::Ebpf) {}",
            "fn f() { let _ = vec![aya::Ebpf::load(&[])]; }",
            "#[aya::main] fn f() {}",
        ] {
            let found = judge(&[("observe.rs", text)]);
            assert_eq!(found, ["agent/src/observe.rs:1: `observe` imports `aya`; only kernel may"], "{text}");
        }
        let found = judge(&[("main.rs", "\nuse kube::Client;")]);
        assert_eq!(found, ["agent/src/main.rs:2: `main` imports `kube`; only source may"]);
    }

    #[test]
    fn a_module_that_nobody_placed_is_found() {
        let found = judge(&[("util.rs", "")]);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("agent/src/util.rs:1: `util` has no place"), "{found:?}");
    }

    #[test]
    fn the_library_of_the_programs_knows_neither_aya_nor_kube() {
        let folder = tempfile::tempdir().unwrap();
        let src = folder.path().join("ebpf/src");
        fs::create_dir_all(src.join("datapath")).unwrap();
        fs::create_dir_all(src.join("programs")).unwrap();
        fs::write(src.join("datapath/mod.rs"), "use aya_ebpf::maps::HashMap; use crate::testing::Fake;")
            .unwrap();
        fs::write(src.join("programs/maps.rs"), "use aya_ebpf::maps::HashMap; use crate::kernel_tables;")
            .unwrap();
        let found = judge_crate(&CRATES[1], folder.path()).unwrap();
        let found: Vec<String> = found.iter().map(|violation| violation.what.clone()).collect();
        assert_eq!(
            found,
            [
                "`datapath` imports `aya_ebpf`; only main, programs may",
                "`datapath` uses `testing`, which comes after it"
            ]
        );
    }

    #[test]
    fn a_file_that_does_not_parse_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("agent/src")).unwrap();
        assert!(judge_crate(&CRATES[0], folder.path()).is_err());
        fs::write(folder.path().join("agent/src/lib.rs"), "use crate::;").unwrap();
        assert!(judge_crate(&CRATES[0], folder.path()).is_err());
    }
}
