//! One file into objects and problems: reads it, cuts it, decodes it, parses what it holds. No state, no events.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::decode::{ApiObject, Fault, Header, Input};
use super::document::split_documents;
use crate::source::parse::{PolicySelector, Problems};
use crate::source::{
    ClusterNetworkPolicy, EndpointSlice, Namespace, NetworkPolicy, Node, ObjectRef, Parsed, Pod, Problem,
    Service, closed_policy, parse_cluster_network_policy, parse_namespace, parse_network_policy, parse_node,
    parse_pod, parse_service, parse_slice,
};

/// The largest file that is read, in bytes: 100,000 endpoints in one file are 20 MB of YAML.
pub(super) const MAX_FILE_BYTES: u64 = 256 << 20;

/// What an object means to Weir.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) enum Content {
    Service(Service),
    EndpointSlice(EndpointSlice),
    Node(Node),
    Pod(Pod),
    Namespace(Namespace),
    NetworkPolicy(NetworkPolicy),
    ClusterNetworkPolicy(ClusterNetworkPolicy),
    /// A policy that does not decode: what stands for it where no version before it is known.
    Closed(NetworkPolicy),
    /// It is not ours, or nothing of it can be used.
    #[default]
    Nothing,
}

/// An object of a file.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Object {
    pub(super) id: ObjectRef,
    pub(super) content: Content,
    pub(super) problems: Vec<Problem>,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct FileContent {
    /// In the order of the file.
    pub(super) objects: Vec<Object>,
    /// What is wrong with the file itself.
    pub(super) problems: Problems,
    /// Some part could not be decoded: there is no telling which objects it was meant to hold.
    pub(super) broken: bool,
}

/// A file's identity and state: equal signatures, equal bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Signature([u64; 2], u64, [i64; 4]);

impl Signature {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
        Self([metadata.dev(), metadata.ino()], metadata.len(), times)
    }
}

/// What came of an attempt to read a file.
#[derive(Debug)]
pub(super) enum Loaded {
    /// There is no such file.
    Missing,
    /// It changed while it was read, or was just created and is still empty: whoever writes it will say when it
    /// is complete (inotify's CLOSE_WRITE).
    InProgress,
    /// It cannot be read, or is no text.
    Unreadable(Problem),
    /// Its objects.
    Read(Signature, FileContent),
}

/// Reads and parses a file. `created`: nothing but its creation is known, so that an empty one is not complete.
pub(super) fn load(path: &Path, created: bool) -> Loaded {
    match read(path) {
        Ok(None) => Loaded::InProgress,
        Ok(Some((_, text))) if created && text.is_empty() => Loaded::InProgress,
        Ok(Some((signature, text))) => {
            let json = path.extension().is_some_and(|extension| extension == "json");
            Loaded::Read(signature, if json { parse_json(&text) } else { parse_yaml(&text) })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Loaded::Missing,
        Err(error) => Loaded::Unreadable(Problem {
            field: "(file)".into(),
            message: format!("{error}: what it held before stays in force"),
        }),
    }
}

/// The text of a file; `None` if it changed meanwhile.
fn read(path: &Path) -> io::Result<Option<(Signature, String)>> {
    // NONBLOCK: a named pipe must not hold us up.
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let before = file.metadata()?;
    if !before.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if before.len() > MAX_FILE_BYTES {
        let message = format!("{} bytes, where {MAX_FILE_BYTES} are read at most", before.len());
        return Err(io::Error::other(message));
    }
    let bytes = read_bytes(&mut file, before.len())?;
    let signature = Signature::of(&before);
    if Signature::of(&file.metadata()?) != signature {
        return Ok(None);
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        io::Error::other(format!("not UTF-8 (byte {})", error.utf8_error().valid_up_to() + 1))
    })?;
    Ok(Some((signature, text)))
}

fn read_bytes(file: &mut File, expected: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or_default());
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The objects in the text of a file: which each is, and all that it came to, as text. For fuzzers.
#[cfg(feature = "testing")]
#[must_use]
pub fn read_manifest(text: &str, is_json: bool) -> Vec<(ObjectRef, String)> {
    let content = if is_json { parse_json(text) } else { parse_yaml(text) };
    let objects = content.objects.into_iter();
    objects.map(|Object { id, content, problems }| (id, format!("{content:?} {problems:?}"))).collect()
}

/// The objects of a YAML file.
pub(super) fn parse_yaml(text: &str) -> FileContent {
    let mut content = FileContent::default();
    for document in split_documents(text) {
        let input = Input::Yaml(document.text, document.first_line);
        content.add(input, &Place { document: document.number, item: None });
    }
    content
}

/// The objects of a JSON file, which is one document.
pub(super) fn parse_json(text: &str) -> FileContent {
    let mut content = FileContent::default();
    if !text.trim().is_empty() {
        content.add(Input::Json(text), &Place { document: 1, item: None });
    }
    content
}

/// Which document of a file, which item of a list.
struct Place {
    document: usize,
    item: Option<usize>,
}

impl Place {
    /// `document 2: items[3].spec.ports`
    fn field(&self, field: &str) -> String {
        let mut text = format!("document {}", self.document);
        let item = self.item.map(|item| format!("items[{item}]"));
        let path = match (&item, field) {
            (None, "") => return text,
            (None, field) => field.to_owned(),
            (Some(item), "") => item.clone(),
            (Some(item), field) => format!("{item}.{field}"),
        };
        text.push_str(": ");
        text.push_str(&path);
        text
    }
}

impl FileContent {
    fn add(&mut self, input: Input<'_>, place: &Place) {
        let object = match input.decode::<ApiObject>() {
            Ok(object) => object,
            Err(fault) => return self.add_fault(input, place, &fault),
        };
        match &object {
            ApiObject::List(items) if place.item.is_none() => {
                for (n, item) in items.iter().enumerate() {
                    self.add(Input::Item(item), &Place { document: place.document, item: Some(n) });
                }
            }
            ApiObject::List(_) => self.add_unknown(place, "v1", "List"),
            ApiObject::Unknown(api_version, kind) => self.add_unknown(place, api_version, kind),
            _ => self.add_object(&object, place),
        }
    }

    fn add_object(&mut self, object: &ApiObject, place: &Place) {
        let Some((kind, metadata, namespaced)) = object.identity() else { return };
        let name = metadata.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            self.broken = true;
            let message = format!("missing: this {kind} is not used");
            self.problems.add(place.field("metadata.name"), message);
            return;
        }
        let namespace = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty());
        let namespace = if namespaced { namespace.unwrap_or("default") } else { "" };
        let id = ObjectRef { kind, namespace: Arc::from(namespace), name: Arc::from(name) };
        let (content, problems) = parse_object(object);
        self.objects.push(Object { id, content, problems });
    }

    /// A kind that is not ours is named, and that is all.
    fn add_unknown(&mut self, place: &Place, api_version: &str, kind: &str) {
        let message = format!("{kind} of {api_version} is no kind that is read from manifests: ignored");
        self.problems.add(place.field("kind"), message);
    }

    fn add_fault(&mut self, input: Input<'_>, place: &Place, fault: &Fault) {
        self.broken = true;
        let what = describe(input).map(|name| format!("{name}: ")).unwrap_or_default();
        let line = fault.line.map(|line| format!(" (line {line})")).unwrap_or_default();
        let message =
            format!("{what}{}{line}: this part is not used; what the file held before stays", fault.message);
        self.problems.add(place.field(&fault.field), message);
        self.objects.extend(close(input, fault));
    }
}

/// Whoever wrote a policy meant to isolate somebody: one that does not decode isolates its pods and allows nothing.
fn close(input: Input<'_>, fault: &Fault) -> Option<Object> {
    let header =
        input.decode::<Header>().ok().filter(|header| header.kind.as_deref() == Some("NetworkPolicy"))?;
    let metadata = header.metadata?;
    let namespace = metadata.namespace.filter(|namespace| !namespace.is_empty());
    let id = ObjectRef {
        kind: "NetworkPolicy",
        namespace: namespace.as_deref().unwrap_or("default").into(),
        name: metadata.name.filter(|name| !name.is_empty())?.into(),
    };
    let selector = input.decode::<PolicySelector>().ok().and_then(PolicySelector::split);
    let problem = Problem { field: fault.field.clone(), message: fault.message.clone() };
    Some(Object { id, content: Content::Closed(closed_policy(selector.as_ref())), problems: vec![problem] })
}

/// Which object a part that does not decode was meant to be, as far as it can be told.
fn describe(input: Input<'_>) -> Option<String> {
    let header = input.decode::<Header>().ok()?;
    let metadata = header.metadata.unwrap_or_default();
    let kind = header.kind?;
    let name = metadata.name?;
    Some(match metadata.namespace {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    })
}

fn parse_object(object: &ApiObject) -> (Content, Vec<Problem>) {
    match object {
        ApiObject::Service(api) => of_parsed(parse_service(api), Content::Service),
        ApiObject::EndpointSlice(api) => of_parsed(parse_slice(api), Content::EndpointSlice),
        ApiObject::Node(api) => of_parsed(parse_node(api), Content::Node),
        ApiObject::Pod(api) => of_parsed(parse_pod(api), Content::Pod),
        ApiObject::Namespace(api) => of_parsed(parse_namespace(api), Content::Namespace),
        ApiObject::NetworkPolicy(api) => of_parsed(parse_network_policy(api), Content::NetworkPolicy),
        ApiObject::ClusterNetworkPolicy(api) => {
            of_parsed(parse_cluster_network_policy(api), Content::ClusterNetworkPolicy)
        }
        ApiObject::List(_) | ApiObject::Unknown(..) => (Content::Nothing, Vec::new()),
    }
}

fn of_parsed<T>(parsed: Parsed<T>, content: fn(T) -> Content) -> (Content, Vec<Problem>) {
    (parsed.object.map_or(Content::Nothing, content), parsed.problems)
}
