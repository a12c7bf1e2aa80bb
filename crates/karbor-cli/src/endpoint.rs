//! Where the service is and what opens it.
//!
//! `karbor serve` leaves two files in its state directory: `endpoint` (one line,
//! `http://host:port/v1/<project>`) and `token` (mode 0600). Options and environment come before
//! them. The state directory's token is sent to the state directory's endpoint only: naming
//! another service on the command line must not give it away. Where keystone is set up and no token is
//! given, both come from a login instead (`login`).

use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use reqwest::Url;

use crate::{
    Globals,
    error::{CliError, Exit},
    login::Login,
};

/// Where a service answers, and for which project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    base: Url,
    project: Option<String>,
}

impl Endpoint {
    /// `base` without the version, e.g. `http://127.0.0.1:8799`, and a project.
    ///
    /// # Errors
    /// A sentence when `base` is not an http or https URL.
    pub fn new(base: &str, project: &str) -> Result<Self, String> {
        let mut endpoint: Self = base.parse()?;
        endpoint.project = Some(project.to_owned());
        Ok(endpoint)
    }

    /// The URL of something below the project. Each segment is escaped.
    pub(crate) fn url(&self, segments: &[&str]) -> Result<Url, CliError> {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty();
            for segment in ["v1", self.project()].iter().chain(segments) {
                // The URL rules would drop these, and ask for something else.
                if matches!(*segment, "" | "." | "..") {
                    return Err(CliError::usage(format!(
                        "'{segment}' is no id, name or type"
                    )));
                }
                path.push(segment);
            }
        }
        Ok(url)
    }

    /// The project that is acted in.
    pub(crate) fn project(&self) -> &str {
        self.project.as_deref().unwrap_or_default()
    }

    /// Is it this machine's own?
    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.base)
    }

    /// The host that is asked.
    pub(crate) fn place(&self) -> &Url {
        &self.base
    }

    /// Without the project, for messages.
    pub(crate) fn base(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.base.scheme() == "https"
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base())?;
        match &self.project {
            Some(project) => write!(f, "/v1/{project}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let advice = "write it like http://127.0.0.1:8799";
        let mut url =
            Url::parse(text.trim()).map_err(|error| format!("not a URL ({error}); {advice}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(format!("neither http nor https; {advice}"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it holds a name or password; give a token with KARBOR_TOKEN".to_owned());
        }
        url.set_query(None);
        url.set_fragment(None);
        let path = url.path().trim_end_matches('/').to_owned();
        let (prefix, project) = match path.rsplit_once("/v1") {
            Some((prefix, "")) => (prefix, None),
            Some((prefix, rest)) if rest.starts_with('/') && !rest[1..].contains('/') => {
                (prefix, Some(rest[1..].to_owned()))
            }
            _ => (path.as_str(), None),
        };
        url.set_path(prefix);
        Ok(Self { base: url, project })
    }
}

/// What opens the service. Deliberately neither `Debug` nor `Display`.
pub(crate) struct Token {
    pub(crate) text: String,
    /// Where it came from, for messages.
    pub(crate) source: String,
}

/// Where a command will ask, and with what.
pub(crate) struct Destination {
    pub(crate) endpoint: Endpoint,
    pub(crate) token: Option<Token>,
    /// Where a token was looked for in vain, for messages.
    pub(crate) looked: String,
}

/// `$XDG_STATE_HOME/karbor`, or `~/.local/state/karbor`.
#[must_use]
pub fn default_state_dir() -> PathBuf {
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(|| PathBuf::from("/var/lib"))
        .join("karbor")
}

/// Is it this machine's own?
pub(crate) fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address = bare.parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    })
}

/// Takes the token of a login and the service that it found, unless another one is named.
pub(crate) fn logged_in(globals: &Globals, login: Login) -> Result<Destination, CliError> {
    let given = globals.endpoint.as_deref().map(given).transpose()?;
    let mut endpoint = given.or(login.endpoint).ok_or_else(|| {
        CliError::new(
            Exit::Unreachable,
            "keystone's catalog has no service of type data-protect for this project",
        )
        .hint(
            "say where it is with --endpoint or KARBOR_ENDPOINT; OS_REGION_NAME and OS_INTERFACE \
             choose among several",
        )
    })?;
    let named = globals.project.clone();
    endpoint.project = named.or(endpoint.project).or(login.project);
    Ok(Destination {
        endpoint,
        token: Some(Token {
            text: login.token,
            source: "keystone (OS_AUTH_URL)".to_owned(),
        }),
        looked: "OS_AUTH_URL".to_owned(),
    })
}

fn given(text: &str) -> Result<Endpoint, CliError> {
    text.parse()
        .map_err(|why| CliError::usage(format!("--endpoint {text}: {why}")))
}

/// Finds the service and the token.
pub(crate) fn locate(globals: &Globals, token: Option<String>) -> Result<Destination, CliError> {
    let state = globals.state_dir.clone().unwrap_or_else(default_state_dir);
    let (mut endpoint, ours) = endpoint(globals, &state)?;
    if let Some(project) = &globals.project {
        endpoint.project = Some(project.clone());
    }
    if endpoint.project.is_none() {
        endpoint.project = Some("default".to_owned());
    }
    let state_token = state.join("token");
    let mut looked = "KARBOR_TOKEN".to_owned();
    let token = match (token, &globals.token_file) {
        (Some(text), _) => Some(Token {
            text,
            source: "KARBOR_TOKEN".to_owned(),
        }),
        (None, Some(file)) => Some(read_token(file)?.ok_or_else(|| {
            CliError::usage(format!("the token file {} does not exist", file.display()))
                .hint("--token-file or KARBOR_TOKEN_FILE names it")
        })?),
        (None, None) if ours => {
            looked = format!("KARBOR_TOKEN and {}", state_token.display());
            read_token(&state_token)?
        }
        (None, None) => None,
    };
    Ok(Destination {
        endpoint,
        token,
        looked,
    })
}

/// The endpoint, and whether it is the state directory's own.
fn endpoint(globals: &Globals, state: &Path) -> Result<(Endpoint, bool), CliError> {
    let file = state.join("endpoint");
    let own = match fs::read_to_string(&file) {
        Ok(text) => Some(text.parse::<Endpoint>().map_err(|why| {
            CliError::usage(format!("{}: {why}", file.display()))
                .hint("`karbor serve` writes it anew when it starts")
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(unreadable(&file, &error))),
    };
    if let Some(text) = &globals.endpoint {
        let given = given(text)?;
        let ours = own.is_some_and(|own| own.is_ok_and(|own| own.base == given.base));
        return Ok((given, ours));
    }
    match own {
        Some(own) => Ok((own?, true)),
        None => Err(CliError::new(
            Exit::Unreachable,
            format!("no service is known: {} does not exist", file.display()),
        )
        .hint(
            "start one with `karbor serve`, or say where it is with --endpoint or KARBOR_ENDPOINT \
             (--state-dir or KARBOR_STATE_DIR if its state is elsewhere)",
        )),
    }
}

fn read_token(file: &Path) -> Result<Option<Token>, CliError> {
    match fs::read_to_string(file) {
        Ok(text) if text.trim().is_empty() => Err(CliError::usage(format!(
            "the token file {} is empty",
            file.display()
        ))),
        Ok(text) => Ok(Some(Token {
            text: text.trim().to_owned(),
            source: file.display().to_string(),
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(file, &error)),
    }
}

fn unreadable(file: &Path, error: &io::Error) -> CliError {
    CliError::new(
        Exit::Refused,
        format!("{} could not be read: {error}", file.display()),
    )
    .hint(
        "run this as the user that runs the service, or ask its operator for a token of your own \
         and put it into KARBOR_TOKEN",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints() {
        for text in [
            "http://127.0.0.1:8799/v1/default",
            "https://backup.example/karbor/v1/p1",
            "http://[::1]:8799",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        let bare: Endpoint = "http://h:1/v1/".parse().unwrap();
        assert_eq!(bare.to_string(), "http://h:1");
    }

    #[test]
    fn refuses_what_is_no_service() {
        for text in ["", "localhost:8799", "ftp://h/", "http://u:p@h/"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn segments_cannot_climb() {
        let endpoint = Endpoint::new("http://h:1", "p").unwrap();
        let url = endpoint.url(&["plans", "../x?y#z"]).unwrap();
        assert_eq!(url.as_str(), "http://h:1/v1/p/plans/..%2Fx%3Fy%23z");
        assert!(endpoint.url(&["plans", ".."]).is_err());
        assert!(endpoint.url(&["plans", ""]).is_err());
    }
}
