//! A store that refuses, and clients that ask in the middle of a change.

use std::cell::Cell;
use std::io;

use proptest::prelude::*;
use weir_ebpf::abi::{
    Backend, Frontend, FrontendKey, ServiceId, ServiceName, SetId, SetWord, SourceRangeKey,
};
use weir_ebpf::datapath::socket::Verdict;

use super::*;
use crate::tables::memory::MemoryStore;
use crate::tables::{Store, StoreError};

/// Somebody who looks at what is in the store.
type Look<'a> = Box<dyn FnMut(&MemoryStore) + 'a>;

/// Refuses what `refuses` says, and has somebody connect to an address, or look, after each write.
pub(super) struct Difficult<'a> {
    store: MemoryStore,
    refuses: Box<dyn FnMut() -> bool + 'a>,
    watched: Option<SocketAddr>,
    seen: Vec<Verdict>,
    looks: Option<Look<'a>>,
    refuses_ranges: bool,
}

impl<'a> Difficult<'a> {
    pub(super) fn new(refuses: impl FnMut() -> bool + 'a) -> Self {
        Self {
            store: MemoryStore::default(),
            refuses: Box::new(refuses),
            watched: None,
            seen: Vec::new(),
            looks: None,
            refuses_ranges: false,
        }
    }

    /// Has this called after each write.
    pub(super) fn watch(&mut self, looks: impl FnMut(&MemoryStore) + 'a) {
        self.looks = Some(Box::new(looks));
    }

    /// Refuses what is to happen to source ranges.
    pub(super) fn refuse_ranges(&mut self, refuses: bool) {
        self.refuses_ranges = refuses;
    }

    /// What it holds.
    pub(super) fn inner(&self) -> &MemoryStore {
        &self.store
    }

    fn asked(
        &mut self,
        write: impl FnOnce(&mut MemoryStore) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if (self.refuses)() {
            let source = io::Error::from_raw_os_error(12);
            return Err(StoreError::Io { table: "frontends", source });
        }
        let result = write(&mut self.store);
        self.look();
        result
    }

    fn look(&mut self) {
        if let Some(looks) = &mut self.looks {
            looks(&self.store);
        }
        self.seen.extend(self.watched.map(|addr| connect(&self.store, addr)));
    }
}

impl Store for Difficult<'_> {
    fn write_backends(&mut self, offset: u32, rows: &[Backend]) {
        self.store.write_backends(offset, rows);
        self.look();
    }

    fn swap_set(&mut self, set: SetId, word: SetWord) {
        self.store.swap_set(set, word);
        self.look();
    }

    fn put_frontend(&mut self, key: &FrontendKey, row: &Frontend) -> Result<(), StoreError> {
        self.asked(|store| store.put_frontend(key, row))
    }

    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), StoreError> {
        self.asked(|store| store.delete_frontend(key))
    }

    fn put_source_range(&mut self, range: &SourceRangeKey) -> Result<(), StoreError> {
        self.asked(|store| store.put_source_range(range))
    }

    fn delete_source_range(&mut self, range: &SourceRangeKey) -> Result<(), StoreError> {
        if self.refuses_ranges {
            return Err(StoreError::Io { table: "source_ranges", source: io::Error::from_raw_os_error(12) });
        }
        self.asked(|store| store.delete_source_range(range))
    }

    fn put_name(&mut self, id: ServiceId, name: &ServiceName) -> Result<(), StoreError> {
        self.asked(|store| store.put_name(id, name))
    }

    fn delete_name(&mut self, id: ServiceId) -> Result<(), StoreError> {
        self.asked(|store| store.delete_name(id))
    }

    fn wait_grace(&mut self) -> Result<(), StoreError> {
        self.asked(Store::wait_grace)
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

#[test]
fn a_port_that_is_renamed_is_served_all_the_while() {
    let mut store = Difficult::new(|| false);
    let mut tables = Tables::new(sizes());
    tables.apply(&key("a"), Some(&plan("a", 1, [1])), &mut store);
    store.watched = Some(vip_addr(1));
    let mut renamed = plan("a", 1, [1]);
    renamed.ports[0].name.port = "web".into();
    tables.apply(&key("a"), Some(&renamed), &mut store);
    assert!(!store.seen.is_empty());
    let served = Verdict::Translate(backend(1).into());
    assert!(store.seen.iter().all(|seen| *seen == served), "{:?}", store.seen);
    assert_eq!((tables.usage().services, tables.usage().frontends), (1, 2));
}

#[test]
fn a_frontend_that_cannot_be_removed_never_leads_to_another_service() {
    let refuses = Cell::new(false);
    let mut store = Difficult::new(|| refuses.get());
    let mut tables = Tables::new(sizes());
    tables.apply(&key("a"), Some(&plan("a", 1, [1])), &mut store);
    refuses.set(true);
    tables.apply(&key("a"), None, &mut store);
    refuses.set(false);
    tables.settle(&mut store).unwrap();
    for (name, vip) in [("b", 2), ("c", 3), ("d", 4)] {
        tables.apply(&key(name), Some(&plan(name, vip, [vip])), &mut store);
        let seen = connect(&store.store, vip_addr(1));
        assert_ne!(seen, Verdict::Translate(backend(vip).into()), "{name}");
    }
    assert!(tables.has_refused());
    assert_eq!(tables.retry(&mut store), [key("a")]);
    tables.apply(&key("a"), None, &mut store);
    assert!(!tables.has_refused());
    assert_eq!(connect(&store.store, vip_addr(1)), Verdict::Pass);
    tables.settle(&mut store).unwrap();
    tables.apply(&key("e"), Some(&plan("e", 5, [5])), &mut store);
    assert_eq!(reached(&store.store, 5), [backend(5)], "the number is free again");
}

#[test]
fn who_found_no_room_is_served_when_another_change_made_some() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
    apply(&mut tables, &mut store, &plan("a", 1, 0..6));
    apply(&mut tables, &mut store, &plan("b", 2, 0..8));
    apply(&mut tables, &mut store, &plan("c", 3, 0..4));
    assert_eq!(reached(&store, 3), []);
    // In making room for `a`, the places that `b` gave up become free within the call.
    apply(&mut tables, &mut store, &plan("b", 2, 0..1));
    apply(&mut tables, &mut store, &plan("a", 1, 0..5));
    assert!(tables.has_refused());
    for key in tables.retry(&mut store) {
        assert_eq!(key, super::trouble::key("c"));
        apply(&mut tables, &mut store, &plan("c", 3, 0..4));
    }
    assert_eq!(reached(&store, 3).len(), 4);
    assert!(!tables.has_refused());
}

#[test]
fn problems_say_when_they_change() {
    let (mut store, mut tables) = (MemoryStore::default(), Tables::new(sizes()));
    apply(&mut tables, &mut store, &plan("a", 1, [1]));
    assert!(!tables.take_problems_changed());
    apply(&mut tables, &mut store, &plan("b", 1, [2]));
    assert!(tables.take_problems_changed(), "two claim one frontend");
    apply(&mut tables, &mut store, &plan("a", 1, [1, 2]));
    apply(&mut tables, &mut store, &plan("c", 3, [3]));
    assert!(!tables.take_problems_changed(), "still the same two");
    apply(&mut tables, &mut store, &plan("c", 3, 0..17));
    assert!(tables.take_problems_changed(), "no room");
    tables.apply(&key("c"), None, &mut store);
    assert!(tables.take_problems_changed());
    tables.apply(&key("a"), None, &mut store);
    assert!(tables.take_problems_changed());
    assert_eq!(tables.problems().count(), 0);
}

proptest! {
    /// Whatever the store refused on the way: as soon as it accepts everything, trying again ends where a store
    /// that never refused would be; and no address ever leads to a backend that was not its Service's.
    #[test]
    fn what_was_refused_is_made_up_for(
        steps in prop::collection::vec(
            (0u8..4, 1u8..4, prop::option::of(prop::collection::btree_set(0u8..5, 0..4))), 1..40),
        refusals in prop::collection::vec(prop::bool::weighted(0.3), 0..200),
    ) {
        let calm = Cell::new(false);
        let mut refusals = refusals.into_iter();
        let mut store = Difficult::new(|| !calm.get() && refusals.next().unwrap_or_default());
        let sizes = Sizes { backends: 64, frontends: 64, services: 64, ..sizes() };
        let mut tables = Tables::new(sizes);
        let mut last: BTreeMap<ObjectKey, Option<ServicePlan>> = BTreeMap::new();
        for (at, vip, backends) in steps {
            let name = format!("s{at}");
            // The backends tell whose they are.
            let plan = backends.map(|set| plan(&name, vip, set.iter().map(|index| at * 16 + index)));
            tables.apply(&key(&name), plan.as_ref(), &mut store);
            let _later = tables.settle(&mut store);
            last.insert(key(&name), plan);
        }
        calm.set(true);
        for _ in 0..2 {
            for key in tables.retry(&mut store) {
                tables.apply(&key, last[&key].as_ref(), &mut store);
            }
        }
        tables.settle(&mut store).unwrap();
        prop_assert!(!tables.has_refused());
        let live: Vec<&ServicePlan> = last.values().flatten().collect();
        let vips: std::collections::BTreeSet<SocketAddr> =
            live.iter().map(|plan| plan.ports[0].frontends[0].addr).collect();
        prop_assert_eq!(store.store.tables.frontends.len(), 2 * vips.len());
        prop_assert_eq!(tables.usage().frontends, 2 * vips.len());
        for vip in 1..4 {
            let found = reached(&store.store, vip);
            let mut claimants = live.iter().filter(|plan| plan.ports[0].frontends[0].addr == vip_addr(vip));
            let known = store.store.tables.frontends.contains_key(&FrontendKey::new(vip_addr(vip).into(), Protocol::Tcp));
            prop_assert_eq!(known, vips.contains(&vip_addr(vip)));
            if known {
                prop_assert!(claimants.any(|plan| cluster(plan).keys().copied().eq(found.iter().copied())));
            }
        }
    }
}
