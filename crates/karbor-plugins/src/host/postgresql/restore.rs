//! Bringing a database back.

use std::{
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use futures::StreamExt as _;
use karbor_plugin::{HookReport, NoProgress, OperationContext, PluginError};
use karbor_vault::{Control, Overwrite};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use super::{
    blockers,
    client::{self, Client, SLOW},
    database::{self, DatabasePlace, GLOBALS, Lacks, Making, Properties},
    lock_waits::{session, shown, watched},
    messages,
    source::{PostgresqlSource, database_name},
};
use crate::host::{
    command::{Group, drain, drain_up_to},
    component::Restoring,
    notes::Note,
    occupied::Place,
    parameters::{LISTED, REFUSED},
    shared::Host,
};

/// What a restore may be told.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PostgresqlParameters {
    pub(super) overwrite: Overwrite,
    pub(super) dry_run: bool,
    pub(super) restore_to: Option<String>,
    pub(super) database: Option<String>,
    no_owner: Option<bool>,
    no_tablespaces: Option<bool>,
    swap: bool,
    drop_old: bool,
    disconnect: bool,
}

/// So much of a dump's list of contents is kept, in bytes.
const LISTING: usize = 64 * 1024 * 1024;

/// What a database is like before a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occupancy {
    Missing,
    Empty,
    Full,
}

/// How it is brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It is made.
    Make,
    /// It is made beside the one that is there, and then the two exchange names.
    Swap,
    /// It is there and empty: filled in one transaction.
    Fill,
    /// What the dump holds is replaced, in one transaction.
    Replace,
}

/// What a restore notes before it changes something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    /// The name of the database.
    target: String,
    /// This run makes it, so undo may drop it.
    made: bool,
    /// What was restored is in there: run again, it need not be asked whose it is.
    #[serde(default)]
    loaded: bool,
    /// The name that the database gets which is there now.
    #[serde(default)]
    replaced: Option<String>,
    /// That one is dropped when the restore is complete.
    #[serde(default)]
    drop_old: bool,
    /// The comment of the database, for which its own gives way until the restore is complete.
    #[serde(default)]
    comment: Option<String>,
    #[serde(default)]
    is_template: bool,
    /// The database that is to give way takes no connections meanwhile.
    #[serde(default)]
    closed: bool,
    /// The transaction that fills a database that was empty: when it is committed, all is there.
    #[serde(default)]
    transaction: Option<u64>,
}

fn note(host: &Host, context: &OperationContext) -> Note<Noted> {
    Note::named("restore", host, context)
}

/// One restore.
struct Job<'a> {
    run: &'a Restoring<'a, PostgresqlParameters>,
    client: Client<'a>,
    name: &'a str,
    properties: Properties,
    lacks: Lacks,
    no_owner: bool,
    no_tablespaces: bool,
}

pub(super) async fn restore(
    run: &Restoring<'_, PostgresqlParameters>,
) -> Result<HookReport, PluginError> {
    let declared = run.host.declared_component(run.context).await?;
    let source = declared.source::<PostgresqlSource>()?;
    let client = Client::of(source, run.context);
    let parameters = &run.parameters;
    let name = parameters.database.as_deref().unwrap_or(&source.database);
    database_name(name).map_err(PluginError::new)?;
    for (what, given) in [
        ("drop_old", parameters.drop_old),
        ("disconnect", parameters.disconnect),
    ] {
        if given && !parameters.swap {
            let message = format!(
                "the parameters are wrong: '{what}' says how to 'swap', which was not asked for"
            );
            return Err(PluginError::new(message));
        }
    }
    let note = note(run.host, run.context);
    let noted = note.read().await?.filter(|noted| noted.target == name);
    if !parameters.dry_run {
        let place = occupied(source, name);
        run.host.occupied.take(run.context, place)?;
        // What a run that died left behind may wait for a lock still.
        client.end_sessions(client.maintenance()).await?;
        if noted.as_ref().is_some_and(|noted| noted.closed) {
            reopen(&client, name).await?;
        }
    }
    let mut state = state(&client, name).await?;
    let is_made = noted.as_ref().is_some_and(|noted| noted.made);
    if is_made && made_by(&client, name, &sign(run.context)).await? && !parameters.dry_run {
        let replaced = noted.as_ref().and_then(|noted| noted.replaced.as_deref());
        if state == Occupancy::Full || replaced.is_some() {
            let warnings = replaced.map(|old| gave_way(old, parameters.drop_old));
            return Ok(report(0, warnings.into_iter().collect()));
        }
        // Earlier versions gave it its name before it was filled.
        drop_signed(&client, name, &sign(run.context)).await?;
        state = Occupancy::Missing;
    }
    let is_loaded = noted.as_ref().is_some_and(|noted| noted.loaded);
    if is_loaded && state == Occupancy::Full && !parameters.dry_run {
        // The application may have written to it since.
        return Ok(report(0, Vec::new()));
    }
    let is_declared = name == source.database;
    let properties = properties(run).await?;
    let no_owner = parameters.no_owner.unwrap_or(source.no_owner);
    let transaction = noted.as_ref().and_then(|noted| noted.transaction);
    if let (Some(transaction), Occupancy::Full, false) = (transaction, state, parameters.dry_run)
        && is_committed(&client, transaction).await?
    {
        // It went on to its end without the service that began it.
        let warning = properties.adopted(&client, name, no_owner).await?;
        return Ok(report(0, warning.into_iter().collect()));
    }
    let way = way(run, is_declared, state, name);
    let whole = matches!(way, Ok(Way::Make | Way::Swap));
    let job = Job {
        lacks: properties.lacks(&client, whole).await?,
        run,
        client,
        name,
        properties,
        no_owner,
        no_tablespaces: parameters.no_tablespaces.unwrap_or(source.no_tablespaces),
    };
    job.go(way, &note).await
}

/// Lets a database take connections again.
async fn reopen(client: &Client<'_>, name: &str) -> Result<(), PluginError> {
    let variables = [("name", name)];
    let opened = client.ask(client.maintenance(), &variables, REOPEN);
    opened.await.map(|_| ())
}

const REOPEN: &str = "SELECT format('ALTER DATABASE %I ALLOW_CONNECTIONS true', datname)
    FROM pg_database WHERE datname = :'name' AND NOT datallowconn \\gexec
";

async fn is_committed(client: &Client<'_>, transaction: u64) -> Result<bool, PluginError> {
    let sql = "SELECT coalesce(txid_status(:'transaction'), '');";
    let transaction = transaction.to_string();
    let variables = [("transaction", transaction.as_str())];
    Ok(client.ask(client.maintenance(), &variables, sql).await? == "committed")
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

/// A free name for a database that gives way to the restored one.
async fn aside(client: &Client<'_>, name: &str) -> Result<String, PluginError> {
    let time = Utc::now().format("_before_%Y%m%d%H%M%S");
    let mut suffix = time.to_string();
    for number in 2..100 {
        let room = 63 - suffix.len();
        let cut = (0..=room.min(name.len()))
            .rev()
            .find(|at| name.is_char_boundary(*at))
            .unwrap_or_default();
        let candidate = format!("{}{suffix}", &name[..cut]);
        if !exists(client, &candidate).await? {
            return Ok(candidate);
        }
        suffix = format!("{time}_{number}");
    }
    Err(PluginError::new(
        "no name is free for the database that gives way",
    ))
}

async fn exists(client: &Client<'_>, name: &str) -> Result<bool, PluginError> {
    let sql = "SELECT count(*) FROM pg_database WHERE datname = :'name';";
    let variables = [("name", name)];
    Ok(client.ask(client.maintenance(), &variables, sql).await? != "0")
}

fn gave_way(replaced: &str, drop_old: bool) -> String {
    let replaced = shown(replaced);
    match drop_old {
        true => format!(
            "the database that was there is '{replaced}' until the restore is complete, and is dropped then"
        ),
        false => format!(
            "the database that was there is kept as '{replaced}': drop it when nobody needs it any more"
        ),
    }
}

async fn made_by(client: &Client<'_>, name: &str, sign: &str) -> Result<bool, PluginError> {
    let sql = "SELECT count(*) FROM pg_database
        WHERE datname = :'name' AND shobj_description(oid, 'pg_database') = :'sign';";
    let variables = [("name", name), ("sign", sign)];
    Ok(client.ask(client.maintenance(), &variables, sql).await? != "0")
}

/// Drops a database if it has this sign.
async fn drop_signed(client: &Client<'_>, name: &str, sign: &str) -> Result<(), PluginError> {
    let sql = "SELECT format('DROP DATABASE %I WITH (FORCE)', datname) FROM pg_database
        WHERE datname = :'name' AND shobj_description(oid, 'pg_database') = :'sign' \\gexec\n";
    let variables = [("name", name), ("sign", sign)];
    let dropped = client.ask_within(SLOW, client.maintenance(), &variables, sql);
    dropped.await.map(|_| ())
}

/// How to bring it back, or why it may not be.
fn way(
    run: &Restoring<'_, PostgresqlParameters>,
    declared: bool,
    state: Occupancy,
    name: &str,
) -> Result<Way, String> {
    match (declared, state, run.parameters.overwrite) {
        (_, Occupancy::Missing, _) => Ok(Way::Make),
        (true, _, _) if run.parameters.swap => Ok(Way::Swap),
        (true, Occupancy::Empty, _) => Ok(Way::Fill),
        (true, Occupancy::Full, Overwrite::IfChanged | Overwrite::Always) => Ok(Way::Replace),
        (true, Occupancy::Full, Overwrite::Never) => Err(format!(
            "the database '{name}' has tables: restore with overwrite 'always', with 'swap', or give 'database' with a new name"
        )),
        (false, _, _) => Err(format!(
            "there is already a database '{name}', and it is not the declared one: give 'database' with a name that is free"
        )),
    }
}

/// Asks the server, by way of a database that is always there.
async fn state(client: &Client<'_>, name: &str) -> Result<Occupancy, PluginError> {
    if !exists(client, name).await? {
        return Ok(Occupancy::Missing);
    }
    let sql = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'
        AND n.nspname NOT LIKE 'pg\\_temp%' AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
        UNION ALL SELECT count(*) FROM pg_largeobject_metadata ORDER BY 1 DESC LIMIT 1;";
    match client.ask(name, &[], sql).await?.as_str() {
        "0" => Ok(Occupancy::Empty),
        _ => Ok(Occupancy::Full),
    }
}

/// For reading on the side: it is no progress of the restore.
fn aside_of(run: &Restoring<'_, PostgresqlParameters>) -> Control {
    Control {
        progress: Arc::new(NoProgress),
        cancel: run.context.cancel.clone(),
    }
}

/// Reads what the checkpoint has of the database besides its contents.
async fn properties(run: &Restoring<'_, PostgresqlParameters>) -> Result<Properties, PluginError> {
    let corrupt = |error: serde_json::Error| {
        PluginError::new(format!("the checkpoint's metadata are corrupt: {error}"))
    };
    let snapshot = &run.kept.snapshot;
    let read = run
        .vault
        .read_stream(snapshot, database::STORED_AS, aside_of(run))
        .await;
    let mut stream = match read {
        Ok(stream) => stream,
        Err(karbor_vault::VaultError::NoSuchPath { .. }) => {
            let place: DatabasePlace =
                serde_json::from_value(run.kept.place.clone()).map_err(corrupt)?;
            return Ok(Properties::of_place(&place));
        }
        Err(error) => return Err(error.into()),
    };
    let mut text = Vec::new();
    while let Some(piece) = stream.next().await {
        text.extend_from_slice(&piece?);
        if text.len() > database::MOST {
            return Err(PluginError::new(format!(
                "the checkpoint's metadata are corrupt: {} is too long",
                database::STORED_AS
            )));
        }
    }
    serde_json::from_slice(&text).map_err(corrupt)
}

async fn has_globals(run: &Restoring<'_, PostgresqlParameters>) -> Result<bool, PluginError> {
    let read = run
        .vault
        .read_stream(&run.kept.snapshot, GLOBALS, aside_of(run));
    match read.await {
        Ok(_) => Ok(true),
        Err(karbor_vault::VaultError::NoSuchPath { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Job<'_> {
    async fn go(
        &self,
        way: Result<Way, String>,
        note: &Note<Noted>,
    ) -> Result<HookReport, PluginError> {
        let dry_run = self.run.parameters.dry_run;
        let mut refused = Vec::new();
        let mut contents = String::new();
        if dry_run || way == Ok(Way::Replace) {
            contents = self.contents().await?;
        }
        let entries = entries(&contents);
        match &way {
            Ok(Way::Replace) => refused.extend(self.in_place(&contents, &entries).await?),
            Ok(Way::Swap) => refused.extend(self.unswappable().await?),
            Ok(_) => {}
            Err(reason) => refused.push(reason.clone()),
        }
        if way.is_ok() {
            refused.extend(self.lacking().await?);
        }
        if dry_run {
            return Ok(would(way.ok(), &entries, &refused));
        }
        let (true, Ok(way)) = (refused.is_empty(), way) else {
            return Err(PluginError::new(refused.join(". ")));
        };
        match way {
            Way::Make | Way::Swap => self.make(way, note).await,
            Way::Fill | Way::Replace => self.fill(way, note).await,
        }
    }

    /// Makes the database under a name of this run's own, fills it, and gives it its name when it is whole.
    /// Nobody has use for half of one, so there is no need for a transaction, nor for all the locks that one
    /// would hold.
    async fn make(&self, way: Way, note: &Note<Noted>) -> Result<HookReport, PluginError> {
        let context = self.run.context;
        let swaps = way == Way::Swap;
        let replaced = match swaps {
            true => Some(aside(&self.client, self.name).await?),
            false => None,
        };
        // Better now than when all is loaded.
        if swaps && !self.run.parameters.disconnect {
            self.nobody_there().await?;
        }
        let mut noted = Noted {
            target: self.name.to_owned(),
            made: true,
            loaded: false,
            replaced: replaced.clone(),
            drop_old: self.run.parameters.drop_old,
            comment: self.properties.comment().map(str::to_owned),
            is_template: self.properties.is_template(),
            closed: false,
            transaction: None,
        };
        note.set(&noted).await?;
        let (provisional, sign) = (provisional(context), sign(context));
        let making = Making {
            client: &self.client,
            provisional: &provisional,
            sign: &sign,
            no_owner: self.no_owner,
            no_tablespaces: self.no_tablespaces,
            version: self.lacks.version,
        };
        let mut warnings = self.properties.make(&making).await?;
        let (bytes, said) = self.load(&provisional, way).await?;
        warnings.extend(said);
        if swaps && self.run.parameters.disconnect && self.present().await?.open {
            noted.closed = true;
            note.set(&noted).await?;
        }
        let settled = self
            .settle(&making, replaced.as_deref(), noted.closed)
            .await;
        if settled.is_err()
            && noted.closed
            && let Err(error) = reopen(&self.client, self.name).await
        {
            tracing::warn!(%error, database = self.name, "a database that takes no connections could not be opened again; an undo tries once more");
        }
        settled?;
        if let Some(replaced) = replaced {
            warnings.push(gave_way(&replaced, self.run.parameters.drop_old));
        }
        Ok(report(bytes, warnings))
    }

    /// Gives the new database its name as soon as nobody is connected to the one that has it. `closed`: that
    /// one takes no connections until it has given way, or its clients would be back before.
    async fn settle(
        &self,
        making: &Making<'_>,
        replaced: Option<&str>,
        closed: bool,
    ) -> Result<(), PluginError> {
        if closed {
            let sql = "ALTER DATABASE :\"name\" ALLOW_CONNECTIONS false;";
            let variables = [("name", self.name)];
            let maintenance = self.client.maintenance();
            self.client.ask(maintenance, &variables, sql).await?;
        }
        if replaced.is_some() {
            self.nobody_there().await?;
        }
        self.properties
            .settle(making, self.name, replaced, closed)
            .await
    }

    /// Fills a database that is there, in one transaction.
    async fn fill(&self, way: Way, note: &Note<Noted>) -> Result<HookReport, PluginError> {
        let mut noted = Noted {
            target: self.name.to_owned(),
            made: false,
            loaded: false,
            replaced: None,
            drop_old: false,
            comment: None,
            is_template: false,
            closed: false,
            transaction: None,
        };
        if way == Way::Replace {
            let (bytes, said) = self.load(self.name, way).await?;
            noted.loaded = true;
            note.set(&noted).await?;
            return Ok(report(bytes, said));
        }
        note.set(&noted).await?;
        let adopted = self
            .properties
            .adopt(&self.client, self.name, self.no_owner);
        adopted.await?;
        let over = CancellationToken::new();
        let load = async {
            let loaded = self.load(self.name, way).await;
            over.cancel();
            loaded
        };
        let (loaded, noted_meanwhile) =
            tokio::join!(load, self.note_transaction(note, &mut noted, &over));
        let (bytes, mut warnings) = loaded?;
        noted_meanwhile?;
        noted.loaded = true;
        note.set(&noted).await?;
        let adopted = self
            .properties
            .adopted(&self.client, self.name, self.no_owner);
        warnings.extend(adopted.await?);
        Ok(report(bytes, warnings))
    }

    /// Notes the transaction that fills the database as soon as it has a number.
    async fn note_transaction(
        &self,
        note: &Note<Noted>,
        noted: &mut Noted,
        over: &CancellationToken,
    ) -> Result<(), PluginError> {
        let variables = [("session", self.client.session()), ("name", self.name)];
        while !over.is_cancelled() {
            let maintenance = self.client.maintenance();
            let found = self.client.ask(maintenance, &variables, TRANSACTION).await;
            // A server without room for one more session is no reason to give up.
            if let Some(number) = found.ok().and_then(|found| found.parse().ok()) {
                noted.transaction = Some(number);
                return note.set(noted).await;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                () = over.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Feeds the dump to `pg_restore`. Answers with its size, and what was warned of.
    async fn load(&self, database: &str, way: Way) -> Result<(u64, Vec<String>), PluginError> {
        let quoted = database.replace('\\', "\\\\").replace('\'', "\\'");
        let mut arguments = vec![
            "--exit-on-error".to_owned(),
            "--no-password".to_owned(),
            format!("--dbname=dbname='{quoted}'"),
        ];
        let options: &[&str] = match way {
            Way::Make | Way::Swap => &[],
            Way::Fill => &["--single-transaction"],
            Way::Replace => &["--single-transaction", "--clean", "--if-exists"],
        };
        arguments.extend(options.iter().map(|&option| option.to_owned()));
        if self.no_owner {
            arguments.extend(["--no-owner".to_owned(), "--no-privileges".to_owned()]);
        }
        if self.no_tablespaces {
            arguments.push("--no-tablespaces".to_owned());
        }
        // Its own settings may forbid writing. What a crash of the server takes of a database that is not
        // complete is nobody's loss: when it is complete, all is written.
        let options = match way {
            Way::Make | Way::Swap => {
                "-c default_transaction_read_only=off -c synchronous_commit=off"
            }
            Way::Fill => "-c default_transaction_read_only=off",
            Way::Replace => "",
        };
        let (bytes, _, said) = self
            .feed(database, &arguments, options, self.run.control())
            .await?;
        let said =
            (!said.is_empty()).then(|| format!("pg_restore: {}", messages::last_lines(&said)));
        Ok((bytes, said.into_iter().collect()))
    }

    /// The dump's list of contents.
    async fn contents(&self) -> Result<String, PluginError> {
        let list = ["--list".to_owned()];
        let (_, contents, _) = self
            .feed(self.client.maintenance(), &list, "", aside_of(self.run))
            .await?;
        Ok(contents)
    }

    /// What is in the way of replacing what is there.
    async fn in_place(
        &self,
        contents: &str,
        entries: &[&str],
    ) -> Result<Option<String>, PluginError> {
        // One that is cut short says nothing of what is not in it.
        match contents.len() >= LISTING {
            true => Ok(None),
            false => blockers::find(&self.client, self.name, entries).await,
        }
    }

    /// What the dump needs and the server lacks.
    async fn lacking(&self) -> Result<Vec<String>, PluginError> {
        let list = |names: &[String]| -> String {
            let names: Vec<_> = names
                .iter()
                .map(|name| format!("'{}'", shown(name)))
                .collect();
            names.join(", ")
        };
        let mut lacking = Vec::new();
        if !self.lacks.roles.is_empty() && !self.no_owner {
            let way = match has_globals(self.run).await? {
                true => {
                    "the checkpoint has all roles in globals.sql, which a restore with 'restore_to' writes to a folder"
                }
                false => "declare globals = true to have roles in later checkpoints",
            };
            lacking.push(format!(
                "the server has no role {}. Make the role first, or restore with 'no_owner' ({way})",
                list(&self.lacks.roles)
            ));
        }
        if !self.lacks.tablespaces.is_empty() && !self.no_tablespaces {
            lacking.push(format!(
                "the server has no tablespace {}. Make the tablespace first, or restore with 'no_tablespaces'",
                list(&self.lacks.tablespaces)
            ));
        }
        if !self.lacks.extensions.is_empty() {
            lacking.push(format!(
                "the server does not have the extension {}. Install its package on the server first",
                list(&self.lacks.extensions)
            ));
        }
        Ok(lacking)
    }

    /// Why the database that is there cannot give way, as far as it is known beforehand.
    async fn unswappable(&self) -> Result<Vec<String>, PluginError> {
        let found = self.present().await?;
        let mut reasons = Vec::new();
        if self.name == self.client.maintenance() {
            reasons.push("the database is the one that the service connects to in order to rename databases: declare another as maintenance_database".to_owned());
        }
        if !found.may {
            reasons.push("the declared user may not exchange databases: it must own this one and have the right to make databases (CREATEDB), or be superuser".to_owned());
        }
        if !found.subscriptions.is_empty() {
            reasons.push(format!(
                "the database has subscriptions that are at work ({}): disable them first (ALTER SUBSCRIPTION … DISABLE)",
                shown(&found.subscriptions.join(", "))
            ));
        }
        if found.prepared > 0 {
            reasons.push("the database has prepared transactions (see pg_prepared_xacts): commit them or roll them back first".to_owned());
        }
        // A real one waits for them to end.
        if self.run.parameters.dry_run
            && !self.run.parameters.disconnect
            && !found.sessions.is_empty()
        {
            reasons.push(in_use(&found.sessions));
        }
        Ok(reasons)
    }

    /// Waits until nobody is connected to the database that is to give way, as long as for a lock; or ends
    /// the sessions if that was asked for.
    async fn nobody_there(&self) -> Result<(), PluginError> {
        let limit = self.client.lock_timeout();
        let pause = (limit / 8).clamp(Duration::from_millis(100), Duration::from_secs(2));
        let begun = Instant::now();
        loop {
            if self.run.parameters.disconnect {
                let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                    WHERE datname = :'name' AND pid <> pg_backend_pid();";
                let variables = [("name", self.name)];
                let ended = self.client.ask(self.client.maintenance(), &variables, sql);
                ended.await?;
            }
            let found = self.present().await?;
            if found.sessions.is_empty() {
                return Ok(());
            }
            if begun.elapsed() >= limit {
                return Err(PluginError::new(in_use(&found.sessions)));
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.run.context.cancel.cancelled() => return Err(PluginError::cancelled()),
            }
        }
    }

    async fn present(&self) -> Result<Present, PluginError> {
        let variables = [("name", self.name)];
        let client = &self.client;
        client
            .ask_json(client.maintenance(), &variables, PRESENT)
            .await
    }

    /// Runs `pg_restore` on the dump. Answers with bytes read, standard output and standard error.
    async fn feed(
        &self,
        database: &str,
        arguments: &[String],
        options: &str,
        control: Control,
    ) -> Result<(u64, String, String), PluginError> {
        let run = self.run;
        let mut stream = run
            .vault
            .read_stream(&run.kept.snapshot, &run.kept.item, control)
            .await?;
        let mut command = self.client.command("pg_restore", database)?;
        if !options.is_empty() {
            command.env("PGOPTIONS", options);
        }
        let mut child = command
            .args(arguments)
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
        let cancel = &run.context.cancel;
        let (written, out, said, status) = watched(&self.client, database, cancel, work).await?;
        let bytes = written?;
        let status = status.map_err(|e| PluginError::new("pg_restore was lost").with_cause(e))?;
        group.done();
        match status.success() {
            true => Ok((bytes, out, said)),
            false => Err(messages::failure("pg_restore", status, &said)),
        }
    }
}

/// What there is to know of a database that is to give way.
#[derive(Debug, Deserialize)]
struct Present {
    /// May the role rename it?
    may: bool,
    /// Does it take connections?
    open: bool,
    sessions: Vec<Session>,
    subscriptions: Vec<String>,
    prepared: u64,
}

#[derive(Debug, Deserialize)]
struct Session {
    pid: i32,
    user: Option<String>,
    application: Option<String>,
    state: Option<String>,
}

/// With the epoch that the number of a session's transaction lacks.
const TRANSACTION: &str =
    "SELECT (txid_snapshot_xmax(txid_current_snapshot()) >> 32 << 32) + backend_xid::text::bigint
    FROM pg_stat_activity WHERE application_name = :'session' AND datname = :'name'
    AND backend_xid IS NOT NULL AND pid <> pg_backend_pid() LIMIT 1;";

/// The server ends vacuums of its own by itself.
const PRESENT: &str = "SELECT json_build_object(
    'may', (SELECT rolsuper OR (rolcreatedb AND pg_has_role(d.datdba, 'USAGE'))
        FROM pg_roles WHERE rolname = current_user),
    'open', d.datallowconn,
    'sessions', (SELECT coalesce(json_agg(json_build_object('pid', pid, 'user', usename,
            'application', application_name, 'state', state)), '[]') FROM pg_stat_activity
        WHERE datid = d.oid AND pid <> pg_backend_pid()
        AND backend_type IS DISTINCT FROM 'autovacuum worker'),
    'subscriptions', (SELECT coalesce(json_agg(subname), '[]') FROM pg_subscription
        WHERE subenabled AND subdbid = d.oid),
    'prepared', (SELECT count(*) FROM pg_prepared_xacts WHERE database = d.datname))
    FROM pg_database d WHERE datname = :'name';";

fn in_use(sessions: &[Session]) -> String {
    let told = |one: &Session| {
        let (user, application) = (one.user.as_deref(), one.application.as_deref());
        session(one.pid, user, application, one.state.as_deref(), None)
    };
    let list: Vec<_> = sessions.iter().take(5).map(told).collect();
    let more = match sessions.len().saturating_sub(5) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!(
        "the database is in use and cannot exchange its name ({}{more}): stop the application first (its before_restore command can do that), or restore with 'disconnect', which ends the sessions",
        list.join("; ")
    )
}

/// `215; 1259 16386 TABLE public orders shop`: what comes after the numbers is for people.
fn entries(contents: &str) -> Vec<&str> {
    let lines = contents.lines();
    lines
        .filter(|line| !line.starts_with(';') && !line.is_empty())
        .filter_map(|line| line.splitn(4, ' ').nth(3))
        .collect()
}

/// What a restore would do.
fn would(way: Option<Way>, entries: &[&str], refused: &[String]) -> HookReport {
    let kind = match (way, refused.is_empty()) {
        (None, _) | (_, false) => "skip",
        (Some(Way::Replace | Way::Swap), true) => "overwrite",
        (Some(Way::Make | Way::Fill), true) => "create",
    };
    let changes: Vec<_> = entries
        .iter()
        .take(LISTED)
        .map(|entry| json!({"path": entry, "kind": kind}))
        .collect();
    let mut report = HookReport::new();
    report.insert("changes".to_owned(), json!(changes));
    report.insert("changes_total".to_owned(), json!(entries.len()));
    if !refused.is_empty() {
        report.insert("warnings".to_owned(), json!(refused));
        report.insert(REFUSED.to_owned(), json!(refused.join(". ")));
    }
    report
}

fn report(bytes: u64, warnings: Vec<String>) -> HookReport {
    let mut report = HookReport::new();
    report.insert("bytes".to_owned(), json!(bytes));
    report.insert("files".to_owned(), json!(1));
    if !warnings.is_empty() {
        report.insert("warnings".to_owned(), json!(warnings));
    }
    report
}

/// Makes a database that this run made like any other: its own comment in place of the sign. Drops the
/// one that gave way to it, if that was asked for. Answers with what could not be done: the data are back,
/// so that is no reason to fail.
pub(super) async fn keep(
    host: &Host,
    context: &OperationContext,
) -> Result<Vec<String>, PluginError> {
    let Some(noted) = made(host, context).await? else {
        return Ok(Vec::new());
    };
    let old = noted.replaced.as_deref().filter(|_| noted.drop_old);
    let mut warnings = Vec::new();
    let declared = host.declared_component(context).await;
    let source = declared.as_ref().map_err(Clone::clone);
    let source = source.and_then(|declared| declared.source::<PostgresqlSource>());
    let client = source.map(|source| Client::of(source, context));
    let named = match &client {
        Ok(client) => name_as_its_own(client, context, &noted).await,
        Err(error) => Err(error.clone()),
    };
    if let Err(error) = named {
        tracing::warn!(%error, database = noted.target, "a restored database keeps the comment of one that is not complete");
        warnings.push(format!(
            "the database '{}' is complete, but still has the comment 'karbor: restore not complete': give it its own (COMMENT ON DATABASE): {}",
            shown(&noted.target), error.message
        ));
    }
    if let Some(old) = old {
        let dropped = match &client {
            Ok(client) => drop_old(client, old, &noted.target).await,
            Err(error) => Err(error.clone()),
        };
        if let Err(error) = dropped {
            tracing::warn!(%error, database = old, "a database that was replaced could not be dropped");
            warnings.push(format!(
                "the database that was replaced is still there as '{}': drop it by hand: {}",
                shown(old),
                error.message
            ));
        }
    }
    Ok(warnings)
}

/// Drops the database that was replaced, if the one that replaced it is there.
async fn drop_old(client: &Client<'_>, old: &str, name: &str) -> Result<(), PluginError> {
    let sql = "SELECT format('DROP DATABASE %I WITH (FORCE)', datname) FROM pg_database
        WHERE datname = :'old' AND EXISTS (SELECT FROM pg_database WHERE datname = :'name') \\gexec\n";
    let variables = [("old", old), ("name", name)];
    let dropped = client.ask_within(SLOW, client.maintenance(), &variables, sql);
    dropped.await.map(|_| ())
}

/// Puts a database's own comment in place of the sign, and makes it a template if it was one.
async fn name_as_its_own(
    client: &Client<'_>,
    context: &OperationContext,
    noted: &Noted,
) -> Result<(), PluginError> {
    let sql = "SELECT format('COMMENT ON DATABASE %I IS %s', datname,
            CASE WHEN :'commented' = '' THEN 'NULL' ELSE quote_literal(:'comment') END),
            CASE WHEN :'template' <> '' THEN format('ALTER DATABASE %I IS_TEMPLATE true', datname) END
        FROM pg_database
        WHERE datname = :'name' AND shobj_description(oid, 'pg_database') = :'sign' \\gexec\n";
    let sign = sign(context);
    let variables = [
        ("name", noted.target.as_str()),
        ("sign", sign.as_str()),
        (
            "commented",
            if noted.comment.is_some() { "yes" } else { "" },
        ),
        ("comment", noted.comment.as_deref().unwrap_or_default()),
        ("template", if noted.is_template { "yes" } else { "" }),
    ];
    let done = client.ask_within(SLOW, client.maintenance(), &variables, sql);
    done.await.map(|_| ())
}

/// Drops a database that this run made; the one that gave way to it has its name again.
pub(super) async fn discard(host: &Host, context: &OperationContext) -> Result<(), PluginError> {
    let Some(noted) = made(host, context).await? else {
        return Ok(());
    };
    let declared = host.declared_component(context).await?;
    let client = Client::of(declared.source::<PostgresqlSource>()?, context);
    let (provisional, sign) = (provisional(context), sign(context));
    let swapped_back = "SELECT format('ALTER DATABASE %I ALLOW_CONNECTIONS false', datname) FROM pg_database
            WHERE datname = :'name' AND shobj_description(oid, 'pg_database') = :'sign'
            AND EXISTS (SELECT FROM pg_database WHERE datname = :'replaced') \\gexec
        SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN pg_database d ON d.oid = a.datid
            WHERE d.datname = :'name' AND shobj_description(d.oid, 'pg_database') = :'sign';
        SELECT format('BEGIN; ALTER DATABASE %I RENAME TO %I; ALTER DATABASE %I RENAME TO %I; COMMIT',
            :'name', :'provisional', :'replaced', :'name')
        FROM pg_database WHERE datname = :'name' AND shobj_description(oid, 'pg_database') = :'sign'
        AND EXISTS (SELECT FROM pg_database WHERE datname = :'replaced') \\gexec\n";
    let back = noted.replaced.as_ref().map_or("", |_| swapped_back);
    // Its clients are back as soon as they can be.
    let reopened = if noted.closed { REOPEN } else { "" };
    let sql = format!("{back} {reopened} DROP DATABASE IF EXISTS :\"provisional\" WITH (FORCE);");
    let variables = [
        ("name", noted.target.as_str()),
        ("provisional", provisional.as_str()),
        ("replaced", noted.replaced.as_deref().unwrap_or_default()),
        ("sign", sign.as_str()),
    ];
    let dropped = client.ask_within(SLOW, client.maintenance(), &variables, &sql);
    dropped.await?;
    drop_signed(&client, &noted.target, &sign).await
}

/// The note of a run that makes a database.
async fn made(host: &Host, context: &OperationContext) -> Result<Option<Noted>, PluginError> {
    let noted = note(host, context).read().await?;
    Ok(noted.filter(|noted| noted.made))
}
