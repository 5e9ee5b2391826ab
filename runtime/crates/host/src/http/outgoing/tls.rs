//! TLS for `https`: which certificates are trusted is the system's to say.

use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Reads the system's trusted certificates, or those of the file or folder that `SSL_CERT_FILE` or `SSL_CERT_DIR` name.
///
/// A system without any is no reason not to start: requests over `https` fail then.
pub(super) fn connector() -> Option<TlsConnector> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::warn!(
            errors = ?found.errors,
            "no trusted certificates found: requests of receivers over https will fail; install the system's \
             certificates or set SSL_CERT_FILE"
        );
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .inspect_err(|error| tracing::warn!(%error, "TLS is not available: requests of receivers over https will fail"))
        .ok()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Some(TlsConnector::from(Arc::new(config)))
}
