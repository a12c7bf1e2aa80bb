//! Verify: says of every resource of a checkpoint whether it could be restored.

use karbor_flow::FlowStatus;
use karbor_plugin::{HookSet, SchemaKind};

use super::{
    readback::Reads,
    rules::{Evidence, Line},
};
use crate::leases::Purpose;

pub(crate) struct Verify;

impl Reads for Verify {
    fn claim(&self) -> Purpose {
        Purpose::Verify
    }

    fn line(&self) -> Line {
        Line::Verifications
    }

    fn schema(&self) -> SchemaKind {
        SchemaKind::Verify
    }

    fn hooks(&self) -> HookSet {
        HookSet::Verify
    }

    /// It changes nothing, and what is damaged of one resource says nothing of the others.
    fn goes_on(&self) -> bool {
        true
    }

    /// A failure of one resource keeps no other from being looked at.
    fn reached_all(&self, end: FlowStatus) -> bool {
        end != FlowStatus::Cancelled
    }

    fn success(&self) -> Evidence {
        Evidence::Whole
    }
}
