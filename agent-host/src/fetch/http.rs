//! Requests made by this program itself.

use std::io::Read;
use std::time::Duration;

use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use super::answer::{Answer, Ask, BODY_MAX, NoAnswer, Transport};
use super::error::ForgeError;

/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(15);
/// Longest single request with its answer; the run as a whole has a limit of its own.
const CALL_MAX: Duration = Duration::from_secs(60);
/// Most redirects that are followed: a repository that was renamed twice.
const REDIRECTS_MAX: u32 = 4;
/// The version of the API that the answers are read by.
const API_VERSION: &str = "2022-11-28";

/// A client of one API.
#[derive(Debug)]
pub(super) struct Http {
    api: String,
    token: Option<String>,
    agent: ureq::Agent,
}

impl Http {
    /// A client; `roots` names a file of certificates to trust instead of the usual ones.
    ///
    /// # Errors
    /// [`ForgeError::Certificates`] for a file without any.
    pub(super) fn new(
        api: String,
        token: Option<String>,
        roots: Option<String>,
    ) -> Result<Self, ForgeError> {
        let roots = match roots {
            Some(path) => read_roots(path)?,
            None => RootCerts::WebPki,
        };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(format!("supervisor/{}", protocol::version::BUILD))
            .timeout_connect(Some(CONNECT_MAX))
            .timeout_global(Some(CALL_MAX))
            .max_redirects(REDIRECTS_MAX)
            .redirect_auth_headers(ureq::config::RedirectAuthHeaders::SameHost)
            .tls_config(TlsConfig::builder().root_certs(roots).build());
        Ok(Self {
            api,
            token,
            agent: config.build().new_agent(),
        })
    }
}

fn read_roots(path: String) -> Result<RootCerts, ForgeError> {
    let bad = |why: String| ForgeError::Certificates {
        path: path.clone(),
        why,
    };
    let text = crate::run::read_bounded(path.as_ref(), 16 << 20);
    let text = text.map_err(|error| bad(error.to_string()))?;
    let mut found = Vec::new();
    for item in parse_pem(text.as_bytes()) {
        if let PemItem::Certificate(one) = item.map_err(|error| bad(error.to_string()))? {
            found.push(one);
        }
    }
    if found.is_empty() {
        return Err(bad("it holds none".to_owned()));
    }
    Ok(RootCerts::new_with_certs(&found))
}

impl Transport for Http {
    fn send(&self, ask: Ask<'_>) -> Result<Answer, NoAnswer> {
        let unreached = |error: ureq::Error| NoAnswer::Unreached(error.to_string());
        let method = if ask.body.is_some() { "POST" } else { "GET" };
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{}", self.api, ask.path))
            .header("accept", ask.accept)
            .header("x-github-api-version", API_VERSION);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(etag) = ask.etag {
            request = request.header("if-none-match", etag);
        }
        let response = match ask.body {
            Some(body) => {
                let request = request
                    .header("content-type", "application/json")
                    .body(body);
                request
                    .map_err(ureq::Error::from)
                    .and_then(|it| self.agent.run(it))
            }
            None => request
                .body(())
                .map_err(ureq::Error::from)
                .and_then(|it| self.agent.run(it)),
        };
        let response = response.map_err(unreached)?;
        let (parts, body) = response.into_parts();
        let mut bytes = Vec::new();
        let read = body
            .into_reader()
            .take(BODY_MAX + 1)
            .read_to_end(&mut bytes);
        read.map_err(|error| NoAnswer::Unreached(format!("the answer breaks off: {error}")))?;
        if bytes.len() as u64 > BODY_MAX {
            return Err(NoAnswer::TooLarge);
        }
        let headers = parts.headers.iter().filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        });
        Ok(Answer {
            status: parts.status.as_u16(),
            headers: headers.collect(),
            body: bytes,
        })
    }
}
