//! The relay of a measurement: a process of its own, whose CPU time and memory the system tells, or one that runs
//! already.

use std::io::{self, BufRead, BufReader};
use std::net::ToSocketAddrs;
use std::process::{Child, Command, Stdio};

use parlor_transport::address::RelayAddress;

use crate::cpu::Usage;

/// The argument that turns this program into the relay of a measurement.
pub const RELAY_COMMAND: &str = "relay-of-a-measurement";

/// Where the relay of a measurement comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Which {
    /// A new one, for this measurement only.
    #[default]
    New,
    /// One that runs, and its process if it is on this machine and is to be watched.
    Running(RelayAddress, Option<u32>),
}

impl Which {
    /// A relay at `address`. Loads are for relays of one's own, so that other hosts than this one have to be allowed.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn running(address: &str, process: Option<u32>, is_anywhere: bool) -> Result<Self, String> {
        let relay: RelayAddress = address.parse().map_err(|error| format!("{error}"))?;
        let failed = |error| format!("no address is known for {}: {error}", relay.host);
        let mut places = (relay.host.as_str(), relay.port).to_socket_addrs().map_err(failed)?;
        if !is_anywhere && !places.all(|place| place.ip().is_loopback()) {
            let host = &relay.host;
            return Err(format!(
                "{host} is not this machine; pass --allow-any-address if that relay is yours to load"
            ));
        }
        Ok(Which::Running(relay, process))
    }
}

/// A relay to measure. A process that was started for it ends with this value.
#[derive(Debug)]
pub struct RelayProcess {
    child: Option<Child>,
    process: Option<u32>,
    address: String,
}

impl RelayProcess {
    /// The relay that was asked for. Needs this program to answer to [`RELAY_COMMAND`].
    ///
    /// # Errors
    /// When the process does not start.
    pub fn get(which: &Which, arguments: &[String]) -> io::Result<Self> {
        if let Which::Running(address, process) = which {
            return Ok(RelayProcess { child: None, process: *process, address: address.to_string() });
        }
        let mut child = Command::new(std::env::current_exe()?)
            .arg(RELAY_COMMAND)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut address = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut address)?;
        }
        let address = address.trim().to_owned();
        let process = Some(child.id());
        let relay = RelayProcess { child: Some(child), process, address };
        if relay.address.is_empty() {
            return Err(io::Error::other("the relay process did not start"));
        }
        Ok(relay)
    }

    /// Where it is, as people pass it on.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it has used so far, where that is told.
    pub fn usage(&self) -> Option<Usage> {
        Usage::of(self.process?)
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_relays_of_this_machine_are_loaded_unasked() {
        assert!(Which::running("parlor://127.0.0.1:4433/r", None, false).is_ok());
        let refused = Which::running("parlor://192.0.2.1:4433/r", None, false).unwrap_err();
        assert!(refused.contains("--allow-any-address"), "{refused}");
        assert!(Which::running("parlor://192.0.2.1:4433/r", None, true).is_ok());
        assert!(Which::running("not an address", None, false).is_err());
    }
}
