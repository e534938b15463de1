//! The name that everything of one lab begins with.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// `weir-<pid of the owner>-<number>`: unique on the machine, and tells whether the owner is still alive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct LabId {
    owner: u32,
    number: u32,
}

impl LabId {
    /// The next lab of this process.
    #[must_use]
    pub fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self { owner: std::process::id(), number: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// The lab that a namespace, a cgroup, a pin or a directory belongs to; `None` if it is no lab's.
    #[must_use]
    pub fn parse_prefix(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix("weir-")?.split('-');
        let owner = parts.next()?.parse().ok()?;
        let number = parts.next()?.parse().ok()?;
        Some(Self { owner, number })
    }

    /// The process that made the lab.
    #[must_use]
    pub fn owner(self) -> u32 {
        self.owner
    }

    /// Whether the process that made the lab still runs.
    #[must_use]
    pub fn is_alive(self) -> bool {
        Path::new("/proc").join(self.owner.to_string()).exists()
    }

    /// The name of something within the lab: `weir-123-0-n1`.
    #[must_use]
    pub fn name(self, of: &str) -> String {
        format!("{self}-{of}")
    }
}

impl fmt::Display for LabId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "weir-{}-{}", self.owner, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_lab() {
        let id = LabId::next();
        assert_eq!(LabId::parse_prefix(&id.name("n1-web")), Some(id));
        assert_eq!(LabId::parse_prefix(&id.to_string()), Some(id));
        assert!(id.is_alive());
    }

    #[test]
    fn other_names_are_no_labs() {
        for name in ["weir", "weir-x-0", "weir-12", "cni-12-0", "weir-12-x"] {
            assert_eq!(LabId::parse_prefix(name), None, "{name}");
        }
    }
}
