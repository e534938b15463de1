//! Labels, and what selects by them.

use std::sync::Arc;

/// The labels of an object: each key once, in order.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Labels(Box<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// The value under a key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(other, _)| (**other).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// Keys and values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = &(Arc<str>, Arc<str>)> {
        self.0.iter()
    }

    /// Every string, to be shared.
    pub(super) fn strings(&mut self) -> impl Iterator<Item = &mut Arc<str>> {
        self.0.iter_mut().flat_map(|(key, value)| [key, value])
    }
}

impl IntoIterator for Labels {
    type Item = (Arc<str>, Arc<str>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_vec().into_iter()
    }
}

impl FromIterator<(Arc<str>, Arc<str>)> for Labels {
    /// Of two with one key, the first counts.
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Arc<str>)>>(labels: I) -> Self {
        let mut labels: Vec<_> = labels.into_iter().collect();
        labels.sort_by(|(one, _), (other, _)| one.cmp(other));
        labels.dedup_by(|(later, _), (first, _)| later == first);
        Self(labels.into())
    }
}

/// A label selector (meta/v1 `LabelSelector`): all of its requirements hold. Without any it selects everything.
/// `matchLabels` are requirements like the others, so that two ways of writing one selector are equal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Selector(Box<[Requirement]>);

/// What a label must be like.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Requirement {
    /// The label's key.
    pub key: Arc<str>,
    /// What must be true of its value.
    pub test: Test,
}

/// `LabelSelectorRequirement.operator`, with `values` (sorted, each once).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Test {
    /// There is a value, and it is one of these.
    In(Box<[Arc<str>]>),
    /// There is no value, or it is none of these.
    NotIn(Box<[Arc<str>]>),
    /// There is a value.
    Exists,
    /// There is none.
    DoesNotExist,
}

impl Selector {
    /// Whether it selects an object with these labels.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether it selects everything, whatever its labels are.
    #[must_use]
    pub fn selects_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Labels of which every object that it selects has exactly one; none where there is no telling.
    #[must_use]
    pub fn needed_labels(&self) -> Vec<(Arc<str>, Arc<str>)> {
        let values = self.0.iter().filter_map(|requirement| match &requirement.test {
            Test::In(values) => Some((&requirement.key, values)),
            Test::NotIn(_) | Test::Exists | Test::DoesNotExist => None,
        });
        // The one with the fewest values is found most seldom in vain.
        let fewest = values.min_by_key(|(_, values)| values.len());
        let labels = fewest.into_iter();
        labels.flat_map(|(key, values)| values.iter().map(|value| (key.clone(), value.clone()))).collect()
    }
}

impl FromIterator<Requirement> for Selector {
    fn from_iter<I: IntoIterator<Item = Requirement>>(requirements: I) -> Self {
        let mut requirements: Vec<_> = requirements.into_iter().collect();
        requirements.sort_unstable();
        requirements.dedup();
        Self(requirements.into())
    }
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.value(&self.key);
        let is_among =
            |values: &[Arc<str>]| value.is_some_and(|value| values.iter().any(|one| **one == *value));
        match &self.test {
            Test::In(values) => is_among(values),
            Test::NotIn(values) => !is_among(values),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect()
    }

    fn selector(requirements: &[(&str, Test)]) -> Selector {
        let one = |(key, test): &(&str, Test)| Requirement { key: Arc::from(*key), test: test.clone() };
        requirements.iter().map(one).collect()
    }

    fn values(values: &[&str]) -> Box<[Arc<str>]> {
        values.iter().map(|value| Arc::from(*value)).collect()
    }

    #[test]
    fn each_operator_with_and_without_the_key() {
        let objects = [labels(&[]), labels(&[("k", "a")]), labels(&[("j", "a"), ("k", "b")])];
        for (test, want) in [
            (Test::In(values(&["a", "c"])), [false, true, false]),
            (Test::NotIn(values(&["a", "c"])), [true, false, true]),
            (Test::Exists, [false, true, true]),
            (Test::DoesNotExist, [true, false, false]),
        ] {
            let selector = selector(&[("k", test)]);
            assert_eq!(objects.each_ref().map(|labels| selector.matches(labels)), want, "{selector:?}");
        }
    }

    #[test]
    fn none_selects_all_and_several_must_all_hold() {
        assert!(Selector::default().matches(&labels(&[])));
        let both = selector(&[("k", Test::Exists), ("j", Test::DoesNotExist)]);
        assert!(both.matches(&labels(&[("k", "")])));
        assert!(!both.matches(&labels(&[("k", ""), ("j", "")])));
        assert!(!both.matches(&labels(&[])));
    }

    #[test]
    fn labels_that_are_needed() {
        let many = (Test::In(values(&["a", "b"])), Test::In(values(&["c"])));
        let selector = selector(&[("k", many.0), ("j", many.1), ("i", Test::Exists)]);
        assert_eq!(selector.needed_labels(), [("j".into(), "c".into())]);
        let open = [("k", Test::NotIn(values(&["a"]))), ("j", Test::Exists), ("i", Test::DoesNotExist)];
        assert_eq!(
            super::Selector::from_iter(open.map(|(key, test)| Requirement { key: key.into(), test }))
                .needed_labels(),
            []
        );
    }

    #[test]
    fn labels_are_found_whatever_their_order() {
        let labels = labels(&[("c", "3"), ("a", "1"), ("b", "2"), ("a", "9")]);
        assert_eq!(
            ["a", "b", "c", "d"].map(|key| labels.value(key)),
            [Some("1"), Some("2"), Some("3"), None]
        );
    }
}
