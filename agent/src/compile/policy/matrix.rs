//! Sets against classes: which ports each class may use by each set.
//!
//! A row stands only where an atom of the set matches the class and that makes a difference. Nothing here is changed after
//! it was written: a set, a class and a set of ports mean the same for as long as they have their number.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_ebpf::abi::{ClassId, PolicySetId, PortRulesId, VerdictKey};

use super::content::Content;
use super::interned::Interned;
use super::names::{Fingerprint, Named};
use super::ports::{Ports, Verdict};
use super::rule::{Atom, AtomId, Mark};
use super::{Change, Sizes};

/// See the module.
#[derive(Debug)]
pub(super) struct Matrix {
    /// Used by sets.
    atoms: Interned<Atom>,
    users: BTreeMap<AtomId, Users>,
    /// Atoms that were not there before.
    fresh: Vec<AtomId>,
    /// Used by pods' addresses.
    sets: Interned<Content>,
    /// What everybody may use by each set.
    everybody: BTreeMap<PolicySetId, Ports>,
    /// Used by addresses and prefixes.
    classes: Interned<[Mark]>,
    /// Used by rows.
    ports: Interned<Ports>,
    rows: BTreeMap<VerdictKey, PortRulesId>,
}

/// Who has an atom.
#[derive(Debug, Default)]
struct Users {
    sets: BTreeSet<PolicySetId>,
    classes: BTreeSet<ClassId>,
}

/// An atom that no set has any more.
pub(super) struct DeadAtom {
    pub(super) id: AtomId,
    pub(super) atom: Arc<Atom>,
    /// The classes that still have it.
    pub(super) classes: BTreeSet<ClassId>,
}

impl Matrix {
    pub(super) fn new() -> Self {
        Self {
            atoms: Interned::new(0),
            users: BTreeMap::new(),
            fresh: Vec::new(),
            sets: Interned::new(PolicySetId::FIRST.0),
            everybody: BTreeMap::new(),
            classes: Interned::new(ClassId::FIRST.0),
            ports: Interned::new(PortRulesId::FIRST.0),
            rows: BTreeMap::new(),
        }
    }

    /// Takes in a number that an agent before this one gave.
    pub(super) fn adopt(&mut self, named: Named, name: Fingerprint) {
        match named {
            Named::Set(id) => self.sets.adopt(name, id.0),
            Named::Class(id) => self.classes.adopt(name, id.0),
            Named::Ports(id) => self.ports.adopt(name, id.0),
        }
    }

    /// The names of what was adopted and is not any more.
    pub(super) fn forget_unrecognized(&mut self, garbage: &mut Vec<Change>) {
        let sets = self.sets.take_unrecognized().into_iter().map(|id| Named::Set(PolicySetId(id)));
        let classes = self.classes.take_unrecognized().into_iter().map(|id| Named::Class(ClassId(id)));
        let ports = self.ports.take_unrecognized().into_iter().map(|id| Named::Ports(PortRulesId(id)));
        garbage.extend(sets.chain(classes).chain(ports).map(|named| Change::Name(named, None)));
    }

    /// The number of an atom while a set is put together; [`Matrix::release_atoms`] ends that.
    pub(super) fn acquire_atom(&mut self, atom: Atom) -> AtomId {
        let (id, is_new) = self.atoms.acquire(atom, |atom| Fingerprint::of(&format!("{atom:?}")));
        if is_new {
            self.fresh.push(id);
        }
        id
    }

    /// [`Content::may_deny`]
    pub(super) fn may_deny(&self, content: &Content) -> bool {
        content.may_deny(|id| self.atoms.content(id).is_some_and(|atom| atom.is_sure()))
    }

    pub(super) fn release_atoms(&mut self, atoms: Vec<AtomId>) {
        atoms.into_iter().for_each(|id| self.atoms.release(id));
    }

    /// The number of the set that says this, with one user more.
    pub(super) fn acquire_set(&mut self, content: Content, out: &mut Vec<Change>) -> PolicySetId {
        if content.is_open() {
            return PolicySetId::OPEN;
        }
        if content.is_closed() {
            return PolicySetId::CLOSED;
        }
        let (id, is_new) = self.sets.acquire(content, |content| content.name(&|atom| self.atoms.name(atom)));
        let id = PolicySetId(id);
        if is_new {
            out.push(Change::Name(Named::Set(id), self.sets.name(id.0)));
            self.write_set(id, out);
        }
        id
    }

    pub(super) fn release_set(&mut self, id: PolicySetId) {
        if id >= PolicySetId::FIRST {
            self.sets.release(id.0);
        }
    }

    /// The number of the class with these marks, which are in order, with one user more.
    pub(super) fn acquire_class(&mut self, marks: Vec<Mark>, out: &mut Vec<Change>) -> ClassId {
        if marks.is_empty() {
            return ClassId::EVERYBODY;
        }
        let (id, is_new) = self.classes.acquire(marks, |marks| name_marks(&self.atoms, marks));
        let id = ClassId(id);
        if is_new {
            out.push(Change::Name(Named::Class(id), self.classes.name(id.0)));
            self.write_class(id, out);
        }
        id
    }

    pub(super) fn release_class(&mut self, id: ClassId) {
        if id >= ClassId::FIRST {
            self.classes.release(id.0);
        }
    }

    /// The atoms that came since the last call and that some set has.
    pub(super) fn take_fresh_atoms(&mut self) -> Vec<(AtomId, Arc<Atom>)> {
        // What no set got in the end was never seen outside.
        self.atoms.take_idle();
        let fresh = std::mem::take(&mut self.fresh);
        fresh.into_iter().filter_map(|id| Some((id, self.atoms.content(id)?.clone()))).collect()
    }

    /// The sets by which some class may use these ports.
    pub(super) fn sets_with(&self, ports: PortRulesId) -> BTreeSet<PolicySetId> {
        self.rows.iter().filter(|(_, id)| **id == ports).map(|(key, _)| key.set).collect()
    }

    /// Removes the sets that nobody uses, and the atoms that no set has after that.
    pub(super) fn remove_idle_sets(&mut self, garbage: &mut Vec<Change>) -> Vec<DeadAtom> {
        for (id, content) in self.sets.take_idle() {
            let id = PolicySetId(id);
            let [first, last] = [ClassId(0), ClassId(u32::MAX)].map(|class| VerdictKey { set: id, class });
            let keys: Vec<_> = self.rows.range(first..=last).map(|(key, _)| *key).collect();
            keys.into_iter().for_each(|key| self.remove_row(key, garbage));
            garbage.push(Change::Name(Named::Set(id), None));
            if content.is_exact() {
                garbage.push(Change::Exact(id, false));
            }
            self.everybody.remove(&id);
            for atom in content.atoms() {
                self.users.entry(atom).or_default().sets.remove(&id);
                self.atoms.release(atom);
            }
        }
        let dead = self.atoms.take_idle().into_iter().map(|(id, atom)| {
            let classes = self.users.remove(&id).unwrap_or_default().classes;
            DeadAtom { id, atom, classes }
        });
        dead.collect()
    }

    /// Removes the classes and the sets of ports that nobody uses.
    pub(super) fn remove_idle_classes(&mut self, garbage: &mut Vec<Change>) {
        for (id, marks) in self.classes.take_idle() {
            let class = ClassId(id);
            for set in self.sets_of(&marks) {
                self.remove_row(VerdictKey { set, class }, garbage);
            }
            garbage.push(Change::Name(Named::Class(class), None));
            for mark in &*marks {
                if let Some(users) = self.users.get_mut(&mark.atom) {
                    users.classes.remove(&class);
                }
            }
        }
        for (id, ports) in self.ports.take_idle() {
            let rows = ports.rows(PortRulesId(id)).into_iter();
            garbage.extend(rows.map(|(key, _)| Change::PortRule(key, None)));
            garbage.push(Change::Name(Named::Ports(PortRulesId(id)), None));
        }
    }

    /// How much there is.
    pub(super) fn sizes(&self) -> Sizes {
        Sizes {
            atoms: self.atoms.len(),
            sets: self.sets.len(),
            classes: self.classes.len(),
            verdicts: self.rows.len(),
            port_sets: self.ports.len(),
            ..Sizes::default()
        }
    }

    /// The rows of a new set: for everybody, and for each class that one of its atoms matches.
    fn write_set(&mut self, id: PolicySetId, out: &mut Vec<Change>) {
        let Some(content) = self.sets.content(id.0).cloned() else { return };
        if content.is_exact() {
            out.push(Change::Exact(id, true));
        }
        let mut classes = BTreeSet::new();
        for atom in content.atoms() {
            self.atoms.reacquire(atom);
            let users = self.users.entry(atom).or_default();
            users.sets.insert(id);
            classes.extend(users.classes.iter().copied());
        }
        let everybody = content.compile_ports(&[]);
        if everybody.uniform() != Some(Verdict::Deny) {
            self.put_row(VerdictKey { set: id, class: ClassId::EVERYBODY }, everybody.clone(), out);
        }
        self.everybody.insert(id, everybody);
        for class in classes {
            if let Some(marks) = self.classes.content(class.0).cloned() {
                self.write_row(id, &content, class, &marks, out);
            }
        }
    }

    /// The rows of a new class: for each set that has one of its atoms.
    fn write_class(&mut self, id: ClassId, out: &mut Vec<Change>) {
        let Some(marks) = self.classes.content(id.0).cloned() else { return };
        for mark in &*marks {
            self.users.entry(mark.atom).or_default().classes.insert(id);
        }
        for set in self.sets_of(&marks) {
            if let Some(content) = self.sets.content(set.0).cloned() {
                self.write_row(set, &content, id, &marks, out);
            }
        }
    }

    /// A row, where it says anything that the one for everybody does not.
    fn write_row(
        &mut self,
        set: PolicySetId,
        content: &Content,
        class: ClassId,
        marks: &[Mark],
        out: &mut Vec<Change>,
    ) {
        let ports = content.compile_ports(marks);
        if self.everybody.get(&set) != Some(&ports) {
            self.put_row(VerdictKey { set, class }, ports, out);
        }
    }

    fn put_row(&mut self, key: VerdictKey, ports: Ports, out: &mut Vec<Change>) {
        let id = self.acquire_ports(ports, out);
        self.rows.insert(key, id);
        out.push(Change::Verdict(key, Some(id)));
    }

    fn remove_row(&mut self, key: VerdictKey, garbage: &mut Vec<Change>) {
        let Some(id) = self.rows.remove(&key) else { return };
        garbage.push(Change::Verdict(key, None));
        if id >= PortRulesId::FIRST {
            self.ports.release(id.0);
        }
    }

    fn acquire_ports(&mut self, ports: Ports, out: &mut Vec<Change>) -> PortRulesId {
        match ports.uniform() {
            Some(Verdict::Allow) => return PortRulesId::ALL,
            Some(Verdict::Audit) => return PortRulesId::AUDIT,
            Some(Verdict::Deny) => return PortRulesId::NONE,
            None => {}
        }
        let (id, is_new) = self.ports.acquire(ports, |ports| Fingerprint::of(&format!("{ports:?}")));
        let id = PortRulesId(id);
        if is_new {
            out.push(Change::Name(Named::Ports(id), self.ports.name(id.0)));
        }
        if is_new && let Some(ports) = self.ports.content(id.0) {
            let rows = ports.rows(id).into_iter();
            out.extend(rows.map(|(key, row)| Change::PortRule(key, Some(row))));
        }
        id
    }

    /// The sets that tell a class with these marks from everybody.
    fn sets_of(&self, marks: &[Mark]) -> BTreeSet<PolicySetId> {
        let users = marks.iter().filter_map(|mark| self.users.get(&mark.atom));
        users.flat_map(|users| users.sets.iter().copied()).collect()
    }
}

fn name_marks(atoms: &Interned<Atom>, marks: &[Mark]) -> Fingerprint {
    let marks = marks.iter().filter_map(|mark| {
        let name = atoms.name(mark.atom)?;
        let again = if mark.again { " again" } else { "" };
        Some(Fingerprint::of(&format!("{name:?} {} {}{again}", mark.port, mark.perhaps)))
    });
    Fingerprint::of_all("class", marks)
}
