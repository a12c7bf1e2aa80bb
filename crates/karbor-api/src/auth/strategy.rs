//! The ways to know who asks.

use std::str::FromStr;

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthStrategy {
    /// Anybody who can reach the port, as an administrator: the token is `user:project`, unchecked.
    /// For development; the server refuses to serve it beyond the loopback address.
    Noauth,
    /// Bearers of a token that this service made (see [`create_token`](crate::create_token)).
    Local,
    /// Bearers of a token of keystone that is for a project.
    Keystone,
}

impl FromStr for AuthStrategy {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "noauth" => Ok(Self::Noauth),
            "local" => Ok(Self::Local),
            "keystone" => Ok(Self::Keystone),
            _ => Err(()),
        }
    }
}
