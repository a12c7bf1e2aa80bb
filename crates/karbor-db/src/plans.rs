//! Plans and the resources they name.

use std::iter;

use chrono::{DateTime, TimeDelta, Utc};
use karbor_model::{
    Parameters, Plan, PlanId, PlanStatus, Priority, ProviderId, Resource, ScheduledOperation,
};
use sea_orm::{
    ConnectionTrait, DbBackend, QueryResult,
    sea_query::{Alias, Expr, ExprTrait, Func, InsertStatement, Query, UpdateStatement},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Db, DbError, ListQuery, PlanStore, PlanViews, QuotaDefaults, Record, Stateful, Write,
    list::{PAGE, contains},
    notifications::ended,
    row::{FromText, Read, Row, json_text},
    transition::{in_state, is_row, not_deleted, read_state},
};

const PLAN: &[&str] = &[
    "id",
    "name",
    "description",
    "provider_id",
    "project_id",
    "status",
    "parameters",
    "created_at",
    "updated_at",
];

const RESOURCE: &[&str] = &[
    "plan_id",
    "resource_id",
    "resource_type",
    "resource_name",
    "resource_extra_info",
];

/// Rows of one insert: far from every database's limit on parameters.
const CHUNK: usize = 1000;

impl PlanViews {
    /// One plan.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn get(&self, id: PlanId) -> Result<Plan, DbError> {
        self.db.plan_get_in(self.db.read(), id).await
    }

    /// A page of plans, each with its resources, in one query.
    ///
    /// # Errors
    /// [`DbError::BadRequest`] names an unknown sort key, [`DbError::NotFound`] an unknown marker.
    pub async fn list(&self, query: &ListQuery) -> Result<Vec<Plan>, DbError> {
        let whole = whole_plan(self.db.backend(), PAGE);
        let rows = self.db.page::<Plan>(query, PLAN, Some(whole)).await?;
        rows.iter().map(plan_from).collect()
    }

    /// Was the plan suspended after it had been started? A plan that is new is suspended, too, but
    /// not held.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn is_held(&self, id: PlanId) -> Result<bool, DbError> {
        let select = Query::select()
            .expr(Expr::col("held_at").is_not_null())
            .from(Plan::TABLE)
            .cond_where(is_row::<Plan>(id))
            .take();
        let row = self.db.read().query_one(&select).await?;
        let row = row.ok_or_else(|| DbError::not_found(Plan::WHAT, id))?;
        Ok(row.try_get_by_index(0)?)
    }
}

impl PlanStore {
    /// Stores a new plan with its resources, in one transaction.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when the id is taken.
    pub async fn create(&self, plan: &Plan) -> Result<(), DbError> {
        let write = self.db.write().await?;
        self.db.insert_plan(&write, plan).await?;
        write.commit().await
    }

    /// The same, if the quota of its project allows one more.
    ///
    /// # Errors
    /// [`DbError::OverQuota`]; as [`PlanStore::create`].
    pub async fn create_within(
        &self,
        plan: &Plan,
        defaults: &QuotaDefaults,
    ) -> Result<(), DbError> {
        let write = self.db.write().await?;
        self.db.take_quota(&write, &plan.project_id).await?;
        self.db
            .admit_plan(&write, &plan.project_id, defaults)
            .await?;
        self.db.insert_plan(&write, plan).await?;
        write.commit().await
    }

    /// Stores the name, description, parameters and resources of a plan that was read before, if
    /// nobody changed it since: `status` and `updated_at` are compared, not set (a status is set by
    /// [`PlanStore::set_status`]). Returns the plan as it is stored now.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when it was changed; [`DbError::NotFound`].
    pub async fn update(&self, plan: &Plan) -> Result<Plan, DbError> {
        let write = self.db.write().await?;
        let stored = self.db.plan_get_in(&*write, plan.id).await?;
        // A clock that stands still or goes back must not make two versions look the same.
        let last = plan.updated_at.unwrap_or(plan.created_at);
        let now = std::cmp::max(self.db.now(), last + TimeDelta::microseconds(1));
        let seen = match plan.updated_at {
            Some(at) => Expr::col("updated_at").eq(Expr::val(self.db.time(at))),
            None => Expr::col("updated_at").is_null(),
        };
        let update = Query::update()
            .table(Alias::new("plans"))
            .value("name", plan.name.as_str())
            .value("description", plan.description.clone())
            .value("parameters", json_text(&plan.parameters)?)
            .value("updated_at", self.db.time(now))
            .cond_where(is_row::<Plan>(plan.id))
            .cond_where(in_state::<Plan>(plan.status))
            .and_where(seen)
            .take();
        if write.execute(&update).await?.rows_affected() != 1 {
            return Err(self
                .db
                .not_in_state::<Plan>(&*write, plan.id, plan.status)
                .await?);
        }
        if !same_resources(&plan.resources, &stored.resources) {
            self.db.mark_resources_deleted(&write, plan.id).await?;
            write.insert_all(self.db.resource_rows(plan)?).await?;
        }
        self.db
            .announce_record(
                &write,
                "plan_update",
                &stored.project_id,
                plan.id.to_string(),
                &plan.name,
            )
            .await?;
        write.commit().await?;
        Ok(Plan {
            updated_at: Some(now),
            provider_id: stored.provider_id,
            project_id: stored.project_id,
            created_at: stored.created_at,
            ..plan.clone()
        })
    }

    /// Starts or suspends a plan. Of several that try at once, one succeeds.
    ///
    /// # Errors
    /// [`DbError::Conflict`] names the present status when it is not `from`, and when the rules
    /// ([`State::can_become`]) forbid the change; [`DbError::NotFound`].
    ///
    /// [`State::can_become`]: karbor_model::State::can_become
    pub async fn set_status(
        &self,
        id: PlanId,
        from: PlanStatus,
        to: PlanStatus,
    ) -> Result<(), DbError> {
        self.db.transition::<Plan>(id, from, to).await
    }

    /// Marks a plan and its resources deleted. Its scheduled operations stay, disabled: they could
    /// only fail.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn delete(&self, id: PlanId) -> Result<(), DbError> {
        let mark = Query::update()
            .table(Alias::new("plans"))
            .value("deleted", true)
            .value("deleted_at", self.db.time(self.db.now()))
            .cond_where(is_row::<Plan>(id))
            .take();
        let write = self.db.write().await?;
        let plan = self.db.plan_get_in(&*write, id).await?;
        if write.execute(&mark).await?.rows_affected() == 0 {
            return Err(DbError::not_found("Plan", id));
        }
        self.db
            .announce_record(
                &write,
                "plan_delete",
                &plan.project_id,
                id.to_string(),
                &plan.name,
            )
            .await?;
        self.db.mark_resources_deleted(&write, id).await?;
        write.execute(&self.db.disable_operations(id)).await?;
        write.commit().await
    }
}

impl Db {
    async fn insert_plan(&self, write: &Write<'_>, plan: &Plan) -> Result<(), DbError> {
        let insert = Query::insert()
            .into_table(Alias::new("plans"))
            .columns(PLAN.iter().copied().chain(["deleted"]))
            .values([
                plan.id.to_string().into(),
                plan.name.as_str().into(),
                plan.description.clone().into(),
                plan.provider_id.to_string().into(),
                plan.project_id.as_str().into(),
                karbor_model::State::as_str(plan.status).into(),
                json_text(&plan.parameters)?.into(),
                self.time(plan.created_at).into(),
                self.time_opt(plan.updated_at).into(),
                false.into(),
            ])
            .map_err(|error| DbError::Internal(error.to_string()))?
            .take();
        let notification = self.record_notification(
            "plan_create",
            &plan.project_id,
            plan.id.to_string(),
            &plan.name,
        )?;
        let resources = self.resource_rows(plan)?;
        let all = iter::once(insert).chain(resources).chain([notification]);
        write.insert_all(all).await
    }

    async fn plan_get_in(&self, on: &impl ConnectionTrait, id: PlanId) -> Result<Plan, DbError> {
        let select = Query::select()
            .expr(whole_plan(self.backend(), "plans"))
            .from("plans")
            .cond_where(is_row::<Plan>(id))
            .take();
        let row = on.query_one(&select).await?;
        plan_from(&row.ok_or_else(|| DbError::not_found("Plan", id))?)
    }

    /// A plan was started or suspended.
    pub(crate) async fn announce_plan_status(
        &self,
        write: &Write<'_>,
        id: &str,
        status: &str,
    ) -> Result<(), DbError> {
        const TOLD: &[&str] = &["project_id", "name"];
        let select = Query::select()
            .columns(TOLD.iter().copied())
            .from(Plan::TABLE)
            .and_where(Expr::col("id").eq(id))
            .take();
        let row = write.query_one(&select).await?;
        let row = row.ok_or_else(|| DbError::not_found(Plan::WHAT, id))?;
        let row = Row::new(&row, self.backend(), Plan::TABLE, TOLD);
        let payload = serde_json::json!({
            "tenant_id": row.text(0)?,
            "id": id,
            "name": row.text(1)?,
            "status": status,
        });
        let insert = self.notification(&ended("plan_update"), Priority::Info, payload)?;
        write.execute(&insert).await?;
        Ok(())
    }

    /// Statement that disables the scheduled operations of a plan.
    fn disable_operations(&self, id: PlanId) -> UpdateStatement {
        let project = Query::select()
            .column("project_id")
            .from(Plan::TABLE)
            .and_where(Expr::col("id").eq(id.to_string()))
            .take();
        // A definition is JSON text as Python writes it.
        let names_plan = format!("\"plan_id\": \"{id}\"");
        Query::update()
            .table(Alias::new(ScheduledOperation::TABLE))
            .value("enabled", false)
            .value("updated_at", self.time(self.now()))
            .and_where(Expr::col("project_id").eq(Expr::from(project)))
            .and_where(contains(
                self.backend(),
                "operation_definition",
                &names_plan,
            ))
            .and_where(not_deleted("deleted"))
            .take()
    }

    fn resource_rows(&self, plan: &Plan) -> Result<Vec<InsertStatement>, DbError> {
        let mut inserts = Vec::new();
        for resources in plan.resources.chunks(CHUNK) {
            let mut insert = Query::insert()
                .into_table(Alias::new("resources"))
                .columns(RESOURCE.iter().copied().chain(["created_at", "deleted"]))
                .take();
            for resource in resources {
                let extra_info = resource.extra_info.as_ref().map(json_text).transpose()?;
                insert
                    .values([
                        plan.id.to_string().into(),
                        resource.id.as_str().into(),
                        resource.resource_type.as_str().into(),
                        resource.name.as_str().into(),
                        extra_info.into(),
                        self.time(plan.created_at).into(),
                        false.into(),
                    ])
                    .map_err(|error| DbError::Internal(error.to_string()))?;
            }
            inserts.push(insert);
        }
        Ok(inserts)
    }

    async fn mark_resources_deleted(&self, write: &Write<'_>, id: PlanId) -> Result<(), DbError> {
        let mark = Query::update()
            .table(Alias::new("resources"))
            .value("deleted", true)
            .value("deleted_at", self.time(self.now()))
            .and_where(Expr::col("plan_id").eq(id.to_string()))
            .and_where(not_deleted("deleted"))
            .take();
        write.execute(&mark).await?;
        Ok(())
    }
}

/// A plan with its resources as one JSON array. One statement sees one moment: no plan that is
/// deleted meanwhile can look like one without resources. And a value costs the driver more than
/// what is in it, so one value for each plan instead of nine, and five for each resource, makes a
/// list three times as fast.
fn whole_plan(backend: DbBackend, plans: &'static str) -> Expr {
    let (array, all) = match backend {
        DbBackend::Sqlite => ("json_array", "json_group_array"),
        DbBackend::Postgres => ("json_build_array", "json_agg"),
        _ => ("json_array", "json_arrayagg"),
    };
    let call = |name, args: Vec<Expr>| Expr::from(Func::cust(Alias::new(name)).args(args));
    let number = Expr::col(("resources", "id"));
    let fields = RESOURCE[1..].iter().map(|column| Expr::col(*column));
    let resources = Query::select()
        .expr(call(
            all,
            vec![call(array, [number].into_iter().chain(fields).collect())],
        ))
        .from("resources")
        .and_where(Expr::col(("resources", "plan_id")).equals((plans, "id")))
        .and_where(not_deleted(("resources", "deleted")))
        .take();
    let fields = PLAN.iter().map(|column| Expr::col((plans, *column)));
    call(array, fields.chain([resources.into()]).collect())
}

/// What [`whole_plan`] selects, in its order.
#[derive(Deserialize)]
struct WholePlan(
    PlanId,
    Option<String>,
    Option<String>,
    ProviderId,
    Option<String>,
    Option<Read<Status>>,
    Option<Read<Parameters>>,
    Option<Read<DateTime<Utc>>>,
    Option<Read<DateTime<Utc>>>,
    Option<Vec<WholeResource>>,
);

/// Its number, id, type, name and extra info.
#[derive(Deserialize)]
struct WholeResource(
    i64,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<Read<Option<Value>>>,
);

struct Status(PlanStatus);

impl FromText for Status {
    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self(read_state::<Plan>(text)))
    }
}

impl FromText for Parameters {
    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(text).map_err(|error| format!("bad parameters: {error}"))
    }
}

impl FromText for Option<Value> {
    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(None);
        }
        serde_json::from_str(text).map_err(|error| format!("bad resource_extra_info: {error}"))
    }
}

fn plan_from(row: &QueryResult) -> Result<Plan, DbError> {
    let text: String = row.try_get_by_index(0)?;
    let whole: WholePlan = serde_json::from_str(&text).map_err(|error| {
        let id = text.split('"').nth(1).unwrap_or_default();
        DbError::Internal(format!("row '{id}' of plans cannot be read: {error}"))
    })?;
    let mut resources = whole.9.unwrap_or_default();
    resources.sort_unstable_by_key(|resource| resource.0);
    let resources = resources.into_iter().map(|resource| Resource {
        id: resource.1.unwrap_or_default(),
        resource_type: resource.2.unwrap_or_default(),
        name: resource.3.unwrap_or_default(),
        extra_info: resource.4.and_then(|extra_info| extra_info.0),
    });
    Ok(Plan {
        id: whole.0,
        name: whole.1.unwrap_or_default(),
        description: whole.2,
        provider_id: whole.3,
        project_id: whole.4.unwrap_or_default(),
        status: whole.5.map_or(Plan::OTHER, |status| status.0.0),
        parameters: whole.6.map(|parameters| parameters.0).unwrap_or_default(),
        resources: resources.collect(),
        created_at: whole.7.map(|at| at.0).unwrap_or_default(),
        updated_at: whole.8.map(|at| at.0),
    })
}

/// Resources are equal by type and id; what is stored of them is more.
fn same_resources(one: &[Resource], other: &[Resource]) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(a, b)| a == b && a.name == b.name && a.extra_info == b.extra_info)
}
