//! Translation per packet, on tables in memory.
