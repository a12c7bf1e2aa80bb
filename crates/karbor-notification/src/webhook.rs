//! A webhook as a sink.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, StatusCode, Url, redirect::Policy};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{Envelope, SetupError, Sink, SinkError};

/// Seconds since 1970 at which the request was made; part of what is signed.
pub const TIMESTAMP_HEADER: &str = "x-karbor-timestamp";

/// `sha256=` and the hexadecimal HMAC-SHA256 of `<timestamp>.<body>`.
pub const SIGNATURE_HEADER: &str = "x-karbor-signature";

/// Where to send, and how.
pub(crate) struct Webhook {
    pub(crate) url: String,
    pub(crate) secret: Zeroizing<String>,
    pub(crate) timeout: Duration,
}

/// Sends each notification as a signed POST. Taken is what is answered with 2xx; redirects are
/// not followed, as what is sent is meant for this place.
pub struct WebhookSink {
    client: Client,
    url: Url,
    secret: Zeroizing<String>,
}

impl WebhookSink {
    pub(crate) fn new(webhook: Webhook) -> Result<Self, SetupError> {
        let wrong = |option, reason: &str| SetupError::Webhook {
            option,
            reason: reason.to_owned(),
        };
        let url: Url = webhook
            .url
            .parse()
            .map_err(|_| wrong("url", "it is not a URL"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("url", "give an http or https URL"));
        }
        if webhook.secret.is_empty() {
            let reason =
                "it must be set, so that the receiver can tell notifications from forgeries";
            return Err(wrong("secret", reason));
        }
        if webhook.timeout.is_zero() {
            return Err(wrong("timeout", "it must be more than 0"));
        }
        // The binary has installed it already; tests have not.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("karbor/", env!("CARGO_PKG_VERSION")))
            .timeout(webhook.timeout)
            .redirect(Policy::none())
            .build()
            .map_err(|error| wrong("url", &format!("no HTTP client: {}", error.without_url())))?;
        Ok(Self {
            client,
            url,
            secret: webhook.secret,
        })
    }
}

/// What [`SIGNATURE_HEADER`] says of a body sent at `timestamp`.
#[must_use]
pub fn signature(secret: &str, timestamp: i64, body: &[u8]) -> String {
    // HMAC takes keys of every length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return String::new();
    };
    mac.update(timestamp.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

#[async_trait]
impl Sink for WebhookSink {
    fn name(&self) -> &'static str {
        "webhook"
    }

    async fn take(&self, envelope: &Envelope, now: DateTime<Utc>) -> Result<(), SinkError> {
        let body = serde_json::to_vec(envelope).map_err(|error| SinkError(error.to_string()))?;
        let timestamp = now.timestamp();
        let answer = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header(TIMESTAMP_HEADER, timestamp)
            .header(SIGNATURE_HEADER, signature(&self.secret, timestamp, &body))
            .body(body)
            .send()
            .await
            .map_err(|error| SinkError(reason(error)))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status if status.is_redirection() => Err(SinkError(format!(
                "the webhook answered {status}; redirects are not followed: set webhook_url to the \
                 place itself"
            ))),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(SinkError(
                "the webhook refused the notification: is webhook_secret the one it knows?"
                    .to_owned(),
            )),
            status => Err(SinkError(format!("the webhook answered {status}"))),
        }
    }
}

/// Without the URL, which may carry a secret.
fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let what = if error.is_timeout() {
        "the webhook did not answer in time"
    } else if error.is_connect() {
        "the webhook cannot be reached"
    } else {
        "the webhook could not be asked"
    };
    format!("{what}: {error}")
}
