//! The schema, and how an older database becomes a present one.
//!
//! The first migration makes the original's tables, each unless it is there, and adds the columns
//! that an older one lacks: so a database of the original is taken over as it is. Ours come beside
//! them; what we add to the original's tables may be NULL, so the original can go on using them.
//!
//! All pending migrations run in one write transaction. A second process waits for it and then
//! finds nothing to do; a crash leaves the database as it was.

mod enabling;
mod notifications;
mod original;
mod ours;
mod quotas;
mod scheduling;
mod table;
mod trusts;

use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DynIden,
    sea_query::{Expr, ExprTrait, IntoIden, Query},
};
use sea_orm_migration::{MigrationTrait, MigratorTrait};

use crate::DbError;

const APPLIED: &str = "karbor_migrations";

/// The last migration of the original (sqlalchemy-migrate, repository `karbor`).
const ORIGINAL_VERSION: i32 = 3;

struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(original::OriginalTables),
            Box::new(ours::OurTables),
            Box::new(scheduling::Scheduling),
            Box::new(quotas::Quotas),
            Box::new(notifications::Notifications),
            Box::new(notifications::Sinks),
            Box::new(trusts::Trusts),
            Box::new(enabling::Enabling),
        ]
    }

    fn migration_table_name() -> DynIden {
        APPLIED.into_iden()
    }
}

/// Is there nothing to do?
pub(crate) async fn is_current<C>(db: &C) -> Result<bool, DbError>
where
    C: ConnectionTrait,
{
    let applied = applied(db).await?;
    let known: Vec<_> = Migrator::migrations();
    if let Some(newer) = applied
        .iter()
        .find(|name| known.iter().all(|known| known.name() != name.as_str()))
    {
        return Err(DbError::Schema(format!(
            "The database was written by a newer version of Karbor (it has '{newer}'). Start that \
             version, or put back the database from before the upgrade."
        )));
    }
    Ok(applied.len() == known.len())
}

/// Runs what is pending.
pub(crate) async fn up(write: &DatabaseTransaction) -> Result<(), DbError> {
    // Asked again: another process may have been faster.
    if is_current(write).await? {
        return Ok(());
    }
    refuse_newer_original(write).await?;
    Migrator::up(write, None).await?;
    Ok(())
}

async fn has_table<C: ConnectionTrait>(db: &C, table: &str) -> Result<bool, DbError> {
    // Asking for rows that cannot be works on every database and in every transaction but a
    // failed one; so ask the catalogue.
    let select = match db.get_database_backend() {
        sea_orm::DbBackend::Sqlite => Query::select()
            .column("name")
            .from("sqlite_master")
            .and_where(Expr::col("name").eq(table))
            .take(),
        _ => Query::select()
            .column("table_name")
            .from(("information_schema", "tables"))
            .and_where(Expr::col("table_name").eq(table))
            .take(),
    };
    Ok(db.query_one(&select).await?.is_some())
}

async fn applied<C: ConnectionTrait>(db: &C) -> Result<Vec<String>, DbError> {
    if !has_table(db, APPLIED).await? {
        return Ok(Vec::new());
    }
    let select = Query::select().column("version").from(APPLIED).take();
    let rows = db.query_all(&select).await?;
    rows.iter()
        .map(|row| row.try_get_by_index(0).map_err(DbError::from))
        .collect()
}

/// How the schema of a database stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaState {
    /// The migrations that were applied, oldest first.
    pub applied: Vec<String>,
    /// The migrations that are still to be applied.
    pub pending: Vec<String>,
    /// The schema version of the original, for a database that has its tables.
    pub original: Option<i32>,
}

/// Looks without changing anything.
pub(crate) async fn state<C: ConnectionTrait>(db: &C) -> Result<SchemaState, DbError> {
    is_current(db).await?;
    let applied = applied(db).await?;
    let known = Migrator::migrations();
    let names = known.iter().map(|known| known.name().to_owned());
    Ok(SchemaState {
        pending: names.filter(|name| !applied.contains(name)).collect(),
        original: original_version(db).await?,
        applied,
    })
}

async fn original_version<C: ConnectionTrait>(db: &C) -> Result<Option<i32>, DbError> {
    if !has_table(db, "migrate_version").await? {
        return Ok(None);
    }
    let select = Query::select()
        .column("version")
        .from("migrate_version")
        .and_where(Expr::col("repository_id").eq("karbor"))
        .take();
    match db.query_one(&select).await? {
        Some(row) => Ok(row.try_get_by_index(0)?),
        None => Ok(None),
    }
}

async fn refuse_newer_original(db: &DatabaseTransaction) -> Result<(), DbError> {
    match original_version(db).await? {
        Some(version) if version > ORIGINAL_VERSION => Err(DbError::Schema(format!(
            "The database was written by a version of OpenStack Karbor that is not known here \
             (schema {version}; known are those up to {ORIGINAL_VERSION})."
        ))),
        _ => Ok(()),
    }
}
