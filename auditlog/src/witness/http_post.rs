//! Submitting over HTTP with `reqwest`.

use bytes::{Bytes, BytesMut};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, redirect};

use crate::witness::submit::{Answer, MAX_ANSWER_LEN, Post, PostError};

/// A client that keeps a connection to each witness. How long it waits is up to who polls it.
#[derive(Clone, Debug)]
pub struct HttpPost {
    client: Client,
}

impl HttpPost {
    /// A client that speaks TLS through rustls' provider of cryptography: the process's own, or else `ring`.
    pub fn new() -> Result<Self, PostError> {
        // An error says that the process has a provider already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .user_agent(concat!("fanlight-log/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(PostError::new)?;
        Ok(Self { client })
    }
}

impl Post for HttpPost {
    async fn post(&self, url: &str, body: Bytes) -> Result<Answer, PostError> {
        let mut response = self.client.post(url).body(body).send().await.map_err(PostError::new)?;
        let status = response.status().as_u16();
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| Some(value.to_str().ok()?.to_owned()));
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(PostError::new)? {
            if body.len() + chunk.len() > MAX_ANSWER_LEN {
                return Err(PostError::new("longer than a witness's answer can be"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, content_type, body: body.freeze() })
    }
}
