//! What Parlor's relay and clients share: identifiers, the wire, hops and QUIC sessions.

pub mod units;
