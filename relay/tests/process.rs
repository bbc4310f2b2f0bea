//! If this fails, the `parlor-relay` command does not start, does not stop, or does not say what is wrong.
//!
//! Real processes and real sockets of this machine.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::{env, fs, process};

use parlor_transport::address::RelayAddress;
use parlor_transport::quic::{Binding, Endpoint, Options};
use parlor_transport::wire::control::*;

/// A directory of its own, gone at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("parlor-relay-process-{name}-{}", process::id()));
        _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// The command with nothing of this machine's settings.
fn relay(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_parlor-relay"));
    let settings = env::vars_os().map(|(name, _)| name);
    settings
        .filter(|name| name.to_string_lossy().starts_with("PARLOR_"))
        .for_each(|name| _ = command.env_remove(name));
    // Several run at once, and nobody waits for guests.
    command.env("PARLOR_HTTP", "127.0.0.1:0").env("PARLOR_DRAIN_TIMEOUT_MS", "0");
    command.args(arguments).env_remove("SSLKEYLOGFILE");
    command
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

/// Runs the command, which has to fail, and gives what it says.
fn failure(arguments: &[&str]) -> String {
    let output = relay(arguments).output().unwrap();
    let (_, error) = text(&output);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert_eq!(error.trim_end().lines().count(), 1, "one line: {error}");
    error
}

/// A relay for development, running, and the address it says to join.
fn start(arguments: &[&str]) -> (Child, RelayAddress) {
    let mut child = relay(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut loud = false;
    for line in lines {
        loud |= line.contains("anyone who can reach this address may join");
        if let Some((_, address)) = line.split_once("parlor join '") {
            assert!(loud, "development is said loudly, and before");
            let (address, _) = address.split_once('\'').unwrap();
            return (child, address.parse().unwrap());
        }
    }
    let (_, error) = text(&child.wait_with_output().unwrap());
    panic!("it ended without an address: {error}");
}

/// Ends it as an operator would, and gives its log.
fn terminate(child: Child) -> String {
    let kill = format!("kill -TERM {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let (_, log) = text(&output);
    assert!(output.status.success(), "{log}");
    log
}

#[test]
fn it_serves_whom_it_told_how_to_join_and_ends_when_asked() {
    let directory = Directory::new("serves");
    let (tls, qlog) = (directory.0.join("tls"), directory.0.join("qlog"));
    let (tls, qlog) = (tls.to_str().unwrap(), qlog.to_str().unwrap());
    let arguments = ["--dev", "--listen", "127.0.0.1:0", "--tls-directory", tls, "--log-format", "json"];
    let (child, address) = start(&[&arguments[..], &["--qlog", qlog]].concat());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let endpoint =
            Endpoint::client(Binding::udp("127.0.0.1:0".parse().unwrap()).unwrap(), Options::default())
                .unwrap();
        let to = (address.host.parse::<std::net::IpAddr>().unwrap(), address.port).into();
        let session = endpoint.connect(to, &address.host, address.trust()).await.unwrap();
        let (mut requests, mut answers) = session.open_requests().await.unwrap();
        let hello = Hello { version_min: 1, version_max: 1, features: 0, agent: "process test".into() };
        requests.send(&ClientMessage::Hello(hello)).await.unwrap();
        let join = Join {
            request: 1,
            app: parlor_transport::id::AppId::dev(),
            room: address.room.clone().unwrap(),
            user: "ann".parse().unwrap(),
            name: "Ann".parse().unwrap(),
            login: parlor_transport::id::LoginId([1; 16]),
            token: None,
            presence: parlor_transport::wire::control::Presence::default(),
        };
        requests.send(&ClientMessage::Join(join)).await.unwrap();
        assert!(matches!(answers.recv().await.unwrap(), Some(RelayMessage::Welcome(_))));
        assert!(matches!(answers.recv().await.unwrap(), Some(RelayMessage::Joined(_))));
        let log = tokio::task::spawn_blocking(move || terminate(child));
        let ended = session.closed().await;
        assert_eq!(ended.code, parlor_transport::error::Code::RelayShutdown);
        let log = log.await.unwrap();
        let joined = log.lines().find(|line| line.contains("user joined")).unwrap();
        assert!(joined.starts_with('{') && joined.contains("\"user\":\"ann\""), "{joined}");
        assert!(joined.contains("\"room\":\"standup\""), "{joined}");
    });
    assert_eq!(fs::read_dir(qlog).unwrap().count(), 1, "one qlog file");

    // The certificate is kept: the address stays good.
    let (child, again) = start(&arguments);
    assert_eq!(again.fingerprint, address.fingerprint);
    terminate(child);
}

#[test]
fn a_port_in_use_is_said() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let directory = Directory::new("port");
    let listen = taken.local_addr().unwrap().to_string();
    let tls = directory.0.to_str().unwrap();
    let error = failure(&["--dev", "--listen", &listen, "--tls-directory", tls]);
    assert!(error.contains(&listen) && error.contains("another program has this port"), "{error}");
}

#[test]
fn settings_that_will_not_do_are_said_with_the_way_out() {
    let directory = Directory::new("settings");
    assert!(failure(&[]).contains("start with --dev"));
    let missing = directory.0.join("none.toml");
    assert!(failure(&["--config", missing.to_str().unwrap()]).contains("cannot read"));

    let wrong = directory.file("wrong.toml", "dev = true\n\n[limits]\npublish_max = \"many\"\n");
    let error = failure(&["check-config", "--config", &wrong]);
    assert!(error.contains("wrong.toml:4: publish_max: invalid type"), "{error}");

    let pem = directory.file("cert.pem", "not a certificate");
    let tls = directory.0.join("tls").to_str().unwrap().to_owned();
    let error = failure(&["check-config", "--dev", "--certificate", &pem, "--key", &pem]);
    assert!(error.contains("a certificate") && error.contains("cert.pem"), "{error}");
    for arguments in [&["--dev", "--listen", "127.0.0.1:0"][..], &["check-config", "--dev"]] {
        let error = failure(&[arguments, &["--tls-directory", &tls, "--qlog", &pem]].concat());
        assert!(
            error.contains("cert.pem") && error.contains("choose a directory that may be written"),
            "{error}"
        );
    }
    assert!(failure(&["--dev", "--log", "a=b=c"]).contains("log filter"));
}

#[test]
fn apps_with_keys_are_served_and_read_again_but_not_beside_dev() {
    let directory = Directory::new("apps");
    let secret = directory.file("shop.secret", "a secret of more than thirty-two bytes\n");
    let app = |name: &str| {
        format!(
            "[[apps]]\nname = \"{name}\"\nkeys = [{{ kid = \"1\", algorithm = \"HS256\", secret_file = \"{secret}\" }}]\n"
        )
    };
    let config = directory.file("relay.toml", &app("shop"));
    let tls = directory.0.to_str().unwrap();
    let arguments = ["--config", &config, "--listen", "127.0.0.1:0", "--tls-directory", tls];
    assert!(failure(&[&arguments[..], &["--dev"]].concat()).contains("take out --dev"));
    let wrong = directory.file("wrong.toml", &app("shop").replace(&secret, "/nowhere"));
    let error = failure(&["check-config", "--config", &wrong]);
    assert!(error.contains("wrong.toml: app \"shop\", key 1: cannot read /nowhere"), "{error}");

    let mut child = relay(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said: Vec<_> = lines.by_ref().take_while(|line| !line.starts_with("Join with")).collect();
    assert!(said.iter().any(|line| line.starts_with("Apps: shop.")), "{said:?}");
    assert!(!said.iter().any(|line| line.contains("anyone")), "{said:?}");

    directory.file("relay.toml", &[app("shop"), app("bank")].concat());
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let hangup = format!("kill -HUP {}", child.id());
    assert!(Command::new("sh").args(["-c", &hangup]).status().unwrap().success());
    let reloaded = log.find(|line| line.contains("configuration reloaded")).unwrap();
    assert!(reloaded.contains("shop, bank"), "{reloaded}");
    directory.file("relay.toml", "nonsense");
    assert!(Command::new("sh").args(["-c", &hangup]).status().unwrap().success());
    let kept = log.find(|line| line.contains("the old configuration stays in force")).unwrap();
    assert!(kept.contains("relay.toml:1"), "{kept}");
    terminate(child);
    assert!(log.all(|line| !line.contains("thirty-two")));
}

#[test]
fn a_configuration_can_be_printed_changed_and_checked() {
    let directory = Directory::new("check");
    let output = relay(&["--print-default-config"]).output().unwrap();
    let (printed, _) = text(&output);
    let file = directory.file("relay.toml", &printed.replace("dev = false", "dev = true"));
    let output = relay(&["check-config", "--config", &file, "--listen", "127.0.0.1:9"]).output().unwrap();
    let (said, error) = text(&output);
    assert!(output.status.success(), "{error}");
    assert!(said.contains("listens on 127.0.0.1:9") && said.contains("apps: dev"), "{said}");

    let mut by_environment = relay(&["check-config"]);
    by_environment.env("PARLOR_DEV", "true").env("PARLOR_LISTEN", "127.0.0.1:7");
    let (said, _) = text(&by_environment.output().unwrap());
    assert!(said.contains("127.0.0.1:7"), "{said}");
}
