//! `https`: whom a receiver trusts is what the system trusts, here by `SSL_CERT_FILE`. That is read from the environment,
//! which a test may not change for the others, so the client's side runs in a process of its own.

use std::process::Stdio;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;

use super::server::Server;
use super::{Fetcher, Seen};

/// Where the other process finds the ports of the servers.
const PORTS: &str = "WHARF_TEST_HTTPS_PORTS";

#[tokio::test]
async fn the_trust_store_says_who_is_who() {
    match std::env::var(PORTS) {
        Ok(ports) => ask(ports.split(',').collect::<Vec<_>>().try_into().unwrap()).await,
        Err(_) => answer().await,
    }
}

async fn answer() {
    let (trusted, stranger) = (authority(), authority());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trusted.pem");
    std::fs::write(&file, trusted.pem()).unwrap();
    let mut good = Server::with_tls(acceptor(&trusted, "127.0.0.1")).await;
    let mut other_name = Server::with_tls(acceptor(&trusted, "api.example.com")).await;
    let mut unknown = Server::with_tls(acceptor(&stranger, "127.0.0.1")).await;
    let mut plain = Server::start().await;
    let servers = [&good, &other_name, &unknown, &plain];
    let ports = servers.map(|server| server.address.port().to_string()).join(",");
    let client = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "outgoing::https::the_trust_store_says_who_is_who", "--nocapture"])
        .env("SSL_CERT_FILE", &file)
        .env_remove("SSL_CERT_DIR")
        .env(PORTS, ports)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&client.stdout) + String::from_utf8_lossy(&client.stderr);
    assert!(client.status.success() && said.contains("1 passed"), "{said}");
    assert!(matches!(good.next().await, Seen::Request { .. }));
    assert!(other_name.is_idle() && unknown.is_idle() && plain.is_idle());
}

async fn ask(ports: [&str; 4]) {
    let [good, other_name, unknown, plain] = ports;
    let origins: Vec<_> = ports.iter().map(|port| format!("https://127.0.0.1:{port}")).collect();
    let origins: Vec<_> = origins.iter().map(String::as_str).collect();
    let mut fetcher = Fetcher::new(&origins).await;
    let url = |port| format!("https://127.0.0.1:{port}/hello");
    assert_eq!(fetcher.get(&url(good)).await, "200, 5 bytes: hello");
    for port in [other_name, unknown] {
        assert_eq!(fetcher.get(&url(port)).await, "ErrorCode::TlsCertificateError");
        assert!(fetcher.said().contains("the server's certificate is not trusted: "), "{}", fetcher.said());
    }
    // It does not understand, and hangs up.
    assert_eq!(fetcher.get(&url(plain)).await, "ErrorCode::ConnectionTerminated");
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn acceptor(authority: &CertifiedIssuer<'static, KeyPair>, name: &str) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}
