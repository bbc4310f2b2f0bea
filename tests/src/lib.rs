//! What the tests of several crates share. The tests themselves are in `tests/tests/`, one subject a file.

pub mod chaos;
pub mod fuzz;
pub mod protocol;
pub mod soak;
pub mod world;
