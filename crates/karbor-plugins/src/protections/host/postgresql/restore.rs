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
    },
    DatabasePlace,
    client::{self, Client},
    source,
};
use crate::applications::database_name;

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
    let state = state(&client, name).await?;
    let ours = run.marker.read().await?.filter(|mark| mark.target == name);
    let refused = refusal(run, name == source.database, state, name).filter(|_| ours.is_none());
    if run.parameters.dry_run {
        return list(run, &client, state, refused).await;
    }
    if let Some(reason) = refused {
        return Err(PluginError::new(reason));
    }
    // What was noted first stands: after a crash the database is there because we made it.
    if ours.is_none() && state != State::Full {
        let mark = Mark {
            target: name.to_owned(),
            made: state == State::Missing,
        };
        run.marker.set(&mark).await?;
    }
    if state == State::Missing {
        create(&client, name, &place, run.parameters.no_owner).await?;
    }
    load(run, &client, name, state != State::Missing).await
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

async fn create(
    client: &Client<'_>,
    name: &str,
    place: &DatabasePlace,
    no_owner: bool,
) -> Result<(), PluginError> {
    let sql = "CREATE DATABASE :\"name\" TEMPLATE template0 ENCODING :'encoding'
            LC_COLLATE :'collate' LC_CTYPE :'ctype';";
    let owner = "SELECT format('ALTER DATABASE %I OWNER TO %I', :'name', :'owner')
        WHERE EXISTS (SELECT FROM pg_roles WHERE rolname = :'owner') \\gexec\n";
    let sql = match no_owner {
        true => sql.to_owned(),
        false => format!("{sql}\n{owner}"),
    };
    let variables = [
        ("name", name),
        ("encoding", place.encoding.as_str()),
        ("collate", place.collate.as_str()),
        ("ctype", place.ctype.as_str()),
        ("owner", place.owner.as_str()),
    ];
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

/// Drops a database that this run made.
pub(super) async fn discard(host: &Host, context: &OperationContext) -> Result<(), PluginError> {
    let Some(mark) = Marker::of(host, context).read().await? else {
        return Ok(());
    };
    if !mark.made {
        return Ok(());
    }
    let declared = host.declared_component(context).await?;
    let client = Client::new(source(&declared)?);
    let sql = "DROP DATABASE IF EXISTS :\"name\" WITH (FORCE);";
    client
        .ask("postgres", &[("name", &mark.target)], sql)
        .await?;
    Ok(())
}
