//! Rows that are inserted.

use sea_orm::{
    ConnectionTrait,
    sea_query::{Alias, Expr, InsertStatement, Query},
};

use crate::{Db, DbError, Write};

impl Db {
    /// Inserts one row that is not deleted.
    pub(crate) async fn insert(
        &self,
        table: &'static str,
        columns: &'static [&'static str],
        values: impl IntoIterator<Item = Expr>,
    ) -> Result<(), DbError> {
        self.execute(&insert_row(table, columns, values)?).await?;
        Ok(())
    }
}

/// Rows of one insert: far from every database's limit on parameters.
pub(crate) const CHUNK: usize = 500;

/// Inserts rows that are not deleted.
pub(crate) async fn insert_rows(
    write: &Write<'_>,
    table: &'static str,
    columns: &'static [&'static str],
    rows: Vec<Vec<Expr>>,
) -> Result<(), DbError> {
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let mut insert = Query::insert()
            .into_table(Alias::new(table))
            .columns(columns.iter().copied().chain(["deleted"]))
            .take();
        for row in rows.by_ref().take(CHUNK) {
            insert
                .values(row.into_iter().chain([false.into()]))
                .map_err(|error| DbError::Internal(error.to_string()))?;
        }
        write.execute(&insert).await?;
    }
    Ok(())
}

/// Statement that inserts one row that is not deleted.
pub(crate) fn insert_row(
    table: &'static str,
    columns: &'static [&'static str],
    values: impl IntoIterator<Item = Expr>,
) -> Result<InsertStatement, DbError> {
    Ok(Query::insert()
        .into_table(Alias::new(table))
        .columns(columns.iter().copied().chain(["deleted"]))
        .values(values.into_iter().chain([false.into()]))
        .map_err(|error| DbError::Internal(error.to_string()))?
        .take())
}
