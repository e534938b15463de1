//! What is wrong with an object, in the words that a person reads in the log and in `weir status`.

use std::fmt;
use std::sync::Arc;

/// Which object. Also names files: kind `File`, no namespace, the path as name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ObjectRef {
    /// `Service`, `EndpointSlice`, ...
    pub kind: &'static str,
    /// Empty for what has none.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return write!(f, "{} {}", self.kind, self.name);
        }
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// One thing that is wrong, and what was done about it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Problem {
    /// The path of the field in the object: `spec.ports[1].port`.
    pub field: String,
    /// What is wrong and what that means: `0 is no port (1 to 65535): this port is not served`.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}
