//! What checkpoints mean for quotas.
//!
//! A protect, and a copy, reserves its checkpoint in the transaction that enters its flow, and the end of the run is
//! written together with what it means for the quota: so there is no moment at which a crash could
//! leave the one without the other. Counted is every checkpoint that the bank has, also one in
//! error, until it is deleted. What the bank has decides: a recount, now and then, takes in
//! checkpoints that the database does not know (it was lost, or taken over from the original) and
//! drops those that are gone without a run.

use std::collections::BTreeSet;

use karbor_db::{ListQuery, QuotaSettlement, Recounted, RunStore};
use karbor_model::{ApiError, CheckpointId, OperationType, QuotaHolding};
use serde::Serialize;

use crate::{
    conclusion::Conclusion,
    error::CheckpointError,
    providers::{Provider, Providers},
    run::Run,
};

/// The checkpoint that a run makes, while it is being made.
pub(crate) fn reserved(run: &Run) -> QuotaHolding {
    QuotaHolding {
        checkpoint_id: run.subject().1.id,
        project_id: run.checkpoint.project_id.clone(),
        provider_id: run.checkpoint.provider_id,
        bytes: 0,
        settled: false,
    }
}

/// What the end of a run that made a checkpoint means.
pub(crate) fn made(run: &Run, conclusion: &Conclusion) -> QuotaSettlement {
    let id = run.subject().1.id;
    match conclusion.in_bank {
        true => QuotaSettlement::Holds(id, conclusion.report.added_bytes()),
        false => QuotaSettlement::Released(id),
    }
}

/// What a recount came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct QuotaRecount {
    /// Checkpoints that were in a bank and did not count.
    pub added: usize,
    /// Checkpoints that counted and were in no bank.
    pub removed: usize,
    /// Providers whose bank could not be read, by name, with the reason; they keep their count.
    pub unread: Vec<(String, String)>,
}

/// Makes what counts against quotas agree with what the banks of `providers` have. Safe while
/// operations run, and to repeat.
///
/// # Errors
/// When the database cannot be used.
pub async fn recount_quotas(
    runs: &RunStore,
    providers: &Providers,
) -> Result<QuotaRecount, ApiError> {
    let mut recount = QuotaRecount::default();
    for provider in providers.all() {
        // Before the bank is read: who comes or goes meanwhile is left alone.
        let before = runs.holdings(provider.record().id).await?;
        let there = match owners(provider).await {
            Ok(there) => there,
            Err(error) => {
                let name = provider.record().name.clone();
                tracing::warn!(provider = name, %error, "checkpoints cannot be counted");
                recount.unread.push((name, error.to_string()));
                continue;
            }
        };
        let found = found(runs, provider, &before, there).await?;
        let changed = runs
            .holdings_recount(provider.record().id, &before, &found)
            .await?;
        let Recounted { added, removed } = changed;
        if added + removed > 0 {
            let provider = &provider.record().name;
            tracing::info!(provider, added, removed, "checkpoints were counted anew");
        }
        recount.added += added;
        recount.removed += removed;
    }
    Ok(recount)
}

/// Every checkpoint of the provider's banks, with its project.
async fn owners(provider: &Provider) -> Result<Vec<(CheckpointId, String)>, CheckpointError> {
    let mut owners = Vec::new();
    for home in provider.homes() {
        owners.extend(home.checkpoints().owners().await?);
    }
    Ok(owners)
}

async fn found(
    runs: &RunStore,
    provider: &Provider,
    before: &[QuotaHolding],
    there: Vec<(CheckpointId, String)>,
) -> Result<Vec<QuotaHolding>, ApiError> {
    let known: BTreeSet<_> = before.iter().map(|holding| holding.checkpoint_id).collect();
    let mut found = Vec::with_capacity(there.len());
    for (checkpoint_id, project_id) in there {
        let bytes = match known.contains(&checkpoint_id) {
            true => 0,
            // A name that its record did not account for may outlive it.
            false if is_deleted(provider, checkpoint_id).await => continue,
            false => logged_bytes(runs, checkpoint_id).await?,
        };
        found.push(QuotaHolding {
            checkpoint_id,
            project_id,
            provider_id: provider.record().id,
            bytes,
            settled: true,
        });
    }
    Ok(found)
}

/// Is a record all that there is of a checkpoint, and says so?
async fn is_deleted(provider: &Provider, id: CheckpointId) -> bool {
    let mut is_deleted = false;
    for home in provider.homes() {
        match home.checkpoints().says_deleted(id).await {
            Some(true) => is_deleted = true,
            Some(false) => return false,
            None => {}
        }
    }
    is_deleted
}

/// What the operation log knows of the bytes of a checkpoint; nothing if it was lost.
async fn logged_bytes(runs: &RunStore, id: CheckpointId) -> Result<i64, ApiError> {
    let mut made = 0;
    for operation in [OperationType::Protect, OperationType::Copy] {
        let query = ListQuery {
            filters: vec![
                ("checkpoint_id".to_owned(), id.to_string()),
                ("operation_type".to_owned(), operation.as_str().to_owned()),
            ],
            limit: Some(1),
            ..ListQuery::of_every_project()
        };
        let logs = runs.operation_log_list(&query).await?;
        made += logs.first().map_or(0, |log| log.report().added_bytes());
    }
    Ok(made)
}
