//! Parlor's measurements: frame delay over simulated links in virtual time, and the relay's cost
//! over loopback. Each figure comes from the whole real stack; the programs print the command that
//! repeats it.

pub mod beside;
pub mod cell;
pub mod contender;
pub mod cpu;
pub mod fanout;
pub mod floor;
pub mod goals;
pub mod hostile;
pub mod join;
pub mod link_socket;
pub mod live;
pub mod load;
pub mod measure;
pub mod outcome;
pub mod proxy;
pub mod quantile;
pub mod rate;
pub mod relay_process;
pub mod report;
pub mod room;
pub mod source;
pub mod table;
