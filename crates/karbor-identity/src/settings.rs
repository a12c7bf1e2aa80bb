//! The options, checked.

use std::{path::PathBuf, time::Duration};

use karbor_manager::{Config, ConfigError};
use karbor_model::Secret;
use reqwest::Url;
use serde_json::{Value, json};

use crate::options::{SERVICE, TRUSTEE};

/// What is wrong with an option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// It is not declared: [`OPTIONS`](crate::OPTIONS) were not given to the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It is missing, or its value cannot be used.
    #[error("option '{name}' in group [{group}]: {reason}")]
    Value {
        /// Group.
        group: &'static str,
        /// Option.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The certificates or the HTTP client cannot be used.
    #[error("option 'cafile' in group [keystone_authtoken]: {0}")]
    Tls(String),
}

/// The options of identity.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Ends in `/v3`.
    pub(crate) auth_url: Url,
    pub(crate) www_authenticate_uri: String,
    pub(crate) service: Credentials,
    /// `None`: as the service.
    pub(crate) trustee: Option<Credentials>,
    pub(crate) token_cache_time: Duration,
    pub(crate) timeout: Duration,
    pub(crate) cafile: Option<PathBuf>,
    pub(crate) insecure: bool,
}

/// What a user of ours proves itself with.
#[derive(Debug, Clone)]
pub(crate) enum Credentials {
    Password {
        /// `user` of the request, without the password.
        user: Value,
        password: Secret,
        /// What the token is for; `None` for a user that only takes trusts.
        scope: Option<Value>,
    },
    ApplicationCredential {
        id: String,
        secret: Secret,
    },
}

impl Settings {
    /// Reads the options.
    ///
    /// # Errors
    /// [`SettingsError`] names the option that is wrong.
    pub fn read(config: &Config) -> Result<Self, SettingsError> {
        let text = |name: &'static str| config.str(SERVICE, name);
        let first = |names: [&'static str; 3]| -> Result<(&'static str, &str), ConfigError> {
            for name in names {
                if config.is_set(SERVICE, name)? {
                    return Ok((name, config.str(SERVICE, name)?));
                }
            }
            Ok((names[0], ""))
        };
        let (name, place) = first(["auth_url", "www_authenticate_uri", "auth_uri"])?;
        let (_, told) = first(["www_authenticate_uri", "auth_uri", "auth_url"])?;
        let seconds = u64::try_from(config.int(SERVICE, "token_cache_time")?).unwrap_or(0);
        let cafile = config.is_set(SERVICE, "cafile")?;
        Ok(Self {
            auth_url: v3(place).map_err(|reason| wrong(SERVICE, name, reason))?,
            www_authenticate_uri: told.trim_end_matches('/').to_owned(),
            service: service(config, text("auth_type")?)?,
            trustee: trustee(config)?,
            token_cache_time: Duration::from_secs(seconds),
            timeout: config.seconds(SERVICE, "http_connect_timeout")?,
            cafile: cafile.then(|| config.path(SERVICE, "cafile")).transpose()?,
            insecure: config.bool(SERVICE, "insecure")?,
        })
    }
}

fn service(config: &Config, auth_type: &str) -> Result<Credentials, SettingsError> {
    match auth_type {
        "password" | "v3password" => Ok(Credentials::Password {
            user: user(config, SERVICE)?,
            password: secret(config, SERVICE, "password")?,
            scope: Some(project(config)?),
        }),
        "v3applicationcredential" => Ok(Credentials::ApplicationCredential {
            id: required(config, SERVICE, "application_credential_id")?.to_owned(),
            secret: secret(config, SERVICE, "application_credential_secret")?,
        }),
        other => Err(wrong(
            SERVICE,
            "auth_type",
            format!("'{other}' is none of 'password', 'v3applicationcredential'"),
        )),
    }
}

fn trustee(config: &Config) -> Result<Option<Credentials>, SettingsError> {
    if !config.is_set(TRUSTEE, "username")? && !config.is_set(TRUSTEE, "user_id")? {
        return Ok(None);
    }
    let auth_type = config.str(TRUSTEE, "auth_type")?;
    if !matches!(auth_type, "password" | "v3password") {
        let reason = format!("'{auth_type}' cannot take trusts: give 'password'");
        return Err(wrong(TRUSTEE, "auth_type", reason));
    }
    Ok(Some(Credentials::Password {
        user: user(config, TRUSTEE)?,
        password: secret(config, TRUSTEE, "password")?,
        scope: None,
    }))
}

fn user(config: &Config, group: &'static str) -> Result<Value, SettingsError> {
    let id = config.str(group, "user_id")?;
    if !id.is_empty() {
        return Ok(json!({ "id": id }));
    }
    let name = required(config, group, "username")?;
    let domain = domain(config, group, "user_domain_name", "user_domain_id")?;
    Ok(json!({ "name": name, "domain": domain }))
}

fn project(config: &Config) -> Result<Value, SettingsError> {
    let id = config.str(SERVICE, "project_id")?;
    let project = if id.is_empty() {
        let name = required(config, SERVICE, "project_name")?;
        let domain = domain(config, SERVICE, "project_domain_name", "project_domain_id")?;
        json!({ "name": name, "domain": domain })
    } else {
        json!({ "id": id })
    };
    Ok(json!({ "project": project }))
}

fn domain(
    config: &Config,
    group: &'static str,
    name: &'static str,
    id: &'static str,
) -> Result<Value, ConfigError> {
    let (by_name, by_id) = (config.str(group, name)?, config.str(group, id)?);
    Ok(match (by_id, by_name) {
        ("", "") => json!({ "id": "default" }),
        ("", name) => json!({ "name": name }),
        (id, _) => json!({ "id": id }),
    })
}

fn secret(
    config: &Config,
    group: &'static str,
    name: &'static str,
) -> Result<Secret, SettingsError> {
    Ok(Secret::new(required(config, group, name)?.to_owned()))
}

fn required<'a>(
    config: &'a Config,
    group: &'static str,
    name: &'static str,
) -> Result<&'a str, SettingsError> {
    match config.str(group, name)? {
        "" => Err(wrong(
            group,
            name,
            "auth_strategy = keystone needs it; set it".to_owned(),
        )),
        text => Ok(text),
    }
}

/// Keystone's v3 place, whether or not the version is given.
fn v3(text: &str) -> Result<Url, String> {
    let advice = "write it like https://keystone.example/identity";
    if text.is_empty() {
        return Err(format!("auth_strategy = keystone needs it; {advice}"));
    }
    let mut url = Url::parse(text).map_err(|error| format!("not a URL ({error}); {advice}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("neither http nor https; {advice}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a name or password; they have options of their own".to_owned());
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/v3").unwrap_or(path);
    let path = format!("{}/v3", path.strip_suffix("/v2.0").unwrap_or(path));
    url.set_path(&path);
    Ok(url)
}

fn wrong(group: &'static str, name: &'static str, reason: String) -> SettingsError {
    SettingsError::Value {
        group,
        name,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OPTIONS;

    fn read(options: &[(&str, &str, &str)]) -> Result<Settings, SettingsError> {
        let mut config = Config::builder().options(OPTIONS);
        for (group, name, value) in options {
            config = config.set(group, name, *value);
        }
        Settings::read(&config.build().unwrap())
    }

    const URL: (&str, &str, &str) = (SERVICE, "auth_url", "http://h/identity");
    const USER: (&str, &str, &str) = (SERVICE, "username", "karbor");
    const PASSWORD: (&str, &str, &str) = (SERVICE, "password", "secret");

    #[test]
    fn the_version_is_added_once() {
        for (given, meant) in [
            ("http://h:5000", "http://h:5000/v3"),
            ("http://h:5000/", "http://h:5000/v3"),
            ("http://h:5000/v3/", "http://h:5000/v3"),
            ("https://h/identity", "https://h/identity/v3"),
            ("https://h/identity/v2.0", "https://h/identity/v3"),
        ] {
            assert_eq!(v3(given).unwrap().as_str(), meant);
        }
        for bad in ["", "h:5000", "ftp://h/", "http://u:p@h/", "nonsense"] {
            assert!(v3(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_originals_sample_is_understood() {
        let settings = read(&[
            (
                SERVICE,
                "www_authenticate_uri",
                "http://keystone1.example.com/identity",
            ),
            (SERVICE, "auth_url", "http://controller/identity_admin"),
            (SERVICE, "auth_type", "password"),
            (SERVICE, "project_domain_name", "Default"),
            (SERVICE, "user_domain_name", "Default"),
            (SERVICE, "project_name", "service"),
            USER,
            PASSWORD,
            (TRUSTEE, "username", "karbor"),
            (TRUSTEE, "password", "secret"),
            (TRUSTEE, "user_domain_id", "default"),
        ])
        .unwrap();
        assert_eq!(
            settings.www_authenticate_uri,
            "http://keystone1.example.com/identity"
        );
        assert_eq!(
            settings.auth_url.as_str(),
            "http://controller/identity_admin/v3"
        );
        let Credentials::Password { user, scope, .. } = settings.service else {
            panic!("not a password");
        };
        assert_eq!(
            user,
            json!({"name": "karbor", "domain": {"name": "Default"}})
        );
        let project = json!({"name": "service", "domain": {"name": "Default"}});
        assert_eq!(scope, Some(json!({ "project": project })));
        let Some(Credentials::Password {
            user, scope: None, ..
        }) = settings.trustee
        else {
            panic!("no trustee");
        };
        assert_eq!(user, json!({"name": "karbor", "domain": {"id": "default"}}));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (options, name) in [
            (vec![], "auth_url"),
            (vec![URL], "username"),
            (vec![URL, USER], "password"),
            (
                vec![URL, USER, PASSWORD, (SERVICE, "auth_type", "v3kerberos")],
                "auth_type",
            ),
            (
                vec![URL, (SERVICE, "auth_type", "v3applicationcredential")],
                "application_credential_id",
            ),
            (
                vec![URL, USER, PASSWORD, (TRUSTEE, "username", "t")],
                "password",
            ),
        ] {
            let error = read(&options).unwrap_err().to_string();
            assert!(error.contains(&format!("'{name}'")), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let settings = read(&[URL, USER, (SERVICE, "password", "hunter2")]).unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
