//! `karbor-host-mariadb-plugin`: a MariaDB database by way of `mariadb-dump` and `mariadb`.
//!
//! **Protect** streams what `mariadb-dump` prints in one transaction into the snapshot: the tables and sequences with
//! their rows as `<name>.dump.sql`; then triggers, routines and events (`code.sql`) and views (`views.sql`), which no
//! transaction covers on any server; what the database consists of as `database.json` ([`inventory`]); and, if declared,
//! the server's accounts (`accounts.sql`: kept for people, never restored by itself). The snapshot is committed only
//! after the program has ended well and its last line has come ([`dump`]). An account that would not see all of the
//! database is refused ([`rights`]). Tables without transactions are warned of.
//!
//! **Restore** ([`restore`]) fills a database of its own first: MariaDB renames no databases, and no transaction covers
//! statements that make tables. What was there gives way when all is there, by one statement that moves the tables.
//!
//! Passwords reach the programs in memory that has no name ([`client`]).

mod client;
mod dump;
mod inventory;
mod messages;
mod restore;
mod rights;
mod source;

use async_trait::async_trait;
use karbor_plugin::{HookReport, OperationContext, PluginError};
use karbor_vault::{Snapshot, SnapshotWriter};
use serde_json::{Value, json};
use uuid::Uuid;

use self::{
    client::Client,
    inventory::{Inventory, STORED_AS, drawn_defaults},
    messages::some,
    restore::{CODE, MariadbParameters, VIEWS},
    rights::Grants,
    source::{MariadbSource, MariadbTable},
};
use super::{
    applications::ComponentChecks,
    component::{Kind, Restoring, Saved},
    directory::{DirectoryParameters, restore_as_files},
    schemas,
    shared::{Declared, Host},
};

/// MariaDB databases.
pub(crate) struct MariadbKind;

/// The accounts of the server, in the snapshot.
const ACCOUNTS: &str = "accounts.sql";

fn stored_as(name: &str) -> String {
    format!("{name}.dump.sql")
}

#[async_trait]
impl Kind for MariadbKind {
    const PLUGIN: &'static str = "karbor-host-mariadb-plugin";
    const TYPE: &'static str = "Host::MariaDB::Database";
    const TITLE: &'static str = "Host MariaDB Database";

    type Table = MariadbTable;
    type Source = MariadbSource;
    type Parameters = MariadbParameters;

    fn identity(table: &MariadbTable) -> (&str, Option<Uuid>) {
        (&table.name, table.id)
    }

    fn declare(table: MariadbTable, checks: &mut ComponentChecks<'_>) -> MariadbSource {
        MariadbSource::declare(table, checks)
    }

    fn restore_schema() -> Value {
        json!({
            "overwrite": schemas::overwrite(),
            "dry_run": schemas::dry_run(),
            "restore_to": {
                "type": "string", "title": "Restore To", "minLength": 1, "maxLength": 4096,
                "description": "A folder under one of the application's restore roots; the dumps, and accounts if they were kept, are written into <folder>/<application>/<component> there, and no server is asked. Has no effect together with 'database'.",
            },
            "database": {
                "type": "string", "title": "Database", "minLength": 1, "maxLength": 64,
                "description": "Name of a new database to restore into, on the same server. The original one unless given.",
            },
            "keep_missing_definers": {
                "type": "boolean", "title": "Keep Missing Definers", "default": false,
                "description": "Restore views, triggers, routines and events also if accounts with whose rights they run are not on the server: they fail until somebody makes those accounts.",
            },
        })
    }

    async fn place(_: &Host, declared: &Declared) -> Result<Value, PluginError> {
        let source = declared.source::<MariadbSource>()?;
        let inventory = Inventory::read(&Client::new(source), &source.database).await?;
        Ok(json!({
            "database": source.database,
            "server_version": inventory.server_version,
            "charset": inventory.charset,
            "collation": inventory.collation,
        }))
    }

    async fn save(
        _: &Host,
        context: &OperationContext,
        declared: &Declared,
        writer: &mut SnapshotWriter,
    ) -> Result<Saved, PluginError> {
        let source = declared.source::<MariadbSource>()?;
        let client = Client::new(source);
        let database = &source.database;
        if let Some(reason) = Grants::read(&client).await?.unreadable(database) {
            return Err(PluginError::new(reason));
        }
        if let Some(reason) = drawn_defaults(&client, database).await? {
            return Err(PluginError::new(reason));
        }
        let mut inventory = Inventory::read(&client, database).await?;
        if let Some(reason) = inventory.undumpable() {
            return Err(PluginError::new(reason));
        }
        let mut warnings = Vec::new();
        warnings.extend(inventory.torn());
        warnings.extend(inventory.history_left_out());
        let tables = dump::tables(database, &inventory.views, inventory.has_history());
        let name = stored_as(&declared.component.name);
        let mut dumps = vec![(name, tables), (CODE.to_owned(), dump::code(database))];
        if !inventory.views.is_empty() {
            dumps.push((VIEWS.to_owned(), dump::views(database, &inventory.views)));
        }
        if source.accounts {
            dumps.push((ACCOUNTS.to_owned(), vec!["--system=users".to_owned()]));
        }
        let (mut longest, mut made) = (0, None);
        for (name, arguments) in dumps {
            let take = async |mut output| {
                let added = writer.add_stream(&name, &mut output).await;
                (output, added)
            };
            let (_, ended) = dump::dump(&client, &arguments, &context.cancel, take).await?;
            warnings.extend(ended.said);
            longest = longest.max(ended.longest);
            // The first is that of the tables; others may have such words in the text of a routine.
            made.get_or_insert(ended.made);
        }
        warnings.extend(dump::too_long(&client, longest).await?);
        // What was dropped meanwhile, e.g. an event whose time was over, may be in no dump.
        inventory.keep_what_is_in(&Inventory::read(&client, database).await?);
        let tables = inventory.tables.iter().map(|table| &table.name);
        let made = made.unwrap_or_default();
        let lacking: Vec<_> = tables.filter(|name| !made.contains(*name)).collect();
        if !lacking.is_empty() {
            return Err(PluginError::new(format!(
                "mariadb-dump ended well and left out tables: {}: protect again, and if it stays so, have a look at that program",
                some(&lacking)
            )));
        }
        let inventory = json!(inventory).to_string();
        writer.add_stream(STORED_AS, inventory.as_bytes()).await?;
        Ok(Saved {
            warnings,
            left_out: None,
        })
    }

    fn item(_: &Snapshot, name: &str) -> Result<String, PluginError> {
        Ok(stored_as(name))
    }

    async fn restore(run: &Restoring<'_, MariadbParameters>) -> Result<HookReport, PluginError> {
        let parameters = &run.parameters;
        if parameters.restore_to.is_none() || parameters.database.is_some() {
            return restore::restore(run).await;
        }
        // The dumps and `database.json`, as they are in the snapshot. No server is asked.
        let files = DirectoryParameters {
            overwrite: parameters.overwrite,
            dry_run: parameters.dry_run,
            restore_to: parameters.restore_to.clone(),
            delete_extra: false,
        };
        restore_as_files(run, files).await
    }

    async fn keep_restore(
        host: &Host,
        context: &OperationContext,
    ) -> Result<Vec<String>, PluginError> {
        restore::keep(host, context).await
    }

    async fn discard_restore(host: &Host, context: &OperationContext) -> Result<(), PluginError> {
        restore::discard(host, context).await
    }
}
