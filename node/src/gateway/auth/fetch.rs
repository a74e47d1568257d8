//! Gets small JSON documents over HTTPS, with bounds on time and size and without following redirects.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Largest document, in bytes.
const DOCUMENT_BYTES_MAX: usize = 512 << 10;
/// Longest wait for a document.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Why there is no document.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The authorities cannot be used.
    #[error("failed to load authorities: {0}")]
    Authorities(String),
    /// The address is none.
    #[error("{0:?} is not a URL")]
    Url(String),
    /// No answer.
    #[error("failed to reach {url}: {reason}")]
    Connect {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// Another answer than the document.
    #[error("{url} answered {status}")]
    Status {
        /// Where.
        url: String,
        /// The answer.
        status: StatusCode,
    },
    /// It is not the document.
    #[error("{url} answered with something else: {reason}")]
    Form {
        /// Where.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

/// A client for one issuer.
#[derive(Clone, Debug)]
pub(super) struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl Fetcher {
    /// Trusts the authorities in `ca_file`, or those of the system. Whether `http` is allowed is for the caller to say
    /// before it asks.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, FetchError> {
        let authorities = |error: &dyn std::fmt::Display| FetchError::Authorities(error.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| authorities(&error))?;
        let config = match ca_file {
            None => config.with_native_roots().map_err(|error| authorities(&error))?.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(path).map_err(|error| authorities(&error))? {
                    let certificate = certificate.map_err(|error| authorities(&error))?;
                    roots.add(certificate).map_err(|error| authorities(&error))?;
                }
                config.with_root_certificates(roots).with_no_client_auth()
            }
        };
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
        Ok(Self { client: Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector) })
    }

    /// The document at `url`.
    pub(super) async fn json<T: DeserializeOwned>(&self, url: &str) -> Result<T, FetchError> {
        let connect = |reason: String| FetchError::Connect { url: url.to_owned(), reason };
        match tokio::time::timeout(TIME_MAX, self.bytes(url)).await {
            Ok(bytes) => serde_json::from_slice(&bytes?)
                .map_err(|error| FetchError::Form { url: url.to_owned(), reason: error.to_string() }),
            Err(_) => Err(connect("no answer in time".to_owned())),
        }
    }

    async fn bytes(&self, url: &str) -> Result<Bytes, FetchError> {
        let uri: Uri = url.parse().map_err(|_| FetchError::Url(url.to_owned()))?;
        let request = Request::get(uri).header(header::ACCEPT, "application/json").body(Empty::new());
        let request = request.map_err(|_| FetchError::Url(url.to_owned()))?;
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| FetchError::Connect { url: url.to_owned(), reason: crate::causes::chain(&error) })?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status { url: url.to_owned(), status: response.status() });
        }
        match Limited::new(response.into_body(), DOCUMENT_BYTES_MAX).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => Err(FetchError::Form { url: url.to_owned(), reason: error.to_string() }),
        }
    }
}
