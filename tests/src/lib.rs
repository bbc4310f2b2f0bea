//! Parlor: tests.
