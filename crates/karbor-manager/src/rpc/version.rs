//! Versions of interfaces.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The version of an interface, `1.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RpcVersion {
    /// Changes when old clients can no longer be answered.
    pub major: u16,
    /// Grows with every addition.
    pub minor: u16,
}

/// A text that is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an RPC version such as 1.0")]
pub struct VersionError(pub String);

impl RpcVersion {
    /// `major.minor`.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// Can an endpoint of this version take a message that asks for `wanted`? The major number
    /// must be the same and the minor at most ours.
    #[must_use]
    pub const fn accepts(self, wanted: Self) -> bool {
        self.major == wanted.major && wanted.minor <= self.minor
    }
}

impl Default for RpcVersion {
    fn default() -> Self {
        Self::new(1, 0)
    }
}

impl fmt::Display for RpcVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for RpcVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || VersionError(text.to_owned());
        // oslo takes `1` for `1.0`, and ignores what follows the second dot.
        let mut parts = text.split('.');
        let mut part = |default: Option<u16>| match parts.next() {
            Some(part) => part.parse().map_err(|_| refuse()),
            None => default.ok_or_else(refuse),
        };
        let major = part(None)?;
        let minor = part(Some(0))?;
        Ok(Self { major, minor })
    }
}

impl From<RpcVersion> for String {
    fn from(version: RpcVersion) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for RpcVersion {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
