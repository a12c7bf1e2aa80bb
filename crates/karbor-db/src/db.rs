//! The connection: how it is opened, and how reads and writes take their turn.

use std::{
    fmt,
    ops::Deref,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, SubsecRound, Utc};
use karbor_manager::{Clock, SystemClock};
use karbor_model::{RequestContext, RequestId};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, SqliteTransactionMode,
    SqlxSqliteConnector, Statement, StatementBuilder, TransactionOptions, TransactionTrait,
    sea_query::{InsertStatement, Value},
    sqlx::{
        ConnectOptions,
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
    },
};
use tokio::sync::{Mutex, MutexGuard};

use crate::{DbError, migrations, row};

/// How long a writer waits for another process to finish its transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Readers beside the one writer. SQLite answers in microseconds; more connections only cost memory.
const CONNECTIONS: u32 = 4;

/// A whole page of a list fits, so that the connection's thread need not wait for the reader's.
const ROW_BUFFER: usize = 1024;

/// The database. Cheap to clone; every clone is the same one.
#[derive(Clone)]
pub struct Db {
    pool: DatabaseConnection,
    /// SQLite has one writer. Waiting for the turn here is fair and immediate; waiting inside
    /// SQLite is polling with growing sleeps.
    turn: Arc<Mutex<()>>,
    file: Option<Arc<DbFile>>,
    clock: Arc<dyn Clock>,
    /// The request that asked for what is written; told with it.
    request: Option<RequestId>,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").field("file", &self.file).finish()
    }
}

impl Db {
    /// Opens `sqlite:///absolute/path` (made, readable for its owner only, if it is not there) or
    /// `sqlite::memory:`. Does not touch the schema: see [`Db::migrate`].
    ///
    /// # Errors
    /// [`DbError::Unavailable`] names what is wrong with the file; [`DbError::BadRequest`] an
    /// URL that is not SQLite's.
    pub async fn connect(url: &str) -> Result<Self, DbError> {
        let scheme = url.split(':').next().unwrap_or_default();
        if scheme != "sqlite" {
            return Err(DbError::BadRequest {
                field: "connection",
                message: format!(
                    "The database connection begins with '{scheme}:', and only 'sqlite:' is built \
                     in. Set it to sqlite:///absolute/path."
                ),
            });
        }
        let options = SqliteConnectOptions::from_str(url).map_err(|e| DbError::BadRequest {
            field: "connection",
            message: format!("The database connection cannot be read: {e}"),
        })?;
        if url.contains(":memory:") || url.contains("mode=memory") {
            return Self::open_memory(options).await;
        }
        Self::open_file(options, url.contains("mode=ro")).await
    }

    /// Opens the database file at `path`, as [`Db::connect`] does.
    ///
    /// # Errors
    /// As [`Db::connect`].
    pub async fn open(path: &Path) -> Result<Self, DbError> {
        Self::open_file(SqliteConnectOptions::new().filename(path), false).await
    }

    /// The same database, asked on behalf of a request, which the notifications of what it writes name.
    #[must_use]
    pub fn asked_by(&self, context: &RequestContext) -> Self {
        Self {
            request: Some(context.request_id.clone()),
            ..self.clone()
        }
    }

    pub(crate) fn request(&self) -> Option<&RequestId> {
        self.request.as_ref()
    }

    /// Takes the time of new records from `clock` instead of the machine's.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Brings the schema up to date; does nothing when it is. Several processes may do so at once.
    ///
    /// # Errors
    /// [`DbError::Schema`] when the database was written by a newer version.
    pub async fn migrate(&self) -> Result<(), DbError> {
        if migrations::is_current(&self.pool).await? {
            return Ok(());
        }
        let write = self.write().await?;
        migrations::up(&write).await?;
        write.commit().await
    }

    /// Closes the connections; what is under way is finished first.
    pub async fn close(&self) {
        if let Err(error) = self.pool.clone().close().await {
            tracing::warn!(%error, "the database did not close cleanly");
        }
    }

    async fn open_memory(options: SqliteConnectOptions) -> Result<Self, DbError> {
        // Each connection would be a database of its own, and go with the connection.
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None);
        Self::open_pool(pool, options.foreign_keys(true), None).await
    }

    async fn open_file(options: SqliteConnectOptions, read_only: bool) -> Result<Self, DbError> {
        let path = options.get_filename().to_owned();
        if !read_only {
            create_private(&path)?;
        }
        let mut options = options
            .busy_timeout(BUSY_TIMEOUT)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .pragma("journal_size_limit", "67108864");
        if !read_only {
            options = options.journal_mode(SqliteJournalMode::Wal);
        }
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS);
        let file = DbFile::at(&path)?;
        Self::open_pool(pool, options, Some(Arc::new(file))).await
    }

    async fn open_pool(
        pool: SqlitePoolOptions,
        options: SqliteConnectOptions,
        file: Option<Arc<DbFile>>,
    ) -> Result<Self, DbError> {
        let options = options
            .row_buffer_size(ROW_BUFFER)
            .disable_statement_logging();
        let pool = pool
            .acquire_timeout(BUSY_TIMEOUT)
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .map_err(|error| name_file(crate::error::from_sqlx(&error), file.as_deref()))?;
        Ok(Self {
            pool: SqlxSqliteConnector::from_sqlx_sqlite_pool(pool),
            turn: Arc::default(),
            file,
            clock: Arc::new(SystemClock::new()),
            request: None,
        })
    }

    /// Where reads go.
    pub(crate) fn read(&self) -> &DatabaseConnection {
        &self.pool
    }

    /// One writing statement, a transaction by itself; returns how many rows it touched.
    pub(crate) async fn execute(&self, statement: &impl StatementBuilder) -> Result<u64, DbError> {
        let _turn = self.turn().await?;
        Ok(self.pool.execute(statement).await?.rows_affected())
    }

    async fn turn(&self) -> Result<MutexGuard<'_, ()>, DbError> {
        let turn = self.turn.lock().await;
        if let Some(file) = &self.file {
            file.check_in_place()?;
        }
        Ok(turn)
    }

    /// Begins a write transaction; dropping it without [`Write::commit`] rolls back. Nothing may
    /// read through [`Db::read`] while it is open (in memory there is only one connection).
    pub(crate) async fn write(&self) -> Result<Write<'_>, DbError> {
        let turn = self.turn().await?;
        let options = TransactionOptions {
            // Deferred transactions that turn into writes collide instead of waiting.
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let transaction = self.pool.begin_with_options(options).await?;
        Ok(Write {
            transaction,
            _turn: turn,
        })
    }

    /// Now, as the database keeps it.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.clock.now().trunc_subsecs(6)
    }

    /// A time as the original wrote it: naive UTC with microseconds.
    pub(crate) fn time(&self, at: DateTime<Utc>) -> Value {
        let at = at.naive_utc().trunc_subsecs(6);
        match self.backend() {
            // Always six digits: the original reads the fraction as a count of microseconds.
            DbBackend::Sqlite => row::time_text(at).into(),
            _ => at.into(),
        }
    }

    /// The same, or a NULL of that type.
    pub(crate) fn time_opt(&self, at: Option<DateTime<Utc>>) -> Value {
        match at {
            Some(at) => self.time(at),
            None if self.backend() == DbBackend::Sqlite => Value::String(None),
            None => Value::ChronoDateTime(None),
        }
    }

    pub(crate) fn backend(&self) -> DbBackend {
        self.pool.get_database_backend()
    }
}

/// A write transaction.
pub(crate) struct Write<'a> {
    // First, so that it ends before the next writer's turn begins.
    transaction: DatabaseTransaction,
    _turn: MutexGuard<'a, ()>,
}

impl Write<'_> {
    /// Writes all the rows. SQLite's driver has a thread for each connection and most of a short
    /// statement's time goes into waking it and being woken: it takes them in one go.
    pub(crate) async fn insert_all(
        &self,
        inserts: impl IntoIterator<Item = InsertStatement>,
    ) -> Result<(), DbError> {
        let backend = self.get_database_backend();
        let statements = inserts.into_iter().map(|insert| backend.build(&insert));
        if backend != DbBackend::Sqlite {
            for statement in statements {
                self.execute_raw(statement).await?;
            }
            return Ok(());
        }
        let (mut sql, mut values) = (Vec::new(), Vec::new());
        for statement in statements {
            sql.push(statement.sql);
            values.extend(statement.values.into_iter().flatten());
        }
        let all = Statement::from_sql_and_values(backend, sql.join("; "), values);
        self.execute_raw(all).await?;
        Ok(())
    }

    pub(crate) async fn commit(self) -> Result<(), DbError> {
        Ok(self.transaction.commit().await?)
    }
}

impl Deref for Write<'_> {
    type Target = DatabaseTransaction;

    fn deref(&self) -> &Self::Target {
        &self.transaction
    }
}

/// Which file is open. Unix lets a process go on writing into a file that was moved away or
/// deleted; what it wrote there would be lost in silence.
#[derive(Debug)]
struct DbFile {
    path: PathBuf,
    #[cfg(unix)]
    identity: (u64, u64),
}

impl DbFile {
    fn at(path: &Path) -> Result<Self, DbError> {
        let metadata = std::fs::metadata(path).map_err(|e| cannot_open(path, e))?;
        #[cfg(not(unix))]
        let _ = metadata;
        Ok(Self {
            path: path.to_owned(),
            #[cfg(unix)]
            identity: identity(&metadata),
        })
    }

    #[cfg(unix)]
    fn check_in_place(&self) -> Result<(), DbError> {
        let found = std::fs::metadata(&self.path).map_err(|e| {
            let path = self.path.display();
            DbError::unavailable(
                format!("The database file {path} is gone. Put it back, or restart the service."),
                e,
            )
        })?;
        if identity(&found) == self.identity {
            return Ok(());
        }
        let path = self.path.display();
        Err(DbError::unavailable(
            format!(
                "Another file was put in the place of the database {path}. Restart the service."
            ),
            "its inode changed",
        ))
    }

    #[cfg(not(unix))]
    fn check_in_place(&self) -> Result<(), DbError> {
        std::fs::metadata(&self.path)
            .map(|_| ())
            .map_err(|e| cannot_open(&self.path, e))
    }
}

/// Says which file it is about.
fn name_file(error: DbError, file: Option<&DbFile>) -> DbError {
    match (error, file) {
        (DbError::Unavailable { message, cause }, Some(file)) => DbError::Unavailable {
            message: format!("{}: {message}", file.path.display()),
            cause,
        },
        (error, _) => error,
    }
}

#[cfg(unix)]
fn identity(metadata: &std::fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

/// Makes the file if it is not there, for its owner's eyes only (SQLite gives its journal files
/// the same mode).
fn create_private(path: &Path) -> Result<(), DbError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(cannot_open(path, error)),
    }
}

fn cannot_open(path: &Path, cause: std::io::Error) -> DbError {
    let path = path.display();
    DbError::unavailable(
        format!(
            "The database {path} cannot be opened. Check that its folder exists and is writable."
        ),
        cause,
    )
}
