//! `karbor manage`: keys, tokens and the database of a state directory, without a running service.

use std::io::Read;

use clap::Subcommand;
use karbor_db::Db;
use karbor_model::ProviderId;
use karbor_protection::MasterKey;

use crate::{configuration::print, settings, state::StateDir};

type Failure = Box<dyn std::error::Error>;

/// `karbor manage …`
#[derive(Debug, Subcommand)]
pub(crate) enum ManageCommand {
    /// The master key, from which the passwords of all repositories come
    #[command(subcommand)]
    Key(KeyCommand),
    /// Tokens that open the API
    #[command(subcommand)]
    Token(TokenCommand),
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

impl ManageCommand {
    pub(crate) fn run(self, state: &StateDir) -> Result<(), Failure> {
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
                        .vault_password(provider, &project)
                        .expose(),
                );
            }
            Self::Token(command) => crate::command::runtime()?.block_on(token(command, state))?,
        }
        Ok(())
    }
}

async fn token(command: TokenCommand, state: &StateDir) -> Result<(), Failure> {
    let config = settings::load(state, &[])?;
    let db = Db::connect(&settings::database(&config, state)?).await?;
    db.migrate().await?;
    match command {
        TokenCommand::Create { user, of, admin } => {
            print(
                &karbor_api::create_token(&db, &user, &of, admin)
                    .await?
                    .secret,
            );
        }
        TokenCommand::List => {
            for token in karbor_api::list_tokens(&db).await? {
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
            let token = karbor_api::revoke_token(&db, &hash).await?;
            print(&format!(
                "revoked the token of {} in {}",
                token.user_id, token.project_id
            ));
        }
    }
    Ok(())
}
