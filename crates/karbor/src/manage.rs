//! `karbor manage`: keys, tokens and the database of a state directory, without a running service.

use std::io::Read;

use chrono::{TimeDelta, Utc};
use clap::{Args, Subcommand};
use karbor_db::Db;
use karbor_manager::{Config, ServiceOptions};
use karbor_model::ProviderId;
use karbor_protection::{MasterKey, QuotaRecount, recount_quotas};
use serde_json::Value;

use crate::{
    configuration::print,
    configured::Configured,
    settings::{self, ConfigFiles, Loaded, Sources},
    state::StateDir,
};

type Failure = Box<dyn std::error::Error>;

/// `karbor manage`
#[derive(Debug, Args)]
pub(crate) struct ManageArguments {
    #[command(flatten)]
    pub(crate) files: ConfigFiles,
    #[command(subcommand)]
    pub(crate) command: ManageCommand,
}

/// `karbor manage …`
#[derive(Debug, Subcommand)]
pub(crate) enum ManageCommand {
    /// The master key, from which the passwords of all repositories come
    #[command(subcommand)]
    Key(KeyCommand),
    /// Tokens that open the API
    #[command(subcommand)]
    Token(TokenCommand),
    /// The database
    #[command(subcommand)]
    Db(DbCommand),
    /// What counts against quotas
    #[command(subcommand)]
    Quota(QuotaCommand),
    /// The services, as the database knows them
    #[command(subcommand)]
    Service(ServiceCommand),
    /// What is configured
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the password of a project's repository, for use with restic
    VaultPassword {
        /// Id of the provider
        provider: ProviderId,
        /// Id of the project
        project: String,
    },
}

/// `karbor manage key …`
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Print the recovery key: print it on paper and lock it away
    Show,
    /// Read a recovery key from standard input and make the key file from it
    Import,
}

/// `karbor manage token …`
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it: it is shown this once
    Create {
        /// Whose it is; for the log
        user: String,
        /// The project it opens
        #[arg(long = "for-project", value_name = "ID", default_value = "default")]
        of: String,
        /// May act on every project
        #[arg(long)]
        admin: bool,
    },
    /// List tokens by their hashes
    List,
    /// Revoke the token whose hash begins with this
    Revoke {
        /// The beginning of its hash
        hash: String,
    },
}

/// `karbor manage db …`
#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Make the database, or bring its schema up to date
    Sync,
    /// Print the schema's version
    Version,
    /// Remove for good what was deleted more than this many days ago
    Purge {
        /// Days
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        age_in_days: u32,
        /// Only count
        #[arg(long)]
        dry_run: bool,
    },
}

/// `karbor manage quota …`
#[derive(Debug, Subcommand)]
pub(crate) enum QuotaCommand {
    /// Count anew what the banks hold, and make what counts against quotas agree with it
    UsageFix,
}

/// `karbor manage service …`
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// List the services: :-) is up, XXX is down
    List,
}

/// `karbor manage config …`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every option's value, or that of one; secrets are hidden
    List {
        /// An option, e.g. osapi_max_limit or database.connection
        param: Option<String>,
    },
}

impl ManageCommand {
    pub(crate) fn run(&self, place: &Sources<'_>) -> Result<(), Failure> {
        let state = place.state()?;
        let key_file = state.join("master.key");
        match self {
            Self::Key(KeyCommand::Show) => {
                print(MasterKey::load(&key_file)?.recovery_key().expose())
            }
            Self::Key(KeyCommand::Import) => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text)?;
                let key = MasterKey::from_recovery_key(&text)
                    .map_err(|why| format!("not a recovery key: {why}"))?;
                state.create()?;
                key.save(&key_file)?;
            }
            Self::VaultPassword { provider, project } => {
                print(
                    MasterKey::load(&key_file)?
                        .vault_password(*provider, project)
                        .expose(),
                );
            }
            Self::Token(command) => crate::terminal::runtime()?.block_on(token(command, place))?,
            Self::Db(command) => crate::terminal::runtime()?.block_on(database(command, place))?,
            Self::Service(ServiceCommand::List) => {
                crate::terminal::runtime()?.block_on(services(place))?;
            }
            Self::Quota(QuotaCommand::UsageFix) => {
                crate::terminal::runtime()?.block_on(usage_fix(place))?;
            }
            Self::Config(ConfigCommand::List { param }) => {
                config_list(&place.load(&[])?.config, param.as_deref())?;
            }
        }
        Ok(())
    }
}

async fn token(command: &TokenCommand, place: &Sources<'_>) -> Result<(), Failure> {
    let Loaded { state, config } = place.load(&[])?;
    let db = Db::connect(&settings::database(&config, &state)?).await?;
    db.migrate().await?;
    let tokens = db.tokens();
    match command {
        TokenCommand::Create { user, of, admin } => {
            print(
                &karbor_api::create_token(&tokens, user, of, *admin)
                    .await?
                    .secret,
            );
        }
        TokenCommand::List => {
            for token in karbor_api::list_tokens(&tokens).await? {
                let role = if token.is_admin { "admin" } else { "member" };
                print(&format!(
                    "{}  {role}  {}  {}",
                    &token.hash[..12],
                    token.project_id,
                    token.user_id
                ));
            }
        }
        TokenCommand::Revoke { hash } => {
            let token = karbor_api::revoke_token(&tokens, hash).await?;
            print(&format!(
                "revoked the token of {} in {}",
                token.user_id, token.project_id
            ));
        }
    }
    Ok(())
}

/// The database, which must be there and up to date.
async fn open(config: &Config, state: &StateDir) -> Result<Db, Failure> {
    let url = settings::database(config, state)?;
    match Db::inspect(&url).await? {
        Some(schema) if schema.pending.is_empty() => Ok(Db::connect(&url).await?),
        Some(_) => Err("the schema is not up to date; run `karbor manage db sync` first".into()),
        None => Err("there is no database yet; `karbor manage db sync` makes it".into()),
    }
}

async fn database(command: &DbCommand, place: &Sources<'_>) -> Result<(), Failure> {
    let Loaded { state, config } = place.load(&[])?;
    match command {
        DbCommand::Sync => {
            if !config.is_set("database", "connection")? {
                state.create()?;
            }
            let db = Db::connect(&settings::database(&config, &state)?).await?;
            db.migrate().await?;
        }
        DbCommand::Version => {
            let schema = Db::inspect(&settings::database(&config, &state)?).await?;
            let schema =
                schema.ok_or("there is no database yet; `karbor manage db sync` makes it")?;
            print(schema.applied.last().map_or("none", String::as_str));
            if !schema.pending.is_empty() {
                print(&format!("pending: {}", schema.pending.join(", ")));
            }
            if let Some(original) = schema.original {
                print(&format!("OpenStack Karbor's tables: {original}"));
            }
        }
        DbCommand::Purge {
            age_in_days,
            dry_run,
        } => {
            let db = open(&config, &state).await?;
            let age = TimeDelta::days(i64::from(*age_in_days));
            let purged = db.purge(age, *dry_run).await?;
            for (table, count) in purged.iter().filter(|(_, count)| *count > 0) {
                print(&format!("{count:>8} {table}"));
            }
            let total: u64 = purged.iter().map(|(_, count)| count).sum();
            let done = if *dry_run { "would go" } else { "gone" };
            print(&format!("{total:>8} rows {done}"));
        }
    }
    Ok(())
}

async fn usage_fix(place: &Sources<'_>) -> Result<(), Failure> {
    let Loaded { state, config } = place.load(&[])?;
    let db = open(&config, &state).await?;
    let providers = Configured::load(&state, &config).await?.providers;
    let QuotaRecount {
        added,
        removed,
        unread,
    } = recount_quotas(&db.runs(), &providers).await?;
    print(&format!(
        "{added} checkpoints were not counted and are now; {removed} were counted and are gone"
    ));
    if unread.is_empty() {
        return Ok(());
    }
    let told: Vec<_> = unread
        .iter()
        .map(|(provider, reason)| format!("{provider}: {reason}"))
        .collect();
    Err(format!(
        "banks that could not be read keep their count: {}",
        told.join("; ")
    )
    .into())
}

async fn services(place: &Sources<'_>) -> Result<(), Failure> {
    let Loaded { state, config } = place.load(&[])?;
    let db = open(&config, &state).await?;
    let (options, _) = ServiceOptions::from_config(&config)?.checked();
    let line = |cells: [&str; 5]| {
        let [binary, host, status, up, updated] = cells;
        let line = format!("{binary:<24} {host:<36} {status:<10} {up:<5} {updated}");
        print(line.trim_end());
    };
    line(["Binary", "Host", "Status", "State", "Updated At"]);
    for service in db.service_views().list().await? {
        let beat = service.updated_at.unwrap_or(service.created_at);
        let up = options.is_up(&service, Utc::now());
        line([
            &service.binary,
            &service.host,
            if service.disabled {
                "disabled"
            } else {
                "enabled"
            },
            if up { ":-)" } else { "XXX" },
            &beat.format("%Y-%m-%d %H:%M:%S").to_string(),
        ]);
    }
    Ok(())
}

/// `DEFAULT`'s options by their names, others as `group.name`.
fn config_list(config: &Config, wanted: Option<&str>) -> Result<(), Failure> {
    let effective = config.effective();
    let mut found = false;
    for (group, options) in effective.as_object().into_iter().flatten() {
        for (name, option) in options.as_object().into_iter().flatten() {
            let key = match group.as_str() {
                "DEFAULT" => name.clone(),
                group => format!("{group}.{name}"),
            };
            if wanted.is_some_and(|wanted| wanted.trim() != key) {
                continue;
            }
            found = true;
            let value = match &option["value"] {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            print(format!("{key} = {value}").trim_end());
        }
    }
    match wanted {
        Some(wanted) if !found => Err(format!(
            "there is no option '{wanted}'; options outside of [DEFAULT] are written group.name"
        )
        .into()),
        _ => Ok(()),
    }
}
