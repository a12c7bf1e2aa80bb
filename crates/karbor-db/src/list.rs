//! Lists: filters, order and pages, the same for every table.
//!
//! A page begins after its marker by comparison of the sort columns (keyset), never by counting:
//! records that come or go between two pages neither repeat nor hide others. `created_at` and `id`
//! close every order, so it is total. NULL sorts as the smallest value on every database.
//!
//! Regular expressions are matched here, not by the database: three databases have three languages of
//! them, and their engines can be made to run for ever by a filter. Rows are looked at in the order of
//! the list until the page is full.

use std::collections::{BTreeMap, BTreeSet};

use karbor_model::{
    OperationLog, OperationLogStatus, OperationType, Plan, ScheduledOperation, Trigger,
};
use regex::{RegexSet, RegexSetBuilder};
use sea_orm::{
    ConnectionTrait, DbBackend, Order, QueryResult,
    sea_query::{Alias, Condition, Expr, ExprTrait, Func, Query, SelectStatement},
};

use crate::{
    Db, DbError, Record, Stateful,
    row::parse_time,
    transition::{in_state, not_deleted, read_state},
};

/// Direction of a sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// What to list: [of a project](ListQuery::project), or [of every one](ListQuery::of_every_project), newest first. It has
/// no default: that would be one of the two, unsaid.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// Only this project's; `None` = all tenants.
    pub project: Option<String>,
    /// Column and value. A column given twice means any of the values. Unknown columns are
    /// ignored (Q14, Q15). Names, descriptions, a trigger's properties and an operation's
    /// definition (as JSON text) are searched for a regular expression, everything else is compared
    /// exactly.
    pub filters: Vec<(String, String)>,
    /// Columns whose filters are compared exactly, whatever they are: "one of these".
    pub exact: BTreeSet<String>,
    /// Id of the last record of the page before.
    pub marker: Option<String>,
    /// At most so many.
    pub limit: Option<u64>,
    /// Leave out so many at the start.
    pub offset: u64,
    /// Columns to sort by; `created_at` and `id` follow in the direction of the first.
    pub sort: Vec<(String, Direction)>,
}

impl ListQuery {
    /// Everything of one project.
    #[must_use]
    pub fn project(project: impl Into<String>) -> Self {
        Self {
            project: Some(project.into()),
            ..Self::of_every_project()
        }
    }

    /// Everything of every project: for the service itself, and for administrators who ask for it.
    #[must_use]
    pub fn of_every_project() -> Self {
        Self {
            project: None,
            filters: Vec::new(),
            exact: BTreeSet::new(),
            marker: None,
            limit: None,
            offset: 0,
            sort: Vec::new(),
        }
    }
}

/// How a column is compared.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Comparison {
    /// Never NULL.
    Text,
    OptionalText,
    /// Searched for a regular expression.
    Words,
    /// Never NULL.
    Time,
    OptionalTime,
    Status,
}

/// A table that can be listed.
pub(crate) trait Listed: Record {
    /// Plural, for errors.
    const MANY: &'static str;
    /// What may be filtered and sorted by.
    const COLUMNS: &'static [(&'static str, Comparison)];

    /// "The status is the one with this name."
    fn status(text: &str) -> Condition {
        Condition::all().add(Expr::col("status").eq(text))
    }
}

/// The same where a state has several texts.
pub(crate) fn status_of<R: Stateful>(text: &str) -> Condition {
    if text.parse::<R::State>().is_ok() {
        return in_state::<R>(read_state::<R>(text));
    }
    Condition::all().add(Expr::col("status").eq(text))
}

impl Listed for Plan {
    const MANY: &'static str = "plans";
    const COLUMNS: &'static [(&'static str, Comparison)] = &[
        ("id", Comparison::Text),
        ("name", Comparison::Words),
        ("description", Comparison::Words),
        ("provider_id", Comparison::OptionalText),
        ("project_id", Comparison::OptionalText),
        ("status", Comparison::Status),
        ("created_at", Comparison::Time),
        ("updated_at", Comparison::OptionalTime),
    ];

    fn status(text: &str) -> Condition {
        status_of::<Self>(text)
    }
}

impl Listed for OperationLog {
    const MANY: &'static str = "operation logs";
    const COLUMNS: &'static [(&'static str, Comparison)] = &[
        ("id", Comparison::Text),
        ("project_id", Comparison::OptionalText),
        ("operation_type", Comparison::OptionalText),
        ("checkpoint_id", Comparison::OptionalText),
        ("plan_id", Comparison::OptionalText),
        ("provider_id", Comparison::OptionalText),
        ("restore_id", Comparison::OptionalText),
        ("verification_id", Comparison::OptionalText),
        ("scheduled_operation_id", Comparison::OptionalText),
        ("status", Comparison::Status),
        ("started_at", Comparison::OptionalTime),
        ("ended_at", Comparison::OptionalTime),
        ("created_at", Comparison::Time),
        ("updated_at", Comparison::OptionalTime),
    ];

    /// As [`OperationLogStatus::after`] calls it.
    fn status(text: &str) -> Condition {
        let mut any = Condition::any().add(Expr::val(false));
        for operation in OperationType::ALL {
            let states = OperationLogStatus::ALL.iter();
            for state in states.filter(|state| state.after(*operation) == text) {
                let of_operation = Expr::col("operation_type").eq(operation.as_str());
                let both = Condition::all().add(in_state::<Self>(*state));
                any = any.add(both.add(of_operation));
            }
        }
        any
    }
}

impl Listed for Trigger {
    const MANY: &'static str = "triggers";
    const COLUMNS: &'static [(&'static str, Comparison)] = &[
        ("id", Comparison::Text),
        ("name", Comparison::Words),
        ("project_id", Comparison::Text),
        ("type", Comparison::Text),
        ("properties", Comparison::Words),
        ("created_at", Comparison::Time),
        ("updated_at", Comparison::OptionalTime),
    ];
}

impl Listed for ScheduledOperation {
    const MANY: &'static str = "scheduled operations";
    const COLUMNS: &'static [(&'static str, Comparison)] = &[
        ("id", Comparison::Text),
        ("name", Comparison::Words),
        ("description", Comparison::Words),
        ("operation_type", Comparison::Text),
        ("user_id", Comparison::Text),
        ("project_id", Comparison::Text),
        ("trigger_id", Comparison::Text),
        ("operation_definition", Comparison::Words),
        ("created_at", Comparison::Time),
        ("updated_at", Comparison::OptionalTime),
    ];
}

/// Name of the rows of a page, for what is selected from them.
pub(crate) const PAGE: &str = "page";

/// One column of the order.
struct SortKey {
    column: &'static str,
    kind: Comparison,
    descending: bool,
}

impl SortKey {
    fn expression(&self, db: &Db) -> Expr {
        let column = Expr::col(self.column);
        match self.kind {
            Comparison::Text | Comparison::Time => column,
            Comparison::OptionalText | Comparison::Words | Comparison::Status => {
                Func::coalesce([column, Expr::Constant("".into())]).into()
            }
            // The first year that all three databases can hold.
            Comparison::OptionalTime => {
                let first = chrono::NaiveDate::from_ymd_opt(1000, 1, 1)
                    .unwrap_or_default()
                    .and_time(chrono::NaiveTime::default());
                Func::coalesce([column, Expr::Constant(db.time(first.and_utc()))]).into()
            }
        }
    }
}

fn column<R: Listed>(name: &str) -> Option<(&'static str, Comparison)> {
    R::COLUMNS.iter().copied().find(|(known, _)| *known == name)
}

fn sort_keys<R: Listed>(query: &ListQuery) -> Result<Vec<SortKey>, DbError> {
    let mut keys: Vec<SortKey> = Vec::with_capacity(query.sort.len() + 2);
    for (name, direction) in &query.sort {
        let (column, kind) = column::<R>(name).ok_or_else(|| DbError::BadRequest {
            field: "sort",
            message: format!(
                "'{name}' is not a sort key of {}. Use one of: {}.",
                R::MANY,
                R::COLUMNS
                    .iter()
                    .map(|(name, _)| *name)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        })?;
        if keys.iter().all(|key| key.column != column) {
            keys.push(SortKey {
                column,
                kind,
                descending: *direction == Direction::Descending,
            });
        }
    }
    let descending = keys.first().is_none_or(|key| key.descending);
    for (column, kind) in [("created_at", Comparison::Time), ("id", Comparison::Text)] {
        if keys.iter().all(|key| key.column != column) {
            keys.push(SortKey {
                column,
                kind,
                descending,
            });
        }
    }
    Ok(keys)
}

/// Substring search without patterns.
pub(crate) fn contains(backend: DbBackend, column: &'static str, part: &str) -> Expr {
    let function = match backend {
        DbBackend::Postgres => "strpos",
        _ => "instr",
    };
    Expr::from(Func::cust(Alias::new(function)).args([Expr::col(column), Expr::val(part)])).gt(0)
}

/// What a compiled expression may take, in bytes.
const LARGEST_PATTERN: usize = 1 << 20;

/// How many values one statement binds at most; each database takes more.
const MOST_VALUES: usize = 500;

/// How many rows are looked at before the next are asked for.
const LOOKED_AT: u64 = 500;

/// What rows must be like.
struct Filters {
    /// What the database compares.
    condition: Condition,
    /// Columns and the expressions of which one must be found there.
    patterns: BTreeMap<&'static str, RegexSet>,
}

impl Filters {
    /// Does a row, which has the columns of the patterns, have what they look for?
    fn match_row(&self, row: &QueryResult) -> Result<bool, DbError> {
        for (column, patterns) in &self.patterns {
            let text: Option<String> = row.try_get("", column)?;
            if !text.is_some_and(|text| patterns.is_match(&text)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The expressions that a column is searched for.
///
/// # Errors
/// [`DbError::BadRequest`] names the column and what is wrong.
fn patterns(column: &'static str, values: &[&str]) -> Result<RegexSet, DbError> {
    let mut builder = RegexSetBuilder::new(values);
    builder
        .size_limit(LARGEST_PATTERN)
        .build()
        .map_err(|error| {
            let text = error.to_string();
            let reason = match error {
                regex::Error::CompiledTooBig(_) => "it takes too much memory",
                // The rest of the text repeats the expression.
                _ => text
                    .lines()
                    .find_map(|line| line.strip_prefix("error: "))
                    .unwrap_or("it cannot be read"),
            };
            DbError::BadRequest {
                field: column,
                message: format!(
                    "Invalid input for field/attribute {column}. It must be a regular expression: \
                 {reason}. A backslash before a special character takes it as it is."
                ),
            }
        })
}

/// Does the expression find itself and nothing else? Then the database can look for it.
fn is_plain(value: &str) -> bool {
    !value.contains([
        '\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$',
    ])
}

fn filter<R: Listed>(
    db: &Db,
    column: &'static str,
    kind: Comparison,
    value: &str,
) -> Result<Condition, DbError> {
    let exact = Expr::col(column);
    Ok(match kind {
        Comparison::Text | Comparison::OptionalText => Condition::all().add(exact.eq(value)),
        Comparison::Words => Condition::all().add(contains(db.backend(), column, value)),
        Comparison::Status => R::status(value),
        Comparison::Time | Comparison::OptionalTime => {
            let time = parse_time(value).ok_or_else(|| DbError::BadRequest {
                field: "filters",
                message: format!(
                    "'{value}' is not a time for {column}. Write it as 2026-01-31 12:00:00.000000."
                ),
            })?;
            Condition::all().add(exact.eq(Expr::val(db.time(time))))
        }
    })
}

fn filters<R: Listed>(db: &Db, query: &ListQuery) -> Result<Filters, DbError> {
    let mut searched = BTreeMap::new();
    let mut all = Condition::all();
    if R::SOFT_DELETE {
        all = all.add(not_deleted("deleted"));
    }
    if let Some(project) = &query.project {
        all = all.add(Expr::col("project_id").eq(project.as_str()));
    }
    for (name, kind) in R::COLUMNS {
        let given = query.filters.iter().filter(|(key, _)| key == name);
        let values: Vec<&str> = given.map(|(_, value)| value.as_str()).collect();
        let kind = match kind {
            Comparison::Words if query.exact.contains(*name) => Comparison::Text,
            kind => *kind,
        };
        if kind == Comparison::Words && !values.iter().all(|value| is_plain(value)) {
            searched.insert(*name, patterns(name, &values)?);
            continue;
        }
        let mut any = Condition::any();
        for value in values {
            any = any.add(filter::<R>(db, name, kind, value)?);
        }
        if !any.is_empty() {
            all = all.add(any);
        }
    }
    Ok(Filters {
        condition: all,
        patterns: searched,
    })
}

/// The marker's row. One that was deleted since still marks its place.
fn marker_row<R: Listed>(query: &ListQuery, id: &str) -> Condition {
    let row = Condition::all().add(Expr::col(R::ID).eq(id));
    match &query.project {
        Some(project) => row.add(Expr::col("project_id").eq(project.as_str())),
        None => row,
    }
}

/// "Comes after the marker": for keys a, b: `a > A or (a = A and b > B)`.
fn after_marker<R: Listed>(db: &Db, query: &ListQuery, keys: &[SortKey], id: &str) -> Condition {
    let of_marker = |key: &SortKey| -> Expr {
        if key.column == "id" {
            return Expr::val(id);
        }
        let row = Query::select()
            .expr(key.expression(db))
            .from(R::TABLE)
            .cond_where(marker_row::<R>(query, id))
            .take();
        row.into()
    };
    let mut any = Condition::any();
    for (position, key) in keys.iter().enumerate() {
        let mut all = Condition::all();
        for equal in &keys[..position] {
            all = all.add(equal.expression(db).eq(of_marker(equal)));
        }
        let (this, marker) = (key.expression(db), of_marker(key));
        any = any.add(all.add(if key.descending {
            this.lt(marker)
        } else {
            this.gt(marker)
        }));
    }
    any
}

fn order_by(db: &Db, select: &mut SelectStatement, keys: &[SortKey]) {
    for key in keys {
        let order = if key.descending {
            Order::Desc
        } else {
            Order::Asc
        };
        select.order_by_expr(key.expression(db), order);
    }
}

/// Limit and offset as numbers in the text: SQLite would plan a statement with a bound limit anew
/// at each run.
fn bounds(query: &ListQuery) -> String {
    let most = i64::MAX.unsigned_abs();
    let mut text = String::new();
    if query.limit.is_some() || query.offset > 0 {
        // SQLite and MariaDB know no offset without a limit.
        let limit = std::cmp::min(query.limit.unwrap_or(most), most);
        text += &format!(" LIMIT {limit}");
    }
    if query.offset > 0 {
        text += &format!(" OFFSET {}", std::cmp::min(query.offset, most));
    }
    text
}

impl Db {
    /// The rows of one page: one query, and one more only where the page is empty after a marker; more
    /// where filters are regular expressions. `whole`, if given, is what to select from [`PAGE`] (those
    /// rows) instead: it is worked out for the page only, not for all that had to be sorted. It holds no
    /// bound values.
    pub(crate) async fn page<R: Listed>(
        &self,
        query: &ListQuery,
        columns: &[&'static str],
        whole: Option<Expr>,
    ) -> Result<Vec<QueryResult>, DbError> {
        let keys = sort_keys::<R>(query)?;
        let filters = filters::<R>(self, query)?;
        let marker = match query.marker.as_deref() {
            Some(text) => {
                let id = text
                    .parse::<R::Id>()
                    .map_err(|_| DbError::not_found(R::WHAT, text))?;
                Some((text, id.to_string()))
            }
            None => None,
        };
        let start = marker.as_ref().map(|(_, id)| id.clone());
        let select = |condition: Condition| {
            Query::select()
                .columns(columns.iter().copied())
                .from(R::TABLE)
                .cond_where(condition)
                .take()
        };
        let mut rows = Vec::new();
        if filters.patterns.is_empty() {
            let mut select = select(filters.condition);
            if let Some(id) = &start {
                select.cond_where(after_marker::<R>(self, query, &keys, id));
            }
            rows = self.rows(select, &keys, &bounds(query), whole).await?;
        } else {
            let found = self.search::<R>(query, &keys, &filters, start).await?;
            for ids in found.chunks(MOST_VALUES) {
                let these = Condition::all().add(Expr::col(R::ID).is_in(ids));
                let these = self.rows(select(these), &keys, "", whole.clone()).await?;
                rows.extend(these);
            }
        }
        if let (true, Some((text, id))) = (rows.is_empty(), marker) {
            let known = Query::select()
                .column(R::ID)
                .from(R::TABLE)
                .cond_where(marker_row::<R>(query, &id))
                .take();
            if self.read().query_one(&known).await?.is_none() {
                return Err(DbError::not_found(R::WHAT, text));
            }
        }
        Ok(rows)
    }

    /// What `select` finds, in the order of `keys`.
    async fn rows(
        &self,
        mut select: SelectStatement,
        keys: &[SortKey],
        bounds: &str,
        whole: Option<Expr>,
    ) -> Result<Vec<QueryResult>, DbError> {
        order_by(self, &mut select, keys);
        let mut page = self.backend().build(&select);
        page.sql += bounds;
        if let Some(whole) = whole {
            let mut outer = Query::select().expr(whole).from(PAGE).take();
            order_by(self, &mut outer, keys);
            let outer = self.backend().build(&outer).sql;
            page.sql = format!("WITH {PAGE} AS ({}) {outer}", page.sql);
        }
        Ok(self.read().query_all_raw(page).await?)
    }

    /// The ids of the rows of one page that have what the patterns look for, after the row `marker`.
    async fn search<R: Listed>(
        &self,
        query: &ListQuery,
        keys: &[SortKey],
        filters: &Filters,
        mut marker: Option<String>,
    ) -> Result<Vec<String>, DbError> {
        let (mut to_skip, wanted) = (query.offset, query.limit.unwrap_or(u64::MAX));
        let mut found = Vec::new();
        while (found.len() as u64) < wanted {
            let mut select = Query::select()
                .column(R::ID)
                .columns(filters.patterns.keys().copied())
                .from(R::TABLE)
                .cond_where(filters.condition.clone())
                .take();
            if let Some(id) = &marker {
                select.cond_where(after_marker::<R>(self, query, keys, id));
            }
            let limit = format!(" LIMIT {LOOKED_AT}");
            let rows = self.rows(select, keys, &limit, None).await?;
            for row in &rows {
                let id: String = row.try_get("", R::ID)?;
                marker = Some(id.clone());
                if !filters.match_row(row)? {
                    continue;
                }
                match to_skip {
                    0 => found.push(id),
                    _ => to_skip -= 1,
                }
                if found.len() as u64 >= wanted {
                    break;
                }
            }
            if (rows.len() as u64) < LOOKED_AT {
                break;
            }
        }
        Ok(found)
    }
}
