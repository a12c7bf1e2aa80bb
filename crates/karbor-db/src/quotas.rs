//! Limits: a project's own, else its class's, else those of the class `default`, else the
//! configuration's.
//!
//! **Usage is counted, not kept.** What a project has is the number of its plans and of its rows in
//! `quota_holdings` (one for each checkpoint, made with the run that makes the checkpoint and
//! removed with the end of the run that deletes it; see [`crate::QuotaSettlement`]). A sum of rows
//! cannot leak, go negative or be paid back twice. The original's `quota_usages` and `reservations`
//! are left as they are.
//!
//! **No window.** The one that counts against a limit first takes the project's row in `quota_projects`,
//! then counts, then inserts, in one transaction: of two that want the last place, the second
//! waits and then sees the first. The row also holds the project's class. Classes take turns on
//! the row of no project, so that a limit is stored once.

use karbor_manager::{Config, ConfigError, OptionDef, OptionKind};
use karbor_model::{QuotaChange, QuotaLimits, QuotaResource, QuotaUsage, UNLIMITED};
use sea_orm::{
    ConnectionTrait, DbBackend,
    sea_query::{
        Alias, Condition, Expr, ExprTrait, Func, OnConflict, Order, Query, SelectStatement,
        UnionType,
    },
};

use crate::{Db, DbError, QuotaStore, Write, row::Row, transition::not_deleted};

macro_rules! option {
    ($name:literal, $kind:ident, $default:literal, $help:literal) => {
        OptionDef {
            group: "DEFAULT",
            name: $name,
            kind: OptionKind::$kind,
            default: $default,
            help: $help,
            secret: false,
        }
    };
}

/// Option `quota_plans`.
pub const QUOTA_PLANS: OptionDef = option!(
    "quota_plans",
    Int,
    "50",
    "How many plans a project may have, unless its quota or its quota class says otherwise; -1 is no \
     limit."
);
/// Option `quota_checkpoints`.
pub const QUOTA_CHECKPOINTS: OptionDef = option!(
    "quota_checkpoints",
    Int,
    "-1",
    "How many checkpoints a project may have, unless its quota or its quota class says otherwise; -1 \
     is no limit."
);
/// Option `quota_bytes`.
pub const QUOTA_BYTES: OptionDef = option!(
    "quota_bytes",
    Int,
    "-1",
    "How many bytes the checkpoints of a project may have added to the banks before no new one is \
     begun, unless its quota or its quota class says otherwise; -1 is no limit."
);
/// Option `use_default_quota_class`.
pub const USE_DEFAULT_QUOTA_CLASS: OptionDef = option!(
    "use_default_quota_class",
    Bool,
    "true",
    "Whether the quota class 'default' limits every project that has no quota of its own."
);

/// The class of every project.
const DEFAULT_CLASS: &str = "default";

/// Classes take turns on the row of no project.
const CLASSES: &str = "";

const LIMIT: &[&str] = &["resource", "hard_limit"];

/// The limits where the database has none, and whether it has any for everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaDefaults {
    /// By resource.
    pub limits: QuotaLimits,
    /// Does the class `default` limit every project?
    pub use_default_class: bool,
}

impl QuotaDefaults {
    /// Reads [`QUOTA_PLANS`], [`QUOTA_CHECKPOINTS`], [`QUOTA_BYTES`] and
    /// [`USE_DEFAULT_QUOTA_CLASS`]. A negative limit is none.
    ///
    /// # Errors
    /// When they are not declared.
    pub fn read(config: &Config) -> Result<Self, ConfigError> {
        let limit = |option: OptionDef| {
            let limit = config.int(option.group, option.name)?;
            Ok::<_, ConfigError>(Ord::max(limit, UNLIMITED))
        };
        Ok(Self {
            limits: QuotaLimits::from([
                (QuotaResource::Plans, limit(QUOTA_PLANS)?),
                (QuotaResource::Checkpoints, limit(QUOTA_CHECKPOINTS)?),
                (QuotaResource::Bytes, limit(QUOTA_BYTES)?),
            ]),
            use_default_class: config.bool("DEFAULT", USE_DEFAULT_QUOTA_CLASS.name)?,
        })
    }
}

/// Whose limits.
#[derive(Clone, Copy)]
enum Owner<'a> {
    Project(&'a str),
    Class(&'a str),
}

impl Owner<'_> {
    fn place(&self) -> (&'static str, &'static str, &str) {
        match self {
            Self::Project(id) => ("quotas", "project_id", id),
            Self::Class(name) => ("quota_classes", "class_name", name),
        }
    }

    fn rows(&self) -> Condition {
        let (_, column, name) = self.place();
        rows(Expr::col(column).eq(name))
    }

    fn limits(&self) -> Limits {
        Limits {
            table: self.place().0,
            rows: self.rows(),
        }
    }
}

/// Where limits are stored.
struct Limits {
    table: &'static str,
    rows: Condition,
}

impl Limits {
    /// Those of the class that a project was put in.
    fn of_class_of(project: &str) -> Self {
        Self {
            table: "quota_classes",
            rows: rows(Expr::col("class_name").in_subquery(class_of(project))),
        }
    }
}

fn rows(of: Expr) -> Condition {
    Condition::all().add(of).add(not_deleted("deleted"))
}

fn class_of(project: &str) -> SelectStatement {
    Query::select()
        .column("class_name")
        .from("quota_projects")
        .and_where(Expr::col("project_id").eq(project))
        .take()
}

impl QuotaStore {
    /// What a project may have.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn limits(
        &self,
        project: &str,
        defaults: &QuotaDefaults,
    ) -> Result<QuotaLimits, DbError> {
        self.db.limits_in(self.db.read(), project, defaults).await
    }

    /// What a project may have if it has no quota of its own.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn default_limits(
        &self,
        project: &str,
        defaults: &QuotaDefaults,
    ) -> Result<QuotaLimits, DbError> {
        self.db
            .limits_of(self.db.read(), [Limits::of_class_of(project)], defaults)
            .await
    }

    /// What a project of this class may have.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn class_limits(
        &self,
        class: &str,
        defaults: &QuotaDefaults,
    ) -> Result<QuotaLimits, DbError> {
        self.db
            .limits_of(self.db.read(), [Owner::Class(class).limits()], defaults)
            .await
    }

    /// The class that a project was put in.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn class_of(&self, project: &str) -> Result<Option<String>, DbError> {
        match self.db.read().query_one(&class_of(project)).await? {
            Some(row) => Ok(row.try_get_by_index(0)?),
            None => Ok(None),
        }
    }

    /// Gives a project limits of its own, or a class.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn update(&self, project: &str, change: &QuotaChange) -> Result<(), DbError> {
        let write = self.db.write().await?;
        self.db.take_quota(&write, project).await?;
        if let Some(class) = &change.class {
            self.db.set_class(&write, project, class.as_deref()).await?;
        }
        self.db
            .store(&write, Owner::Project(project), &change.limits)
            .await?;
        write.commit().await
    }

    /// Takes a project's own limits and its class away.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn delete(&self, project: &str) -> Result<(), DbError> {
        let write = self.db.write().await?;
        self.db.take_quota(&write, project).await?;
        self.db.set_class(&write, project, None).await?;
        let mark = Query::update()
            .table(Alias::new("quotas"))
            .value("deleted", true)
            .value("deleted_at", self.db.time(self.db.now()))
            .cond_where(Owner::Project(project).rows())
            .take();
        write.execute(&mark).await?;
        write.commit().await
    }

    /// Sets limits of a class, which need not be there yet.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn class_update(&self, class: &str, limits: &QuotaLimits) -> Result<(), DbError> {
        let write = self.db.write().await?;
        self.db.take_quota(&write, CLASSES).await?;
        self.db.store(&write, Owner::Class(class), limits).await?;
        write.commit().await
    }

    /// What a project has.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn usage(&self, project: &str) -> Result<QuotaUsage, DbError> {
        let plans = self.db.count_plans(self.db.read(), project).await?;
        let (checkpoints, bytes) = self.db.count_holdings(self.db.read(), project).await?;
        Ok(QuotaUsage::from([
            (QuotaResource::Plans, plans),
            (QuotaResource::Checkpoints, checkpoints),
            (QuotaResource::Bytes, bytes),
        ]))
    }
}

impl Db {
    async fn limits_in(
        &self,
        on: &impl ConnectionTrait,
        project: &str,
        defaults: &QuotaDefaults,
    ) -> Result<QuotaLimits, DbError> {
        let limits = [
            Limits::of_class_of(project),
            Owner::Project(project).limits(),
        ];
        self.limits_of(on, limits, defaults).await
    }

    /// The limits where the database has none, then everybody's, then these: the last counts.
    async fn limits_of(
        &self,
        on: &impl ConnectionTrait,
        stored: impl IntoIterator<Item = Limits>,
        defaults: &QuotaDefaults,
    ) -> Result<QuotaLimits, DbError> {
        let default = defaults
            .use_default_class
            .then(|| Owner::Class(DEFAULT_CLASS).limits());
        let stored = default.into_iter().chain(stored).zip(0..);
        let selects = stored.map(|(limits, rank)| {
            Query::select()
                .columns(LIMIT.iter().copied())
                .expr_as(Expr::val(rank), "rank")
                .column("id")
                .from(limits.table)
                .cond_where(limits.rows)
                .take()
        });
        let all = selects.reduce(|mut all, next| all.union(UnionType::All, next).take());
        let mut limits = defaults.limits.clone();
        let Some(mut all) = all else {
            return Ok(limits);
        };
        all.order_by("rank", Order::Asc).order_by("id", Order::Asc);
        for row in on.query_all(&all).await? {
            let row = Row::new(&row, self.backend(), "quotas", LIMIT);
            // What the original did not limit, and a NULL, limit nothing.
            if let (Ok(resource), Some(limit)) = (row.text(0)?.parse(), row.get::<Option<i64>>(1)?)
            {
                limits.insert(resource, limit);
            }
        }
        Ok(limits)
    }

    async fn set_class(
        &self,
        write: &Write<'_>,
        project: &str,
        class: Option<&str>,
    ) -> Result<(), DbError> {
        let update = Query::update()
            .table(Alias::new("quota_projects"))
            .value("class_name", class.map(str::to_owned))
            .and_where(Expr::col("project_id").eq(project))
            .take();
        write.execute(&update).await?;
        Ok(())
    }

    async fn store(
        &self,
        write: &Write<'_>,
        owner: Owner<'_>,
        limits: &QuotaLimits,
    ) -> Result<(), DbError> {
        let (table, column, name) = owner.place();
        for (resource, limit) in limits {
            let update = Query::update()
                .table(Alias::new(table))
                .value("hard_limit", *limit)
                .value("updated_at", self.time(self.now()))
                .cond_where(owner.rows())
                .and_where(Expr::col("resource").eq(resource.as_str()))
                .take();
            if write.execute(&update).await?.rows_affected() > 0 {
                continue;
            }
            let insert = Query::insert()
                .into_table(Alias::new(table))
                .columns([column, "resource", "hard_limit", "created_at", "deleted"])
                .values([
                    name.into(),
                    resource.as_str().into(),
                    (*limit).into(),
                    self.time(self.now()).into(),
                    false.into(),
                ])
                .map_err(|error| DbError::Internal(error.to_string()))?
                .take();
            write.execute(&insert).await?;
        }
        Ok(())
    }

    /// Takes the project's row, made if it is not there: until `write` ends, nobody else counts
    /// what the project has. The first statement of its transaction, so that on every database
    /// the counting that follows sees what the one before did.
    pub(crate) async fn take_quota(&self, write: &Write<'_>, project: &str) -> Result<(), DbError> {
        let take = Query::insert()
            .into_table(Alias::new("quota_projects"))
            .columns(["project_id"])
            .values([project.into()])
            .map_err(|error| DbError::Internal(error.to_string()))?
            .on_conflict(
                OnConflict::column("project_id")
                    .update_column("project_id")
                    .to_owned(),
            )
            .take();
        write.execute(&take).await?;
        Ok(())
    }

    /// Refuses one plan more, if there may be no more. The project's row is taken.
    pub(crate) async fn admit_plan(
        &self,
        write: &Write<'_>,
        project: &str,
        defaults: &QuotaDefaults,
    ) -> Result<(), DbError> {
        let limits = self.limits_in(&**write, project, defaults).await?;
        let limit = limit_of(&limits, QuotaResource::Plans);
        if limit < 0 || self.count_plans(&**write, project).await? < limit {
            return Ok(());
        }
        Err(DbError::OverQuota {
            resource: QuotaResource::Plans,
            limit,
        })
    }

    /// Refuses one checkpoint more, if there may be no more, or no more bytes. How many bytes it
    /// will add nobody knows yet: the one that goes over the limit is the last.
    pub(crate) async fn admit_checkpoint(
        &self,
        write: &Write<'_>,
        project: &str,
        defaults: &QuotaDefaults,
    ) -> Result<(), DbError> {
        let limits = self.limits_in(&**write, project, defaults).await?;
        let (checkpoints, bytes) = self.count_holdings(&**write, project).await?;
        let has = [
            (QuotaResource::Checkpoints, checkpoints),
            (QuotaResource::Bytes, bytes),
        ];
        for (resource, has) in has {
            let limit = limit_of(&limits, resource);
            if limit >= 0 && has >= limit {
                return Err(DbError::OverQuota { resource, limit });
            }
        }
        Ok(())
    }

    async fn count_plans(&self, on: &impl ConnectionTrait, project: &str) -> Result<i64, DbError> {
        let select = Query::select()
            .expr(Func::count(Expr::col("id")))
            .from("plans")
            .and_where(Expr::col("project_id").eq(project))
            .and_where(not_deleted("deleted"))
            .take();
        let row = on.query_one(&select).await?;
        Ok(row.map_or(Ok(0), |row| row.try_get_by_index(0))?)
    }

    /// Checkpoints, and bytes.
    async fn count_holdings(
        &self,
        on: &impl ConnectionTrait,
        project: &str,
    ) -> Result<(i64, i64), DbError> {
        // A sum of large integers is a decimal, on databases that have them.
        let integer = match self.backend() {
            DbBackend::MySql => "signed",
            _ => "bigint",
        };
        let sum = Expr::from(Func::sum(Expr::col("bytes"))).cast_as(Alias::new(integer));
        let select = Query::select()
            .expr(Func::count(Expr::col("checkpoint_id")))
            .expr(sum)
            .from("quota_holdings")
            .and_where(Expr::col("project_id").eq(project))
            .take();
        let Some(row) = on.query_one(&select).await? else {
            return Ok((0, 0));
        };
        let bytes: Option<i64> = row.try_get_by_index(1)?;
        Ok((row.try_get_by_index(0)?, bytes.unwrap_or_default()))
    }
}

fn limit_of(limits: &QuotaLimits, resource: QuotaResource) -> i64 {
    limits.get(&resource).copied().unwrap_or(UNLIMITED)
}
