//! Kubernetes' own end-to-end suite against the cluster: one line for each spec that ran, as it ended.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::plan::{NODES, Plan, State};
use crate::shell::{Style, announce};

/// What Ginkgo says of a run: a list of suites.
#[derive(Deserialize)]
struct Suite {
    #[serde(rename = "SpecReports")]
    specs: Option<Vec<Spec>>,
}

/// One spec, or a node beside them (`BeforeSuite`).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    failure: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    message: Option<String>,
}

/// Runs the specs that match; fails if one does, or if none ran.
pub(super) fn run(
    state: &State,
    plan: &Plan,
    suite: &Path,
    focus: &str,
    skip: Option<&str>,
) -> Result<ExitCode> {
    // One for each run: several may go on at once.
    let folder = state.root().join("e2e").join(std::process::id().to_string());
    fs::create_dir_all(&folder)?;
    let (report, log) = (folder.join("report.json"), folder.join("log.txt"));
    announce(&format!(
        "{} --ginkgo.focus '{focus}' (it says what it does in {})",
        suite.display(),
        log.display()
    ));
    let output = fs::File::create(&log)?;
    let mut command = Command::new(suite);
    command
        .arg(format!("--kubeconfig={}", state.kubeconfig().display()))
        .arg(format!("--kubectl-path={}", plan.binaries.join("kubectl").display()))
        .arg(format!("--num-nodes={NODES}"))
        .arg("--provider=local")
        .arg(format!("--ginkgo.focus={focus}"))
        .arg(format!("--ginkgo.json-report={}", report.display()))
        .args(["--ginkgo.no-color", "--ginkgo.v"]);
    if let Some(skip) = skip {
        command.arg(format!("--ginkgo.skip={skip}"));
    }
    // Whether specs failed is in the report; that there is none is the only other way to end.
    let status = command.current_dir(&folder).stdout(output.try_clone()?).stderr(output).status();
    let status = status.with_context(|| format!("cannot run {}", suite.display()))?;
    let report = fs::read(&report).with_context(|| format!("{} ({status})", log.display()))?;
    let ran = parse(&report)?;
    let style = Style::of(&std::io::stdout());
    for spec in &ran {
        let word = if spec.passed() { style.good("passed") } else { style.bad(&spec.state) };
        println!("{word}  {}", spec.name());
        for line in spec.message().lines().take(3) {
            println!("        {line}");
        }
    }
    ensure!(!ran.is_empty(), "no spec ran: does '{focus}' match one?");
    let passed = ran.iter().filter(|spec| spec.passed()).count();
    println!("figure e2e.passed {passed}/{}", ran.len());
    Ok(if passed == ran.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What ran, and what failed beside the specs.
fn parse(report: &[u8]) -> Result<Vec<Spec>> {
    let suites: Vec<Suite> = serde_json::from_slice(report).context("Ginkgo's report")?;
    let specs = suites.into_iter().flat_map(|suite| suite.specs.unwrap_or_default());
    let ran = specs.filter(|spec| match spec.leaf_node_type.as_str() {
        "It" => !["skipped", "pending"].contains(&spec.state.as_str()),
        _ => !spec.passed(),
    });
    Ok(ran.collect())
}

impl Spec {
    fn passed(&self) -> bool {
        self.state == "passed"
    }

    fn name(&self) -> String {
        let texts = self.container_hierarchy_texts.iter().flatten().chain([&self.leaf_node_text]);
        let texts: Vec<_> = texts.map(String::as_str).collect();
        if self.leaf_node_type == "It" { texts.join(" ") } else { format!("[{}]", self.leaf_node_type) }
    }

    fn message(&self) -> &str {
        self.failure.as_ref().and_then(|failure| failure.message.as_deref()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_that_ran_are_told_from_those_that_did_not() {
        let report = br#"[{"SpecReports":[
            {"ContainerHierarchyTexts":null,"LeafNodeType":"SynchronizedBeforeSuite","LeafNodeText":"","State":"passed"},
            {"ContainerHierarchyTexts":["[sig-network] Services"],"LeafNodeType":"It","LeafNodeText":"a","State":"passed"},
            {"ContainerHierarchyTexts":["[sig-network] Services"],"LeafNodeType":"It","LeafNodeText":"b","State":"failed",
             "Failure":{"Message":"timed out"}},
            {"ContainerHierarchyTexts":["[sig-apps]"],"LeafNodeType":"It","LeafNodeText":"c","State":"skipped"}]}]"#;
        let ran = parse(report).unwrap();
        let names: Vec<_> = ran.iter().map(Spec::name).collect();
        assert_eq!(names, ["[sig-network] Services a", "[sig-network] Services b"]);
        assert_eq!((ran[0].passed(), ran[1].message()), (true, "timed out"));
    }

    #[test]
    fn a_suite_that_cannot_begin_is_a_failure() {
        let report = br#"[{"SpecReports":[
            {"ContainerHierarchyTexts":null,"LeafNodeType":"SynchronizedBeforeSuite","LeafNodeText":"","State":"failed"}]}]"#;
        let ran = parse(report).unwrap();
        assert_eq!(ran[0].name(), "[SynchronizedBeforeSuite]");
        assert!(!ran[0].passed());
    }
}
