//! The manager's part in a service: what happens at start, periodically, and how it is.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use chrono::TimeDelta;
use karbor_db::RunStore;
use karbor_interfaces::protection::ProtectionEndpoint;
use karbor_manager::{
    Health, Manager, ManagerBase, PeriodicTask, PeriodicTasks,
    rpc::{RpcEndpoint, RpcVersion},
};
use karbor_model::{ApiError, ServiceRecord};
use karbor_plugin::layers::BankCounts;

use crate::{
    manager::ProtectionManager,
    providers::{Home, Provider},
    quota::{QuotaRecount, recount_quotas},
};

impl Manager for ProtectionManager {
    type Db = RunStore;

    const BINARY: &'static str = "karbor-protection";
    const TOPIC: &'static str = "karbor-protection";
    const RPC_API_VERSION: RpcVersion = ProtectionEndpoint::VERSION;

    fn base(&self) -> &ManagerBase<RunStore> {
        &self.base
    }

    fn endpoints(self: &Arc<Self>) -> Vec<Arc<dyn RpcEndpoint>> {
        vec![Arc::new(ProtectionEndpoint::new(self.clone()))]
    }

    fn periodic_tasks(self: &Arc<Self>) -> PeriodicTasks<Self> {
        let tasks = PeriodicTasks::new(self.base.clock().clone());
        let sweep = |manager: Arc<Self>, _context| async move {
            let before = manager.ground.clock.now() - KEEP_ENDED_RUNS;
            let removed = manager.ground.runs.flow_delete_finished(before).await?;
            Ok(serde_json::json!({ "removed_runs": removed }))
        };
        tasks.add(PeriodicTask::new("remove_ended_runs", sweep).spacing(3600));
        let recount = |manager: Arc<Self>, _context| async move { manager.recount_quotas().await };
        tasks.add(
            PeriodicTask::new("recount_quotas", recount)
                .spacing(RECOUNT_INTERVAL)
                .run_immediately(true),
        );
        let counts = |manager: Arc<Self>, _context| async move { Ok(manager.bank_counts()) };
        tasks.add(PeriodicTask::new("count_bank_requests", counts).spacing(COUNTS_INTERVAL));
        tasks
    }

    async fn init_host(self: &Arc<Self>, _service: &ServiceRecord) -> Result<(), ApiError> {
        let closed = self.ground.close_abandoned_readbacks().await?;
        if closed > 0 {
            tracing::warn!(
                closed,
                "restores and verifications that nobody carried out are closed"
            );
        }
        let resumed = self.worker.resume().await?;
        if resumed > 0 {
            tracing::info!(resumed, "going on with operations that a stop interrupted");
        }
        Ok(())
    }

    fn is_working(&self) -> Health {
        let stuck = self
            .worker
            .stuck
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match stuck.iter().next() {
            None => Health::Working,
            Some((operation, reason)) => Health::NotWorking {
                reason: format!("operation {operation} cannot go on: {reason}"),
            },
        }
    }
}

impl ProtectionManager {
    /// [`recount_quotas`] over this manager's providers.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub async fn recount_quotas(&self) -> Result<QuotaRecount, ApiError> {
        recount_quotas(&self.ground.runs, &self.ground.providers).await
    }

    /// What was asked of the banks since the start, by provider: of its bank, then of its copy bank.
    #[must_use]
    pub fn bank_counts(&self) -> BTreeMap<String, Vec<BankCounts>> {
        let of = |provider: &Arc<Provider>| {
            let counts = provider.homes().map(Home::counts);
            (provider.record().name.clone(), counts.collect())
        };
        self.ground.providers.all().iter().map(of).collect()
    }
}

/// How often it is told what was asked of the banks, in seconds.
const COUNTS_INTERVAL: i64 = 300;

/// How often checkpoints are counted anew, in seconds.
const RECOUNT_INTERVAL: i64 = 3600;

/// How long the flow record and journal of an ended run are kept; the operation log is kept for good.
const KEEP_ENDED_RUNS: TimeDelta = TimeDelta::days(7);
