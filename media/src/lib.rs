//! Parlor: media.
