//! `--source manifests:DIR`: a directory of Kubernetes manifests in place of an API server. For the demo, for
//! tests, and for a node without a control plane.
//!
//! Read are the files `*.yaml`, `*.yml` (any number of documents) and `*.json` of the directory itself, as
//! `kubectl apply -f DIR` does: not those of directories in it, and not hidden ones. Services, EndpointSlices,
//! Nodes, Pods (with the addresses of their status), Namespaces and NetworkPolicies count, all of them whatever policies
//! ask for; a `List` is its items; other kinds are reported and ignored. Objects without a namespace are in `default`.
//!
//! Rules, for whoever edits the directory while traffic flows:
//! - A file counts once it is closed after writing, moved or linked into place; never in between.
//! - A part of a file that cannot be decoded is reported with document, line and field. The other documents of
//!   the file count; nothing that the file held before is taken away until it is whole again.
//! - Where two files hold the same object, the first by name counts, and it is said; when it goes, the other
//!   takes over.
//! - A file that is removed takes its objects along. A directory that goes away takes nothing along: what is known
//!   stays in force, and when the directory is back, files have a second to come back with it. (Removed
//!   file by file, slowly, it is just many removed files.)
//! - Files may be symbolic links. A link is read again when it is replaced, or when `..data` is, as in a
//!   ConfigMap's volume; not when what it points to changes by itself.
//!
//! [`watch`] says what to read, [`load`] reads it, [`catalog`] turns it into events, [`directory`] has them do so.

#[cfg(feature = "live")]
mod catalog;
mod decode;
#[cfg(feature = "live")]
mod directory;
mod document;
mod load;
#[cfg(feature = "live")]
mod watch;

#[cfg(test)]
#[cfg(feature = "live")]
mod tests;

#[cfg(feature = "live")]
pub use self::directory::Manifests;
#[cfg(feature = "testing")]
pub use self::load::read_manifest;
