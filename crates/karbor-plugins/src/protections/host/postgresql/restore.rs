//! Bringing a database back.

use std::process::Stdio;

use futures::StreamExt as _;
use karbor_plugin::{HookReport, OperationContext, PluginError};
use karbor_vault::Overwrite;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::{
    super::{
        Host,
        command::{Group, drain, drain_up_to},
        component::Restoring,
        directory::LISTED,
        marker::{Mark, Marker},
        occupied::Place,
        parameters::REFUSED,
    },
    DatabasePlace,
    client::{self, Client},
    source,
};
use crate::applications::{PostgresqlSource, database_name};

/// So much of a dump's list of contents is kept.
const LISTING: usize = 4 * 1024 * 1024;

/// What a database is like before a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    Empty,
    Full,
}

pub(super) async fn restore(run: &Restoring<'_>) -> Result<HookReport, PluginError> {
    let declared = run.host.declared_component(run.context).await?;
    let source = source(&declared)?;
    let client = Client::new(source);
    let place: DatabasePlace = serde_json::from_value(run.kept.place.clone()).map_err(|error| {
        PluginError::new(format!("the checkpoint's metadata are corrupt: {error}"))
    })?;
    let name = run
        .parameters
        .database
        .as_deref()
        .unwrap_or(&source.database);
    database_name(name).map_err(PluginError::new)?;
    if !run.parameters.dry_run {
        run.host
            .occupied
            .take(run.context, occupied(source, name))?;
    }
    let state = state(&client, name).await?;
    let noted = run.marker.read().await?.filter(|mark| mark.target == name);
    let is_loaded = noted.as_ref().is_some_and(|mark| mark.loaded) && state == State::Full;
    if is_loaded && !run.parameters.dry_run {
        // The application may have written to it since.
        return Ok(HookReport::from_iter([("files".to_owned(), json!(1))]));
    }
    let ours = match &noted {
        // Somebody else may have made it after we noted that it was missing.
        Some(mark) if mark.made => made_by(&client, name, &sign(run.context)).await?,
        // The tables in it may be ours, if we died just after they came, or the application's.
        _ => false,
    };
    let refused = refusal(run, name == source.database, state, name).filter(|_| !ours);
    if run.parameters.dry_run {
        return list(run, &client, state, refused).await;
    }
    if let Some(reason) = refused {
        return Err(PluginError::new(reason));
    }
    let mut mark = Mark {
        target: name.to_owned(),
        made: ours || state == State::Missing,
        loaded: false,
    };
    if !ours && state != State::Full {
        run.marker.set(&mark).await?;
    }
    if state == State::Missing {
        create(run, &client, name, &place).await?;
    }
    let report = load(run, &client, name, state != State::Missing).await?;
    // One that this run made has its sign.
    if !mark.made {
        mark.loaded = true;
        run.marker.set(&mark).await?;
    }
    Ok(report)
}

fn occupied(source: &PostgresqlSource, name: &str) -> Place {
    let host = source.host.as_deref().unwrap_or_default();
    Place::Database {
        server: format!("{host}:{}", source.port),
        name: name.to_owned(),
    }
}

/// The comment of a database that this run made, as long as it is not complete.
fn sign(context: &OperationContext) -> String {
    format!(
        "karbor: restore not complete, operation {}, resource {}",
        context.operation_id, context.resource.id
    )
}

/// The name under which this run makes a database: shorter than PostgreSQL's 63 bytes.
fn provisional(context: &OperationContext) -> String {
    let operation = context.operation_id.to_string();
    let resource = context.resource.id.to_string();
    let resource = resource
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(16);
    format!("karbor-{operation}-{}", resource.collect::<String>())
}

async fn made_by(client: &Client<'_>, name: &str, sign: &str) -> Result<bool, PluginError> {
    let sql = "SELECT count(*) FROM pg_database
        WHERE datname = :'name' AND shobj_description(oid, 'pg_database') = :'sign';";
    let variables = [("name", name), ("sign", sign)];
    Ok(client.ask("postgres", &variables, sql).await? != "0")
}

/// Why the database may not be written to, if so.
fn refusal(run: &Restoring<'_>, declared: bool, state: State, name: &str) -> Option<String> {
    match (declared, state, run.parameters.overwrite) {
        (_, State::Missing, _) | (true, State::Empty, _) => None,
        (true, State::Full, Overwrite::IfChanged | Overwrite::Always) => None,
        (true, State::Full, Overwrite::Never) => Some(format!(
            "the database '{name}' has tables: restore with overwrite 'always', or give 'database' with a new name"
        )),
        (false, _, _) => Some(format!(
            "there is already a database '{name}', and it is not the declared one: give 'database' with a name that is free"
        )),
    }
}

/// Asks the server, by way of a database that is always there.
async fn state(client: &Client<'_>, name: &str) -> Result<State, PluginError> {
    let sql = "SELECT count(*) FROM pg_database WHERE datname = :'name';";
    if client.ask("postgres", &[("name", name)], sql).await? == "0" {
        return Ok(State::Missing);
    }
    let sql = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'
        AND n.nspname NOT LIKE 'pg\\_temp%' AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f');";
    match client.ask(name, &[], sql).await?.as_str() {
        "0" => Ok(State::Empty),
        _ => Ok(State::Full),
    }
}

/// Makes the database. It appears under its name with its comment, or not at all.
async fn create(
    run: &Restoring<'_>,
    client: &Client<'_>,
    name: &str,
    place: &DatabasePlace,
) -> Result<(), PluginError> {
    let make = "DROP DATABASE IF EXISTS :\"provisional\";
        CREATE DATABASE :\"provisional\" TEMPLATE template0 ENCODING :'encoding'
            LC_COLLATE :'collate' LC_CTYPE :'ctype';
        COMMENT ON DATABASE :\"provisional\" IS :'sign';";
    let owner = "SELECT format('ALTER DATABASE %I OWNER TO %I', :'provisional', :'owner')
        WHERE EXISTS (SELECT FROM pg_roles WHERE rolname = :'owner') \\gexec";
    let rename = "ALTER DATABASE :\"provisional\" RENAME TO :\"name\";";
    let owner = if run.parameters.no_owner { "" } else { owner };
    let (provisional, sign) = (provisional(run.context), sign(run.context));
    let variables = [
        ("name", name),
        ("provisional", provisional.as_str()),
        ("sign", sign.as_str()),
        ("encoding", place.encoding.as_str()),
        ("collate", place.collate.as_str()),
        ("ctype", place.ctype.as_str()),
        ("owner", place.owner.as_str()),
    ];
    let sql = format!("{make}\n{owner}\n{rename}\n");
    client.ask("postgres", &variables, &sql).await.map(|_| ())
}

/// Feeds the dump to `pg_restore`, which puts it into the database in one transaction.
async fn load(
    run: &Restoring<'_>,
    client: &Client<'_>,
    name: &str,
    clean: bool,
) -> Result<HookReport, PluginError> {
    let quoted = name.replace('\\', "\\\\").replace('\'', "\\'");
    let mut arguments = vec![
        "--single-transaction".to_owned(),
        "--exit-on-error".to_owned(),
        "--no-password".to_owned(),
        format!("--dbname=dbname='{quoted}'"),
    ];
    if clean {
        arguments.extend(["--clean".to_owned(), "--if-exists".to_owned()]);
    }
    if run.parameters.no_owner {
        arguments.extend(["--no-owner".to_owned(), "--no-privileges".to_owned()]);
    }
    let (bytes, _, said) = feed(run, client, name, &arguments).await?;
    let mut report = HookReport::new();
    report.insert("bytes".to_owned(), json!(bytes));
    report.insert("files".to_owned(), json!(1));
    if !said.is_empty() {
        let warning = format!("pg_restore: {}", client::last_lines(&said));
        report.insert("warnings".to_owned(), json!([warning]));
    }
    Ok(report)
}

/// What a restore would put into the database.
async fn list(
    run: &Restoring<'_>,
    client: &Client<'_>,
    state: State,
    refused: Option<String>,
) -> Result<HookReport, PluginError> {
    let (_, contents, _) = feed(run, client, client.database(), &["--list".to_owned()]).await?;
    let kind = match (state, &refused) {
        (_, Some(_)) => "skip",
        (State::Full, None) => "overwrite",
        (_, None) => "create",
    };
    // `215; 1259 16386 TABLE public orders shop`: what comes after the numbers is for people.
    let entries: Vec<_> = contents
        .lines()
        .filter(|line| !line.starts_with(';') && !line.is_empty())
        .filter_map(|line| line.splitn(4, ' ').nth(3))
        .collect();
    let changes: Vec<_> = entries
        .iter()
        .take(LISTED)
        .map(|entry| json!({"path": entry, "kind": kind}))
        .collect();
    let mut report = HookReport::new();
    report.insert("changes".to_owned(), json!(changes));
    report.insert("changes_total".to_owned(), json!(entries.len()));
    if let Some(reason) = refused {
        report.insert("warnings".to_owned(), json!([reason]));
        report.insert(REFUSED.to_owned(), json!(reason));
    }
    Ok(report)
}

/// Runs `pg_restore` on the dump. Answers with bytes read, standard output and standard error.
async fn feed(
    run: &Restoring<'_>,
    client: &Client<'_>,
    database: &str,
    arguments: &[String],
) -> Result<(u64, String, String), PluginError> {
    let vault = run.vault;
    let mut stream = vault
        .read_stream(&run.kept.snapshot, &run.kept.item, run.control())
        .await?;
    let mut child = client
        .command("pg_restore", database)?
        .args(arguments)
        // Who uses a table that is to be replaced would otherwise hold us up for ever.
        .env("PGOPTIONS", "-c lock_timeout=60s")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| client::not_started("pg_restore", &e))?;
    let group = Group::of(&child);
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut input), Some(output), Some(errors)) = pipes else {
        return Err(PluginError::new("pg_restore has no input or output"));
    };
    let write = async {
        let mut bytes = 0_u64;
        while let Some(piece) = stream.next().await {
            // Killed before its input ends: it must not take half a dump for a whole one.
            let piece = piece.inspect_err(|_| group.kill())?;
            bytes += piece.len() as u64;
            if input.write_all(&piece).await.is_err() {
                break; // It has read enough, or has failed: its exit status tells.
            }
        }
        drop(input);
        Ok::<u64, PluginError>(bytes)
    };
    let work = async {
        tokio::join!(
            write,
            drain_up_to(output, LISTING),
            drain(errors),
            child.wait()
        )
    };
    let (written, out, said, status) = tokio::select! {
        work = work => work,
        () = run.context.cancel.cancelled() => return Err(PluginError::cancelled()),
    };
    let bytes = written?;
    let status = status.map_err(|e| PluginError::new("pg_restore was lost").with_cause(e))?;
    group.done();
    match status.success() {
        true => Ok((bytes, out, said)),
        false => Err(client::failure("pg_restore", status, &said)),
    }
}

/// Takes the comment off a database that this run made: now it is like any other.
pub(super) async fn keep(host: &Host, context: &OperationContext) -> Result<(), PluginError> {
    let Some(mark) = made(host, context).await? else {
        return Ok(());
    };
    let sql = "SELECT format('COMMENT ON DATABASE %I IS NULL', datname) FROM pg_database
        WHERE datname = :'name' AND shobj_description(oid, 'pg_database') = :'sign' \\gexec\n";
    let cleared = async {
        let declared = host.declared_component(context).await?;
        let client = Client::new(source(&declared)?);
        let variables = [("name", mark.target.as_str()), ("sign", &sign(context))];
        client.ask("postgres", &variables, sql).await
    };
    // The data are back: a comment that stays is no reason to fail.
    if let Err(error) = cleared.await {
        tracing::warn!(%error, database = mark.target, "the comment of a restored database could not be removed");
    }
    Ok(())
}

/// Drops a database that this run made.
pub(super) async fn discard(host: &Host, context: &OperationContext) -> Result<(), PluginError> {
    let Some(mark) = made(host, context).await? else {
        return Ok(());
    };
    let declared = host.declared_component(context).await?;
    let client = Client::new(source(&declared)?);
    let sql = "DROP DATABASE IF EXISTS :\"provisional\" WITH (FORCE);
        SELECT format('DROP DATABASE %I WITH (FORCE)', datname) FROM pg_database
        WHERE datname = :'name' AND shobj_description(oid, 'pg_database') = :'sign' \\gexec\n";
    let variables = [
        ("name", mark.target.as_str()),
        ("provisional", &provisional(context)),
        ("sign", &sign(context)),
    ];
    client.ask("postgres", &variables, sql).await.map(|_| ())
}

/// The note of a run that found no database.
async fn made(host: &Host, context: &OperationContext) -> Result<Option<Mark>, PluginError> {
    let mark = Marker::of(host, context).read().await?;
    Ok(mark.filter(|mark| mark.made))
}
