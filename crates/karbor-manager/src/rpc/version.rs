//! Versions of interfaces.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The version of an interface: `1.0`, or `1.0.2` with a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RpcVersion {
    /// Changes when old clients can no longer be answered.
    pub major: u32,
    /// Grows with every addition.
    pub minor: u32,
    /// Grows with a change that adds nothing; 0 is not written. Our interfaces have none.
    pub revision: u32,
}

/// A text that is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an RPC version such as 1.0")]
pub struct VersionError(pub String);

impl RpcVersion {
    /// `major.minor`.
    #[must_use]
    pub const fn new(major: u32, minor: u32) -> Self {
        Self {
            major,
            minor,
            revision: 0,
        }
    }

    /// With this revision.
    #[must_use]
    pub const fn with_revision(mut self, revision: u32) -> Self {
        self.revision = revision;
        self
    }

    /// Can an endpoint of this version take a message that asks for `wanted`? The major number
    /// must be the same and the minor at most ours; at the same minor the revision, too, must be at
    /// most ours.
    #[must_use]
    pub const fn accepts(self, wanted: Self) -> bool {
        self.major == wanted.major
            && (wanted.minor < self.minor
                || (wanted.minor == self.minor && wanted.revision <= self.revision))
    }
}

impl Default for RpcVersion {
    fn default() -> Self {
        Self::new(1, 0)
    }
}

impl fmt::Display for RpcVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        match self.revision {
            0 => Ok(()),
            revision => write!(f, ".{revision}"),
        }
    }
}

impl FromStr for RpcVersion {
    type Err = VersionError;

    /// As oslo.messaging reads versions: major and minor must be there, a revision may be, and what
    /// follows it is ignored. oslo looks at a part only when it must, so it takes some texts in
    /// which a part is no number; here none is.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || VersionError(text.to_owned());
        let mut parts = text.split('.');
        let mut part = || {
            let number = |part: &str| part.parse().map_err(|_| refuse());
            parts.next().map(number).transpose()
        };
        Ok(Self {
            major: part()?.ok_or_else(refuse)?,
            minor: part()?.ok_or_else(refuse)?,
            revision: part()?.unwrap_or(0),
        })
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
