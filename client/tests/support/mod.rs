//! What the tests of whole programs share: a relay in this process on loopback, and programs that are waited for by
//! the lines they print.
#![allow(dead_code, reason = "each test uses some of it")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use parlor_relay::{Config, Relay};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// A relay that serves the room `standup`, until it is told to shut down.
pub(crate) struct Served {
    /// What to give the programs.
    pub(crate) address: String,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<()>,
    /// Runs the relay, and whatever else a test has to do.
    pub(crate) runtime: Runtime,
}

impl Served {
    pub(crate) fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (address, serving) = runtime.block_on(async {
            let relay = Relay::bind(unhurried()).await.unwrap();
            let address = relay.address(Some("standup".try_into().unwrap())).to_string();
            (address, tokio::spawn(relay.run(async { _ = stopped.await })))
        });
        Served { address, stop, serving, runtime }
    }

    pub(crate) fn shut_down(self) {
        self.stop.send(()).unwrap();
        self.runtime.block_on(self.serving).unwrap();
    }
}

/// A directory of its own, gone at the end.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("parlor-client-{name}-{}", std::process::id()));
        _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A program with nothing of this machine's settings.
pub(crate) fn program(path: impl AsRef<Path>, arguments: &[&str]) -> Command {
    let mut command = Command::new(path.as_ref());
    command.args(arguments).env_remove("PARLOR_LOG").env_remove("SSLKEYLOGFILE");
    command
}

/// A program under way. It ends with this value.
pub(crate) struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    said: Vec<String>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running { child, lines, said: Vec::new() }
    }

    /// Reads on until it prints such a line.
    pub(crate) fn until(&mut self, is_wanted: impl Fn(&str) -> bool) -> &str {
        loop {
            let Some(line) = self.lines.next() else {
                let mut errors = String::new();
                self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
                panic!("it ended before the line was printed: {errors}\n{}", self.said.join("\n"));
            };
            self.said.push(line.unwrap());
            if is_wanted(&self.said[self.said.len() - 1]) {
                return &self.said[self.said.len() - 1];
            }
        }
    }

    /// What Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        let kill = format!("kill -INT {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for its end: how it ended, all it said, and its errors.
    pub(crate) fn end(mut self) -> (ExitStatus, String, String) {
        for line in self.lines.by_ref() {
            self.said.push(line.unwrap());
        }
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (self.child.wait().unwrap(), self.said.join("\n"), errors)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already if all went well.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A relay that leaves nothing out when this process is late: its load is not what is looked at.
fn unhurried() -> Config {
    Config { overload: Some(parlor_relay::overload::Shed::NONE), ..Config::dev() }
}
