//! Attacks that take more than frames: connections that somebody opened, rules of netfilter, addresses that change.
