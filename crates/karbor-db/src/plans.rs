//! Plans and the resources they name.

use std::collections::HashMap;

use chrono::TimeDelta;
use karbor_model::{Plan, PlanId, Resource};
use sea_orm::{
    ConnectionTrait, QueryResult,
    sea_query::{Alias, Expr, ExprTrait, Order, Query, SelectStatement},
};
use serde_json::Value;

use crate::{
    Db, DbError, ListQuery, Write,
    row::{Row, json_text},
    transition::{in_state, is_row, read_state, select_row},
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

/// Rows of one insert, and ids of one select: far from every database's limit on parameters.
const CHUNK: usize = 1000;

impl Db {
    /// Stores a new plan with its resources, in one transaction.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when the id is taken.
    pub async fn plan_create(&self, plan: &Plan) -> Result<(), DbError> {
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
        let write = self.write().await?;
        write.execute(&insert).await?;
        self.insert_resources(&write, plan).await?;
        write.commit().await
    }

    /// One plan.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn plan_get(&self, id: PlanId) -> Result<Plan, DbError> {
        // A plan that is deleted between two looks must not seem to be one without resources.
        let snapshot = self.snapshot().await?;
        let plan = self.plan_get_in(&snapshot, id).await?;
        snapshot.commit().await?;
        Ok(plan)
    }

    async fn plan_get_in(&self, on: &impl ConnectionTrait, id: PlanId) -> Result<Plan, DbError> {
        let found = on.query_one(&select_row::<Plan>(id, PLAN)).await?;
        let row = found.ok_or_else(|| DbError::not_found("Plan", id))?;
        let mut plan = self.plan_from(&row)?;
        plan.resources = self
            .resources_of(on, &[id.to_string()])
            .await?
            .remove(&id)
            .unwrap_or_default();
        Ok(plan)
    }

    /// Stores the name, description, parameters and resources of a plan that was read before, if
    /// nobody changed it since: `status` and `updated_at` are compared, not set (a status is set by
    /// [`Db::transition`]). Returns the plan as it is stored now.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when it was changed; [`DbError::NotFound`].
    pub async fn plan_update(&self, plan: &Plan) -> Result<Plan, DbError> {
        let write = self.write().await?;
        let stored = self.plan_get_in(&*write, plan.id).await?;
        // A clock that stands still or goes back must not make two versions look the same.
        let last = plan.updated_at.unwrap_or(plan.created_at);
        let now = std::cmp::max(self.now(), last + TimeDelta::microseconds(1));
        let seen = match plan.updated_at {
            Some(at) => Expr::col("updated_at").eq(Expr::val(self.time(at))),
            None => Expr::col("updated_at").is_null(),
        };
        let update = Query::update()
            .table(Alias::new("plans"))
            .value("name", plan.name.as_str())
            .value("description", plan.description.clone())
            .value("parameters", json_text(&plan.parameters)?)
            .value("updated_at", self.time(now))
            .cond_where(is_row::<Plan>(plan.id))
            .cond_where(in_state::<Plan>(plan.status))
            .and_where(seen)
            .take();
        if write.execute(&update).await?.rows_affected() != 1 {
            return Err(self
                .not_in_state::<Plan>(&write, plan.id, plan.status)
                .await?);
        }
        if !same_resources(&plan.resources, &stored.resources) {
            self.mark_resources_deleted(&write, plan.id).await?;
            self.insert_resources(&write, plan).await?;
        }
        write.commit().await?;
        Ok(Plan {
            updated_at: Some(now),
            provider_id: stored.provider_id,
            project_id: stored.project_id,
            created_at: stored.created_at,
            ..plan.clone()
        })
    }

    /// Marks a plan and its resources deleted.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn plan_delete(&self, id: PlanId) -> Result<(), DbError> {
        let mark = Query::update()
            .table(Alias::new("plans"))
            .value("deleted", true)
            .value("deleted_at", self.time(self.now()))
            .cond_where(is_row::<Plan>(id))
            .take();
        let write = self.write().await?;
        if write.execute(&mark).await?.rows_affected() == 0 {
            return Err(DbError::not_found("Plan", id));
        }
        self.mark_resources_deleted(&write, id).await?;
        write.commit().await
    }

    /// A page of plans, each with its resources: two queries, however many plans.
    ///
    /// # Errors
    /// [`DbError::BadRequest`] names an unknown sort key or marker.
    pub async fn plan_list(&self, query: &ListQuery) -> Result<Vec<Plan>, DbError> {
        let snapshot = self.snapshot().await?;
        let rows = self.page::<Plan>(&snapshot, query, PLAN).await?;
        let mut plans = rows
            .iter()
            .map(|row| self.plan_from(row))
            .collect::<Result<Vec<_>, _>>()?;
        let ids: Vec<String> = plans.iter().map(|plan| plan.id.to_string()).collect();
        let mut resources = HashMap::with_capacity(plans.len());
        for ids in ids.chunks(CHUNK) {
            resources.extend(self.resources_of(&snapshot, ids).await?);
        }
        snapshot.commit().await?;
        for plan in &mut plans {
            plan.resources = resources.remove(&plan.id).unwrap_or_default();
        }
        Ok(plans)
    }

    fn plan_from(&self, row: &QueryResult) -> Result<Plan, DbError> {
        let row = Row::new(row, self.backend(), "plans", PLAN);
        Ok(Plan {
            id: row.parse(0)?,
            name: row.text(1)?,
            description: row.get(2)?,
            provider_id: row.parse(3)?,
            project_id: row.text(4)?,
            status: read_state::<Plan>(&row.text(5)?),
            parameters: row.json(6)?,
            resources: Vec::new(),
            created_at: row.time(7)?,
            updated_at: row.time_opt(8)?,
        })
    }

    async fn resources_of(
        &self,
        on: &impl ConnectionTrait,
        plans: &[String],
    ) -> Result<HashMap<PlanId, Vec<Resource>>, DbError> {
        let mut found: HashMap<PlanId, Vec<Resource>> = HashMap::with_capacity(plans.len());
        if plans.is_empty() {
            return Ok(found);
        }
        for row in on.query_all(&select_resources(plans)).await? {
            let row = Row::new(&row, self.backend(), "resources", RESOURCE);
            let resource = Resource {
                id: row.text(1)?,
                resource_type: row.text(2)?,
                name: row.text(3)?,
                extra_info: row.json_opt::<Value>(4)?,
            };
            found.entry(row.parse(0)?).or_default().push(resource);
        }
        Ok(found)
    }

    async fn insert_resources(&self, write: &Write<'_>, plan: &Plan) -> Result<(), DbError> {
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
            write.execute(&insert).await?;
        }
        Ok(())
    }

    async fn mark_resources_deleted(&self, write: &Write<'_>, id: PlanId) -> Result<(), DbError> {
        let mark = Query::update()
            .table(Alias::new("resources"))
            .value("deleted", true)
            .value("deleted_at", self.time(self.now()))
            .and_where(Expr::col("plan_id").eq(id.to_string()))
            .and_where(Expr::col("deleted").eq(false))
            .take();
        write.execute(&mark).await?;
        Ok(())
    }
}

/// The number of places is rounded up, so that a handful of prepared statements serves all pages.
fn select_resources(plans: &[String]) -> SelectStatement {
    let places = plans.len().next_power_of_two();
    let ids = plans
        .iter()
        .chain(plans.last().into_iter().cycle())
        .take(places);
    Query::select()
        .columns(RESOURCE.iter().copied())
        .from("resources")
        .and_where(Expr::col("plan_id").is_in(ids.map(String::as_str)))
        .and_where(Expr::col("deleted").eq(false))
        .order_by("id", Order::Asc)
        .take()
}

/// Resources are equal by type and id; what is stored of them is more.
fn same_resources(one: &[Resource], other: &[Resource]) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(a, b)| a == b && a.name == b.name && a.extra_info == b.extra_info)
}
