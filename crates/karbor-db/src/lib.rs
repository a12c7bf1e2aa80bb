//! The database: queries as methods, migrations. The only crate that sees the SQL library.
