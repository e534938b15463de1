//! Things known by a number for as long as somebody uses them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use super::names::Fingerprint;

/// What is in use, each once. Numbers count upwards: one that was given back is given out again only after all others,
/// because a flow may remember it.
#[derive(Debug)]
pub(super) struct Interned<T: ?Sized> {
    rows: BTreeMap<u32, Row<T>>,
    ids: HashMap<Arc<T>, u32>,
    /// The lowest number.
    first: u32,
    next: u32,
    /// Numbers that nobody used when they were entered here.
    idle: Vec<u32>,
    /// Numbers that an agent before this one gave, until they are recognized.
    adopted: HashMap<Fingerprint, u32>,
    /// The same numbers, also of what was recognized.
    reserved: HashSet<u32>,
}

#[derive(Debug)]
struct Row<T: ?Sized> {
    content: Arc<T>,
    name: Fingerprint,
    users: u32,
}

impl<T: Eq + Hash + ?Sized> Interned<T> {
    /// Nothing yet; numbers begin with `first`.
    pub(super) fn new(first: u32) -> Self {
        Self {
            rows: BTreeMap::new(),
            ids: HashMap::new(),
            first,
            next: first,
            idle: Vec::new(),
            adopted: HashMap::new(),
            reserved: HashSet::new(),
        }
    }

    /// Takes in a number that an agent before this one gave, before any is given.
    pub(super) fn adopt(&mut self, name: Fingerprint, id: u32) {
        self.adopted.insert(name, id);
        self.reserved.insert(id);
        self.next = self.next.max(id.checked_add(1).unwrap_or(self.first));
    }

    /// The adopted numbers that nothing was recognized by. They are not known any more.
    pub(super) fn take_unrecognized(&mut self) -> Vec<u32> {
        self.reserved.clear();
        let mut ids: Vec<_> = std::mem::take(&mut self.adopted).into_values().collect();
        ids.sort_unstable();
        ids
    }

    /// The number of this content, with one user more, and whether it is a new one. The name is asked for where it is.
    pub(super) fn acquire(
        &mut self,
        content: impl Into<Arc<T>> + AsRef<T>,
        name: impl FnOnce(&T) -> Fingerprint,
    ) -> (u32, bool) {
        if let Some(id) = self.ids.get(content.as_ref()) {
            let id = *id;
            self.reacquire(id);
            return (id, false);
        }
        let content = content.into();
        let name = name(&content);
        let id = self.adopted.remove(&name).unwrap_or_else(|| self.unused());
        self.ids.insert(content.clone(), id);
        self.rows.insert(id, Row { content, name, users: 1 });
        (id, true)
    }

    /// One user more of what has users, or had in this update.
    pub(super) fn reacquire(&mut self, id: u32) {
        if let Some(row) = self.rows.get_mut(&id) {
            row.users += 1;
        }
    }

    /// One user less.
    pub(super) fn release(&mut self, id: u32) {
        if let Some(row) = self.rows.get_mut(&id) {
            row.users -= 1;
            if row.users == 0 {
                self.idle.push(id);
            }
        }
    }

    /// What has this number.
    pub(super) fn content(&self, id: u32) -> Option<&Arc<T>> {
        self.rows.get(&id).map(|row| &row.content)
    }

    /// The name of what has this number.
    pub(super) fn name(&self, id: u32) -> Option<Fingerprint> {
        self.rows.get(&id).map(|row| row.name)
    }

    /// Takes out what nobody uses, in the order of the numbers.
    pub(super) fn take_idle(&mut self) -> Vec<(u32, Arc<T>)> {
        let mut idle = std::mem::take(&mut self.idle);
        idle.sort_unstable();
        idle.dedup();
        let unused = |id: &u32| self.rows.get(id).is_some_and(|row| row.users == 0);
        idle.retain(unused);
        let taken = idle.into_iter().filter_map(|id| Some((id, self.rows.remove(&id)?.content)));
        let taken: Vec<_> = taken.collect();
        for (_, content) in &taken {
            self.ids.remove(&**content);
        }
        taken
    }

    /// How much is in use.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    fn unused(&mut self) -> u32 {
        loop {
            let id = self.next;
            self.next = id.checked_add(1).unwrap_or(self.first);
            if !self.rows.contains_key(&id) && !self.reserved.contains(&id) {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acquire(interned: &mut Interned<str>, text: &str) -> (u32, bool) {
        interned.acquire(Arc::from(text), Fingerprint::of)
    }

    #[test]
    fn one_number_for_as_long_as_it_is_used() {
        let mut interned = Interned::new(2);
        assert_eq!(acquire(&mut interned, "a"), (2, true));
        assert_eq!(acquire(&mut interned, "b"), (3, true));
        assert_eq!(acquire(&mut interned, "a"), (2, false));
        interned.release(2);
        assert!(interned.take_idle().is_empty());
        interned.release(2);
        assert_eq!(acquire(&mut interned, "a"), (2, false), "it was only about to go");
        assert!(interned.take_idle().is_empty());
        interned.release(2);
        assert_eq!(interned.take_idle(), [(2, Arc::from("a"))]);
        assert_eq!(acquire(&mut interned, "a"), (4, true), "a number is not used again at once");
        assert_eq!(interned.len(), 2);
    }

    #[test]
    fn what_has_a_name_keeps_its_number() {
        let mut interned = Interned::new(2);
        interned.adopt(Fingerprint::of("a"), 7);
        interned.adopt(Fingerprint::of("gone"), 9);
        assert_eq!(acquire(&mut interned, "b"), (10, true), "after all that were given");
        assert_eq!(
            acquire(&mut interned, "a"),
            (7, true),
            "its rows are to be written by whoever finds that they are not"
        );
        assert_eq!(interned.take_unrecognized(), [9]);
        assert_eq!(acquire(&mut interned, "gone"), (11, true));
    }

    #[test]
    fn after_the_last_number_comes_the_first_that_is_free() {
        let mut interned = Interned::new(2);
        assert_eq!(acquire(&mut interned, "a").0, 2);
        interned.next = u32::MAX;
        assert_eq!(acquire(&mut interned, "b").0, u32::MAX);
        assert_eq!(acquire(&mut interned, "c").0, 3);
    }
}
