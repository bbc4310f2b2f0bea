//! Parlor: client.
