//! Records, and the one way a state changes.

use std::{fmt::Display, str::FromStr};

use karbor_model::{
    FlowStatus, OperationId, OperationLog, OperationLogId, OperationLogStatus, Plan, PlanId,
    PlanStatus, ScheduledOperation, ScheduledOperationId, State, Trigger, TriggerId,
};
use sea_orm::{
    ConnectionTrait,
    sea_query::{
        Alias, Condition, Expr, ExprTrait, IntoColumnRef, Query, SelectStatement, UpdateStatement,
    },
};

use crate::{Db, DbError, FlowRecord};

/// A record with a row of its own.
pub(crate) trait Record: Send + Sync + 'static {
    /// Its id.
    type Id: Display + FromStr + Copy + Send + Sync;
    /// What errors call it.
    const WHAT: &'static str;
    /// Where it is kept.
    const TABLE: &'static str;
    /// The column of its id.
    const ID: &'static str = "id";
    /// Deleted rows stay in the table, marked.
    const SOFT_DELETE: bool = true;
}

/// How a change of state is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// Not at all.
    No,
    /// As an operation's start or end.
    Operation,
    /// As the update of a plan.
    Plan,
}

/// A record whose state changes by compare-and-set only.
pub(crate) trait Stateful: Record {
    /// Its states.
    type State: State;
    /// Every state.
    const STATES: &'static [Self::State];
    /// Texts that the original wrote for what is one of our states.
    const ALIASES: &'static [(&'static str, Self::State)] = &[];
    /// What any other text means (the original took any; Q10).
    const OTHER: Self::State;

    /// Does a change of its state make a notification?
    const TOLD: Told = Told::No;

    /// A column that says since when the record is in some state, and which.
    const SINCE: Option<(&'static str, Self::State)> = None;
}

impl Record for Plan {
    type Id = PlanId;
    const WHAT: &'static str = "Plan";
    const TABLE: &'static str = "plans";
}

impl Stateful for Plan {
    type State = PlanStatus;
    const STATES: &'static [PlanStatus] = PlanStatus::ALL;
    const OTHER: PlanStatus = PlanStatus::Suspended;
    const TOLD: Told = Told::Plan;
    const SINCE: Option<(&'static str, PlanStatus)> = Some(("held_at", PlanStatus::Suspended));
}

impl Record for OperationLog {
    type Id = OperationLogId;
    const WHAT: &'static str = "OperationLog";
    const TABLE: &'static str = "operation_logs";
}

/// The original logged the status of the checkpoint or restore instead of the operation's.
impl Stateful for OperationLog {
    type State = OperationLogStatus;
    const STATES: &'static [OperationLogStatus] = OperationLogStatus::ALL;
    const ALIASES: &'static [(&'static str, OperationLogStatus)] = &[
        ("started", OperationLogStatus::InProgress),
        ("protecting", OperationLogStatus::InProgress),
        ("deleting", OperationLogStatus::InProgress),
        ("wait_copying", OperationLogStatus::InProgress),
        ("copying", OperationLogStatus::InProgress),
        ("available", OperationLogStatus::Success),
        ("deleted", OperationLogStatus::Success),
        ("finished", OperationLogStatus::Success),
    ];
    const OTHER: OperationLogStatus = OperationLogStatus::Failed;
    const TOLD: Told = Told::Operation;
}

impl Record for FlowRecord {
    type Id = OperationId;
    const WHAT: &'static str = "Flow";
    const TABLE: &'static str = "flows";
    const ID: &'static str = "operation_id";
    const SOFT_DELETE: bool = false;
}

impl Stateful for FlowRecord {
    type State = FlowStatus;
    const STATES: &'static [FlowStatus] = FlowStatus::ALL;
    const OTHER: FlowStatus = FlowStatus::Failed;
}

impl Record for Trigger {
    type Id = TriggerId;
    const WHAT: &'static str = "Trigger";
    const TABLE: &'static str = "triggers";
}

/// The original removes its row.
impl Record for ScheduledOperation {
    type Id = ScheduledOperationId;
    const WHAT: &'static str = "ScheduledOperation";
    const TABLE: &'static str = "scheduled_operations";
}

/// The state that a text in the database means.
pub(crate) fn read_state<R: Stateful>(text: &str) -> R::State {
    text.parse().unwrap_or_else(|_| {
        R::ALIASES
            .iter()
            .find(|(alias, _)| *alias == text)
            .map_or(R::OTHER, |(_, state)| *state)
    })
}

fn texts<R: Stateful>(matches: impl Fn(R::State) -> bool) -> Vec<&'static str> {
    let own = R::STATES.iter().map(|state| (state.as_str(), *state));
    own.chain(R::ALIASES.iter().copied())
        .filter(|(_, state)| matches(*state))
        .map(|(text, _)| text)
        .collect()
}

/// "The row's status means `state`", as [`read_state`] would read it.
pub(crate) fn in_state<R: Stateful>(state: R::State) -> Condition {
    let status = Expr::col("status");
    if state != R::OTHER {
        return Condition::all().add(status.is_in(texts::<R>(|other| other == state)));
    }
    Condition::any()
        .add(status.clone().is_null())
        .add(status.is_not_in(texts::<R>(|other| other != state)))
}

/// "The row is not marked deleted." Written out, as a bound value is compared more slowly.
pub(crate) fn not_deleted(column: impl IntoColumnRef) -> Expr {
    Expr::col(column).eq(Expr::Constant(false.into()))
}

/// "The row is the one with this id, and not deleted."
pub(crate) fn is_row<R: Record>(id: R::Id) -> Condition {
    let condition = Condition::all().add(Expr::col(R::ID).eq(id.to_string()));
    if R::SOFT_DELETE {
        condition.add(not_deleted("deleted"))
    } else {
        condition
    }
}

/// A select of one row of `R`.
pub(crate) fn select_row<R: Record>(id: R::Id, columns: &[&'static str]) -> SelectStatement {
    Query::select()
        .columns(columns.iter().copied())
        .from(R::TABLE)
        .cond_where(is_row::<R>(id))
        .take()
}

/// An update of one row of `R`, at least of its `updated_at`.
pub(crate) fn update_row<R: Record>(db: &Db, id: R::Id) -> UpdateStatement {
    Query::update()
        .table(Alias::new(R::TABLE))
        .value("updated_at", db.time(db.now()))
        .cond_where(is_row::<R>(id))
        .take()
}

impl Db {
    /// Takes a record from one state to another: `db.transition::<Plan>(id, from, to)`. Of several
    /// that try at once, one succeeds.
    ///
    /// # Errors
    /// [`DbError::Conflict`] names the present state when it is not `from`, and when the rules
    /// ([`State::can_become`]) forbid the change; [`DbError::NotFound`].
    pub(crate) async fn transition<R: Stateful>(
        &self,
        id: R::Id,
        from: R::State,
        to: R::State,
    ) -> Result<(), DbError> {
        from.becoming(to)
            .map_err(|illegal| DbError::illegal(R::WHAT, id, &illegal))?;
        let mut update = update_row::<R>(self, id)
            .value("status", to.as_str())
            .cond_where(in_state::<R>(from))
            .take();
        if let Some((column, state)) = R::SINCE {
            update.value(column, self.time_opt((to == state).then(|| self.now())));
        }
        let write = self.write().await?;
        if write.execute(&update).await?.rows_affected() != 1 {
            return Err(self.not_in_state::<R>(&*write, id, from).await?);
        }
        match R::TOLD {
            Told::No => {}
            Told::Operation => self.announce_change(&write, &id.to_string()).await?,
            Told::Plan => {
                self.announce_plan_status(&write, &id.to_string(), to.as_str())
                    .await?;
            }
        }
        write.commit().await
    }

    /// Why an update that asked for `wanted` found no row.
    pub(crate) async fn not_in_state<R: Stateful>(
        &self,
        on: &impl ConnectionTrait,
        id: R::Id,
        wanted: R::State,
    ) -> Result<DbError, DbError> {
        let found = on.query_one(&select_row::<R>(id, &["status"])).await?;
        let Some(row) = found else {
            return Ok(DbError::not_found(R::WHAT, id));
        };
        let text: Option<String> = row.try_get_by_index(0)?;
        let present = read_state::<R>(&text.unwrap_or_default());
        let message = if present == wanted {
            format!(
                "{} {id} was changed by somebody else. Read it again.",
                R::WHAT
            )
        } else {
            format!("{} {id} is '{present}', not '{wanted}'.", R::WHAT)
        };
        Ok(DbError::Conflict {
            what: R::WHAT,
            id: id.to_string(),
            present: Some(present.to_string()),
            message,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_originals_operation_log_states_are_understood() {
        for (text, state) in [
            ("in_progress", OperationLogStatus::InProgress),
            ("protecting", OperationLogStatus::InProgress),
            ("available", OperationLogStatus::Success),
            ("error-deleting", OperationLogStatus::Failed),
            ("", OperationLogStatus::Failed),
        ] {
            assert_eq!(read_state::<OperationLog>(text), state, "{text}");
        }
    }
}
