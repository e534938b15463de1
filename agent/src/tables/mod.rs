//! From symbolic plans to rows: ids, places, the order of writing. Pure; the store is a trait.
