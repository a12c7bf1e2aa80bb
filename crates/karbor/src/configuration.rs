//! `karbor config`: check, show or explain the configuration.

use std::io::Write as _;

use clap::{Args, Subcommand};
use karbor_db::Db;
use karbor_manager::config::{Places, reference};
use karbor_operationengine::ScheduleLimits;
use karbor_plugins::applications::{Applications, Severity};
use tokio::runtime::Runtime;

use crate::{
    configured::Configured,
    original, providers,
    settings::{self, ConfigFiles, Loaded, Sources},
};

/// `karbor config`
#[derive(Debug, Args)]
pub(crate) struct ConfigArguments {
    #[command(flatten)]
    pub(crate) files: ConfigFiles,
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

/// `karbor config …`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check configuration, providers and applications, and say what to mend
    Validate,
    /// Show every option's value and where it came from, secrets hidden
    Show,
    /// Print the reference of all options, in Markdown
    Reference,
    /// Print every policy with its default: the text of a policy.yaml
    Policy,
    /// Print the OpenAPI document of the REST API
    Openapi,
}

impl ConfigCommand {
    pub(crate) fn run(&self, place: &Sources<'_>) -> Result<(), Box<dyn std::error::Error>> {
        match self {
            Self::Validate => validate(place),
            Self::Show => {
                let config = place.load(&[])?.config;
                print(&serde_json::to_string_pretty(&config.effective())?);
                Ok(())
            }
            Self::Reference => {
                let known = reference(&settings::options(), Places::Anywhere);
                let of_providers = reference(&providers::options()?, Places::Files);
                let idle = original::idle_reference();
                let all = format!("{known}{idle}\n{PROVIDERS}{of_providers}");
                print(all.trim_end());
                Ok(())
            }
            Self::Policy => {
                print(karbor_api::policy::sample().trim_end());
                Ok(())
            }
            Self::Openapi => {
                print(&serde_json::to_string_pretty(&karbor_api::openapi())?);
                Ok(())
            }
        }
    }
}

/// What is said of the options of providers' files before they are listed.
const PROVIDERS: &str = "\
# Providers' files

A file in `provider_config_dir` declares one provider: what it is in the section `[provider]`, and the options of the plugins
that it names in sections of theirs. A section of the copy bank is called as that of the bank, with `copy.` before the
name: `[copy.bank]`.

";

fn validate(place: &Sources<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = crate::terminal::runtime()?;
    let validated = validate_on(&runtime, place);
    // A thread may hang in a file system whose server is down.
    runtime.shutdown_background();
    validated
}

fn validate_on(runtime: &Runtime, place: &Sources<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let Loaded { state, config } = place.load(&[])?;
    if !state.path().is_dir() {
        return Err(format!("there is no state directory {}", state.path().display()).into());
    }
    karbor_api::Settings::read(&config)?;
    settings::policy_files(&config, &state)?.load()?;
    for idle in config.idle() {
        print(&format!("note: {idle}"));
    }
    for unknown in config.unknown() {
        print(&format!(
            "warning: unknown option {unknown}: it has no effect"
        ));
    }
    let mut errors = settings::disagreements(&config)?;
    errors.extend(
        settings::log_filter(&config)
            .err()
            .map(|error| error.to_string()),
    );
    let limits = ScheduleLimits::from_config(&config);
    errors.extend(limits.err().map(|error| error.to_string()));
    let Configured {
        providers,
        surroundings,
        remarks,
        ..
    } = runtime.block_on(Configured::load(&state, &config))?;
    for remark in remarks {
        print(&format!("warning: {remark}"));
    }
    let url = settings::database(&config, &state)?;
    errors.extend(
        runtime
            .block_on(Db::inspect(&url))
            .err()
            .map(|error| error.to_string()),
    );
    let folder = settings::folder(&config, &state, "application_config_dir")?;
    let loaded = Applications::load(&folder);
    let (count, problems) = match loaded {
        Ok(applications) => {
            let mut problems: Vec<_> = applications.problems().cloned().collect();
            problems.extend(runtime.block_on(applications.validate(&surroundings)));
            (applications.all().len(), problems)
        }
        Err(problem) => (0, vec![problem]),
    };
    for error in &errors {
        print(&format!("error: {error}"));
    }
    for problem in &problems {
        let severity = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        print(&format!("{severity}: {problem}"));
    }
    print(&format!(
        "{}, {} in {}",
        counted(providers.all().len(), "provider"),
        counted(count, "application"),
        folder.display()
    ));
    let severe = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .count();
    match errors.len() + severe {
        0 => Ok(()),
        errors => Err(format!("{errors} to mend").into()),
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The command's answer. A program that reads it may have seen enough and gone (`| head`).
pub(crate) fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
