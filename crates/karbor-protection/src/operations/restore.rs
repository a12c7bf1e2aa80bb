//! Restore: brings the resources of a checkpoint back.

use karbor_flow::FlowStatus;
use karbor_plugin::{HookSet, SchemaKind};

use super::{
    readback::Reads,
    rules::{Evidence, Line},
};
use crate::leases::Purpose;

pub(crate) struct Restore;

impl Reads for Restore {
    fn claim(&self) -> Purpose {
        Purpose::Restore
    }

    fn line(&self) -> Line {
        Line::Restores
    }

    fn schema(&self) -> SchemaKind {
        SchemaKind::Restore
    }

    fn hooks(&self) -> HookSet {
        HookSet::Restore
    }

    /// What is there is not touched any more when one thing went wrong.
    fn goes_on(&self) -> bool {
        false
    }

    /// A failure ends it: what was not reached then is not restored.
    fn reached_all(&self, end: FlowStatus) -> bool {
        end == FlowStatus::Success
    }

    /// It may have been told to leave resources alone.
    fn success(&self) -> Evidence {
        Evidence::Nothing
    }
}
