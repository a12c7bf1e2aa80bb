//! `karbor-host-postgresql-plugin`: a PostgreSQL database by way of `pg_dump` and `pg_restore`.
//!
//! **Protect** streams `pg_dump`'s custom format, uncompressed so that the vault can find what it
//! has already, as `<name>.dump`; what the database is besides its contents as `database.json`
//! ([`database`]); and, if declared, `pg_dumpall --globals-only` as `globals.sql` (roles and tablespaces:
//! kept for people, never restored by itself, since it changes the whole server). The snapshot is
//! committed only after the program has ended well.
//!
//! **Restore** goes into the declared database or a new one on the declared server. A database that is
//! there and has tables is only overwritten when asked; one by another name than the declared must not
//! exist at all, since it could belong to anybody. `if-changed` does not compare: a database always counts
//! as changed.
//!
//! * **A database that a restore makes** is made under a name of the operation's own, signed with a comment
//!   that names the operation, filled, and renamed when it is whole: nobody has use for half of one, so no
//!   transaction holds it together, nor the lock for each object that one would need. Another program that makes the
//!   database meanwhile wins, and an undo drops a database only if its comment says that this very operation
//!   made it. The comment goes when the restore is complete.
//! * **`swap`** does the same beside the database that is there; in the end the two exchange names in one
//!   transaction. The old one stays until somebody asks for it to go.
//! * **Overwriting in place** replaces what the dump holds in one transaction: a restore that fails or dies
//!   leaves what was there. Tables made since stay, and some are in the way ([`blockers`]).
//!
//! **Waits for locks** end at a limit, with the name of who holds them ([`lock_waits`]): a protect keeps its
//! application quiesced meanwhile, and a restore holds up everybody behind it.
//!
//! Passwords stay in the operator's `passfile`: nothing secret is in an argument or a variable.

mod blockers;
mod client;
mod database;
mod lock_waits;
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
    database::{DatabasePlace, GLOBALS, Properties},
    lock_waits::watched,
    restore::PostgresqlParameters,
    source::{PostgresqlSource, PostgresqlTable},
};
use super::{
    applications::ComponentChecks,
    command::{Group, drain},
    component::{Kind, Restoring, Saved},
    directory::{DirectoryParameters, restore_as_files},
    schemas,
    shared::{Declared, Host},
};

/// PostgreSQL databases.
pub(crate) struct PostgresqlKind;

fn stored_as(name: &str) -> String {
    format!("{name}.dump")
}

#[async_trait]
impl Kind for PostgresqlKind {
    const PLUGIN: &'static str = "karbor-host-postgresql-plugin";
    const TYPE: &'static str = "Host::PostgreSQL::Database";
    const TITLE: &'static str = "Host PostgreSQL Database";

    type Table = PostgresqlTable;
    type Source = PostgresqlSource;
    type Parameters = PostgresqlParameters;

    fn identity(table: &PostgresqlTable) -> (&str, Option<Uuid>) {
        (&table.name, table.id)
    }

    fn declare(table: PostgresqlTable, checks: &mut ComponentChecks<'_>) -> PostgresqlSource {
        PostgresqlSource::declare(table, checks)
    }

    fn restore_schema() -> Value {
        json!({
            "overwrite": schemas::overwrite(),
            "dry_run": schemas::dry_run(),
            "restore_to": {
                "type": "string", "title": "Restore To", "minLength": 1, "maxLength": 4096,
                "description": "A folder under one of the application's restore roots; the dump, and roles and tablespaces if they were kept, are written into <folder>/<application>/<component> there, and no server is asked. Has no effect together with 'database'.",
            },
            "database": {
                "type": "string", "title": "Database", "minLength": 1, "maxLength": 63,
                "description": "Name of a new database to restore into, on the same server. The original one unless given.",
            },
            "no_owner": {
                "type": "boolean", "title": "No Owner",
                "description": "Everything restored belongs to the role that restores it; owners and grants are left out. As declared unless given.",
            },
            "no_tablespaces": {
                "type": "boolean", "title": "No Tablespaces",
                "description": "Everything restored lies in the server's default tablespace. As declared unless given.",
            },
            "swap": {
                "type": "boolean", "title": "Swap", "default": false,
                "description": "Restore into a new database beside the one that is there, then exchange their names. The old one is kept as <name>_before_<time>.",
            },
            "drop_old": {
                "type": "boolean", "title": "Drop Old", "default": false,
                "description": "With 'swap': drop the old database when the restore is complete.",
            },
            "disconnect": {
                "type": "boolean", "title": "Disconnect", "default": false,
                "description": "With 'swap': end the sessions that use the database when the names are exchanged. It fails while the database is in use unless given.",
            },
        })
    }

    async fn place(_: &Host, declared: &Declared) -> Result<Value, PluginError> {
        let source = declared.source::<PostgresqlSource>()?;
        let sql = "SELECT json_build_object(
            'database', datname, 'server_version', current_setting('server_version'),
            'encoding', pg_encoding_to_char(encoding), 'collate', datcollate, 'ctype', datctype,
            'owner', pg_get_userbyid(datdba), 'size', pg_database_size(oid))
            FROM pg_database WHERE datname = current_database()";
        let text = Client::new(source).ask(&source.database, &[], sql).await?;
        let place: DatabasePlace = serde_json::from_str(&text)
            .map_err(|e| PluginError::new("the server gave an unexpected answer").with_cause(e))?;
        Ok(json!(place))
    }

    async fn save(
        _: &Host,
        context: &OperationContext,
        declared: &Declared,
        writer: &mut SnapshotWriter,
    ) -> Result<Saved, PluginError> {
        let source = declared.source::<PostgresqlSource>()?;
        let client = Client::of(source, context);
        let mut warnings = Vec::new();
        if source.globals {
            let arguments = ["--globals-only", "--no-password"].map(str::to_owned);
            let said = dump(&client, "pg_dumpall", &arguments, GLOBALS, context, writer);
            warnings.extend(said.await?);
        }
        let properties = Properties::read(&client).await?;
        warnings.extend(properties.garbled());
        let properties = json!(properties).to_string();
        let added = writer.add_stream(database::STORED_AS, properties.as_bytes());
        added.await?;
        // The limit is the watch's, which knows who is in the way; this one is for when it cannot ask.
        let at_last = 2 * source.lock_timeout + std::time::Duration::from_secs(60);
        let arguments = [
            "--format=custom".to_owned(),
            "--compress=0".to_owned(),
            "--no-password".to_owned(),
            format!("--lock-wait-timeout={}", at_last.as_millis()),
        ];
        let name = stored_as(&declared.component.name);
        warnings.extend(dump(&client, "pg_dump", &arguments, &name, context, writer).await?);
        Ok(Saved {
            warnings,
            left_out: None,
        })
    }

    fn item(_: &Snapshot, name: &str) -> Result<String, PluginError> {
        Ok(stored_as(name))
    }

    async fn restore(run: &Restoring<'_, PostgresqlParameters>) -> Result<HookReport, PluginError> {
        let parameters = &run.parameters;
        if parameters.restore_to.is_none() || parameters.database.is_some() {
            return restore::restore(run).await;
        }
        // The dump, `database.json` and `globals.sql`, as they are in the snapshot. No server is asked.
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

/// Streams what a program prints into the snapshot. Fails unless the program ended well: until then
/// its output may have been cut short. Answers with what it warned of.
async fn dump(
    client: &Client<'_>,
    program: &str,
    arguments: &[String],
    name: &str,
    context: &OperationContext,
    writer: &mut SnapshotWriter,
) -> Result<Option<String>, PluginError> {
    let mut child = client
        .command(program, client.database())?
        .args(arguments)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .map_err(|e| client::not_started(program, &e))?;
    let group = Group::of(&child);
    let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(PluginError::new(format!("{program} has no output")));
    };
    let moved = async { tokio::join!(writer.add_stream(name, output), drain(errors)) };
    let (added, said) = watched(client, client.database(), &context.cancel, moved).await?;
    // The vault's failure comes first: the program's own is then only that nobody read on.
    added?;
    let status = child
        .wait()
        .await
        .map_err(|e| PluginError::new(format!("{program} was lost")).with_cause(e))?;
    group.done();
    if !status.success() {
        return Err(messages::failure(program, status, &said));
    }
    Ok((!said.is_empty()).then(|| format!("{program}: {}", messages::last_lines(&said))))
}
