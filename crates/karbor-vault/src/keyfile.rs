//! Key files: the master key of a repository, sealed with a key that scrypt derives from a password.

use base64::{Engine, engine::general_purpose::STANDARD};
use karbor_plugin::{BankError, BankSection, Secret};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    VaultError,
    crypto::{self, Crypto, RawKey},
    id::Id,
    repository::{FileKind, bank_key, blocking, list},
};

/// A key file may not make us use more memory than this, in bytes, or more time than such a `p` takes:
/// it is read before anything vouches for it.
const MAX_MEMORY: u64 = 1 << 30;
const MAX_P: u32 = 64;
/// The passwords are 256 random bits by contract, so the smallest usual work factor does.
const LOG_N: u8 = 15;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeyFile {
    created: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    hostname: String,
    kdf: String,
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
    salt: String,
    data: String,
}

impl KeyFile {
    /// A new file that holds `master`.
    pub(crate) fn make(
        master: &RawKey,
        password: &str,
        created: String,
        hostname: String,
    ) -> Result<Self, VaultError> {
        let mut salt = [0; 64];
        crypto::random(&mut salt)?;
        let mut file = Self {
            created,
            username: "karbor".to_owned(),
            hostname,
            kdf: "scrypt".to_owned(),
            n: 1 << LOG_N,
            r: 8,
            p: 1,
            salt: STANDARD.encode(salt),
            data: String::new(),
        };
        let user = file
            .derive(password)
            .map_err(|reason| VaultError::Internal(format!("scrypt: {reason}")))?;
        file.data = STANDARD.encode(Crypto::new(&user).seal(&master.to_json()?)?);
        Ok(file)
    }

    /// The master key; `Ok(None)` if the password is another, `Err` if the file makes no sense.
    pub(crate) fn open(&self, password: &str) -> Result<Option<RawKey>, String> {
        let user = self.derive(password)?;
        let data = STANDARD
            .decode(&self.data)
            .map_err(|error| format!("its data are not base64: {error}"))?;
        let Some(json) = Crypto::new(&user).open(&data) else {
            return Ok(None);
        };
        let json = Zeroizing::new(json);
        RawKey::from_json(&json)
            .map(Some)
            .ok_or_else(|| "it holds no master key".to_owned())
    }

    fn derive(&self, password: &str) -> Result<RawKey, String> {
        if self.kdf != "scrypt" {
            return Err(format!("its key derivation '{}' is not scrypt", self.kdf));
        }
        let memory = u64::from(self.r)
            .checked_mul(128)
            .and_then(|block| block.checked_mul(self.n));
        if !self.n.is_power_of_two()
            || memory.is_none_or(|memory| memory > MAX_MEMORY)
            || self.p > MAX_P
        {
            return Err("its scrypt parameters are out of bounds".to_owned());
        }
        let log_n = u8::try_from(self.n.ilog2()).map_err(|error| error.to_string())?;
        let params =
            scrypt::Params::new(log_n, self.r, self.p).map_err(|error| error.to_string())?;
        let salt = STANDARD
            .decode(&self.salt)
            .map_err(|error| format!("its salt is not base64: {error}"))?;
        let mut bytes = Zeroizing::new([0; 64]);
        scrypt::scrypt(password.as_bytes(), &salt, &params, &mut *bytes)
            .map_err(|error| error.to_string())?;
        Ok(RawKey::from_bytes(&bytes))
    }
}

/// The key that opens the config, what it opens, and the config. A key of ours need not be its key: who dies while he
/// makes a repository leaves one behind.
pub(crate) async fn find(
    section: &BankSection,
    password: &Secret,
    place: String,
    config: &[u8],
) -> Result<(Id, Crypto, Vec<u8>), VaultError> {
    let keys = list(section, FileKind::Key).await?;
    let mut damage = keys.is_empty().then(|| {
        let reason = "it is missing; put it back from a copy of the bank";
        VaultError::damaged("the repository's key", reason)
    });
    for (id, _) in keys {
        let key = bank_key(FileKind::Key, &id)?;
        let most = FileKind::Key.most();
        let data = match section.get_at_most(&key, most).await {
            Ok(data) => data,
            Err(BankError::NotFound(_)) => continue,
            Err(error @ BankError::Corrupt { .. }) => {
                damage = Some(error.into());
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let password = password.clone();
        let opened = blocking(move || {
            let file: Result<KeyFile, _> = serde_json::from_slice(&data);
            let file = file.map_err(|error| error.to_string());
            Ok(file.and_then(|file| file.open(password.expose())))
        });
        match opened.await? {
            Ok(Some(key)) => {
                let crypto = Crypto::new(&key);
                if let Some(plain) = crypto.open(config) {
                    return Ok((id, crypto, plain));
                }
                damage.get_or_insert(VaultError::damaged(
                    "the repository's config",
                    "it was changed after it was written",
                ));
            }
            Ok(None) => {}
            Err(reason) => damage = Some(VaultError::damaged(FileKind::Key.object(&id), reason)),
        }
    }
    Err(damage.unwrap_or(VaultError::WrongPassword(place)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_password_opens_it() {
        let master = RawKey::random().unwrap();
        let file = KeyFile::make(&master, "right", String::new(), String::new()).unwrap();
        let text = serde_json::to_vec(&file).unwrap();
        let file: KeyFile = serde_json::from_slice(&text).unwrap();
        assert!(file.open("wrong").unwrap().is_none());
        let again = file.open("right").unwrap().unwrap();
        assert_eq!(*again.to_json().unwrap(), *master.to_json().unwrap());
    }

    #[test]
    fn absurd_work_factors_are_refused() {
        let master = RawKey::random().unwrap();
        let good = KeyFile::make(&master, "x", String::new(), String::new()).unwrap();
        for (n, r, p) in [
            (1 << 40, 8, 1),
            (0, 8, 1),
            (3, 8, 1),
            (1 << 15, u32::MAX, 1),
            (2, 8, 9999),
            (2, 0, 0),
        ] {
            let file = KeyFile {
                n,
                r,
                p,
                data: good.data.clone(),
                salt: good.salt.clone(),
                kdf: "scrypt".to_owned(),
                created: String::new(),
                username: String::new(),
                hostname: String::new(),
            };
            assert!(file.open("x").is_err(), "{n} {r} {p}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(data in "\\PC{0,40}", salt in "\\PC{0,10}", n in 0_u64..64, r in 0_u32..4, p in 0_u32..4) {
            let text = serde_json::json!({"created": "", "kdf": "scrypt", "N": n, "r": r, "p": p, "salt": salt, "data": data});
            if let Ok(file) = serde_json::from_value::<KeyFile>(text) {
                let _ = file.open("x");
            }
        }
    }
}
