//! How a run ended, and what the bank keeps of that.

use std::collections::BTreeMap;

use karbor_db::DbError;
use karbor_model::{ApiError, FlowStatus, RunReport};

use crate::providers::Provider;

/// How a run ended.
#[derive(Debug, Clone)]
pub(crate) struct Conclusion {
    /// The end of its flow.
    pub(crate) status: FlowStatus,
    /// Every failing resource with its reason, one a line.
    pub(crate) error_info: Option<String>,
    /// What the run tells.
    pub(crate) report: RunReport,
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
    /// Without the good outcomes that their plugins do not tell.
    pub(crate) fn with_told_successes_of(mut self, provider: &Provider) -> Self {
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
            report: RunReport::default(),
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

/// A change of state that an earlier attempt made already is no error.
///
/// # Errors
/// Any other of the database.
pub(crate) fn unless_done_before(changed: Result<(), DbError>) -> Result<(), ApiError> {
    match changed {
        Ok(()) | Err(DbError::Conflict { .. } | DbError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
