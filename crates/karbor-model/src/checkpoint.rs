//! A checkpoint as its index file in the bank describes it.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{CheckpointId, CheckpointInfo, CheckpointStatus, PlanId, ProviderId, Resource};

/// The version that the original wrote into every index file.
pub const INDEX_VERSION: &str = "0.9";

/// `index.json` of a checkpoint: all that is needed to restore it, without any database
/// (reference: "Bank keys"). Field names and forms are the original's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// [`INDEX_VERSION`].
    pub version: String,
    /// Id.
    pub id: CheckpointId,
    /// Status; only `available` may be restored.
    pub status: CheckpointStatus,
    /// Who wrote it last: the service instance that held the lease.
    #[serde(default)]
    pub owner_id: String,
    /// The provider it was made with.
    pub provider_id: ProviderId,
    /// The project it belongs to.
    pub project_id: String,
    /// The plan, as it was when the checkpoint was made.
    pub protection_plan: CheckpointPlan,
    /// JSON text (`{}`, an object, for an unfinished copy of the original's).
    pub extra_info: Option<Value>,
    /// Day it was made, UTC.
    pub created_at: Option<NaiveDate>,
    /// Second it was made, Unix time.
    #[serde(default)]
    pub timestamp: i64,
    /// The packed [`ResourceGraph`](crate::ResourceGraph); `None` until it is known.
    pub resource_graph: Option<String>,
    /// What vouches for all of this. The original, and versions before there were seals, wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<Seal>,
}

/// What vouches for a checkpoint: nobody without the master key can make one that fits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// SHA-256 (lower-case hex) of every object below `resource-data`, by its key there.
    pub objects: BTreeMap<String, String>,
    /// HMAC-SHA256 (lower-case hex) over the rest of the record, `objects` included. Set when the
    /// record is written.
    #[serde(default)]
    pub mac: String,
}

impl Checkpoint {
    /// What its `extra_info` says.
    #[must_use]
    pub fn info(&self) -> CheckpointInfo {
        CheckpointInfo::read(self.extra_info.as_ref())
    }
}

/// What a checkpoint keeps of its plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointPlan {
    /// Id of the plan.
    pub id: PlanId,
    /// Its name then.
    pub name: String,
    /// The provider.
    pub provider_id: ProviderId,
    /// The resources that it named.
    pub resources: Vec<Resource>,
}
