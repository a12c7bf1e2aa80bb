//! Keys of objects in a bank.

use std::fmt;

/// Why a text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{key}' is not a valid bank key: {reason}")]
pub struct KeyError {
    /// The text.
    pub key: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// The key of an object: non-empty parts of `A-Z a-z 0-9 _ . - @` joined by `/`, relative, without
/// `.` and `..` parts. The original's alphabet, so its banks can be read; unlike the original's
/// check this one refuses `a/../b` rather than normalising it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BankKey(String);

impl BankKey {
    /// The longest key, in bytes: what S3 and Swift take.
    pub const MAX_LENGTH: usize = 1024;

    /// Checks a text. One leading `/` is taken off: the original wrote keys that way.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let key = text.strip_prefix('/').unwrap_or(text);
        let refuse = |reason| {
            Err(KeyError {
                key: text.to_owned(),
                reason,
            })
        };
        if key.is_empty() {
            return refuse("it is empty");
        }
        if key.len() > Self::MAX_LENGTH {
            return refuse("it is longer than 1024 bytes");
        }
        for part in key.split('/') {
            match part {
                "" => return refuse("it has an empty part"),
                "." | ".." => return refuse("'.' and '..' parts are not allowed"),
                _ if part.len() > 255 => return refuse("a part is longer than 255 bytes"),
                _ => {}
            }
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "/_.-@".contains(c);
        if !key.chars().all(allowed) {
            return refuse("only A-Z, a-z, 0-9, '_', '.', '-', '@' and '/' are allowed");
        }
        Ok(Self(key.to_owned()))
    }

    /// This key with `rest` below it.
    ///
    /// # Errors
    /// [`KeyError`] when `rest` is not a key, or the whole is too long.
    pub fn join(&self, rest: &str) -> Result<Self, KeyError> {
        let rest = Self::parse(rest)?;
        Self::parse(&format!("{}/{}", self.0, rest.0))
    }

    /// The text, without a leading `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for BankKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BankKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BankKey({})", self.0)
    }
}

impl std::str::FromStr for BankKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn path_tricks_are_refused() {
        for text in [
            "", "/", "a//b", "a/../b", "..", "./a", "a/.", "a/", "//a", "a b", "a\0b", "ä",
        ] {
            assert!(BankKey::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_original_s_keys_are_taken() {
        let key = BankKey::parse("/indices/by-date/2026-11-22/a01/1795342837@d2c3ed73").unwrap();
        assert_eq!(key.name(), "1795342837@d2c3ed73");
    }

    proptest! {
        #[test]
        fn a_parsed_key_never_leaves_its_root(text in "[a-z./@ -]{0,40}") {
            if let Ok(key) = BankKey::parse(&text) {
                let path = std::path::Path::new(key.as_str());
                prop_assert!(path.components().all(|c| matches!(c, std::path::Component::Normal(_))));
            }
        }
    }
}
