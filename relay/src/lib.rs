//! Parlor: relay.
