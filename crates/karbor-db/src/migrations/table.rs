//! Tables as data: made whole, or completed.

use sea_orm::{
    DbBackend, DbErr,
    sea_query::{Alias, ColumnDef, ForeignKey, ForeignKeyAction, Index, Table},
};
use sea_orm_migration::SchemaManager;

/// Type of a column.
#[derive(Clone, Copy)]
pub(super) enum ColumnType {
    /// Text of at most so many characters.
    Text(u32),
    /// The original's TEXT (64 KiB on MariaDB).
    LongText,
    /// Text without a limit that matters.
    HugeText,
    /// Naive UTC, microseconds.
    Time,
    Bool,
    Int,
    BigInt,
    /// Primary key that counts by itself.
    Serial,
}

/// One column.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: ColumnType,
    pub(super) null: bool,
}

/// May be NULL.
pub(super) const fn opt(name: &'static str, kind: ColumnType) -> Column {
    Column {
        name,
        kind,
        null: true,
    }
}

/// May not.
pub(super) const fn req(name: &'static str, kind: ColumnType) -> Column {
    Column {
        name,
        kind,
        null: false,
    }
}

/// One table.
pub(super) struct TableSpec {
    pub(super) name: &'static str,
    pub(super) columns: &'static [Column],
    pub(super) primary: &'static [&'static str],
    /// Column, table and column that it refers to, cascades.
    pub(super) references: &'static [(&'static str, &'static str, &'static str, bool)],
}

/// An index: name, table, columns, unique.
pub(super) type IndexSpec = (&'static str, &'static str, &'static [&'static str], bool);

impl Column {
    fn definition(&self, backend: DbBackend) -> ColumnDef {
        let mut column = ColumnDef::new(Alias::new(self.name));
        match self.kind {
            ColumnType::Text(length) => column.string_len(length),
            ColumnType::LongText => column.text(),
            ColumnType::HugeText if backend == DbBackend::MySql => {
                column.custom(Alias::new("LONGTEXT"))
            }
            ColumnType::HugeText => column.text(),
            ColumnType::Time => match backend {
                DbBackend::Sqlite => column.custom(Alias::new("DATETIME")),
                DbBackend::MySql => column.custom(Alias::new("DATETIME(6)")),
                _ => column.date_time(),
            },
            ColumnType::Bool => column.boolean(),
            ColumnType::Int => column.integer(),
            ColumnType::BigInt => column.big_integer(),
            // On SQLite an integer primary key counts by itself.
            ColumnType::Serial if backend == DbBackend::Sqlite => column.integer(),
            ColumnType::Serial => column.integer().auto_increment(),
        };
        if !self.null {
            column.not_null();
        }
        column
    }
}

impl TableSpec {
    /// Makes the table, or adds the columns that it lacks.
    pub(super) async fn make(&self, manager: &SchemaManager<'_>) -> Result<(), DbErr> {
        if !manager.has_table(self.name).await? {
            return self.create(manager).await;
        }
        for column in self.columns {
            add_column(manager, self.name, column).await?;
        }
        Ok(())
    }

    async fn create(&self, manager: &SchemaManager<'_>) -> Result<(), DbErr> {
        let backend = manager.get_database_backend();
        let mut table = Table::create();
        table.table(Alias::new(self.name));
        for column in self.columns {
            table.col(column.definition(backend));
        }
        let mut primary = Index::create();
        for column in self.primary {
            primary.col(Alias::new(*column));
        }
        table.primary_key(&mut primary);
        for (column, of, to, cascades) in self.references {
            let mut key = ForeignKey::create();
            key.from(Alias::new(self.name), Alias::new(*column))
                .to(Alias::new(*of), Alias::new(*to));
            if *cascades {
                key.on_delete(ForeignKeyAction::Cascade);
            }
            table.foreign_key(&mut key);
        }
        manager.create_table(table).await
    }
}

/// Adds a column unless it is there. It may be NULL: the rows that are there have no value for it.
pub(super) async fn add_column(
    manager: &SchemaManager<'_>,
    table: &'static str,
    column: &Column,
) -> Result<(), DbErr> {
    if manager.has_column(table, column.name).await? {
        return Ok(());
    }
    let column = Column {
        null: true,
        ..*column
    };
    let definition = column.definition(manager.get_database_backend());
    let alter = Table::alter()
        .table(Alias::new(table))
        .add_column(definition)
        .take();
    manager.alter_table(alter).await
}

/// Makes an index unless it is there.
pub(super) async fn make_index(
    manager: &SchemaManager<'_>,
    (name, table, columns, unique): &IndexSpec,
) -> Result<(), DbErr> {
    if manager.has_index(*table, *name).await? {
        return Ok(());
    }
    let mut index = Index::create();
    index.name(*name).table(Alias::new(*table));
    for column in *columns {
        index.col(Alias::new(*column));
    }
    if *unique {
        index.unique();
    }
    manager.create_index(index).await
}
