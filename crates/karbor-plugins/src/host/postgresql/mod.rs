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
pub(crate) mod client;
mod database;
mod lock_waits;
mod messages;
mod restore;
pub(crate) mod rights;

use std::path::Path;

use async_trait::async_trait;
use karbor_plugin::{HookReport, OperationContext, PluginError};
use karbor_vault::{Snapshot, SnapshotWriter};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::{client::Client, database::Properties, lock_waits::watched};
use super::{
    Declared, Host, POSTGRESQL_PLUGIN,
    command::{Group, drain},
    component::{Kind, Restoring, Saved},
    directory::DirectoryKind,
    metadata::Metadata,
    notes::Marker,
    places::FilePlace,
};
use crate::host::applications::{POSTGRESQL, PostgresqlSource, Source};

/// The roles and tablespaces of the server, in the snapshot.
const GLOBALS: &str = "globals.sql";

/// PostgreSQL databases.
pub(crate) struct PostgresqlKind;

/// Where a database comes from. What it takes to make it again is in the snapshot; earlier checkpoints have
/// no more than this.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DatabasePlace {
    pub(crate) database: String,
    pub(crate) server_version: String,
    pub(crate) encoding: String,
    pub(crate) collate: String,
    pub(crate) ctype: String,
    pub(crate) owner: String,
    pub(crate) size: u64,
}

fn source(declared: &Declared) -> Result<&PostgresqlSource, PluginError> {
    match &declared.component.source {
        Source::Postgresql(source) => Ok(source),
        _ => Err(PluginError::new(
            "the component is not a PostgreSQL database",
        )),
    }
}

fn stored_as(name: &str) -> String {
    format!("{name}.dump")
}

#[async_trait]
impl Kind for PostgresqlKind {
    const PLUGIN: &'static str = POSTGRESQL_PLUGIN;
    const TYPE: &'static str = POSTGRESQL;

    async fn place(_: &Host, declared: &Declared) -> Result<Value, PluginError> {
        let source = source(declared)?;
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
        let source = source(declared)?;
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

    async fn restore(run: &Restoring<'_>) -> Result<HookReport, PluginError> {
        match (&run.parameters.restore_to, &run.parameters.database) {
            (Some(_), None) => as_files(run).await,
            _ => restore::restore(run).await,
        }
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

/// Writes the dump, `database.json` and `globals.sql` to a folder, as they are in the snapshot: like a
/// directory that has these files. No server is asked.
async fn as_files(run: &Restoring<'_>) -> Result<HookReport, PluginError> {
    let root = Path::new("/").to_owned();
    let place = FilePlace {
        path: root.clone(),
        resolved: root,
        mode: None,
        owner: None,
    };
    let kept = Metadata {
        item: "/".to_owned(),
        place: json!(place),
        ..run.kept.clone()
    };
    DirectoryKind::restore(&Restoring {
        host: run.host,
        context: run.context,
        kept: &kept,
        vault: run.vault,
        parameters: run.parameters.clone(),
        marker: Marker::of(run.host, run.context),
    })
    .await
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
