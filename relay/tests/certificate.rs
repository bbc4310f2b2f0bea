//! If this fails, a renewed certificate needs a restart, or a relay is mistaken for another.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;
use std::{env, fs, process};

use parlor_relay::{Config, Tls};
use parlor_transport::error::{Code, Coded};
use parlor_transport::quic::{Identity, Trust};
use parlor_transport::sim::{self, Profile};
use parlor_transport::wire::control::{Delivery, RelayMessage, TrackKind};
use support::*;

/// A directory of its own with a certificate in it, gone at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("parlor-relay-{name}-{}", process::id()));
        _ = fs::remove_dir_all(&path);
        Directory(path)
    }

    /// A new certificate in place of the old one.
    fn renew(&self) -> Trust {
        _ = fs::remove_dir_all(&self.0);
        Trust::Pinned(Identity::development(&self.0).unwrap().fingerprint())
    }

    fn config(&self) -> Config {
        let file = |ending: &str| {
            let mut files = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
            files.find(|path| path.to_str().unwrap().ends_with(ending)).unwrap()
        };
        let tls = Tls::Files { certificate: file("cert.pem"), key: file("key.pem") };
        Config { tls, ..Config::dev() }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_renewed_certificate_is_taken_up_and_present_connections_go_on() {
    let directory = Directory::new("renewed");
    let old = directory.renew();
    sim::run(1, async |sim| {
        let world = World::start_with(&sim, directory.config()).await;
        let near = || Profile::perfect().with_rtt(RTT);
        let mut client = world.try_connect("u1", near(), old).await.unwrap();
        client.send(hello()).await;
        client.send(join("r", "u1")).await;
        assert!(matches!(client.answer().await, RelayMessage::Welcome(_)));
        assert!(matches!(client.answer().await, RelayMessage::Joined(_)));
        let new = directory.renew();
        world.pass(millis(11_000)).await;
        let error = world.try_connect("u2", near(), old).await.err().unwrap();
        assert_eq!(error.code(), Code::CertificateMismatch);
        world.try_connect("u3", near(), new).await.unwrap();
        client.publish("cam", Delivery::QuicStream, &[TrackKind::Video]).await;

        // What cannot be used changes nothing.
        let Tls::Files { key, .. } = directory.config().tls else { panic!("files") };
        fs::write(key, "not a key").unwrap();
        world.pass(millis(11_000)).await;
        world.try_connect("u4", near(), new).await.unwrap();
    });
}
