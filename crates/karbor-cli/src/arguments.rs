//! Options that every command takes, and the forms that options are written in.

use std::{fs, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum, builder::PossibleValuesParser};
use karbor_model::State;
use serde_json::Value;

use crate::error::CliError;

/// Where the service is, who asks, and how answers are printed.
#[derive(Debug, Clone, Default, Args)]
pub struct Globals {
    /// Where the service answers, e.g. http://127.0.0.1:8799 or with /v1/<project> at the end
    /// [default: what the state directory's `endpoint` file says]
    #[arg(
        long,
        global = true,
        env = "KARBOR_ENDPOINT",
        value_name = "URL",
        help_heading = "Service"
    )]
    pub endpoint: Option<String>,
    /// The project to act in
    #[arg(
        long,
        global = true,
        env = "KARBOR_PROJECT",
        value_name = "ID",
        help_heading = "Service"
    )]
    pub project: Option<String>,
    /// File that holds the token, if KARBOR_TOKEN does not [default: `token` in the state directory]
    #[arg(
        long,
        global = true,
        env = "KARBOR_TOKEN_FILE",
        value_name = "FILE",
        help_heading = "Service"
    )]
    pub token_file: Option<PathBuf>,
    /// The state directory of `karbor serve` [default: ~/.local/state/karbor]
    #[arg(
        long,
        global = true,
        env = "KARBOR_STATE_DIR",
        value_name = "DIR",
        help_heading = "Service"
    )]
    pub state_dir: Option<PathBuf>,
    /// Certificate authority (PEM) to trust besides the system's
    #[arg(
        long,
        global = true,
        env = "KARBOR_CA_FILE",
        value_name = "FILE",
        help_heading = "Service"
    )]
    pub ca_file: Option<PathBuf>,
    /// How to print answers
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        help_heading = "Output"
    )]
    pub format: Format,
    /// Print only this column; may be repeated (tables and values)
    #[arg(
        short,
        long = "column",
        global = true,
        value_name = "NAME",
        help_heading = "Output"
    )]
    pub columns: Vec<String>,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people.
    #[default]
    Table,
    /// What the API answered.
    Json,
    /// The bare values, tab-separated, for shells.
    Value,
}

/// Options of every listing.
#[derive(Debug, Clone, Default, Args)]
pub struct ListOptions {
    /// At most this many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Begin after the one with this id
    #[arg(long, value_name = "ID")]
    pub(crate) marker: Option<String>,
    /// Order, e.g. created_at:desc; may be repeated
    #[arg(long, value_name = "KEY[:asc|desc]")]
    pub(crate) sort: Vec<String>,
    /// Of every project (administrators)
    #[arg(long)]
    pub(crate) all_projects: bool,
}

impl ListOptions {
    /// As a query; the limit is the client's own affair.
    pub(crate) fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        if let Some(marker) = &self.marker {
            query.push(("marker", marker.clone()));
        }
        if !self.sort.is_empty() {
            query.push(("sort", self.sort.join(",")));
        }
        if self.all_projects {
            query.push(("all_tenants", "true".to_owned()));
        }
        query
    }
}

impl ListOptions {
    /// Refuses an order by anything but `keys`, for a listing that the service does not check.
    pub(crate) fn sorts_by(&self, keys: &[&str]) -> Result<(), CliError> {
        let given = self.sort.iter().flat_map(|sort| sort.split(','));
        for sort in given.map(str::trim) {
            let (key, direction) = sort.split_once(':').unwrap_or((sort, "desc"));
            if !keys.contains(&key) || !["asc", "desc"].contains(&direction) {
                return Err(CliError::usage(format!("--sort {sort}: no such order"))
                    .hint(format!("give {}, with :asc or :desc", keys.join(" or "))));
            }
        }
        Ok(())
    }
}

/// The states that a record can be in, as values of an option.
pub(crate) fn states<S: State>(all: &[S]) -> PossibleValuesParser {
    PossibleValuesParser::new(all.iter().map(|state| state.as_str()))
}

/// Options of everything that takes its time.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct WaitOptions {
    /// Wait until it ended, and end as it ended
    #[arg(long)]
    pub(crate) wait: bool,
    /// Give up waiting after this long, e.g. 90s, 10m, 2h (with --wait)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

/// `90`, `90s`, `10m`, `2h`, `1d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err("write it like 90s, 10m or 2h".to_owned()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .map(Duration::from_secs)
        .ok_or_else(|| "write it like 90s, 10m or 2h".to_owned())
}

/// JSON given as text or as `@file`; must be an object.
pub(crate) fn json_object(option: &str, text: &str) -> Result<Value, CliError> {
    let (from, text) = match text.strip_prefix('@') {
        Some(file) => {
            let content = fs::read_to_string(file).map_err(|error| {
                CliError::usage(format!("{option}: {file} could not be read: {error}"))
            })?;
            (file, content)
        }
        None => ("the text", text.to_owned()),
    };
    match serde_json::from_str(&text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(
            CliError::usage(format!("{option}: {from} is JSON, but not an object"))
                .hint("write it like '{\"<type>\": {\"<name>\": <value>}}'"),
        ),
        Err(error) => Err(
            CliError::usage(format!("{option}: {from} is not JSON: {error}"))
                .hint("write it like '{\"<type>\": {\"<name>\": <value>}}', or @file"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "m", "1w", "-1s", "1.5h", "99999999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
