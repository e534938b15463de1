//! The cluster as this node needs it, kept from events; knows what changed since it was last asked.
