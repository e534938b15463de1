//! Whether what a client saw is what it must see; the same judgement for both ways to run a row.

use std::collections::BTreeSet;
use std::fmt;

use super::spec::{Ask, Expect, Target};
use crate::lab::Form;

/// What a client saw, once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Seen {
    /// This place answered, and every address was as it must be.
    Answer(String),
    /// This place answered, but something about it was wrong.
    Wrong(String),
    /// The call that names the destination failed with this error.
    Error(String),
    /// The network got the packet as it was dialled.
    Untouched,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(server) => write!(f, "an answer from {server}"),
            Self::Wrong(what) => f.write_str(what),
            Self::Error(error) => f.write_str(error),
            Self::Untouched => f.write_str("the packet leaves as it was dialled"),
        }
    }
}

impl Expect {
    /// Whether all that a client saw in one step is what it must see.
    pub(crate) fn is_met(self, form: Form, seen: &BTreeSet<Seen>) -> bool {
        match self {
            Self::Every(places) => *seen == answers(places),
            Self::One(places) => seen.len() == 1 && seen.is_subset(&answers(places)),
            Self::PerFamily(v4, v6) => *seen == answers(&[if form == Form::V6 { v6 } else { v4 }]),
            Self::Refused => *seen == [Seen::Error("ECONNREFUSED".into())].into(),
            Self::Unreachable => *seen == [Seen::Error("EHOSTUNREACH".into())].into(),
            Self::Untouched => *seen == [Seen::Untouched].into(),
        }
    }
}

/// Judges all that a client saw in one step.
pub(super) fn judge(ask: &Ask, form: Form, seen: &BTreeSet<Seen>) -> Result<(), String> {
    if ask.expect.is_met(form, seen) {
        return Ok(());
    }
    let (Target::Service(to, port) | Target::Place(to, port)) = ask.to;
    let seen = seen.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Err(format!("{} asks {to}:{port}, {} times: wanted {:?}, saw: {seen}", ask.from, ask.times, ask.expect))
}

fn answers(places: &[&str]) -> BTreeSet<Seen> {
    places.iter().map(|place| Seen::Answer((*place).into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::spec::On;

    fn ask(expect: Expect) -> Ask {
        Ask { from: "n1-a", to: Target::Service("web", 80), on: On::New, times: 2, expect }
    }

    #[test]
    fn one_means_always_the_same() {
        let both = answers(&["a", "b"]);
        assert!(judge(&ask(Expect::One(&["a", "b"])), Form::V4, &both).is_err());
        assert!(judge(&ask(Expect::One(&["a", "b"])), Form::V4, &answers(&["b"])).is_ok());
        assert!(judge(&ask(Expect::Every(&["a", "b"])), Form::V4, &both).is_ok());
        assert!(judge(&ask(Expect::Every(&["a", "b"])), Form::V4, &answers(&["a"])).is_err());
    }

    #[test]
    fn nothing_seen_is_never_right() {
        for expect in [Expect::One(&["a"]), Expect::Refused, Expect::Untouched, Expect::Every(&["a"])] {
            assert!(judge(&ask(expect), Form::V4, &BTreeSet::new()).is_err(), "{expect:?}");
        }
    }
}
