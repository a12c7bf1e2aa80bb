//! restic's authenticated encryption: AES-256 in counter mode, then Poly1305-AES over the cipher text.
//! What is sealed reads `nonce (16) || cipher text || mac (16)`.

use aes::{
    Aes128, Aes256,
    cipher::{BlockCipherEncrypt, InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use ctr::{CtrCore, flavors};
use poly1305::Poly1305;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::VaultError;

pub(crate) const NONCE: usize = 16;
pub(crate) const MAC: usize = 16;
/// What sealing adds, in bytes.
pub(crate) const OVERHEAD: usize = NONCE + MAC;

/// The bits of `r` that Poly1305 leaves.
const MASK: [u8; 16] = [
    0xff, 0xff, 0xff, 0x0f, 0xfc, 0xff, 0xff, 0x0f, 0xfc, 0xff, 0xff, 0x0f, 0xfc, 0xff, 0xff, 0x0f,
];

/// The three keys, raw.
pub(crate) struct RawKey {
    encrypt: [u8; 32],
    mac_k: [u8; 16],
    mac_r: [u8; 16],
}

impl Drop for RawKey {
    fn drop(&mut self) {
        self.encrypt.zeroize();
        self.mac_k.zeroize();
        self.mac_r.zeroize();
    }
}

/// The JSON form of a key, as restic keeps the master key.
#[derive(Serialize, Deserialize)]
struct KeyJson {
    mac: MacJson,
    encrypt: String,
}

#[derive(Serialize, Deserialize)]
struct MacJson {
    k: String,
    r: String,
}

impl Drop for KeyJson {
    fn drop(&mut self) {
        self.encrypt.zeroize();
        self.mac.k.zeroize();
        self.mac.r.zeroize();
    }
}

impl RawKey {
    pub(crate) fn random() -> Result<Self, VaultError> {
        let mut bytes = Zeroizing::new([0; 64]);
        random(&mut *bytes)?;
        Ok(Self::from_bytes(&bytes))
    }

    /// From what scrypt derived.
    pub(crate) fn from_bytes(bytes: &[u8; 64]) -> Self {
        let mut key = Self {
            encrypt: [0; 32],
            mac_k: [0; 16],
            mac_r: [0; 16],
        };
        key.encrypt.copy_from_slice(&bytes[..32]);
        key.mac_k.copy_from_slice(&bytes[32..48]);
        key.mac_r.copy_from_slice(&bytes[48..]);
        key.mask();
        key
    }

    fn mask(&mut self) {
        for (byte, mask) in self.mac_r.iter_mut().zip(MASK) {
            *byte &= mask;
        }
    }

    pub(crate) fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let encode = |bytes: &[u8]| STANDARD.encode(bytes);
        let json = KeyJson {
            mac: MacJson {
                k: encode(&self.mac_k),
                r: encode(&self.mac_r),
            },
            encrypt: encode(&self.encrypt),
        };
        serde_json::to_vec(&json)
            .map(Zeroizing::new)
            .map_err(|error| VaultError::Internal(format!("key to JSON: {error}")))
    }

    /// `None` when the text is not a key.
    pub(crate) fn from_json(json: &[u8]) -> Option<Self> {
        fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
            Zeroizing::new(STANDARD.decode(text).ok()?)
                .as_slice()
                .try_into()
                .ok()
        }
        let json: KeyJson = serde_json::from_slice(json).ok()?;
        let mut key = Self {
            encrypt: decode(&json.encrypt)?,
            mac_k: decode(&json.mac.k)?,
            mac_r: decode(&json.mac.r)?,
        };
        key.mask();
        Some(key)
    }
}

pub(crate) fn random(bytes: &mut [u8]) -> Result<(), VaultError> {
    getrandom::fill(bytes)
        .map_err(|error| VaultError::Internal(format!("no random numbers: {error}")))
}

/// The keys, ready for use.
#[derive(Clone)]
pub(crate) struct Crypto {
    aes: Aes256,
    mac_aes: Aes128,
    mac_r: Zeroizing<[u8; 16]>,
}

impl Crypto {
    pub(crate) fn new(key: &RawKey) -> Self {
        Self {
            aes: Aes256::new(&key.encrypt.into()),
            mac_aes: Aes128::new(&key.mac_k.into()),
            mac_r: Zeroizing::new(key.mac_r),
        }
    }

    fn keystream(&self, nonce: &[u8; NONCE], data: &mut [u8]) {
        let core =
            CtrCore::<Aes256, flavors::Ctr128BE>::inner_iv_init(self.aes.clone(), &(*nonce).into());
        StreamCipherCoreWrapper::from_core(core).apply_keystream(data);
    }

    fn mac(&self, nonce: &[u8; NONCE], data: &[u8]) -> [u8; MAC] {
        let mut pad = (*nonce).into();
        self.mac_aes.encrypt_block(&mut pad);
        let mut key = Zeroizing::new([0; 32]);
        key[..16].copy_from_slice(&*self.mac_r);
        key[16..].copy_from_slice(&pad);
        Poly1305::new(&(*key).into()).compute_unpadded(data).into()
    }

    /// Seals what `buffer` holds from `NONCE` on, in place: `buffer` must begin with `NONCE` spare
    /// bytes.
    pub(crate) fn seal_in_place(&self, buffer: &mut Vec<u8>) -> Result<(), VaultError> {
        let mut nonce = [0; NONCE];
        random(&mut nonce)?;
        let (head, text) = buffer
            .split_at_mut_checked(NONCE)
            .ok_or_else(|| VaultError::Internal("no room for the nonce".to_owned()))?;
        head.copy_from_slice(&nonce);
        self.keystream(&nonce, text);
        let mac = self.mac(&nonce, text);
        buffer.extend_from_slice(&mac);
        Ok(())
    }

    pub(crate) fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        let mut buffer = Vec::with_capacity(plain.len() + OVERHEAD);
        buffer.resize(NONCE, 0);
        buffer.extend_from_slice(plain);
        self.seal_in_place(&mut buffer)?;
        Ok(buffer)
    }

    /// Checks and opens what was sealed, into `plain` (cleared first). `false`: it was changed since,
    /// or the key is another.
    #[must_use]
    pub(crate) fn open_into(&self, sealed: &[u8], plain: &mut Vec<u8>) -> bool {
        plain.clear();
        let Some((nonce, rest)) = sealed.split_first_chunk::<NONCE>() else {
            return false;
        };
        let Some((text, mac)) = rest.split_last_chunk::<MAC>() else {
            return false;
        };
        if !bool::from(self.mac(nonce, text).ct_eq(mac)) {
            return false;
        }
        plain.extend_from_slice(text);
        self.keystream(nonce, plain);
        true
    }

    pub(crate) fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let mut plain = Vec::new();
        self.open_into(sealed, &mut plain).then_some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poly1305_aes_agrees_with_bernsteins_paper() {
        // The second vector of appendix B of "The Poly1305-AES message-authentication code".
        let key = RawKey {
            encrypt: [0; 32],
            mac_k: hex_array("75deaa25c09f208e1dc4ce6b5cad3fbf"),
            mac_r: hex_array("a0f3080000f46400d0c7e9076c834403"),
        };
        let nonce = hex_array("61ee09218d29b0aaed7e154a2c5509cc");
        let mac = Crypto::new(&key).mac(&nonce, b"");
        assert_eq!(hex::encode(mac), "dd3fab2251f11ac759f0887129cc2ee7");
    }

    fn hex_array<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    #[test]
    fn what_was_changed_does_not_open() {
        let crypto = Crypto::new(&RawKey::random().unwrap());
        for len in [0, 1, 15, 16, 17, 1000] {
            let plain = vec![7; len];
            let sealed = crypto.seal(&plain).unwrap();
            assert_eq!(sealed.len(), len + OVERHEAD);
            assert_eq!(crypto.open(&sealed).unwrap(), plain);
            for at in [0, NONCE - 1, sealed.len() / 2, sealed.len() - 1] {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert!(crypto.open(&changed).is_none());
            }
            assert!(crypto.open(&sealed[..sealed.len() - 1]).is_none());
        }
        assert!(crypto.open(b"").is_none());
    }

    #[test]
    fn a_key_survives_json() {
        let key = RawKey::random().unwrap();
        let again = RawKey::from_json(&key.to_json().unwrap()).unwrap();
        let sealed = Crypto::new(&key).seal(b"text").unwrap();
        assert_eq!(Crypto::new(&again).open(&sealed).unwrap(), b"text");
    }
}
