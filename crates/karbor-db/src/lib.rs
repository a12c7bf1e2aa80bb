//! The database: queries as methods, migrations. The only crate that sees the SQL library.

mod error;
mod flows;
mod list;
mod shape;

pub use error::DbError;
pub use flows::{FlowEvent, FlowEventKind, FlowRecord};
pub use list::{Direction, ListQuery};
pub use shape::{OperationLogUpdate, Stateful, TokenRecord};

/// The database.
#[derive(Clone)]
pub struct Db {}
