//! The manifests of `deploy/`: every file belongs to an overlay; each overlay renders, to objects that the API has field
//! by field, and to the same as with kustomize, where kustomize (or kubectl) is installed; and what they ask for is no
//! more than is promised.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use weir_tests::deploy::{
    Object, folder, host_mounts, kustomize, read_overlay, select_container, select_pod,
};

const OVERLAYS: [&str; 5] = ["cluster", "k3s", "kind", "kubeadm", "takeover"];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let kustomize = lookup_kustomize();
    if kustomize.is_none() {
        println!(
            "not run: neither kustomize nor kubectl is installed, with which the overlays would be compared"
        );
    }
    let mut trials = vec![
        trial("every file belongs to an overlay", every_file),
        trial("no more privileges than promised", privileges),
        trial("rights: list and watch, and Events", rights),
        trial("probes ask where the agent answers", probes),
        trial("the image is this version's", image),
    ];
    for overlay in OVERLAYS {
        trials.push(trial(format!("render/{overlay}"), move || render(overlay)));
        let kustomize = kustomize.clone().unwrap_or_default();
        let ignored = kustomize.is_empty();
        let compare = trial(format!("compare/{overlay}"), move || compare(&kustomize, overlay));
        trials.push(compare.with_ignored_flag(ignored));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(name: impl Into<String>, run: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || run().map_err(|error| Failed::from(format!("{error:#}"))))
}

/// What renders the kustomization in a folder.
fn lookup_kustomize() -> Option<Vec<&'static str>> {
    let works = |asked: &[&str]| {
        let mut command = Command::new(asked[0]);
        command.args(&asked[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let known: [(&[&str], _); 2] = [
        (&["kustomize", "version"], vec!["kustomize", "build"]),
        (&["kubectl", "kustomize", "--help"], vec!["kubectl", "kustomize"]),
    ];
    known.into_iter().find(|(asked, _)| works(asked)).map(|(_, renders)| renders)
}

fn every_file() -> Result<()> {
    let mut found = BTreeSet::new();
    let mut names = Vec::new();
    for entry in fs::read_dir(folder().join("overlays"))? {
        let entry = entry?;
        names.push(entry.file_name().into_string().unwrap_or_default());
        found.extend(kustomize::files(&entry.path())?);
    }
    names.sort();
    ensure!(names == OVERLAYS, "{names:?}");
    let dirs = names.iter().map(|name| format!("overlays/{name}")).chain(["base".to_owned()]);
    for dir in dirs {
        for entry in fs::read_dir(folder().join(dir))? {
            let path = entry?.path().canonicalize()?;
            ensure!(found.contains(&path), "no overlay stands on {}", path.display());
        }
    }
    Ok(())
}

/// An overlay adds the file with the API server's address, and nothing else to the rights of the agent's container.
fn render(overlay: &str) -> Result<()> {
    let (rendered, plain) = (read_overlay(overlay)?, base()?);
    ensure!(rendered.len() == plain.len(), "{} objects instead of {}", rendered.len(), plain.len());
    let (mounts, base_mounts) = (host_mounts(select_pod(&rendered)?)?, host_mounts(select_pod(&plain)?)?);
    ensure!(base_mounts.iter().all(|mount| mounts.contains(mount)), "{mounts:?}");
    let added: Vec<_> = mounts.iter().filter(|mount| !base_mounts.contains(mount)).collect();
    let [kubeconfig] = added.as_slice() else { bail!("the overlay mounts {added:?}") };
    ensure!(kubeconfig.read_only && kubeconfig.host == kubeconfig.container, "{kubeconfig:?}");
    let security =
        |objects| Ok::<_, anyhow::Error>(select_container(select_pod(objects)?)?.security_context.clone());
    ensure!(security(&rendered)? == security(&plain)?, "the overlay changes the security context");
    Ok(())
}

/// kustomize makes the same of it as we do.
fn compare(kustomize: &[&str], overlay: &str) -> Result<()> {
    let dir = folder().join("overlays").join(overlay);
    let output = Command::new(kustomize[0]).args(&kustomize[1..]).arg(&dir).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    // A warning is of a form that will not be understood some day.
    ensure!(output.status.success() && said.is_empty(), "{said}");
    let sorted = |mut objects: Vec<Value>| {
        objects.sort_by_key(|object| object["kind"].to_string());
        objects
    };
    let (theirs, ours) =
        (kustomize::parse_documents(&String::from_utf8(output.stdout)?)?, kustomize::render(&dir)?);
    ensure!(sorted(theirs) == sorted(ours), "{} makes something else of it", kustomize[0]);
    Ok(())
}

fn base() -> Result<Vec<Object>> {
    weir_tests::deploy::parse_objects(kustomize::render(&folder().join("base"))?)
}

fn privileges() -> Result<()> {
    let objects = base()?;
    let pod = select_pod(&objects)?;
    let security = select_container(pod)?.security_context.as_ref().context("no securityContext")?;
    ensure!(security.privileged.is_none(), "privileged");
    ensure!(security.read_only_root_filesystem == Some(true), "the root file system can be written");
    let seccomp = security.seccomp_profile.as_ref().context("no seccompProfile")?;
    ensure!(seccomp.type_ == "RuntimeDefault", "{seccomp:?}");
    let capabilities = security.capabilities.as_ref().context("no capabilities")?;
    ensure!(capabilities.drop.as_deref() == Some(&["ALL".to_owned()]), "{:?}", capabilities.drop);
    // Each has its reason above it.
    let text = fs::read_to_string(folder().join("base/daemonset.yaml"))?;
    for name in capabilities.add.iter().flatten() {
        let (before, _) =
            text.split_once(&format!("- {name}\n")).with_context(|| format!("{name} is not there"))?;
        let above = before.lines().rev().nth(1).unwrap_or_default();
        ensure!(above.trim_start().starts_with('#'), "{name} has no reason: {above}");
    }
    let limits = select_container(pod)?.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    ensure!(limits.is_some_and(|limits| limits.contains_key("memory")), "no limit of memory");
    host_mounts(pod).map(drop)
}

fn rights() -> Result<()> {
    let objects = base()?;
    let mut watched = BTreeSet::new();
    for rule in weir_tests::deploy::rules(&objects) {
        let is_events = rule.api_groups.as_deref() == Some(&["events.k8s.io".to_owned()]);
        let allowed = if is_events { ["create", "patch"] } else { ["list", "watch"] };
        ensure!(rule.verbs == allowed, "{rule:?}");
        for group in rule.api_groups.iter().flatten().filter(|_| !is_events) {
            watched.extend(rule.resources.iter().flatten().map(|name| format!("{name}.{group}")));
        }
        ensure!(rule.resources.iter().flatten().all(|resource| !resource.contains('*')), "{rule:?}");
    }
    let expected = [
        "clusternetworkpolicies.policy.networking.k8s.io",
        "endpointslices.discovery.k8s.io",
        "namespaces.",
        "networkpolicies.networking.k8s.io",
        "nodes.",
        "pods.",
        "services.",
    ];
    ensure!(watched.iter().eq(&expected), "{watched:?}");
    // Each block of rules has its reason above it.
    let text = fs::read_to_string(folder().join("base/rbac.yaml"))?;
    for reason in ["# Of Nodes ", "# Which pods are isolated", "# What is wrong with an object"] {
        ensure!(text.contains(reason), "nothing says: {reason}");
    }
    Ok(())
}

fn probes() -> Result<()> {
    let objects = base()?;
    let container = select_container(select_pod(&objects)?)?;
    let address = container.args.iter().flatten().find_map(|it| it.strip_prefix("--metrics-address="));
    let address = address.context("no --metrics-address")?;
    for (probe, path) in [
        (&container.startup_probe, "/metrics"),
        (&container.readiness_probe, "/readyz"),
        (&container.liveness_probe, "/metrics"),
    ] {
        let get = probe.as_ref().and_then(|probe| probe.http_get.as_ref()).context("no probe by HTTP")?;
        let host = get.host.as_deref().context("a probe without a host asks the pod's address")?;
        let port = serde_json::to_string(&get.port)?;
        ensure!(format!("{host}:{port}") == address, "{host}:{port} instead of {address}");
        ensure!(get.path.as_deref() == Some(path), "{get:?}");
    }
    Ok(())
}

fn image() -> Result<()> {
    let objects = base()?;
    let image = select_container(select_pod(&objects)?)?.image.as_deref().unwrap_or_default();
    let tag = concat!(":", env!("CARGO_PKG_VERSION"));
    ensure!(image.ends_with(tag), "{image} instead of {tag}");
    Ok(())
}
