//! Operations that wait: for their turn, or until what they need is there again. The service says why in
//! their operation log.

use karbor_model::RunReport;
use serde_json::Value;

use crate::{
    error::CliError,
    output::{string, text},
    session::Session,
};

/// What an operation waits for, as its log says; `None` when it does not wait.
pub(crate) fn reason(log: &Value) -> Option<String> {
    if !log["ended_at"].is_null() {
        return None;
    }
    RunReport::read(log.get("extra_info")).waiting
}

impl Session {
    /// Tells of the operation under way that has made `record`, a restore or verification, if it waits.
    pub(crate) async fn waiting_run(&mut self, record: &Value) -> Result<(), CliError> {
        if string(record, "status") != "in_progress" {
            return Ok(());
        }
        // The operation has the id of its record.
        let path = ["operation_logs", string(record, "id")];
        // That it waits is said beside the answer: without it the answer is as good.
        match self.client.get(&path).await {
            Ok(answer) => self.waiting(std::slice::from_ref(&answer["operation_log"])),
            Err(_) => Ok(()),
        }
    }

    /// The same of all operations on a checkpoint that is being made, copied or removed.
    pub(crate) async fn waiting_on(&mut self, checkpoint: &Value) -> Result<(), CliError> {
        let states = ["protecting", "wait_copying", "copying", "deleting"];
        if !states.contains(&string(checkpoint, "status")) {
            return Ok(());
        }
        let query = [("checkpoint_id", string(checkpoint, "id").to_owned())];
        let found = self
            .client
            .list(&["operation_logs"], "operation_logs", &query, None);
        match found.await {
            Ok(logs) => self.waiting(&logs),
            Err(_) => Ok(()),
        }
    }

    fn waiting(&mut self, logs: &[Value]) -> Result<(), CliError> {
        let rows = logs
            .iter()
            .filter_map(|log| Some(vec![text(log, "operation_type"), reason(log)?]));
        self.more("Waiting", vec!["OPERATION", "WHY"], rows.collect())
    }
}
