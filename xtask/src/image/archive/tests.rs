//! The archive, read back as its readers read it.

use std::collections::BTreeMap;
use std::io::Read as _;

use flate2::read::GzDecoder;
use oci_spec::image::{ImageConfiguration, ImageIndex, ImageManifest};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::*;

const PROGRAM: &[u8] = b"\x7fELF and the rest of a program";

fn contents() -> Contents<'static> {
    Contents {
        binary: PROGRAM,
        arch: Arch::Amd64,
        repository: "example.org/weir",
        version: "1.2.3",
        labels: vec![
            ("org.opencontainers.image.version", "1.2.3".to_owned()),
            ("org.opencontainers.image.title", "Weir".to_owned()),
            ("org.opencontainers.image.licenses", "Apache-2.0".to_owned()),
        ],
    }
}

/// Path, mode and bytes of each entry, after a look at what must not differ between two builds.
fn entries(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let header = entry.header();
        assert!(header.entry_type().is_file());
        assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0, 0, 0));
        assert_eq!(header.username(), Ok(Some("")));
        let mode = header.mode().unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (path, mode, bytes)
    });
    entries.collect()
}

struct Read {
    files: BTreeMap<String, Vec<u8>>,
}

impl Read {
    fn new(archive: &Archive) -> Self {
        let entries = entries(&archive.bytes);
        assert!(entries.is_sorted());
        Self { files: entries.into_iter().map(|(path, _, bytes)| (path, bytes)).collect() }
    }

    fn json<T: DeserializeOwned>(&self, path: &str) -> T {
        serde_json::from_slice(&self.files[path]).unwrap()
    }

    /// The blob behind a descriptor, whose size and digest it has.
    fn blob(&self, descriptor: &Descriptor) -> &[u8] {
        let bytes = &self.files[&format!("blobs/sha256/{}", descriptor.digest().digest())];
        assert_eq!(bytes.len() as u64, descriptor.size());
        assert_eq!(digest(bytes), descriptor.digest().to_string());
        bytes
    }
}

#[test]
fn the_layout_leads_to_one_file() {
    let archive = build(&contents()).unwrap();
    let read = Read::new(&archive);
    assert_eq!(read.json::<Value>("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }));
    let index: ImageIndex = read.json("index.json");
    let [descriptor] = index.manifests().as_slice() else { panic!("{index:?}") };
    assert_eq!(*descriptor.media_type(), MediaType::ImageManifest);
    let manifest: ImageManifest = serde_json::from_slice(read.blob(descriptor)).unwrap();
    let config: ImageConfiguration = serde_json::from_slice(read.blob(manifest.config())).unwrap();
    let [layer] = manifest.layers().as_slice() else { panic!("{manifest:?}") };
    let mut rootfs = Vec::new();
    GzDecoder::new(read.blob(layer)).read_to_end(&mut rootfs).unwrap();
    assert_eq!(config.rootfs().diff_ids(), &[digest(&rootfs)]);
    assert_eq!(entries(&rootfs), [("weir".to_owned(), 0o755, PROGRAM.to_vec())]);
    let sizes = descriptor.size() + manifest.config().size() + layer.size();
    assert_eq!(archive.compressed, sizes);
    // Nothing that no descriptor leads to.
    assert_eq!(read.files.len(), 6);
}

#[test]
fn docker_finds_the_same_blobs() {
    let archive = build(&contents()).unwrap();
    let read = Read::new(&archive);
    let saved: Value = read.json("manifest.json");
    let index: ImageIndex = read.json("index.json");
    let manifest: ImageManifest = serde_json::from_slice(read.blob(&index.manifests()[0])).unwrap();
    let path = |descriptor: &Descriptor| format!("blobs/sha256/{}", descriptor.digest().digest());
    let expected = json!([{
        "Config": path(manifest.config()),
        "RepoTags": ["example.org/weir:1.2.3"],
        "Layers": [path(&manifest.layers()[0])],
    }]);
    assert_eq!(saved, expected);
}

#[test]
fn name_platform_and_labels_are_where_they_are_looked_for() {
    let archive = build(&contents()).unwrap();
    let read = Read::new(&archive);
    let index: ImageIndex = read.json("index.json");
    let descriptor = &index.manifests()[0];
    let annotations = descriptor.annotations().as_ref().unwrap();
    assert_eq!(annotations[CONTAINERD_NAME], "example.org/weir:1.2.3");
    assert_eq!(annotations[ANNOTATION_REF_NAME], "1.2.3");
    assert_eq!(archive.name, "example.org/weir:1.2.3");
    assert_eq!(*descriptor.platform().as_ref().unwrap().architecture(), Arch::Amd64);

    let manifest: ImageManifest = serde_json::from_slice(read.blob(descriptor)).unwrap();
    let config: ImageConfiguration = serde_json::from_slice(read.blob(manifest.config())).unwrap();
    assert_eq!((config.architecture(), config.os()), (&Arch::Amd64, &Os::Linux));
    let config = config.config().as_ref().unwrap();
    assert_eq!(config.entrypoint().as_ref().unwrap(), &["/weir"]);
    assert_eq!(config.labels(), manifest.annotations());
    assert_eq!(config.labels().as_ref().unwrap()["org.opencontainers.image.licenses"], "Apache-2.0");
}

#[test]
fn the_same_contents_make_the_same_bytes() {
    // Hash maps in between are ordered anew with each build.
    let first = build(&contents()).unwrap().bytes;
    for _ in 0..8 {
        assert!(build(&contents()).unwrap().bytes == first);
    }
    let other = Contents { binary: b"another", ..contents() };
    assert!(build(&other).unwrap().bytes != first);
}
