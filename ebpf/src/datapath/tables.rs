//! What a decision needs from outside, as three small traits.

use crate::abi::{
    AffinityKey, AffinityRow, Backend, Client, Connection, Counter, DatagramKey, DatagramRow, Frontend,
    FrontendKey, Protocol, SetId, SetWord,
};

/// A table has no room for one more row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// The tables. Look-ups of rows that user space replaces return copies; nothing is held across two calls.
pub trait Tables {
    /// `frontends`
    fn lookup_frontend(&self, key: &FrontendKey) -> Option<Frontend>;
    /// `sets`; a set that was never written is [`SetWord::default`].
    fn lookup_set(&self, id: SetId) -> SetWord;
    /// `backends`, by index
    fn lookup_backend(&self, index: u32) -> Option<Backend>;
    /// `affinity`
    fn lookup_affinity(&self, key: &AffinityKey) -> Option<AffinityRow>;
    /// `affinity`
    ///
    /// # Errors
    /// [`Full`]
    fn put_affinity(&self, key: &AffinityKey, row: &AffinityRow) -> Result<(), Full>;
    /// `connections`, by socket cookie
    fn lookup_connection(&self, cookie: u64) -> Option<Connection>;
    /// `connections`
    ///
    /// # Errors
    /// [`Full`]
    fn put_connection(&self, cookie: u64, row: &Connection) -> Result<(), Full>;
    /// `connections`; none is no error.
    fn delete_connection(&self, cookie: u64);
    /// `datagrams`
    fn lookup_datagram(&self, key: &DatagramKey) -> Option<DatagramRow>;
    /// `datagrams`
    ///
    /// # Errors
    /// [`Full`]
    fn put_datagram(&self, key: &DatagramKey, row: &DatagramRow) -> Result<(), Full>;
    /// `counters`: one more.
    fn count(&self, counter: Counter);
}

/// The socket that asks. Everything but the protocol costs a helper call, so it is asked for only when needed.
pub trait Socket {
    /// TCP or UDP; `None` for what no Service can have.
    fn protocol(&self) -> Option<Protocol>;
    /// `SO_COOKIE`
    fn cookie(&self) -> u64;
    /// Who it is to session affinity.
    fn client(&self) -> Client;
}

/// Time and chance.
pub trait Moment {
    /// Seconds since boot, suspended time included.
    fn seconds(&self) -> u32;
    /// Uniform random bits.
    fn random(&self) -> u32;
}
