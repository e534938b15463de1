//! The image as one file: what goes in decides every byte of it. No clock, no environment, no order by chance.
//!
//! It is an OCI image layout in a tar (`oci-layout`, `index.json`, `blobs/`), which containerd reads, and so do
//! `ctr`, `k3s ctr` and kind. Beside it stands `manifest.json`, by which `docker load` and `podman load` find the
//! same blobs: that is how `docker save` has written archives since Docker 25, and how older ones can read them.

use std::collections::HashMap;
use std::io::Write as _;

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use oci_spec::image::{
    ANNOTATION_REF_NAME, Arch, ConfigBuilder, Descriptor, DescriptorBuilder, Digest,
    ImageConfigurationBuilder, ImageIndexBuilder, ImageManifestBuilder, MediaType, OciLayoutBuilder, Os,
    PlatformBuilder, RootFsBuilder, SCHEMA_VERSION,
};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Where the binary is in the image; also its entry point.
const BINARY: &str = "weir";
/// containerd's own annotation for a full name: `ref.name` alone is only a tag to it.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// Of the OCI image layout.
const LAYOUT_VERSION: &str = "1.0.0";
/// Neither the time of the build nor the name of the builder's system.
const UNKNOWN_OS: u8 = 255;

/// What an image is made of.
pub(super) struct Contents<'a> {
    /// The one file in it.
    pub(super) binary: &'a [u8],
    /// For which processor.
    pub(super) arch: Arch,
    /// `registry/path`, without a tag.
    pub(super) repository: &'a str,
    /// The tag.
    pub(super) version: &'a str,
    /// Labels of the image, which are annotations of its manifest as well.
    pub(super) labels: Vec<(&'static str, String)>,
}

/// An archive and what a person wants to know of it.
pub(super) struct Archive {
    /// The whole file.
    pub(super) bytes: Vec<u8>,
    /// The image's full name.
    pub(super) name: String,
    /// What a registry would store and a node fetch, in bytes: the layer, the configuration and the manifest.
    pub(super) compressed: u64,
}

/// A blob and how others refer to it.
struct Blob {
    descriptor: Descriptor,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(kind: MediaType, bytes: Vec<u8>) -> Result<Self> {
        let digest: Digest = digest(&bytes).parse()?;
        let descriptor =
            DescriptorBuilder::default().media_type(kind).size(bytes.len() as u64).digest(digest).build()?;
        Ok(Self { descriptor, bytes })
    }

    fn of_json(kind: MediaType, value: &impl Serialize) -> Result<Self> {
        Self::new(kind, to_json(value)?)
    }

    /// Its place in the archive.
    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.descriptor.digest().digest())
    }
}

/// Puts the image together.
///
/// # Errors
/// None that the contents could bring about.
pub(super) fn build(contents: &Contents<'_>) -> Result<Archive> {
    let name = format!("{}:{}", contents.repository, contents.version);
    let labels: HashMap<String, String> =
        contents.labels.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let rootfs = tar(&[(BINARY.to_owned(), 0o755, contents.binary)])?;
    let layer = Blob::new(MediaType::ImageLayerGzip, gzip(&rootfs)?)?;
    let config = ConfigBuilder::default()
        .entrypoint([format!("/{BINARY}")])
        // So that `kubectl exec … -- weir status` finds it.
        .env(["PATH=/".to_owned()])
        .working_dir("/")
        .labels(labels.clone())
        .build()?;
    let config = ImageConfigurationBuilder::default()
        .architecture(contents.arch.clone())
        .os(Os::Linux)
        .config(config)
        .rootfs(RootFsBuilder::default().typ("layers").diff_ids([digest(&rootfs)]).build()?)
        .history([])
        .build()?;
    let config = Blob::of_json(MediaType::ImageConfig, &config)?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(config.descriptor.clone())
        .layers([layer.descriptor.clone()])
        .annotations(labels)
        .build()?;
    let mut manifest = Blob::of_json(MediaType::ImageManifest, &manifest)?;
    let platform = PlatformBuilder::default().architecture(contents.arch.clone()).os(Os::Linux).build()?;
    manifest.descriptor.set_platform(Some(platform));
    manifest.descriptor.set_annotations(Some(HashMap::from([
        (CONTAINERD_NAME.to_owned(), name.clone()),
        (ANNOTATION_REF_NAME.to_owned(), contents.version.to_owned()),
    ])));
    let index = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests([manifest.descriptor.clone()])
        .build()?;
    let saved = json!([{ "Config": config.path(), "RepoTags": [&name], "Layers": [layer.path()] }]);

    let layout = OciLayoutBuilder::default().image_layout_version(LAYOUT_VERSION.to_owned()).build()?;
    let blobs = [&layer, &config, &manifest];
    let mut files = vec![
        ("index.json".to_owned(), to_json(&index)?),
        ("manifest.json".to_owned(), to_json(&saved)?),
        ("oci-layout".to_owned(), to_json(&layout)?),
    ];
    files.extend(blobs.map(|blob| (blob.path(), blob.bytes.clone())));
    files.sort();
    let files: Vec<_> = files.iter().map(|(path, bytes)| (path.clone(), 0o644, bytes.as_slice())).collect();
    let compressed = blobs.iter().map(|blob| blob.descriptor.size()).sum();
    Ok(Archive { bytes: tar(&files)?, name, compressed })
}

/// By way of a [`serde_json::Value`], whose objects are sorted: those of oci-spec are hash maps.
fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(&serde_json::to_value(value)?)?)
}

/// Files by path, mode and contents; they belong to root and are as old as Unix.
fn tar(files: &[(String, u32, &[u8])]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, mode, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, path, *bytes)?;
    }
    Ok(archive.into_inner()?)
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let header = GzBuilder::new().mtime(0).operating_system(UNKNOWN_OS);
    let mut encoder = header.write(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

fn digest(bytes: &[u8]) -> String {
    let sum = Sha256::digest(bytes);
    let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests;
