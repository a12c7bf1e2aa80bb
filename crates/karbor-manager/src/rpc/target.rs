//! Targets: where a message goes, or what a server listens for.

use std::fmt;

use super::{RpcError, RpcVersion};

/// Where a message goes, what a server listens for, or which interface an endpoint is.
///
/// A server needs topic and server; an endpoint may have namespace and version; a message needs a
/// topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Target {
    /// A scope for topics; none is the transport's default.
    pub exchange: Option<String>,
    /// The topic.
    pub topic: Option<String>,
    /// Which interface; none is the default interface.
    pub namespace: Option<String>,
    /// The version that the interface has, or that the message asks for.
    pub version: Option<RpcVersion>,
    /// One server among those of the topic.
    pub server: Option<String>,
    /// To every server of the topic.
    pub fanout: bool,
}

impl Target {
    /// A target that says nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A target with a topic.
    #[must_use]
    pub fn topic(topic: impl Into<String>) -> Self {
        Self::new().with_topic(topic)
    }

    /// With this exchange.
    #[must_use]
    pub fn with_exchange(mut self, exchange: impl Into<String>) -> Self {
        self.exchange = Some(exchange.into());
        self
    }

    /// With this topic.
    #[must_use]
    pub fn with_topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// With this namespace.
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// With this version.
    #[must_use]
    pub fn with_version(mut self, version: RpcVersion) -> Self {
        self.version = Some(version);
        self
    }

    /// With this server.
    #[must_use]
    pub fn with_server(mut self, server: impl Into<String>) -> Self {
        self.server = Some(server.into());
        self
    }

    /// To every server of the topic, or to one.
    #[must_use]
    pub fn with_fanout(mut self, fanout: bool) -> Self {
        self.fanout = fanout;
        self
    }

    /// Can a message be sent there, and its answer waited for if it is a `call`?
    ///
    /// # Errors
    /// [`RpcError::InvalidTarget`] without a topic, or when a call is to go to every server.
    pub fn check_message(&self, call: bool) -> Result<(), RpcError> {
        if call && self.fanout {
            return Err(self.invalid("A call cannot be used with fanout"));
        }
        match self.topic {
            Some(_) => Ok(()),
            None => Err(self.invalid("A topic is required to send")),
        }
    }

    /// Can a server listen there?
    ///
    /// # Errors
    /// [`RpcError::InvalidTarget`] without a topic or a server.
    pub fn check_server(&self) -> Result<(), RpcError> {
        match (&self.topic, &self.server) {
            (Some(_), Some(_)) => Ok(()),
            _ => Err(self.invalid("A server's target must have topic and server names specified")),
        }
    }

    fn invalid(&self, reason: &'static str) -> RpcError {
        RpcError::InvalidTarget {
            reason,
            target: Box::new(self.clone()),
        }
    }

    /// `topic`, or `topic.server`: the queue's name.
    #[must_use]
    pub fn address(&self) -> String {
        let topic = self.topic.as_deref().unwrap_or("(no topic)");
        match &self.server {
            Some(server) => format!("{topic}.{server}"),
            None => topic.to_owned(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version.map(|version| version.to_string());
        let parts = [
            ("exchange", self.exchange.as_deref()),
            ("topic", self.topic.as_deref()),
            ("namespace", self.namespace.as_deref()),
            ("version", version.as_deref()),
            ("server", self.server.as_deref()),
            ("fanout", self.fanout.then_some("True")),
        ];
        let shown: Vec<String> = parts
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", value?)))
            .collect();
        write!(f, "<Target {}>", shown.join(", "))
    }
}
