//! The master key: the one secret from which every repository's password is derived.
//!
//! It is a file of 32 random bytes, printed as base32 in groups with a checksum, which is also the
//! *recovery key* that the operator prints and locks away: with the bank and that line everything
//! can be restored, by us or by the real `restic`.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use hmac::{Hmac, KeyInit, Mac};
use karbor_model::ProviderId;
use karbor_plugin::Secret;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::seal::SealKey;

/// Why the master key cannot be used. No message holds any of the key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("the master key file {path} cannot be used: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// Others may read it.
    #[error(
        "the master key file {path} may be read by others (mode {mode:o}); run: chmod 600 {path}"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// It is not a key.
    #[error("{0} is not a recovery key: {1}")]
    Malformed(String, &'static str),
    /// A bank holds repositories, and the key that opens them is gone.
    #[error(
        "the master key file {0} is missing but the bank holds data that only it can open; put it back, \
         or run `karbor manage key import` with your recovery key"
    )]
    Missing(PathBuf),
}

/// The 32 bytes. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(***)")
    }
}

/// RFC 4648 base32 without `=`: only capitals and digits, so that it survives paper.
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const CHECKSUM_BYTES: usize = 3;

impl MasterKey {
    /// Reads the key from `path`; makes it there (mode 0600) if `may_create`.
    ///
    /// # Errors
    /// [`KeyFileError`]. A key that is missing and may not be made is [`KeyFileError::Missing`].
    pub fn load_or_create(path: &Path, may_create: bool) -> Result<Self, KeyFileError> {
        match Self::load(path) {
            Err(KeyFileError::Io { cause, .. }) if cause.kind() == std::io::ErrorKind::NotFound => {
                if !may_create {
                    return Err(KeyFileError::Missing(path.to_owned()));
                }
                let key = Self::random().map_err(|cause| KeyFileError::Io {
                    path: path.to_owned(),
                    cause,
                })?;
                key.save(path)?;
                Ok(key)
            }
            loaded => loaded,
        }
    }

    /// Reads the key from `path`.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let io = |cause| KeyFileError::Io {
            path: path.to_owned(),
            cause,
        };
        let mut file = File::open(path).map_err(io)?;
        let mode = file.metadata().map_err(io)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text).map_err(io)?;
        Self::from_recovery_key(&text)
            .map_err(|reason| KeyFileError::Malformed(path.display().to_string(), reason))
    }

    /// Writes the key to `path`, which must not exist: a key is never written over another.
    ///
    /// # Errors
    /// [`KeyFileError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), KeyFileError> {
        let io = |cause| KeyFileError::Io {
            path: path.to_owned(),
            cause,
        };
        let temporary = path.with_extension(format!("new-{}", std::process::id()));
        let _ = std::fs::remove_file(&temporary);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(io)?;
        let text = Zeroizing::new(format!("{}\n", self.recovery_key().expose()));
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(io)?;
        // A link, unlike a rename, refuses to replace.
        let linked = std::fs::hard_link(&temporary, path);
        std::fs::remove_file(&temporary).map_err(io)?;
        linked.map_err(io)?;
        let folder = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))
            .and_then(|d| d.sync_all())
            .map_err(io)
    }

    fn random() -> std::io::Result<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes).map_err(std::io::Error::other)?;
        Ok(Self(bytes))
    }

    /// The line to print and lock away: base32 of the key and a checksum, in groups of five.
    #[must_use]
    pub fn recovery_key(&self) -> Secret {
        let mut bytes = Zeroizing::new(self.0.to_vec());
        bytes.extend_from_slice(&checksum(&*self.0));
        let text = Zeroizing::new(base32(&bytes));
        let groups: Vec<&str> = (0..text.len())
            .step_by(5)
            .map(|at| &text[at..text.len().min(at + 5)])
            .collect();
        Secret::new(groups.join("-"))
    }

    /// Reads a recovery key; case, spaces and hyphens do not matter.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn from_recovery_key(text: &str) -> Result<Self, &'static str> {
        let mut bits: u32 = 0;
        let mut count = 0;
        let mut bytes = Zeroizing::new(Vec::with_capacity(35));
        for c in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
            let c = c.to_ascii_uppercase();
            let value = ALPHABET.iter().position(|&a| char::from(a) == c);
            let value = value.ok_or("it holds a character that is not A-Z or 2-7")?;
            bits = (bits << 5 | u32::try_from(value).unwrap_or(0)) & 0xfff;
            count += 5;
            if count >= 8 {
                count -= 8;
                bytes.push((bits >> count & 0xff) as u8);
            }
        }
        let (key, sum) = bytes.split_at_checked(32).ok_or("it is too short")?;
        let key: [u8; 32] = key.try_into().map_err(|_| "it is too short")?;
        let key = Zeroizing::new(key);
        if sum != checksum(&*key) {
            return Err("the checksum does not fit: a character is wrong or missing");
        }
        Ok(Self(key))
    }

    /// The password of the repository of `project` in `provider`'s bank: lower-case hex of
    /// HMAC-SHA256 under the master key, so that one password tells nothing of another.
    #[must_use]
    pub fn vault_password(&self, provider: ProviderId, project: &str) -> Secret {
        let bytes = self.derived(&format!("vault/{provider}/{project}"));
        Secret::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// What seals the checkpoints of `project` with `provider`.
    pub(crate) fn seal_key(&self, provider: ProviderId, project: &str) -> SealKey {
        SealKey::new(keyed(&self.derived(&format!("seal/{provider}/{project}"))))
    }

    /// HMAC-SHA256 of `label` under the master key.
    fn derived(&self, label: &str) -> Zeroizing<[u8; 32]> {
        let mut mac = keyed(&self.0);
        mac.update(label.as_bytes());
        Zeroizing::new(mac.finalize().into_bytes().into())
    }
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    let mut block = Zeroizing::new([0_u8; 64]);
    block[..32].copy_from_slice(key);
    // HMAC pads a shorter key with zeros to its block (RFC 2104), so this is the 32-byte key.
    <Hmac<Sha256> as KeyInit>::new(&(*block).into())
}

fn checksum(key: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = Sha256::digest(key);
    [digest[0], digest[1], digest[2]]
}

fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    for chunk in bytes.chunks(5) {
        let mut buffer = [0_u8; 8];
        buffer[3..3 + chunk.len()].copy_from_slice(chunk);
        let bits = u64::from_be_bytes(buffer);
        for at in 0..(chunk.len() * 8).div_ceil(5) {
            text.push(char::from(ALPHABET[(bits >> (35 - 5 * at) & 31) as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use karbor_model::Seal;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Whatever the record says of itself.
    #[test]
    fn a_seal_is_of_one_project_and_provider() {
        let key = MasterKey(Zeroizing::new([7; 32]));
        let (provider, other) = (ProviderId::new(), ProviderId::new());
        let mut record = json!({"seal": Seal::default()});
        key.seal_key(provider, "a").seal(&mut record);
        let seal: Seal = serde_json::from_value(record["seal"].clone()).unwrap();
        assert!(key.seal_key(provider, "a").fits(&record, &seal));
        assert!(!key.seal_key(provider, "b").fits(&record, &seal));
        assert!(!key.seal_key(other, "a").fits(&record, &seal));
    }

    proptest! {
        #[test]
        fn a_recovery_key_reads_back(bytes: [u8; 32]) {
            let key = MasterKey(Zeroizing::new(bytes));
            let text = key.recovery_key().expose().to_lowercase().replace('-', " ");
            prop_assert_eq!(*MasterKey::from_recovery_key(&text).unwrap().0, bytes);
        }

        #[test]
        fn one_wrong_character_is_noticed(bytes: [u8; 32], at in 0usize..51) {
            let key = MasterKey(Zeroizing::new(bytes)).recovery_key();
            let mut text: Vec<char> = key.expose().chars().filter(|c| *c != '-').collect();
            text[at] = if text[at] == 'A' { 'B' } else { 'A' };
            prop_assert!(MasterKey::from_recovery_key(&text.iter().collect::<String>()).is_err());
        }
    }

    #[test]
    fn the_file_is_private_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let key = MasterKey::load_or_create(&path, true).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(key.save(&path).is_err());
        let again = MasterKey::load_or_create(&path, true).unwrap();
        assert_eq!(key.recovery_key().expose(), again.recovery_key().expose());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        MasterKey::load_or_create(&path, true).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(
            MasterKey::load(&path)
                .unwrap_err()
                .to_string()
                .contains("chmod 600")
        );
    }

    #[test]
    fn a_lost_key_is_not_silently_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let error =
            MasterKey::load_or_create(&folder.path().join("master.key"), false).unwrap_err();
        assert!(error.to_string().contains("recovery key"), "{error}");
    }

    #[test]
    fn passwords_differ_by_provider_and_project() {
        let key = MasterKey(Zeroizing::new([7; 32]));
        let (a, b) = (ProviderId::new(), ProviderId::new());
        assert_ne!(
            key.vault_password(a, "p").expose(),
            key.vault_password(b, "p").expose()
        );
        assert_ne!(
            key.vault_password(a, "p").expose(),
            key.vault_password(a, "q").expose()
        );
        assert_eq!(key.vault_password(a, "p").expose().len(), 64);
    }
}
