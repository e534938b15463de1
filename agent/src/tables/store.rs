//! What the tables are written to.

use weir_ebpf::abi::{
    Backend, Frontend, FrontendKey, ServiceId, ServiceName, SetId, SetWord, SourceRangeKey,
};

/// The tables whose sizes can be chosen, each once: name, what a row is, default. All else that lists them asks
/// [`Sizes::rows`].
macro_rules! sizes {
    ($($(#[doc = $doc:literal])* $table:ident = $default:literal,)*) => {
        /// How many rows each table has room for. Fixed when the maps are made.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
        pub struct Sizes {
            $($(#[doc = $doc])* pub $table: u32,)*
        }

        impl Default for Sizes {
            /// Room for 10,000 dual-stack Services of a few ports, and for 200,000 endpoints: 34 MiB of kernel memory
            /// while empty, 8 of them for policies, 39 MiB with 10,000 Services.
            fn default() -> Self {
                Self { $($table: $default,)* }
            }
        }

        impl Sizes {
            /// How many tables there are.
            pub const TABLES: usize = [$(stringify!($table)),*].len();

            /// Each table by its name, as metrics and `weir status` call it, and how many rows it has room for.
            #[must_use]
            pub const fn rows(&self) -> [(&'static str, u32); Self::TABLES] {
                [$((stringify!($table), self.$table)),*]
            }

            /// From as many numbers as there are tables, in the order of [`Sizes::rows`].
            #[must_use]
            pub const fn from_rows(rows: [u32; Self::TABLES]) -> Self {
                let [$($table),*] = rows;
                Self { $($table),* }
            }
        }
    };
}

sizes! {
    /// Frontends: addresses and ports that clients dial, one more for each address.
    frontends = 131_072,
    /// Service ports, each family counted.
    services = 65_536,
    /// Places for backends in sets. A set that changes needs its new and its old places for a moment.
    backends = 262_144,
    /// Connected sockets that are remembered, for as long as they live.
    connections = 65_536,
    /// Translations of unconnected UDP sockets that are remembered, two for each address that a socket speaks to.
    datagrams = 16_384,
    /// Clients with session affinity that are remembered.
    affinity = 16_384,
    /// Networks from where load balancers' addresses may be dialled, those of each Service port and family counted.
    source_ranges = 16_384,
    /// Forms of flows that are translated per packet: two or three for each.
    flows = 262_144,
    /// Addresses that selectors of policies tell apart.
    address_classes = 131_072,
    /// Networks in policies.
    network_classes = 65_536,
    /// What policies allow whom.
    verdicts = 65_536,
    /// Ports in policies: a range is up to 30 rows.
    port_rules = 65_536,
    /// Flows of pods that policies isolate.
    judged = 262_144,
    /// Drops that wait for the agent to read of them: 96 bytes each.
    drop_events = 2_048,
}

impl Sizes {
    /// Numbers of policy sets, classes and sets of ports that a restarted agent recognizes; it gives new ones to the others.
    #[must_use]
    pub const fn policy_names(&self) -> u32 {
        self.verdicts
    }
}

/// Why a row could not be written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The table has no room for another row.
    #[error("the {table} table is full ({capacity} rows)")]
    Full {
        /// Which table.
        table: &'static str,
        /// Its size.
        capacity: u32,
    },
    /// The kernel refused for another reason.
    #[error("writing to the {table} table: {source}")]
    Io {
        /// Which table.
        table: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Where rows are written. Nothing here reads: what the store holds is known to [`super::Tables`].
pub trait Store {
    /// Writes consecutive rows that no set points to.
    fn write_backends(&mut self, offset: u32, rows: &[Backend]);
    /// Replaces a whole set by one atomic store.
    fn swap_set(&mut self, set: SetId, word: SetWord);
    /// Adds or replaces a frontend.
    ///
    /// # Errors
    /// [`StoreError`]
    fn put_frontend(&mut self, key: &FrontendKey, row: &Frontend) -> Result<(), StoreError>;
    /// Removes a frontend; none is no error.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), StoreError>;
    /// Adds a source range; one that is there is no error.
    ///
    /// # Errors
    /// [`StoreError`]
    fn put_source_range(&mut self, range: &SourceRangeKey) -> Result<(), StoreError>;
    /// Removes a source range; none is no error.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    fn delete_source_range(&mut self, range: &SourceRangeKey) -> Result<(), StoreError>;
    /// Adds or replaces a name.
    ///
    /// # Errors
    /// [`StoreError`]
    fn put_name(&mut self, id: ServiceId, name: &ServiceName) -> Result<(), StoreError>;
    /// Removes a name; none is no error.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    fn delete_name(&mut self, id: ServiceId) -> Result<(), StoreError>;
    /// Returns when every program that could still see what was replaced before has ended.
    ///
    /// # Errors
    /// [`StoreError::Io`]: then nothing that was replaced may be used again.
    fn wait_grace(&mut self) -> Result<(), StoreError>;
}
