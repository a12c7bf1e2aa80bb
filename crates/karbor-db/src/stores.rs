//! Whose tables are whose: a store for each owner, and what others may see of it.
//!
//! | store | of | its owner | what others have |
//! |---|---|---|---|
//! | [`PlanStore`] | plans and their resources | the API's manager | [`PlanViews`]: the operation engine |
//! | [`RunStore`] | the operation log, restores, verifications, flows, what counts against quotas | the protection manager | [`RunViews`]: the API and the operation engine |
//! | [`ScheduleStore`] | triggers, scheduled operations, due times, scheduled runs | the operation engine | [`ScheduleDefinitions`]: the API |
//! | [`QuotaStore`] | limits, classes, usage | the API's manager | |
//! | [`TokenStore`] | API tokens | the API's authentication | |
//! | [`ServiceRegistry`] | services and the reports of their periodic tasks | the `Service` around a manager | [`ServiceAdmin`]: the API; [`ServiceViews`]: the operation engine |
//! | [`Outbox`] | notifications | the notification manager | [`Announcements`]: who has something to tell that no change in the database tells |
//!
//! A store has all methods of the types beside it in the last column; none of these leads back to the store, or to the
//! [`Db`]. Where a change of one owner touches another's tables in the same transaction (a plan that is deleted disables
//! its scheduled operations), the method is the owner's of the change.

use std::ops::Deref;

use karbor_model::RequestContext;

use crate::Db;

/// A type over the pool, by itself.
macro_rules! store {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            pub(crate) db: Db,
        }

        impl $name {
            fn of(db: Db) -> Self {
                Self { db }
            }
        }
    };
    ($(#[$doc:meta])* $name:ident beyond $less:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name($less);

        impl $name {
            fn of(db: Db) -> Self {
                Self($less::of(db))
            }
        }

        impl Deref for $name {
            type Target = $less;

            fn deref(&self) -> &$less {
                &self.0
            }
        }
    };
}

/// Gives what writes on behalf of requests its `asked_by`.
macro_rules! asked_by {
    ($($name:ident)+) => {
        $(impl $name {
            /// The same store, asked on behalf of a request, which the notifications of what it writes name.
            #[must_use]
            pub fn asked_by(&self, context: &RequestContext) -> Self {
                Self::of(self.db.asked_by(context))
            }
        })+
    };
}

store! {
    /// Plans, to read.
    ///
    /// Who reads them cannot write:
    ///
    /// ```compile_fail,E0599
    /// async fn write(plans: &karbor_db::PlanViews, plan: &karbor_model::Plan) {
    ///     let _ = plans.create(plan).await;
    /// }
    /// ```
    ///
    /// The owner can:
    ///
    /// ```
    /// async fn write(plans: &karbor_db::PlanStore, plan: &karbor_model::Plan) {
    ///     let _ = plans.create(plan).await;
    /// }
    /// ```
    PlanViews
}

store! {
    /// Plans and their resources.
    PlanStore beyond PlanViews
}

store! {
    /// What runs and ran, to read: the operation log, restores and verifications, flows, and what counts against
    /// quotas.
    ///
    /// Who reads it cannot write:
    ///
    /// ```compile_fail,E0599
    /// async fn write(runs: &karbor_db::RunViews, log: &karbor_model::OperationLog) {
    ///     let _ = runs.operation_log_create(log).await;
    /// }
    /// ```
    ///
    /// The owner can:
    ///
    /// ```
    /// async fn write(runs: &karbor_db::RunStore, log: &karbor_model::OperationLog) {
    ///     let _ = runs.operation_log_create(log).await;
    /// }
    /// ```
    RunViews
}

store! {
    /// The operation log, restores and verifications, flows with their journals, and the checkpoints that count against
    /// quotas.
    RunStore beyond RunViews
}

store! {
    /// What schedules are made of: triggers and scheduled operations, as people define them.
    ///
    /// Who defines them does not fire them:
    ///
    /// ```compile_fail,E0599
    /// async fn fire(schedules: &karbor_db::ScheduleDefinitions) {
    ///     let _ = schedules.triggers_fire(&[]).await;
    /// }
    /// ```
    ///
    /// The owner does:
    ///
    /// ```
    /// async fn fire(schedules: &karbor_db::ScheduleStore) {
    ///     let _ = schedules.triggers_fire(&[]).await;
    /// }
    /// ```
    ScheduleDefinitions
}

store! {
    /// Schedules: their definitions, when they are due next, and their runs.
    ScheduleStore beyond ScheduleDefinitions
}

store! {
    /// Limits by project and by class, and what is used of them.
    QuotaStore
}

store! {
    /// API tokens.
    TokenStore
}

store! {
    /// Services, to read.
    ///
    /// Who reads them takes none out of service:
    ///
    /// ```compile_fail,E0599
    /// async fn disable(services: &karbor_db::ServiceViews) {
    ///     let _ = services.set_disabled(1, true, None).await;
    /// }
    /// ```
    ///
    /// An administrator does:
    ///
    /// ```
    /// async fn disable(services: &karbor_db::ServiceAdmin) {
    ///     let _ = services.set_disabled(1, true, None).await;
    /// }
    /// ```
    ServiceViews
}

store! {
    /// Services, as administrators see them: to read, to take out of service and to put back.
    ServiceAdmin beyond ServiceViews
}

store! {
    /// Services, as the service around a manager sees them: it registers, beats its heart and leaves its reports.
    ServiceRegistry beyond ServiceAdmin
}

store! {
    /// What is told without a change in the database that tells it.
    Announcements
}

store! {
    /// Notifications that are not delivered yet.
    Outbox
}

asked_by! { PlanStore RunStore ScheduleDefinitions ScheduleStore Announcements }

impl Db {
    /// The plans, for their owner.
    #[must_use]
    pub fn plans(&self) -> PlanStore {
        PlanStore::of(self.clone())
    }

    /// The plans, for readers.
    #[must_use]
    pub fn plan_views(&self) -> PlanViews {
        PlanViews::of(self.clone())
    }

    /// What runs and ran, for its owner.
    #[must_use]
    pub fn runs(&self) -> RunStore {
        RunStore::of(self.clone())
    }

    /// What runs and ran, for readers.
    #[must_use]
    pub fn run_views(&self) -> RunViews {
        RunViews::of(self.clone())
    }

    /// The schedules, for their owner.
    #[must_use]
    pub fn schedules(&self) -> ScheduleStore {
        ScheduleStore::of(self.clone())
    }

    /// The schedules, for who defines them.
    #[must_use]
    pub fn schedule_definitions(&self) -> ScheduleDefinitions {
        ScheduleDefinitions::of(self.clone())
    }

    /// The quotas.
    #[must_use]
    pub fn quotas(&self) -> QuotaStore {
        QuotaStore::of(self.clone())
    }

    /// The API tokens.
    #[must_use]
    pub fn tokens(&self) -> TokenStore {
        TokenStore::of(self.clone())
    }

    /// The services, for services.
    #[must_use]
    pub fn services(&self) -> ServiceRegistry {
        ServiceRegistry::of(self.clone())
    }

    /// The services, for administrators.
    #[must_use]
    pub fn service_admin(&self) -> ServiceAdmin {
        ServiceAdmin::of(self.clone())
    }

    /// The services, for readers.
    #[must_use]
    pub fn service_views(&self) -> ServiceViews {
        ServiceViews::of(self.clone())
    }

    /// The notifications, for who delivers them.
    #[must_use]
    pub fn outbox(&self) -> Outbox {
        Outbox::of(self.clone())
    }

    /// The notifications, for who has something to tell.
    #[must_use]
    pub fn announcements(&self) -> Announcements {
        Announcements::of(self.clone())
    }
}
