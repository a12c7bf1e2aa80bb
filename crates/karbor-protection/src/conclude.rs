//! How a run ended, and what the bank keeps of that.

use std::collections::BTreeMap;

use karbor_flow::{FlowOutcome, FlowStatus as Ending};
use karbor_model::{
    ApiError, CheckpointStatus, FlowStatus, INCOMPLETE, OperationType, Resource, SUSPICIOUS,
};
use karbor_plugin::HookReport;
use serde_json::{Value, json};

use crate::{
    checkpoints::{CheckpointCollection, CheckpointQuery, is_unreadable, other_projects},
    copies,
    error::CheckpointError,
    flaws::Findings,
    providers::Provider,
    run::Run,
    seal,
};

/// How a run ended.
#[derive(Debug, Clone)]
pub(crate) struct Conclusion {
    /// The end of its flow.
    pub(crate) status: FlowStatus,
    /// Every failing resource with its reason, one a line.
    pub(crate) error_info: Option<String>,
    /// Reports by resource.
    pub(crate) extra_info: Value,
    /// Hashes of what the plugins wrote below `resource-data`, by its key there: for the seal.
    pub(crate) objects: BTreeMap<String, String>,
    /// Does the bank have a checkpoint of it now?
    pub(crate) in_bank: bool,
    /// Outcome by `type#id`, of resources that failed or had something to tell.
    pub(crate) resources_status: BTreeMap<String, String>,
    /// Why not, by `type#id`.
    pub(crate) resources_reason: BTreeMap<String, String>,
}

impl Conclusion {
    /// What a flow's outcome means for its run.
    pub(crate) fn of(run: &Run, outcome: &FlowOutcome) -> Self {
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
        if run.reads_unsealed() {
            warn_unsealed(run, &mut reports);
        }
        let mut extra_info = json!({ "resources": reports });
        if run.operation == OperationType::Delete && is_unreadable(&run.checkpoint) {
            extra_info["warnings"] = json!([looked_for(run)]);
        }
        if run
            .copy
            .as_ref()
            .is_some_and(|copy| copy.place == run.place)
        {
            extra_info["warnings"] = json!([copies::IN_SAME_BANK]);
        }
        let mut conclusion = Self {
            status,
            error_info: outcome.error_info(),
            extra_info,
            objects,
            in_bank: true,
            resources_status: BTreeMap::new(),
            resources_reason: BTreeMap::new(),
        };
        for key in done(run, outcome) {
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

    /// Without the good outcomes that their plugins do not tell.
    pub(crate) fn told_by(mut self, provider: &Provider) -> Self {
        self.resources_status.retain(|key, status| {
            let resource_type = key.split_once('#').map_or(key.as_str(), |(of, _)| of);
            status != "available" || provider.tells_success(resource_type)
        });
        self
    }

    /// A run that ended before, or without, its flow.
    pub(crate) fn failed(reason: String) -> Self {
        Self {
            status: FlowStatus::Failed,
            error_info: Some(reason),
            extra_info: Value::Null,
            objects: BTreeMap::new(),
            in_bank: false,
            resources_status: BTreeMap::new(),
            resources_reason: BTreeMap::new(),
        }
    }

    /// Says one more reason of a failure.
    pub(crate) fn add_reason(&mut self, reason: &str) {
        let told = self.error_info.take().into_iter();
        let lines: Vec<_> = told.chain([reason.to_owned()]).collect();
        self.error_info = Some(lines.join("\n"));
    }

    pub(crate) fn is_success(&self) -> bool {
        self.status == FlowStatus::Success
    }
}

/// What came of a checkpoint that nothing vouches for is told with each of its resources.
fn warn_unsealed(run: &Run, reports: &mut BTreeMap<String, HookReport>) {
    let warning = "the checkpoint has no seal: nothing vouches for its index and metadata, which were accepted as they are in the bank";
    let graph = run.graph().unwrap_or_default();
    for resource in graph.nodes() {
        let report = reports.entry(resource.key()).or_default();
        let warnings = report.entry("warnings").or_insert_with(|| json!([]));
        if let Value::Array(warnings) = warnings {
            warnings.push(Value::from(warning));
        }
    }
}

/// Of what a checkpoint without a record that can be believed was made, only its folder could tell.
fn looked_for(run: &Run) -> String {
    let id = run.checkpoint.id;
    let others = other_projects(&run.checkpoint);
    let not_in = match others.is_empty() {
        true => String::new(),
        false => format!(
            "; the index lists it for several projects: nothing was looked for in the repositories of {}",
            others.join(", ")
        ),
    };
    format!(
        "the index of the checkpoint could not be believed: what was stored for it was looked for by the names \
         in its folder; if snapshots of other resources are left, `restic snapshots --tag karbor:checkpoint={id}` \
         shows them{not_in}"
    )
}

/// The resources whose turn a restore or verification came to, by `type#id`; those that failed are
/// among them.
fn done(run: &Run, outcome: &FlowOutcome) -> Vec<String> {
    let to_the_end = match run.operation {
        OperationType::Verify => outcome.status != Ending::Cancelled,
        OperationType::Restore => outcome.status == Ending::Success,
        OperationType::Protect | OperationType::Delete | OperationType::Copy => return Vec::new(),
    };
    match run.graph() {
        Ok(graph) if to_the_end => graph.nodes().iter().map(Resource::key).collect(),
        _ => outcome.reports.keys().cloned().collect(),
    }
}

/// Calls a protected checkpoint available, with what is to be said against it; the conclusion says so, too.
async fn finish(
    run: &Run,
    checkpoints: &CheckpointCollection,
    conclusion: &mut Conclusion,
    share: f64,
) -> Result<(), CheckpointError> {
    let told = &mut conclusion.extra_info;
    let (_, checkpoint) = run.subject();
    let same_plan = CheckpointQuery {
        project_id: Some(checkpoint.project_id.clone()),
        plan_id: Some(checkpoint.protection_plan.id),
        status: Some(CheckpointStatus::Available),
        ..CheckpointQuery::default()
    };
    let findings = Findings::of(told, checkpoints, &same_plan, checkpoint, share).await?;
    let objects = &conclusion.objects;
    checkpoints
        .finish(checkpoint.id, objects, Some(&findings))
        .await?;
    findings.tell(told);
    if findings.are_bad() {
        let (incomplete, suspicious) = (&told[INCOMPLETE], &told[SUSPICIOUS]);
        tracing::warn!(
            checkpoint = %checkpoint.id, plan = %checkpoint.protection_plan.id, %incomplete, %suspicious,
            "a checkpoint was made that is incomplete or suspicious"
        );
    }
    Ok(())
}

/// Leaves a checkpoint that could not be deleted so that it can be deleted again. What may be whole under another master
/// key becomes what it was, and what could be read again is left alone.
async fn undelete(run: &Run, checkpoints: &CheckpointCollection) -> Result<(), CheckpointError> {
    let id = run.checkpoint.id;
    if is_unreadable(&run.checkpoint) {
        match checkpoints.get(id).await {
            Ok(there) if !is_unreadable(&there) => return checkpoints.forget_kept(id).await,
            Err(error) if !error.is_damage() => return Err(error),
            _ if checkpoints.put_back(id).await? => return Ok(()),
            _ => {}
        }
    }
    let failed = CheckpointStatus::ErrorDeleting;
    checkpoints.transition(id, failed).await.map(|_| ())
}

/// Tells the bank how a run ended, and answers what the database is to be told. A checkpoint that lost more
/// than `share` of what it held is suspicious. Safe to repeat.
///
/// # Errors
/// When the bank cannot be told now.
pub(crate) async fn conclude_in_bank(
    run: &Run,
    provider: &Provider,
    conclusion: &Conclusion,
    share: f64,
) -> Result<Conclusion, ApiError> {
    let (place, subject) = run.subject();
    let (checkpoints, id) = (provider.home(place)?.checkpoints(), subject.id);
    let mut conclusion = conclusion.clone();
    let ok = conclusion.is_success();
    let told = match (run.operation, ok) {
        (OperationType::Protect, true) => finish(run, checkpoints, &mut conclusion, share).await,
        (OperationType::Copy, true) => {
            let objects = &conclusion.objects;
            checkpoints.finish(id, objects, None).await
        }
        (OperationType::Protect | OperationType::Copy, false) => checkpoints.fail(id).await,
        (OperationType::Delete, true) => checkpoints.delete(id).await,
        (OperationType::Delete, false) => undelete(run, checkpoints).await,
        (OperationType::Restore | OperationType::Verify, _) => Ok(()),
    };
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
            extra_info: conclusion.extra_info.clone(),
            in_bank: !matches!(error, CheckpointError::NotFound(_)),
            ..Conclusion::failed(error.to_string())
        }),
        Err(error) => Err(error.into()),
    }
}
