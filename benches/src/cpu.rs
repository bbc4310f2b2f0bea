//! What processes and threads have used, as Linux tells it; elsewhere nothing is told.

use std::io;
use std::time::Duration;

/// What one process has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// CPU time of all its threads, the kernel's part included.
    pub cpu: Duration,
    /// Times that one of its threads gave up the CPU or was put off it.
    pub switches: u64,
    /// Resident memory, bytes.
    pub memory: u64,
}

impl Usage {
    /// Of the process with this id; `None` where the system does not tell.
    pub fn of(process: u32) -> Option<Self> {
        let mut usage = Usage::default();
        for thread in std::fs::read_dir(format!("/proc/{process}/task")).ok()? {
            let path = thread.ok()?.path();
            // A thread that ended meanwhile has no files any more.
            let Ok(schedule) = std::fs::read_to_string(path.join("schedstat")) else { continue };
            usage.cpu += run_time(&schedule)?;
            let Ok(status) = std::fs::read_to_string(path.join("status")) else { continue };
            usage.switches += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
            usage.switches += field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
        }
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        usage.memory = field(&status, "VmRSS:")? * 1024;
        Some(usage)
    }

    /// What was used since `before`; the memory is that of now.
    pub fn since(&self, before: &Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(before.cpu),
            switches: self.switches.saturating_sub(before.switches),
            memory: self.memory,
        }
    }
}

/// CPU time of the calling thread.
pub fn thread() -> Option<Duration> {
    run_time(&std::fs::read_to_string("/proc/thread-self/schedstat").ok()?)
}

/// What to say where the system does not tell.
pub fn unknown() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this system does not tell CPU times; measure on Linux")
}

fn run_time(schedule: &str) -> Option<Duration> {
    schedule.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "VmRSS:\t  120 kB\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(field(status, "VmRSS:"), Some(120));
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(7));
        assert_eq!(field(status, "VmSwap:"), None);
        assert_eq!(run_time("1500 2 3\n"), Some(Duration::from_nanos(1500)));
    }
}
