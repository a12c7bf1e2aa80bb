//! `karbor-host-postgresql-plugin`: a PostgreSQL database by way of `pg_dump` and `pg_restore`.
//!
//! **Protect** streams `pg_dump`'s custom format, uncompressed so that the vault can find what it
//! has already, as `<name>.dump`; and, if declared, `pg_dumpall --globals-only` as `globals.sql`
//! (roles and tablespaces: kept for people, never restored by itself, since it changes the whole
//! server). The snapshot is committed only after the program has ended well.
//!
//! **Restore** goes into the declared database or a new one on the declared server, in one
//! transaction: a restore that fails or dies leaves what was there. A database that is there and has
//! tables is only overwritten when asked; one by another name than the declared must not exist at
//! all, since it could belong to anybody. `if-changed` does not compare: a database always counts as
//! changed. Overwriting replaces what the dump holds; tables made since stay.
//!
//! **A database that a restore makes** is made under a name of the operation's own, gets a comment
//! that names the operation, and is renamed then. So whoever else makes the database meanwhile wins,
//! and an undo drops a database only if its comment says that this very operation made it. The
//! comment goes when the restore is complete.
//!
//! Passwords stay in the operator's `passfile`: nothing secret is in an argument or a variable.

pub(crate) mod client;
mod restore;

use async_trait::async_trait;
use karbor_plugin::{HookReport, OperationContext, PluginError};
use karbor_vault::{Snapshot, SnapshotWriter};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::client::Client;
use super::{
    Declared, Host, POSTGRESQL_PLUGIN,
    command::{Group, drain},
    component::{Kind, Restoring},
};
use crate::applications::{POSTGRESQL, PostgresqlSource, Source};

/// PostgreSQL databases.
pub(crate) struct PostgresqlKind;

/// Where a database comes from, and what it takes to make it again.
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
    ) -> Result<Vec<String>, PluginError> {
        let source = source(declared)?;
        let client = Client::new(source);
        let mut warnings = Vec::new();
        if source.globals {
            let arguments = ["--globals-only", "--no-password"];
            let said = dump(
                &client,
                "pg_dumpall",
                &arguments,
                "globals.sql",
                context,
                writer,
            )
            .await?;
            warnings.extend(said);
        }
        let arguments = [
            "--format=custom",
            "--compress=0",
            "--no-password",
            "--lock-wait-timeout=60s",
        ];
        let name = stored_as(&declared.component.name);
        warnings.extend(dump(&client, "pg_dump", &arguments, &name, context, writer).await?);
        Ok(warnings)
    }

    fn item(_: &Snapshot, name: &str) -> Result<String, PluginError> {
        Ok(stored_as(name))
    }

    async fn restore(run: &Restoring<'_>) -> Result<HookReport, PluginError> {
        restore::restore(run).await
    }

    async fn keep_restore(host: &Host, context: &OperationContext) -> Result<(), PluginError> {
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
    arguments: &[&str],
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
    let (added, said) = tokio::select! {
        moved = moved => moved,
        () = context.cancel.cancelled() => return Err(PluginError::cancelled()),
    };
    // The vault's failure comes first: the program's own is then only that nobody read on.
    added?;
    let status = child
        .wait()
        .await
        .map_err(|e| PluginError::new(format!("{program} was lost")).with_cause(e))?;
    group.done();
    if !status.success() {
        return Err(client::failure(program, status, &said));
    }
    Ok((!said.is_empty()).then(|| format!("{program}: {}", client::last_lines(&said))))
}
