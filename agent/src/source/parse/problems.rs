//! The list of what is wrong with one object, kept short.

use crate::source::Problem;

/// How many problems of one object are kept: enough to find the cause, too few to flood a log.
pub const MAX_PROBLEMS: usize = 10;

/// Longest part of a bad value that a message repeats, in characters.
const MAX_QUOTED: usize = 64;

/// Collects the problems of one object, or of one file.
#[derive(Debug, Default)]
pub(in crate::source) struct Problems {
    kept: Vec<Problem>,
    more: usize,
}

impl Problems {
    /// Adds one: the field's path; what is wrong with it and what was done.
    pub(in crate::source) fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        if self.kept.len() < MAX_PROBLEMS {
            self.kept.push(Problem { field: field.into(), message: message.into() });
        } else {
            self.more += 1;
        }
    }

    /// The list, with one last item for those that were not kept.
    pub(in crate::source) fn finish(mut self) -> Vec<Problem> {
        if self.more > 0 {
            let message = format!("{} more problems are not listed", self.more);
            self.kept.push(Problem { field: "(more)".into(), message });
        }
        self.kept
    }
}

/// A bad value as messages show it: quoted, escaped, cut where it is long.
pub(super) fn quote(value: &str) -> String {
    match value.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{:?}...", &value[..end]),
        None => format!("{value:?}"),
    }
}
