//! Whether the server answers, and the declared role can protect a database and restore it again: for
//! `karbor config validate`.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use async_trait::async_trait;
use karbor_plugin::PluginError;
use serde::Deserialize;

use super::{client::Client, database::Properties, lock_waits::shown, source::PostgresqlSource};
use crate::host::{
    applications::{Finding, Source},
    places::describe,
};

/// What the role may not do.
#[derive(Debug, Deserialize)]
struct Rights {
    role: String,
    superuser: bool,
    /// May it make databases?
    creates: bool,
    /// May it read what `pg_dumpall` reads?
    globals: bool,
    /// Tables that it cannot read, or not all rows of.
    unreadable: Vec<String>,
    /// Roles that own or are granted something, and that it is no member of.
    strangers: Vec<String>,
    /// Extensions that only a superuser can make.
    extensions: Vec<String>,
    /// Tablespaces that it cannot put anything into.
    tablespaces: Vec<String>,
}

#[async_trait]
impl Source for PostgresqlSource {
    fn trusted_files(&self) -> Vec<(&'static str, &Path)> {
        self.files()
    }

    /// Does the server answer, do its programs fit, and may the role do what is asked of it?
    async fn ask(&self) -> Vec<Finding> {
        match unusable(self).await {
            Some(finding) => vec![finding],
            None => shortcomings(self)
                .await
                .unwrap_or_else(|error| vec![Finding::error("", error.message)]),
        }
    }
}

/// Why the database cannot be reached at all.
async fn unusable(source: &PostgresqlSource) -> Option<Finding> {
    let client = Client::new(source);
    let needed = ["psql", "pg_dump", "pg_restore", "pg_dumpall"];
    for program in needed.iter().take(if source.globals { 4 } else { 3 }) {
        if let Err(error) = client.program(program) {
            return Some(Finding::error("bin_dir", error.message));
        }
    }
    for (field, file) in source.files() {
        match fs::metadata(file) {
            Err(error) if field != "bin_dir" => {
                return Some(Finding::error(field, describe(file, &error)));
            }
            Ok(found) if field == "passfile" && found.mode() & 0o077 != 0 => {
                let message = format!(
                    "PostgreSQL ignores '{}' while others may read it: chmod 600",
                    file.display()
                );
                return Some(Finding::error(field, message));
            }
            _ => {}
        }
    }
    let sql = "SELECT current_setting('server_version_num')::int / 10000;";
    let server = match client.ask(&source.database, &[], sql).await {
        Ok(server) => server,
        Err(error) => return Some(Finding::error("", error.message)),
    };
    match client.version().await {
        Ok(ours) if server.parse::<u32>().is_ok_and(|server| server > ours) => {
            let message = format!(
                "the server has version {server} and the programs found have {ours}: install client programs of the server's version and declare bin_dir"
            );
            Some(Finding::error("bin_dir", message))
        }
        Ok(_) => None,
        Err(error) => Some(Finding::error("bin_dir", error.message)),
    }
}

const RIGHTS: &str = "SELECT json_build_object(
    'role', current_user, 'superuser', r.rolsuper, 'creates', r.rolsuper OR r.rolcreatedb,
    'globals', has_table_privilege('pg_catalog.pg_authid', 'SELECT'),
    'unreadable', (SELECT coalesce(json_agg(c.oid::regclass::text), '[]') FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'S', 'm') AND c.relpersistence <> 't'
        AND (NOT has_table_privilege(c.oid, 'SELECT') OR NOT has_schema_privilege(n.oid, 'USAGE')
            OR row_security_active(c.oid))
        AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid
            AND e.deptype = 'e')),
    'strangers', (SELECT coalesce(json_agg(n), '[]') FROM json_array_elements_text(:'owners') n
        WHERE EXISTS (SELECT FROM pg_roles WHERE rolname = n) AND NOT pg_has_role(n, 'MEMBER')),
    'extensions', (SELECT coalesce(json_agg(DISTINCT e.extname), '[]') FROM pg_extension e
        JOIN pg_available_extension_versions v ON v.name = e.extname AND v.version = e.extversion
        WHERE e.oid >= 16384 AND v.superuser AND NOT v.trusted),
    'tablespaces', (SELECT coalesce(json_agg(n), '[]') FROM json_array_elements_text(:'tablespaces') n
        WHERE EXISTS (SELECT FROM pg_tablespace WHERE spcname = n)
        AND NOT has_tablespace_privilege(n, 'CREATE')))
    FROM pg_roles r WHERE r.rolname = current_user;";

/// What the declared role cannot do, and what to do about it.
///
/// # Errors
/// Failures of the connection.
async fn shortcomings(source: &PostgresqlSource) -> Result<Vec<Finding>, PluginError> {
    let client = Client::new(source);
    let properties = Properties::read(&client).await?;
    let (owners, tablespaces) = properties.owners_and_tablespaces();
    let variables = [("owners", owners.as_str()), ("tablespaces", &tablespaces)];
    let rights: Rights = client
        .ask_json(&source.database, &variables, RIGHTS)
        .await?;
    let mut found = Vec::new();
    let role = shown(&rights.role);
    if source.globals && !rights.globals {
        let message = format!(
            "the role '{role}' may not read roles and their passwords: leave globals out, or declare a superuser"
        );
        found.push(Finding::error("globals", message));
    }
    if !rights.unreadable.is_empty() {
        let message = format!(
            "the role '{role}' cannot read all of {}: grant it SELECT (pg_read_all_data), and BYPASSRLS where rows are secured",
            some(&rights.unreadable)
        );
        found.push(Finding::error("user", message));
    }
    let mut only = |key, what: &str, remedy: &str| {
        let message = format!("it can be protected, but not restored as it was: {what}: {remedy}");
        found.push(Finding::warning(key, message));
    };
    if !rights.creates {
        let what = format!("the role '{role}' may not make databases");
        only(
            "user",
            &what,
            "ALTER ROLE … CREATEDB, or make an empty database before a restore",
        );
    }
    if !rights.superuser && !source.no_owner && !rights.strangers.is_empty() {
        let what = format!(
            "the role '{role}' is no member of {}",
            some(&rights.strangers)
        );
        only(
            "user",
            &what,
            "grant it these roles, or declare no_owner = true",
        );
    }
    if !rights.superuser && !rights.extensions.is_empty() {
        let what = format!(
            "only a superuser makes the extension {}",
            some(&rights.extensions)
        );
        only(
            "user",
            &what,
            "declare a superuser, or be ready to restore as one",
        );
    }
    if !rights.superuser && !source.no_tablespaces && !rights.tablespaces.is_empty() {
        let what = format!(
            "the role '{role}' may not use the tablespace {}",
            some(&rights.tablespaces)
        );
        only(
            "user",
            &what,
            "GRANT CREATE ON TABLESPACE, or declare no_tablespaces = true",
        );
    }
    if let Err(error) = client.ask(client.maintenance(), &[], "SELECT 1;").await {
        let what = format!(
            "databases are made from the database '{}', and {error}",
            shown(client.maintenance())
        );
        only(
            "maintenance_database",
            &what,
            "declare one that it may connect to",
        );
    }
    Ok(found)
}

fn some(names: &[String]) -> String {
    let list: Vec<_> = names
        .iter()
        .take(5)
        .map(|name| format!("'{}'", shown(name)))
        .collect();
    match names.len().saturating_sub(5) {
        0 => list.join(", "),
        more => format!("{} and {more} more", list.join(", ")),
    }
}
