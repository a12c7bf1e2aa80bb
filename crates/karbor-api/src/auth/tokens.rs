//! Local tokens: who may ask when there is no keystone.
//!
//! A token is 256 random bits. Only its SHA-256 is kept: a fast hash is right here, because what
//! slow hashes defend against is guessing a password from a small space, and nobody searches 2^256.
//! The token itself is seen once, by the person who makes it; the first one is written to a file that only
//! the service's user can read, where the command line finds it.

use std::{
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use karbor_db::{TokenRecord, TokenStore};
use karbor_model::{ApiError, ErrorKind};
use sha2::{Digest as _, Sha256};

/// Marks a text as a token of ours, for people and for secret scanners.
const PREFIX: &str = "karbor_";

/// A token just made. Its `Debug` does not show the secret.
pub struct NewToken {
    /// What the client sends as `X-Auth-Token`. Shown once.
    pub secret: String,
    /// What is kept of it.
    pub record: TokenRecord,
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewToken")
            .field("secret", &"***")
            .field("record", &self.record)
            .finish()
    }
}

/// What is kept of a token: the hexadecimal SHA-256 of it.
#[must_use]
pub fn token_hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

/// Makes a token for `user` in `project`: an administrator's or a member's.
///
/// # Errors
/// When the machine has no randomness, or the database fails.
pub async fn create_token(
    tokens: &TokenStore,
    user: &str,
    project: &str,
    is_admin: bool,
) -> Result<NewToken, ApiError> {
    if user.is_empty() || project.is_empty() {
        return Err(ApiError::bad_request(
            "A token needs a user and a project; give both a name.",
        ));
    }
    let mut bits = [0_u8; 32];
    getrandom::fill(&mut bits).map_err(ApiError::internal)?;
    let secret = format!("{PREFIX}{}", hex::encode(bits));
    let role = if is_admin { "admin" } else { "member" };
    let record = tokens
        .create(
            &token_hash(&secret),
            user,
            project,
            &[role.to_owned()],
            is_admin,
        )
        .await?;
    Ok(NewToken { secret, record })
}

/// Every token there is, by hash.
///
/// # Errors
/// When the database fails.
pub async fn list_tokens(tokens: &TokenStore) -> Result<Vec<TokenRecord>, ApiError> {
    Ok(tokens.list().await?)
}

/// Revokes the token whose hash begins with `id`. Services forget it within
/// [`REVOCATION_LAG`](crate::REVOCATION_LAG).
///
/// # Errors
/// `NotFound`, or `BadRequest` when several begin so; when the database fails.
pub async fn revoke_token(tokens: &TokenStore, id: &str) -> Result<TokenRecord, ApiError> {
    let all = tokens.list().await?;
    let mut matching = all
        .into_iter()
        .filter(|token| !id.is_empty() && token.hash.starts_with(id));
    let found = matching.next().ok_or_else(|| {
        ApiError::new(
            ErrorKind::NotFound,
            "TokenNotFound",
            format!("No token begins with '{id}'. List the tokens to see their ids."),
        )
    })?;
    if matching.next().is_some() {
        return Err(ApiError::bad_request(format!(
            "Several tokens begin with '{id}'. Give more of the id."
        )));
    }
    tokens.delete(&found.hash).await?;
    Ok(found)
}

/// Sees to it that `path` holds a token that the database knows: an administrator's, in `project`.
/// Returns whether a new one was made. The file is mode 0600 and never half-written.
///
/// # Errors
/// When the file cannot be read or written, or the database fails.
pub async fn ensure_admin_token(
    tokens: &TokenStore,
    path: &Path,
    project: &str,
) -> Result<bool, ApiError> {
    let file = path.to_owned();
    if let Some(secret) = blocking(move || read_private(&file), path).await? {
        let known = tokens.find(&token_hash(&secret)).await?;
        if known.is_some_and(|token| token.is_admin && token.project_id == project) {
            return Ok(false);
        }
    }
    let token = create_token(tokens, "admin", project, true).await?;
    let file = path.to_owned();
    blocking(move || write_private(&file, &token.secret), path).await?;
    Ok(true)
}

/// Reads a token from a file of one line, as [`ensure_admin_token`] wrote it. A file that others
/// could read is closed to them.
fn read_private(path: &PathBuf) -> io::Result<Option<String>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut permissions = std::fs::metadata(path)?.permissions();
    if permissions.mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others could read the token file; closed it");
        permissions.set_mode(0o600);
        std::fs::set_permissions(path, permissions)?;
    }
    Ok(Some(text.trim().to_owned()))
}

fn write_private(path: &PathBuf, secret: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = path.with_file_name(name);
    let _ = std::fs::remove_file(&fresh);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    writeln!(file, "{secret}")?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => std::fs::File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
    path: &Path,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work)
        .await
        .map_err(ApiError::internal)?;
    done.map_err(|e| {
        ApiError::unavailable(
            format!(
                "The token file {} cannot be used: {e}. Check that the service may read and write \
                 it and its folder.",
                path.display()
            ),
            e,
        )
    })
}
