//! Which consecutive rows of the `backends` table are free.

use std::collections::BTreeMap;

use weir_ebpf::abi::Run;

/// First fit over free ranges that never touch each other.
#[derive(Debug)]
pub(super) struct Runs {
    /// offset -> length
    free: BTreeMap<u32, u32>,
    used: u32,
}

impl Runs {
    /// All of `capacity` rows are free.
    pub(super) fn new(capacity: u32) -> Self {
        Self { free: BTreeMap::from([(0, capacity)]), used: 0 }
    }

    /// Rows that are not free.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// `len` consecutive rows, or `None` where there are not so many together.
    pub(super) fn take(&mut self, len: u32) -> Option<Run> {
        let (&offset, &room) = self.free.iter().find(|&(_, &room)| room >= len)?;
        self.free.remove(&offset);
        if room > len {
            self.free.insert(offset + len, room - len);
        }
        self.used += len;
        Some(Run { offset, len })
    }

    /// Exactly these rows; `false` where some of them are not free.
    pub(super) fn take_at(&mut self, run: Run) -> bool {
        let Some(end) = run.offset.checked_add(run.len) else { return false };
        let Some((&offset, &room)) = self.free.range(..=run.offset).next_back() else { return false };
        if offset + room < end {
            return false;
        }
        self.free.remove(&offset);
        if offset < run.offset {
            self.free.insert(offset, run.offset - offset);
        }
        if end < offset + room {
            self.free.insert(end, offset + room - end);
        }
        self.used += run.len;
        true
    }

    /// Gives rows back.
    pub(super) fn give(&mut self, run: Run) {
        self.used -= run.len;
        let Run { mut offset, mut len } = run;
        if let Some((&before, &room)) = self.free.range(..offset).next_back()
            && before + room == offset
        {
            self.free.remove(&before);
            offset = before;
            len += room;
        }
        if let Some(room) = self.free.remove(&(run.offset + run.len)) {
            len += room;
        }
        self.free.insert(offset, len);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_given_back_joins_its_neighbours() {
        let mut runs = Runs::new(10);
        let taken: Vec<Run> = (0..5).map(|_| runs.take(2).unwrap()).collect();
        assert_eq!(runs.take(1), None);
        for index in [1, 3, 2] {
            runs.give(taken[index]);
        }
        assert_eq!(runs.take(6), Some(Run { offset: 2, len: 6 }));
    }

    proptest! {
        #[test]
        fn rows_are_never_given_twice(steps in prop::collection::vec((any::<bool>(), 1u32..20, 0u32..100), 1..200)) {
            let mut runs = Runs::new(100);
            let mut held: Vec<Run> = Vec::new();
            for (give, len, at) in steps {
                let taken = if give {
                    if !held.is_empty() {
                        let index = at as usize % held.len();
                        runs.give(held.swap_remove(index));
                    }
                    None
                } else if at % 2 == 0 {
                    runs.take(len)
                } else {
                    let run = Run { offset: at, len };
                    runs.take_at(run).then_some(run)
                };
                if let Some(run) = taken {
                    prop_assert!(run.offset + run.len <= 100);
                    for other in &held {
                        prop_assert!(
                            run.offset + run.len <= other.offset || other.offset + other.len <= run.offset
                        );
                    }
                    held.push(run);
                }
                prop_assert_eq!(runs.used(), held.iter().map(|run| run.len).sum::<u32>());
            }
        }
    }
}
