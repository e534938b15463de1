//! Kustomizations, rendered as far as `deploy/` uses them, so that every machine with a compiler can test them: files
//! and folders of other kustomizations, and JSON patches. Whatever else one says is a fault, not ignored. The tests
//! compare what comes of it with kustomize's own, where that is installed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// A `kustomization.yaml`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kustomization {
    api_version: String,
    kind: String,
    /// Files, and folders of other kustomizations.
    resources: Vec<String>,
    #[serde(default)]
    patches: Vec<Patch>,
}

/// What changes one of the resources.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    /// A file of operations (RFC 6902).
    path: String,
    target: Target,
}

/// Which resource.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    kind: String,
    name: String,
}

/// The objects that the kustomization in this folder stands for.
///
/// # Errors
/// Which file cannot be read, or what it says that is not described here; a patch that does not fit exactly one object.
pub fn render(dir: &Path) -> Result<Vec<Value>> {
    let kustomization = read(dir)?;
    let mut objects = Vec::new();
    for name in &kustomization.resources {
        let path = dir.join(name);
        objects.extend(if path.is_dir() { render(&path)? } else { read_documents(&path)? });
    }
    for patch in &kustomization.patches {
        let path = dir.join(&patch.path);
        let operations: json_patch::Patch = serde_json::from_value(read_yaml(&path)?)
            .with_context(|| format!("{}: not a list of operations", path.display()))?;
        let Target { kind, name } = &patch.target;
        let mut fitting: Vec<_> = objects
            .iter_mut()
            .filter(|object| object["kind"] == kind.as_str() && object["metadata"]["name"] == name.as_str())
            .collect();
        let [object] = fitting.as_mut_slice() else {
            bail!("{}: {} objects are the {kind} {name}", path.display(), fitting.len());
        };
        json_patch::patch(object, &operations).with_context(|| path.display().to_string())?;
    }
    Ok(objects)
}

/// The files that the kustomization in this folder stands on, those of the folders that it refers to among them.
///
/// # Errors
/// As in [`render`].
pub fn files(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let kustomization = read(dir)?;
    let mut found = BTreeSet::from([dir.join(FILE).canonicalize()?]);
    let patches = kustomization.patches.iter().map(|patch| &patch.path);
    for name in kustomization.resources.iter().chain(patches) {
        let path = dir.join(name).canonicalize().with_context(|| format!("{}: {name}", dir.display()))?;
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.insert(path);
        }
    }
    Ok(found)
}

const FILE: &str = "kustomization.yaml";

fn read(dir: &Path) -> Result<Kustomization> {
    let path = dir.join(FILE);
    let found: Kustomization =
        serde_json::from_value(read_yaml(&path)?).with_context(|| path.display().to_string())?;
    let version = (found.api_version.as_str(), found.kind.as_str());
    ensure!(
        version == ("kustomize.config.k8s.io/v1beta1", "Kustomization"),
        "{}: {version:?}",
        path.display()
    );
    Ok(found)
}

fn read_yaml(path: &Path) -> Result<Value> {
    let mut documents = read_documents(path)?;
    match documents.pop() {
        Some(document) if documents.is_empty() => Ok(document),
        _ => bail!("{}: not one document", path.display()),
    }
}

fn read_documents(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    parse_documents(&text).with_context(|| path.display().to_string())
}

/// The documents of a YAML text.
///
/// # Errors
/// It is no YAML.
pub fn parse_documents(text: &str) -> Result<Vec<Value>> {
    serde_saphyr::from_multiple(text).context("not YAML")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HEAD: &str = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n";

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn patches_change_what_the_folders_hold() {
        let base = format!("{HEAD}resources: [all.yaml]\n");
        let all = "kind: A\nmetadata: {name: a}\nlist: [1]\n---\nkind: B\nmetadata: {name: a}\n";
        let over = format!(
            "{HEAD}resources: [../base]\npatches: [{{path: more.yaml, target: {{kind: A, name: a}}}}]\n"
        );
        let more = "- {op: add, path: /list/-, value: {x: 2}}\n";
        let dir = folder(&[
            ("base/kustomization.yaml", &base),
            ("base/all.yaml", all),
            ("over/kustomization.yaml", &over),
            ("over/more.yaml", more),
        ]);
        let expected = [
            json!({ "kind": "A", "metadata": { "name": "a" }, "list": [1, { "x": 2 }] }),
            json!({ "kind": "B", "metadata": { "name": "a" } }),
        ];
        assert_eq!(render(&dir.path().join("over")).unwrap(), expected);
        assert_eq!(files(&dir.path().join("over")).unwrap().len(), 4);
        for (file, bad) in [
            ("over/more.yaml", "- {op: replace, path: /none, value: 1}\n"),
            ("over/more.yaml", "- {op: put, path: /list}\n"),
            ("over/kustomization.yaml", &over.replace("name: a", "name: c")),
        ] {
            fs::write(dir.path().join(file), bad).unwrap();
            assert!(render(&dir.path().join("over")).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_understood_is_a_fault() {
        for text in [
            format!("{HEAD}resources: []\nbases: [../b]\n"),
            format!("{HEAD}resources: [none.yaml]\n"),
            "apiVersion: v1\nkind: Kustomization\nresources: []\n".into(),
        ] {
            let dir = folder(&[(FILE, &text)]);
            assert!(render(dir.path()).is_err(), "{text}");
        }
    }
}
