//! What the end of a flow means for its run, and what the bank hears of it.

use std::collections::BTreeMap;

use karbor_flow::{FlowOutcome, FlowStatus as Ending};
use karbor_model::{ApiError, FlowStatus, ResourceReport, RunReport};

use crate::{
    checkpoints::is_unreadable, conclusion::Conclusion, error::CheckpointError, ground::Ground,
    operations::rules, providers::Provider, run::Run, seal,
};

/// What a flow's outcome means for its run.
pub(super) fn conclusion(run: &Run, outcome: &FlowOutcome) -> Conclusion {
    let status = match outcome.status {
        Ending::Success => FlowStatus::Success,
        Ending::Cancelled => FlowStatus::Cancelled,
        Ending::Failed | Ending::Interrupted => FlowStatus::Failed,
    };
    let mut reports = outcome.reports.clone();
    let mut objects = BTreeMap::new();
    for report in reports.values_mut() {
        seal::objects(report, &mut objects);
    }
    reports.retain(|_, report| !report.is_empty());
    let reports = reports.into_iter();
    let reports = reports.map(|(key, report)| (key, ResourceReport(report)));
    let mut report = RunReport {
        resources: Some(reports.collect()),
        ..RunReport::default()
    };
    let rules = rules(run.operation);
    rules.warn(run, &mut report);
    let mut conclusion = Conclusion {
        status,
        error_info: outcome.error_info(),
        report,
        objects,
        in_bank: true,
        resources_status: BTreeMap::new(),
        resources_reason: BTreeMap::new(),
    };
    for key in rules.reached(run, outcome) {
        conclusion
            .resources_status
            .insert(key, "available".to_owned());
    }
    for failure in &outcome.failures {
        let key = failure.resource.clone();
        conclusion
            .resources_status
            .insert(key.clone(), "error".to_owned());
        let reason = conclusion.resources_reason.entry(key).or_default();
        if !reason.is_empty() {
            reason.push_str("; ");
        }
        reason.push_str(&failure.reason);
    }
    conclusion
}

/// Tells the bank how a run ended, and answers what the database is to be told. Safe to repeat.
///
/// # Errors
/// When the bank cannot be told now.
pub(super) async fn conclude_in_bank(
    ground: &Ground,
    run: &Run,
    provider: &Provider,
    conclusion: &Conclusion,
) -> Result<Conclusion, ApiError> {
    let checkpoints = provider.home(run.subject().0)?.checkpoints();
    let mut conclusion = conclusion.clone();
    let ok = conclusion.is_success();
    let rules = rules(run.operation);
    let told = rules
        .conclude(ground, run, checkpoints, &mut conclusion)
        .await;
    let concluded = |in_bank| Conclusion {
        in_bank,
        ..conclusion.clone()
    };
    match told {
        Ok(()) => Ok(concluded(true)),
        // Nothing was written yet, or nothing had to be changed: that is the state to leave.
        Err(CheckpointError::NotFound(_)) if !ok => Ok(concluded(false)),
        Err(CheckpointError::Transition(_)) if !ok => Ok(concluded(true)),
        // Why it failed is known, and is not that.
        Err(CheckpointError::Corrupt { .. } | CheckpointError::Tampered(_))
            if !ok && is_unreadable(&run.checkpoint) =>
        {
            Ok(concluded(true))
        }
        Err(error @ (CheckpointError::Corrupt { .. } | CheckpointError::Tampered(_))) if !ok => {
            let mut conclusion = concluded(true);
            conclusion.add_reason(&error.to_string());
            Ok(conclusion)
        }
        // The checkpoint vanished from the bank, or was changed, under a run that thought it was done.
        Err(
            error @ (CheckpointError::NotFound(_)
            | CheckpointError::Transition(_)
            | CheckpointError::Corrupt { .. }
            | CheckpointError::Tampered(_)),
        ) => Ok(Conclusion {
            report: conclusion.report.clone(),
            in_bank: !matches!(error, CheckpointError::NotFound(_)),
            ..Conclusion::failed(error.to_string())
        }),
        Err(error) => Err(error.into()),
    }
}
