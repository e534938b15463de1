//! [`Tables`] as hash maps, and a socket and a moment made of plain fields.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use crate::abi::{
    AffinityKey, AffinityRow, Backend, Client, Connection, Counter, DatagramKey, DatagramRow, Frontend,
    FrontendKey, Protocol, SetId, SetWord,
};
use crate::datapath::{Full, Moment, Socket, Tables};

/// The tables as hash maps.
#[derive(Default, Debug)]
pub struct MemoryTables {
    /// `frontends`
    pub frontends: HashMap<FrontendKey, Frontend>,
    /// `sets`
    pub sets: HashMap<SetId, SetWord>,
    /// `backends`
    pub backends: HashMap<u32, Backend>,
    /// `affinity`
    pub affinity: RefCell<HashMap<AffinityKey, AffinityRow>>,
    /// `connections`
    pub connections: RefCell<HashMap<u64, Connection>>,
    /// `datagrams`
    pub datagrams: RefCell<HashMap<DatagramKey, DatagramRow>>,
    /// `counters`
    pub counters: RefCell<HashMap<Counter, u64>>,
    /// Whether `affinity`, `connections` and `datagrams` refuse new rows.
    pub full: Cell<bool>,
}

impl MemoryTables {
    /// The value of a counter.
    #[must_use]
    pub fn counted(&self, counter: Counter) -> u64 {
        self.counters.borrow().get(&counter).copied().unwrap_or_default()
    }

    fn room(&self) -> Result<(), Full> {
        if self.full.get() { Err(Full) } else { Ok(()) }
    }
}

impl Tables for MemoryTables {
    fn lookup_frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.frontends.get(key).copied()
    }

    fn lookup_set(&self, id: SetId) -> SetWord {
        self.sets.get(&id).copied().unwrap_or_default()
    }

    fn lookup_backend(&self, index: u32) -> Option<Backend> {
        self.backends.get(&index).copied()
    }

    fn lookup_affinity(&self, key: &AffinityKey) -> Option<AffinityRow> {
        self.affinity.borrow().get(key).copied()
    }

    fn put_affinity(&self, key: &AffinityKey, row: &AffinityRow) -> Result<(), Full> {
        self.room()?;
        self.affinity.borrow_mut().insert(*key, *row);
        Ok(())
    }

    fn lookup_connection(&self, cookie: u64) -> Option<Connection> {
        self.connections.borrow().get(&cookie).copied()
    }

    fn put_connection(&self, cookie: u64, row: &Connection) -> Result<(), Full> {
        self.room()?;
        self.connections.borrow_mut().insert(cookie, *row);
        Ok(())
    }

    fn delete_connection(&self, cookie: u64) {
        self.connections.borrow_mut().remove(&cookie);
    }

    fn lookup_datagram(&self, key: &DatagramKey) -> Option<DatagramRow> {
        self.datagrams.borrow().get(key).copied()
    }

    fn put_datagram(&self, key: &DatagramKey, row: &DatagramRow) -> Result<(), Full> {
        self.room()?;
        self.datagrams.borrow_mut().insert(*key, *row);
        Ok(())
    }

    fn count(&self, counter: Counter) {
        *self.counters.borrow_mut().entry(counter).or_default() += 1;
    }
}

/// A socket made of plain fields.
#[derive(Clone, Copy, Debug)]
pub struct FakeSocket {
    /// Its protocol.
    pub protocol: Option<Protocol>,
    /// Its cookie.
    pub cookie: u64,
    /// The cookie of its network namespace.
    pub netns: u64,
}

impl Socket for FakeSocket {
    fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    fn cookie(&self) -> u64 {
        self.cookie
    }

    fn client(&self) -> Client {
        Client::from_netns(self.netns)
    }
}

/// A moment made of plain fields; chance is a sequence that the same seed repeats.
#[derive(Clone, Debug, Default)]
pub struct FakeMoment {
    /// Seconds since boot.
    pub seconds: Cell<u32>,
    /// State of the random sequence (Weyl sequence, multiplied).
    pub seed: Cell<u64>,
}

impl Moment for FakeMoment {
    fn seconds(&self) -> u32 {
        self.seconds.get()
    }

    fn random(&self) -> u32 {
        let state = self.seed.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.seed.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        u32::try_from((mixed ^ (mixed >> 27)) >> 32).unwrap_or_default()
    }
}
