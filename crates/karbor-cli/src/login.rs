//! Logging in at keystone, with the variables that OpenStack's clients know.
//!
//! With `OS_AUTH_URL` set and no token of its own given, a command gets a token from keystone and finds
//! the service in the token's catalog. Passwords and secrets come from the environment only.

use std::collections::BTreeMap;

use reqwest::{StatusCode, Url, header::HeaderValue};
use serde_json::{Value, json};

use crate::{
    Endpoint, Globals,
    client::{causes, http},
    error::{CliError, Exit},
};

/// What the catalog calls the service: as the original is registered, and as it should be.
const SERVICE_TYPES: [&str; 2] = ["data-protect", "data-protection"];

/// The variables `OS_…`. Deliberately neither `Debug` nor `Display`: a password is among them.
#[derive(Clone, Default)]
pub struct Cloud(BTreeMap<String, String>);

/// What came of it.
pub(crate) struct Login {
    pub(crate) token: String,
    pub(crate) project: Option<String>,
    /// As the catalog says.
    pub(crate) endpoint: Option<Endpoint>,
}

impl Cloud {
    /// Those among `variables`. Empty ones count as not set.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours = variables
            .into_iter()
            .filter(|(name, _)| name.starts_with("OS_"));
        let mut ours: BTreeMap<_, _> = ours.collect();
        ours.retain(|_, value| !value.is_empty());
        Self(ours)
    }

    /// Is there a keystone to log in at?
    pub(crate) fn is_set(&self) -> bool {
        self.0.contains_key("OS_AUTH_URL")
    }

    fn get(&self, names: &[&str]) -> Option<&str> {
        names
            .iter()
            .find_map(|name| self.0.get(*name).map(String::as_str))
    }

    fn required(&self, names: &[&str]) -> Result<&str, CliError> {
        self.get(names).ok_or_else(|| {
            CliError::usage(format!("OS_AUTH_URL is set, but not {}", names.join(" or "))).hint(
                "set OS_USERNAME, OS_PASSWORD and OS_PROJECT_NAME, or an application credential; or \
                 unset OS_AUTH_URL to do without keystone",
            )
        })
    }

    /// Gets a token and reads its catalog.
    pub(crate) async fn login(&self, globals: &Globals) -> Result<Login, CliError> {
        let place = self.place()?;
        let ca_file = globals.ca_file.clone();
        let ca_file = ca_file.or_else(|| self.get(&["OS_CACERT"]).map(Into::into));
        let http = http(
            &place,
            ca_file.as_deref(),
            reqwest::header::HeaderMap::new(),
        )?;
        let request = match self.own_token()? {
            // Nothing to exchange it for: it is looked at.
            Some(token) => http
                .get(place.clone())
                .header("x-auth-token", token.clone())
                .header("x-subject-token", token),
            None => http.post(place.clone()).json(&self.credentials()?),
        };
        let response = request.send().await;
        let response = response.map_err(|error| unreachable(&place, &causes(&error)))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await;
        let body = body.map_err(|error| unreachable(&place, &causes(&error)))?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if !status.is_success() {
            return Err(refused(&place, status, &body));
        }
        let token = headers
            .get("x-subject-token")
            .and_then(|token| token.to_str().ok());
        let token = token
            .or_else(|| self.get(&["OS_TOKEN"]))
            .ok_or_else(|| unreachable(&place, "it gave no token"))?;
        let project = &body["token"]["project"]["id"];
        Ok(Login {
            token: token.to_owned(),
            project: project.as_str().map(str::to_owned),
            endpoint: self.endpoint(&body["token"]["catalog"])?,
        })
    }

    /// Where tokens are made.
    fn place(&self) -> Result<Url, CliError> {
        let text = self.required(&["OS_AUTH_URL"])?;
        let bad = |why: &str| {
            CliError::usage(format!("OS_AUTH_URL: {why}"))
                .hint("write it like https://keystone.example/identity/v3")
        };
        let mut url = Url::parse(text).map_err(|error| bad(&format!("not a URL ({error})")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(bad("neither http nor https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("it holds a name or password"));
        }
        let path = url.path().trim_end_matches('/');
        let path = path.strip_suffix("/v3").unwrap_or(path);
        let path = format!(
            "{}/v3/auth/tokens",
            path.strip_suffix("/v2.0").unwrap_or(path)
        );
        url.set_path(&path);
        Ok(url)
    }

    /// A token that is used as it is.
    fn own_token(&self) -> Result<Option<HeaderValue>, CliError> {
        let Some(token) = self.get(&["OS_TOKEN"]) else {
            return Ok(None);
        };
        if self.project().is_some() {
            return Ok(None);
        }
        let mut value =
            HeaderValue::from_str(token).map_err(|_| CliError::usage("OS_TOKEN holds no token"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn credentials(&self) -> Result<Value, CliError> {
        let with_application = [
            "OS_APPLICATION_CREDENTIAL_ID",
            "OS_APPLICATION_CREDENTIAL_NAME",
        ];
        let (identity, scope) = if self.get(&with_application).is_some() {
            // It is for one project already.
            (self.application_credential()?, None)
        } else if let Some(token) = self.get(&["OS_TOKEN"]) {
            (
                json!({"methods": ["token"], "token": {"id": token}}),
                self.project(),
            )
        } else {
            let mut user = self.user()?;
            user["password"] = json!(self.required(&["OS_PASSWORD"])?);
            self.required(&["OS_PROJECT_NAME", "OS_PROJECT_ID"])
                .or_else(|error| self.get(&["OS_TENANT_NAME"]).ok_or(error))?;
            let identity = json!({"methods": ["password"], "password": {"user": user}});
            (identity, self.project())
        };
        let mut auth = json!({ "identity": identity });
        if let Some(project) = scope {
            auth["scope"] = json!({ "project": project });
        }
        Ok(json!({ "auth": auth }))
    }

    fn application_credential(&self) -> Result<Value, CliError> {
        let secret = self.required(&["OS_APPLICATION_CREDENTIAL_SECRET"])?;
        let mut credential = json!({ "secret": secret });
        match self.get(&["OS_APPLICATION_CREDENTIAL_ID"]) {
            Some(id) => credential["id"] = json!(id),
            None => {
                credential["name"] = json!(self.required(&["OS_APPLICATION_CREDENTIAL_NAME"])?);
                credential["user"] = self.user()?;
            }
        }
        Ok(json!({
            "methods": ["application_credential"],
            "application_credential": credential,
        }))
    }

    fn user(&self) -> Result<Value, CliError> {
        if let Some(id) = self.get(&["OS_USER_ID"]) {
            return Ok(json!({ "id": id }));
        }
        let name = self.required(&["OS_USERNAME", "OS_USER_ID"])?;
        Ok(json!({"name": name, "domain": self.domain("OS_USER_DOMAIN_ID", "OS_USER_DOMAIN_NAME")}))
    }

    fn project(&self) -> Option<Value> {
        if let Some(id) = self.get(&["OS_PROJECT_ID"]) {
            return Some(json!({ "id": id }));
        }
        let name = self.get(&["OS_PROJECT_NAME", "OS_TENANT_NAME"])?;
        let domain = self.domain("OS_PROJECT_DOMAIN_ID", "OS_PROJECT_DOMAIN_NAME");
        Some(json!({ "name": name, "domain": domain }))
    }

    fn domain(&self, id: &str, name: &str) -> Value {
        match (self.get(&[id]), self.get(&[name])) {
            (Some(id), _) => json!({ "id": id }),
            (None, Some(name)) => json!({ "name": name }),
            (None, None) => json!({"id": self.get(&["OS_DEFAULT_DOMAIN"]).unwrap_or("default")}),
        }
    }

    /// Where the catalog says that the service answers.
    fn endpoint(&self, catalog: &Value) -> Result<Option<Endpoint>, CliError> {
        let interface = self.get(&["OS_INTERFACE", "OS_ENDPOINT_TYPE"]);
        let interface = interface.unwrap_or("public").trim_end_matches("URL");
        let region = self.get(&["OS_REGION_NAME"]);
        let services = || catalog.as_array().into_iter().flatten();
        let found = SERVICE_TYPES.iter().find_map(|wanted| {
            services()
                .filter(|service| service["type"] == *wanted)
                .flat_map(|service| service["endpoints"].as_array().into_iter().flatten())
                .find(|endpoint| {
                    endpoint["interface"] == interface
                        && region.is_none_or(|region| endpoint["region_id"] == region)
                })
        });
        let url = found.and_then(|endpoint| endpoint["url"].as_str());
        let parsed = url.map(|url| {
            url.parse().map_err(|why| {
                CliError::new(
                    Exit::Unreachable,
                    format!("keystone's catalog has {url}: {why}"),
                )
            })
        });
        parsed.transpose()
    }
}

fn unreachable(place: &Url, why: &str) -> CliError {
    CliError::new(
        Exit::Unreachable,
        format!("no token from keystone at {place}: {why}"),
    )
    .hint("OS_AUTH_URL says where keystone is, OS_CACERT which authority to trust")
}

fn refused(place: &Url, status: StatusCode, body: &Value) -> CliError {
    if !matches!(status.as_u16(), 400..=404) {
        return unreachable(place, &format!("it answered {status}"));
    }
    let told = body["error"]["message"]
        .as_str()
        .unwrap_or("no reason given");
    CliError::new(
        Exit::Refused,
        format!("keystone at {place} refused the login: {told}"),
    )
    .hint(
        "check OS_USERNAME, OS_PASSWORD, OS_PROJECT_NAME and their domains \
         (OS_USER_DOMAIN_NAME, OS_PROJECT_DOMAIN_NAME)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cloud(variables: &[(&str, &str)]) -> Cloud {
        let url = ("OS_AUTH_URL", "http://h/identity");
        let all = variables.iter().chain([&url]);
        Cloud::new(all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    const DEMO: [(&str, &str); 3] = [
        ("OS_USERNAME", "demo"),
        ("OS_PASSWORD", "secret"),
        ("OS_PROJECT_NAME", "p1"),
    ];

    fn sent(variables: &[(&str, &str)]) -> Value {
        cloud(variables)
            .credentials()
            .unwrap_or_else(|error| panic!("{error}"))["auth"]
            .clone()
    }

    #[test]
    fn user_and_project_by_name() {
        let domain = json!({"id": "default"});
        let user = json!({"name": "demo", "domain": domain, "password": "secret"});
        let expected = json!({
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": "p1", "domain": domain}},
        });
        assert_eq!(sent(&DEMO), expected);
        let domains = [("OS_USER_DOMAIN_NAME", "U"), ("OS_PROJECT_DOMAIN_ID", "p")];
        let auth = sent(&[&DEMO[..], &domains[..]].concat());
        assert_eq!(
            auth["identity"]["password"]["user"]["domain"],
            json!({"name": "U"})
        );
        assert_eq!(auth["scope"]["project"]["domain"], json!({"id": "p"}));
    }

    #[test]
    fn application_credentials_bring_their_project() {
        let auth = sent(&[
            ("OS_APPLICATION_CREDENTIAL_ID", "i"),
            ("OS_APPLICATION_CREDENTIAL_SECRET", "s"),
            ("OS_PROJECT_NAME", "p1"),
        ]);
        let credential = json!({"id": "i", "secret": "s"});
        assert_eq!(auth["identity"]["application_credential"], credential);
        assert!(auth.get("scope").is_none());
    }

    #[test]
    fn a_token_is_exchanged_where_a_project_is_named_and_used_as_it_is_otherwise() {
        let token = ("OS_TOKEN", "t");
        assert!(
            cloud(&[token])
                .own_token()
                .is_ok_and(|token| token.is_some())
        );
        let named = cloud(&[token, ("OS_PROJECT_ID", "p")]);
        assert!(named.own_token().is_ok_and(|token| token.is_none()));
        let auth = sent(&[token, ("OS_PROJECT_ID", "p")]);
        assert_eq!(auth["identity"]["methods"], json!(["token"]));
        assert_eq!(auth["scope"], json!({"project": {"id": "p"}}));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (left_out, (name, _)) in DEMO.iter().enumerate() {
            let mut variables = DEMO.to_vec();
            variables.remove(left_out);
            let error = cloud(&variables).credentials();
            let error = error
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            assert!(error.contains(name), "{name}: {error}");
        }
    }

    #[test]
    fn the_version_is_added_once() {
        for url in [
            "http://h/identity",
            "http://h/identity/",
            "http://h/identity/v3",
        ] {
            let cloud = cloud(&[("OS_AUTH_URL", url)]);
            let place = cloud.place().map(|place| place.to_string()).ok();
            assert_eq!(place.as_deref(), Some("http://h/identity/v3/auth/tokens"));
        }
    }

    #[test]
    fn the_service_is_found_under_either_type() {
        let endpoint = |interface: &str, region: &str| {
            json!({"interface": interface, "region_id": region,
                   "url": format!("http://{interface}.{region}/v1/p1")})
        };
        let catalog = |service_type: &str| {
            json!([{"type": service_type, "endpoints": [
                endpoint("public", "one"), endpoint("internal", "one"), endpoint("public", "two"),
            ]}])
        };
        let find = |variables: &[(&str, &str)], service_type: &str| {
            let found = cloud(variables).endpoint(&catalog(service_type));
            found.ok().flatten().map(|endpoint| endpoint.to_string())
        };
        let public = Some("http://public.one/v1/p1".to_owned());
        assert_eq!(find(&[], "data-protect"), public);
        assert_eq!(find(&[], "data-protection"), public);
        assert_eq!(find(&[], "volumev3"), None);
        let inner = find(&[("OS_ENDPOINT_TYPE", "internalURL")], "data-protect");
        assert_eq!(inner.as_deref(), Some("http://internal.one/v1/p1"));
        let second = find(&[("OS_REGION_NAME", "two")], "data-protect");
        assert_eq!(second.as_deref(), Some("http://public.two/v1/p1"));
    }
}
