//! The policy compiler: a cluster that comes into being and changes. After each change the compiled tables say what an evaluator
//! says that reads the objects for every question; between two writes they say what was true before or is afterwards; and an
//! agent that starts anew finds everything as it is.
//!
//! Clusters and what holds of them are those of the random tests of `weir-policy`.

use weir_policy::history::{Choices, Tally, history, live_through};

/// Ports for each pair of addresses in one state.
const PORTS: usize = 1;

pub(crate) fn run(data: &[u8]) {
    let history = history(&mut Choices::new(data));
    let lived = live_through(&history, PORTS, &mut Tally::default());
    if let Err(why) = lived {
        panic!("{why}\n{history:#?}");
    }
}
