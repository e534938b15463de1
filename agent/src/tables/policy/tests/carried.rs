//! Tables of other sizes.

use super::*;

/// What one agent wrote, and tables of another size that the next one carries it to.
fn carried(full: &[&'static str]) -> (PolicySnapshot, Store, usize) {
    let (mut rows, mut old) = (rows(), Store::default());
    rows.set_workloads(here(), BTreeSet::new(), &mut old);
    rows.apply(update(), true, &mut old);
    let mut new = Store { full: full.iter().copied().collect(), ..Store::default() };
    let left_out = old.snapshot.carry_to(&mut new).unwrap();
    (old.snapshot, new, left_out)
}

#[test]
fn tables_of_another_size_begin_with_what_was_in_force() {
    let (old, mut new, left_out) = carried(&[]);
    assert!(old.is_said() && !PolicySnapshot::default().is_said());
    assert_eq!(left_out, 0);
    assert_eq!(new.snapshot, old);
    // And the next agent says the same numbers without writing any of it again.
    let mut rows = PolicyRows::new(OPTIONS, new.snapshot.clone());
    rows.set_workloads(here(), BTreeSet::new(), &mut new);
    let before = new.writes.len();
    rows.apply(update(), true, &mut new);
    let written = &new.writes[before..];
    assert!(written.iter().all(|write| matches!(write, PolicyWrite::Enforcement(_))), "{written:?}");
}

#[test]
fn what_finds_no_room_in_tables_of_another_size_opens_nothing() {
    for table in ["port_rules", "verdicts", "network_classes", "policy_names"] {
        let (_, mut new, left_out) = carried(&[table]);
        assert!(left_out > 0, "{table}");
        assert_eq!(new.snapshot.pods[&DEVICE].policy, closed_to_all(), "{table}");
        assert!(new.snapshot.enforcement.is_on(), "{table}");
        // Once there is room and all is told, what is allowed is allowed again.
        new.full.clear();
        let mut rows = PolicyRows::new(OPTIONS, new.snapshot.clone());
        rows.set_workloads(here(), BTreeSet::new(), &mut new);
        rows.apply(update(), true, &mut new);
        assert_eq!(new.snapshot.pods[&DEVICE].policy, guarded(), "{table}");
    }
}
