//! What the tables are written to.

use weir_ebpf::abi::{
    Backend, Frontend, FrontendKey, ServiceId, ServiceName, SetId, SetWord, SourceRangeKey,
};

/// How many rows each table has room for. Fixed when the maps are made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct Sizes {
    /// Frontends: addresses and ports that clients dial, one more for each address.
    pub frontends: u32,
    /// Service ports, each family counted.
    pub services: u32,
    /// Places for backends in sets. A set that changes needs its new and its old places for a moment.
    pub backends: u32,
    /// Connected sockets that are remembered, for as long as they live.
    pub connections: u32,
    /// Translations of unconnected UDP sockets that are remembered, two for each address that a socket speaks to.
    pub datagrams: u32,
    /// Clients with session affinity that are remembered.
    pub affinity: u32,
    /// Networks from where load balancers' addresses may be dialled, those of each Service port and family counted.
    pub source_ranges: u32,
    /// Forms of flows that are translated per packet: two or three for each.
    pub flows: u32,
}

impl Default for Sizes {
    /// Room for 10,000 dual-stack Services of a few ports, and for 200,000 endpoints: 21 MiB of kernel memory while
    /// empty, 31 MiB with 10,000 Services.
    fn default() -> Self {
        Self {
            frontends: 131_072,
            services: 65_536,
            backends: 262_144,
            connections: 65_536,
            datagrams: 16_384,
            affinity: 16_384,
            source_ranges: 16_384,
            flows: 262_144,
        }
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
