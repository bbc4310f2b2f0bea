//! Parlor: benches.
