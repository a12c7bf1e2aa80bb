//! `karbor status upgrade check`: is everything there that a start needs, and will it be taken over?
//! Exit codes and table are those of the tools that every OpenStack service has for it.

use std::{
    collections::BTreeSet, fmt::Write, os::unix::fs::PermissionsExt, process::ExitCode, sync::Arc,
    time::Duration,
};

use clap::{Args, Subcommand};
use karbor_db::{Db, ListQuery, RunViews};
use karbor_model::{OperationLogStatus, OperationType};
use karbor_plugin::{Bank, BankKey, ListRequest};
use karbor_protection::{
    BankRole::{Bank as FirstBank, CopyBank},
    MasterKey, Provider, Providers,
};

use crate::{
    configuration::print,
    configured::Configured,
    settings::{self, ConfigFiles, Loaded, Sources},
};

type Failure = Box<dyn std::error::Error>;

/// The width of the table's text.
const WIDTH: usize = 60;

const EXIT_CODES: &str = "\
Exit codes:
  0  every check succeeded
  1  something should be looked at
  2  something must be mended first
255  the checks themselves could not be made";

/// `karbor status`
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    pub(crate) files: ConfigFiles,
    #[command(subcommand)]
    command: StatusCommand,
}

/// `karbor status …`
#[derive(Debug, Subcommand)]
enum StatusCommand {
    /// Before and after an upgrade
    #[command(subcommand)]
    Upgrade(UpgradeCommand),
}

/// `karbor status upgrade …`
#[derive(Debug, Subcommand)]
enum UpgradeCommand {
    /// Check that the service can start on what is there
    #[command(after_help = EXIT_CODES)]
    Check,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Code {
    Success = 0,
    Warning = 1,
    Failure = 2,
}

/// What a check found; details say what to do.
#[derive(Debug, Clone)]
struct Finding {
    check: &'static str,
    code: Code,
    details: Option<String>,
}

impl Finding {
    fn new(check: &'static str, code: Code, details: impl Into<String>) -> Self {
        Self {
            check,
            code,
            details: Some(details.into()),
        }
    }

    fn success(check: &'static str) -> Self {
        Self {
            check,
            code: Code::Success,
            details: None,
        }
    }
}

impl StatusArguments {
    pub(crate) fn run(&self, place: &Sources<'_>) -> ExitCode {
        let StatusCommand::Upgrade(UpgradeCommand::Check) = self.command;
        let checked = crate::terminal::runtime().map_err(Failure::from);
        let checked = checked.and_then(|runtime| {
            let checked = runtime.block_on(check(place));
            // A thread may hang in a file system whose server is down.
            runtime.shutdown_background();
            checked
        });
        match checked {
            Ok(findings) => {
                print(&table(&findings));
                let worst = findings.iter().map(|finding| finding.code).max();
                ExitCode::from(worst.unwrap_or(Code::Success) as u8)
            }
            Err(error) => {
                crate::terminal::failed(&error);
                ExitCode::from(255)
            }
        }
    }
}

async fn check(place: &Sources<'_>) -> Result<Vec<Finding>, Failure> {
    let loaded = place.read(&[])?;
    let state = state_directory(place, &loaded);
    if matches!(state.code, Code::Failure) {
        // Whatever else lies there is not obeyed.
        return Ok(vec![state]);
    }
    let mut findings = vec![
        configuration(&loaded)?,
        policies(&loaded)?,
        database(&loaded).await?,
        state,
    ];
    match Configured::load(&loaded.state, &loaded.config).await {
        Ok(configured) => {
            findings.push(match configured.remarks.as_slice() {
                [] => Finding::success("Providers"),
                remarks => Finding::new("Providers", Code::Warning, remarks.join("; ")),
            });
            findings.push(banks(&loaded, &configured.providers).await?);
            findings.push(master_key(&loaded, &configured.providers).await);
        }
        Err(error) => findings.push(Finding::new("Providers", Code::Failure, error.to_string())),
    }
    Ok(findings)
}

fn configuration(Loaded { config, .. }: &Loaded) -> Result<Finding, Failure> {
    const CHECK: &str = "Configuration";
    if let Err(error) = karbor_api::Settings::read(config) {
        return Ok(Finding::new(CHECK, Code::Failure, error.to_string()));
    }
    let mut remarks = settings::disagreements(config)?;
    let unknown = config.unknown().iter();
    remarks.extend(unknown.map(|option| format!("unknown option {option}")));
    Ok(match remarks.as_slice() {
        [] => Finding::success(CHECK),
        remarks => Finding::new(CHECK, Code::Warning, remarks.join("; ")),
    })
}

fn policies(Loaded { state, config }: &Loaded) -> Result<Finding, Failure> {
    const CHECK: &str = "Policies";
    Ok(match settings::policy_files(config, state)?.load() {
        Ok(_) => Finding::success(CHECK),
        Err(error) => Finding::new(CHECK, Code::Failure, error.to_string()),
    })
}

async fn database(Loaded { state, config }: &Loaded) -> Result<Finding, Failure> {
    const CHECK: &str = "Database schema";
    let url = settings::database(config, state)?;
    Ok(match Db::inspect(&url).await {
        Ok(None) => Finding::new(
            CHECK,
            Code::Warning,
            "no database yet: the first start makes it",
        ),
        Ok(Some(schema)) if schema.pending.is_empty() => Finding::success(CHECK),
        Ok(Some(schema)) => {
            let taken_over = match (schema.applied.is_empty(), schema.original) {
                (true, Some(_)) => "OpenStack Karbor's database, which will be taken over in place",
                _ => "the schema will be brought up to date",
            };
            let told = format!(
                "{taken_over}: by `karbor manage db sync` or the next start. Copy it first"
            );
            Finding::new(CHECK, Code::Warning, told)
        }
        Err(error) => Finding::new(CHECK, Code::Failure, error.to_string()),
    })
}

fn state_directory(place: &Sources<'_>, Loaded { state, .. }: &Loaded) -> Finding {
    const CHECK: &str = "State directory";
    let path = state.path().display();
    if let Err(error) = place.closed(state) {
        return Finding::new(CHECK, Code::Failure, error.to_string());
    }
    match std::fs::metadata(state.path()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let told = format!("{path} is not there yet: the first start makes it");
            Finding::new(CHECK, Code::Warning, told)
        }
        Err(error) => Finding::new(CHECK, Code::Failure, format!("{path}: {error}")),
        Ok(metadata) => match metadata.permissions().mode() {
            mode if mode & 0o077 != 0 => {
                let told = format!("others may look into {path}; run: chmod 700 {path}");
                Finding::new(CHECK, Code::Warning, told)
            }
            _ => Finding::success(CHECK),
        },
    }
}

/// How long the command waits for a bank.
const PATIENCE: Duration = Duration::from_secs(10);

async fn banks(
    Loaded { state, config }: &Loaded,
    providers: &Providers,
) -> Result<Finding, Failure> {
    let request = ListRequest {
        limit: Some(1),
        ..ListRequest::default()
    };
    let mut broken = Vec::new();
    for provider in providers.all() {
        for (which, home) in ["bank", "copy bank"].into_iter().zip(provider.homes()) {
            let name = &provider.record().name;
            match tokio::time::timeout(PATIENCE, home.bank().list(&request)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => broken.push(format!("the {which} of '{name}': {error}")),
                Err(_) => broken.push(format!(
                    "the {which} of '{name}' has not answered for {} seconds: look whether its disk or file server is in order",
                    PATIENCE.as_secs()
                )),
            }
        }
    }
    let url = settings::database(config, state)?;
    let schema = Db::inspect(&url).await.ok().flatten();
    if schema.is_some_and(|schema| schema.pending.is_empty()) {
        let db = Db::connect(&url).await?;
        broken.extend(emptied(&db.run_views(), providers).await?);
        db.close().await;
    }
    Ok(match broken.as_slice() {
        [] => Finding::success("Banks"),
        broken => Finding::new("Banks", Code::Failure, broken.join("; ")),
    })
}

async fn master_key(Loaded { state, .. }: &Loaded, providers: &Providers) -> Finding {
    const CHECK: &str = "Master key";
    let path = state.join("master.key");
    if path.exists() {
        return match MasterKey::load(&path) {
            Ok(_) => Finding::success(CHECK),
            Err(error) => Finding::new(CHECK, Code::Failure, error.to_string()),
        };
    }
    match repositories(providers).await {
        Ok(false) => Finding::new(CHECK, Code::Warning, "no key yet: the first start makes it"),
        Ok(true) => Finding::new(
            CHECK,
            Code::Failure,
            format!(
                "{} is missing, and banks hold repositories that only it opens: put it back, or run \
                 `karbor manage key import`",
                path.display()
            ),
        ),
        Err(error) => Finding::new(CHECK, Code::Failure, error.to_string()),
    }
}

/// Banks that hold no checkpoint although the database knows some of theirs: what lies under a mount
/// point whose file system is not mounted looks like that. A bank that cannot be read is told elsewhere.
pub(crate) async fn emptied(
    runs: &RunViews,
    providers: &Providers,
) -> Result<Vec<String>, Failure> {
    let mut told = Vec::new();
    for provider in providers.all() {
        let name = &provider.record().name;
        let is_empty = async |place| match provider.home(place) {
            Ok(home) => holds(home.bank(), "checkpoints")
                .await
                .is_ok_and(|any| !any),
            Err(_) => false,
        };
        let known = runs.holdings(provider.record().id).await?.len();
        if known > 0 && is_empty(FirstBank).await {
            told.push(format!(
                "the bank of '{name}' is empty, but {known} checkpoints were made in it: is its file system \
                 mounted? Until it is, new checkpoints go elsewhere than you think"
            ));
        }
        if is_empty(CopyBank).await {
            let known = copies(runs, provider).await?;
            if known > 0 {
                told.push(format!(
                    "the copy bank of '{name}' is empty, but {known} copies were made in it: is its file \
                     system mounted? Until it is, all is copied anew, elsewhere than you think"
                ));
            }
        }
    }
    Ok(told)
}

/// How many copies were made and not deleted, as the operation log knows, and are not in the bank: a copy
/// bank that became the bank has nothing to miss in the next.
async fn copies(runs: &RunViews, provider: &Provider) -> Result<usize, Failure> {
    let query = |operation: OperationType| ListQuery {
        filters: vec![
            ("provider_id".to_owned(), provider.record().id.to_string()),
            ("operation_type".to_owned(), operation.to_string()),
            (
                "status".to_owned(),
                OperationLogStatus::Success.after(operation).to_owned(),
            ),
        ],
        ..ListQuery::of_every_project()
    };
    let ids = async |operation| -> Result<BTreeSet<_>, Failure> {
        let logs = runs.operation_log_list(&query(operation)).await?;
        Ok(logs.iter().filter_map(|log| log.checkpoint_id).collect())
    };
    let deleted = ids(OperationType::Delete).await?;
    let bank = provider.home(FirstBank)?.checkpoints();
    let mut missed = 0;
    let copies = ids(OperationType::Copy).await?;
    for copy in copies.difference(&deleted) {
        missed += usize::from(!bank.has(*copy).await.unwrap_or_default());
    }
    Ok(missed)
}

/// Does any bank hold a repository?
pub(crate) async fn repositories(providers: &Providers) -> Result<bool, Failure> {
    for provider in providers.all() {
        for home in provider.homes() {
            if holds(home.bank(), &format!("vaults/{}", provider.record().id)).await? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Is anything in a bank at a place?
async fn holds(bank: &Arc<dyn Bank>, place: &str) -> Result<bool, Failure> {
    let request = ListRequest {
        prefix: Some(BankKey::parse(place)?),
        limit: Some(1),
        ..ListRequest::default()
    };
    Ok(!bank.list(&request).await?.is_empty())
}

/// A box for each check.
fn table(findings: &[Finding]) -> String {
    let mut blocks = vec![vec!["Upgrade Check Results".to_owned()]];
    for finding in findings {
        let details = finding.details.as_deref().unwrap_or("None");
        let mut lines = vec![
            format!("Check: {}", finding.check),
            format!("Result: {:?}", finding.code),
        ];
        lines.extend(wrapped(&format!("Details: {details}")));
        blocks.push(lines);
    }
    let width = blocks
        .iter()
        .flatten()
        .map(|line| line.chars().count())
        .max();
    let width = width.unwrap_or(WIDTH);
    let rule = format!("+{}+", "-".repeat(width + 2));
    let mut out = rule.clone();
    for line in blocks
        .iter()
        .flat_map(|block| block.iter().map(Some).chain([None]))
    {
        // Writing into a String cannot fail.
        let _ = match line {
            Some(line) => write!(out, "\n| {line:<width$} |"),
            None => write!(out, "\n{rule}"),
        };
    }
    out
}

/// Lines of at most [`WIDTH`] characters, where words allow; those after the first are indented.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.trim().is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(std::mem::replace(&mut line, " ".to_owned()));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_a_box_for_each_check() {
        let findings = [
            Finding::success("Banks"),
            Finding::new("Master key", Code::Failure, "word ".repeat(20)),
        ];
        let table = table(&findings);
        assert!(table.starts_with("+---"), "{table}");
        let widths: Vec<_> = table.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
        for line in [
            "| Check: Banks",
            "| Result: Failure",
            "| Details: None",
            "|   word",
        ] {
            assert!(table.contains(line), "{table}");
        }
    }

    #[test]
    fn a_word_that_is_too_long_stays_whole() {
        let long = "x".repeat(100);
        assert_eq!(wrapped(&long), [long]);
    }
}
