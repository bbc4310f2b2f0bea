//! quinn as it comes, for the contenders that stand on it: two hosts, a connection between them, and one of quinn's
//! own congestion controllers.

use std::sync::Arc;
use std::time::Duration;

use parlor_transport::sim::Host;
use quinn::congestion::{BbrConfig, CubicConfig};
use quinn::{Connection, Endpoint, TransportConfig, VarInt};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// quinn's congestion controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Congestion {
    /// The default.
    Cubic,
    /// Version 1, which quinn calls experimental.
    Bbr,
}

impl Congestion {
    /// As it stands in the names of contenders.
    pub(super) fn name(self) -> &'static str {
        match self {
            Congestion::Cubic => "cubic",
            Congestion::Bbr => "bbr",
        }
    }
}

/// More than are ever under way at 60 frames/s in the second after which a frame is given up.
pub(super) const STREAMS_MAX: u32 = 256;
const PORT: u16 = 4433;
const HOST_NAME: &str = "contender";

/// A certificate whose size is the same in every run.
pub(super) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    pub(super) fn new() -> Result<Self, String> {
        let failed = |error: rcgen::Error| error.to_string();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(failed)?;
        let mut params = rcgen::CertificateParams::new(vec![HOST_NAME.to_owned()]).map_err(failed)?;
        params.serial_number = Some(1_u64.into());
        let certificate = params.self_signed(&key).map_err(failed)?.der().clone();
        Ok(Identity { certificate, key: PrivateKeyDer::Pkcs8(key.serialize_der().into()) })
    }
}

/// Waits for connections on `host`.
pub(super) fn listen(congestion: Congestion, host: &Host, identity: &Identity) -> Result<Endpoint, String> {
    let (chain, key) = (vec![identity.certificate.clone()], identity.key.clone_key());
    let mut config = quinn::ServerConfig::with_single_cert(chain, key).map_err(|error| error.to_string())?;
    config.transport_config(Arc::new(transport(congestion)));
    host.endpoint(PORT, Some(config)).map_err(|error| error.to_string())
}

/// Connects to whoever [`listen`]s on `to`.
pub(super) async fn connect(
    congestion: Congestion,
    from: &Host,
    to: &Host,
    identity: &Identity,
) -> Result<Connection, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(identity.certificate.clone()).map_err(|error| error.to_string())?;
    let mut config =
        quinn::ClientConfig::with_root_certificates(Arc::new(roots)).map_err(|error| error.to_string())?;
    config.transport_config(Arc::new(transport(congestion)));
    let endpoint = from.endpoint(0, None).map_err(|error| error.to_string())?;
    let connecting = endpoint.connect_with(config, (to.ip(), PORT).into(), HOST_NAME);
    connecting.map_err(|error| error.to_string())?.await.map_err(|error| error.to_string())
}

/// What the window lets through, bit/s: the rate that an app has to go by.
pub(super) fn estimate(connection: &Connection) -> u64 {
    let path = connection.stats().path;
    (path.cwnd as f64 * 8.0 / path.rtt.as_secs_f64().max(1e-3)) as u64
}

fn transport(congestion: Congestion) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
        .keep_alive_interval(Some(Duration::from_secs(1)))
        // Packets of the same size as everybody's.
        .mtu_discovery_config(None);
    match congestion {
        Congestion::Cubic => transport.congestion_controller_factory(Arc::new(CubicConfig::default())),
        Congestion::Bbr => transport.congestion_controller_factory(Arc::new(BbrConfig::default())),
    };
    transport
}
