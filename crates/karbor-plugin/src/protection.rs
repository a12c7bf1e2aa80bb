//! Protection plugins and the operations they hand out.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use karbor_model::{
    CheckpointId, OperationId, OperationType, PlanId, ProviderId, RequestContext, Resource, Secret,
};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::{BankError, BankSection, DataSection};

/// Which schema of a resource type is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaKind {
    /// Parameters of protect (plan parameters).
    Options,
    /// Parameters of restore.
    Restore,
    /// Parameters of verify.
    Verify,
    /// What is kept of a protected resource.
    SavedInfo,
}

impl SchemaKind {
    /// Every kind, in the order that the API shows them.
    pub const ALL: [Self; 4] = [Self::Options, Self::Restore, Self::SavedInfo, Self::Verify];

    /// The key in a provider's `extended_info_schema`.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Options => "options_schema",
            Self::Restore => "restore_schema",
            Self::Verify => "verify_schema",
            Self::SavedInfo => "saved_info_schema",
        }
    }
}

/// The sets of hooks that a plugin has. An operation runs one of them: most have one of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookSet {
    /// They make what is kept of a resource.
    Protect,
    /// They bring a resource back.
    Restore,
    /// They look whether it could be brought back.
    Verify,
    /// They copy what is kept of it.
    Copy,
    /// They remove what is kept of it.
    Delete,
}

impl HookSet {
    /// Every set.
    pub const ALL: [Self; 5] = [
        Self::Protect,
        Self::Restore,
        Self::Verify,
        Self::Copy,
        Self::Delete,
    ];

    /// The operation whose own they are.
    #[must_use]
    pub fn operation(self) -> OperationType {
        match self {
            Self::Protect => OperationType::Protect,
            Self::Restore => OperationType::Restore,
            Self::Verify => OperationType::Verify,
            Self::Copy => OperationType::Copy,
            Self::Delete => OperationType::Delete,
        }
    }

    /// Those of an operation's own, if it has any.
    #[must_use]
    pub fn of(operation: OperationType) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|hooks| hooks.operation() == operation)
    }
}

/// Why a hook failed. `message` reaches the operation log and so the user: no secrets, no paths
/// that the operator did not declare; `cause` goes to the log of the service.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct PluginError {
    /// What happened and what to do.
    pub message: String,
    /// Can trying again help?
    pub retryable: bool,
    /// What went wrong inside.
    pub cause: Option<String>,
}

impl PluginError {
    /// A failure that trying again will not mend.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            retryable: false,
            cause: None,
        }
    }

    /// A failure that trying again may mend.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            retryable: true,
            cause: None,
        }
    }

    /// Adds what went wrong inside, for the log.
    #[must_use]
    pub fn with_cause(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// The operation was cancelled.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new("cancelled")
    }

    /// Is it what [`cancelled`](Self::cancelled) makes?
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.message == "cancelled"
    }
}

impl From<BankError> for PluginError {
    fn from(error: BankError) -> Self {
        Self {
            message: error.to_string(),
            retryable: error.is_retryable(),
            cause: None,
        }
    }
}

/// Where the vault of this provider and project lies, and what opens it.
#[derive(Debug, Clone)]
pub struct VaultAccess {
    /// The section of the bank that is the repository.
    pub section: BankSection,
    /// The repository's password.
    pub password: Secret,
}

/// Where a copy of a resource's data goes: maybe another bank, maybe another place in the same one.
#[derive(Debug, Clone)]
pub struct CopyTarget {
    /// The copy, a checkpoint of its own.
    pub checkpoint_id: CheckpointId,
    /// `checkpoints/<copy>/resource-data/<resource id>` in the target's bank.
    pub data: BankSection,
    /// The vault of the provider and project in the target's bank.
    pub vault: VaultAccess,
}

/// Takes word of how far a hook has come. Cheap; called often.
pub trait Progress: Send + Sync {
    /// How many bytes the whole hook will move, once known.
    fn expect_bytes(&self, bytes: u64);
    /// That many bytes more were moved.
    fn add_bytes(&self, bytes: u64);
}

/// Progress that nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn expect_bytes(&self, _: u64) {}
    fn add_bytes(&self, _: u64) {}
}

/// What a hook has to tell: numbers and findings for the operation log. A JSON object; empty if
/// nothing. Reports of one resource's hooks are merged. Keys in use: `bytes`, `new_bytes`, `files`,
/// `left_out`, `snapshot`, `changes` (dry runs), `warnings`.
pub type HookReport = Map<String, Value>;

/// All that a hook may know and use.
#[derive(Clone)]
pub struct OperationContext {
    /// Who asked.
    pub request: RequestContext,
    /// Which operation.
    pub operation: OperationType,
    /// The run: the same through restarts, so that hooks can tell a repeat.
    pub operation_id: OperationId,
    /// The checkpoint that is made, read, copied or removed.
    pub checkpoint_id: CheckpointId,
    /// The plan of the checkpoint.
    pub plan_id: PlanId,
    /// The provider.
    pub provider_id: ProviderId,
    /// The project that the checkpoint belongs to.
    pub project_id: String,
    /// The resource.
    pub resource: Resource,
    /// What the resource depends on directly.
    pub dependents: Vec<Resource>,
    /// Checked parameters for this resource.
    pub parameters: Map<String, Value>,
    /// `checkpoints/<checkpoint>/resource-data/<resource id>` in the bank.
    pub data: DataSection,
    /// The vault of this provider and project, in the checkpoint's bank.
    pub vault: VaultAccess,
    /// Where the copy goes: for copies alone.
    pub copy_target: Option<CopyTarget>,
    /// Who watches.
    pub progress: Arc<dyn Progress>,
    /// Hooks stop soon after this is cancelled.
    pub cancel: CancellationToken,
}

impl OperationContext {
    /// The writable section, or an error that blames the caller: restore, verify and copy never write
    /// to the checkpoint that they read.
    ///
    /// # Errors
    /// A [`PluginError`] when the section is read-only.
    pub fn writable(&self) -> Result<&BankSection, PluginError> {
        match &self.data {
            DataSection::Writable(section) => Ok(section),
            DataSection::ReadOnly(_) => Err(PluginError::new(format!(
                "{} may not write to the bank",
                self.operation
            ))),
        }
    }

    /// Where the copy goes, or an error that blames the caller.
    ///
    /// # Errors
    /// A [`PluginError`] when the operation is no copy.
    pub fn target(&self) -> Result<&CopyTarget, PluginError> {
        self.copy_target
            .as_ref()
            .ok_or_else(|| PluginError::new(format!("{} has no target", self.operation)))
    }
}

/// The hooks of one operation on one resource. Order and edges are the planner's (karbor-flow).
///
/// **Each hook may be run again** after a crash, from its beginning, by another process: what it
/// did before must not hurt. Every operation passes `karbor_plugin::contract::protection`.
#[async_trait]
pub trait Operation: Send + Sync {
    /// Before the `prepare_begin` of the dependents: quiesce.
    async fn prepare_begin(&self, _context: &OperationContext) -> Result<HookReport, PluginError> {
        Ok(HookReport::new())
    }

    /// After the `prepare_finish` of the dependents.
    async fn prepare_finish(&self, _context: &OperationContext) -> Result<HookReport, PluginError> {
        Ok(HookReport::new())
    }

    /// The work. Runs in parallel with that of other resources.
    async fn main(&self, _context: &OperationContext) -> Result<HookReport, PluginError> {
        Ok(HookReport::new())
    }

    /// After the `complete` of the dependents: resume.
    async fn complete(&self, _context: &OperationContext) -> Result<HookReport, PluginError> {
        Ok(HookReport::new())
    }

    /// After a failure or a cancel, for every resource of which any hook was started; dependents
    /// first. Removes what is half-made, resumes what was quiesced.
    async fn undo(&self, _context: &OperationContext) -> Result<(), PluginError> {
        Ok(())
    }
}

/// How resources of some types are protected.
pub trait ProtectionPlugin: Send + Sync + 'static {
    /// Its name in `providers.d`, e.g. `karbor-noop-protection-plugin`.
    fn name(&self) -> &str;

    /// The types it protects.
    fn resource_types(&self) -> &[&str];

    /// JSON Schema (draft 4, as the original's) of a type; `{}` when nothing may be given.
    fn schema(&self, resource_type: &str, kind: SchemaKind) -> Value;

    /// The hooks for a resource.
    ///
    /// # Errors
    /// A [`PluginError`] when the plugin cannot do this to this resource.
    fn operation(
        &self,
        hooks: HookSet,
        resource: &Resource,
    ) -> Result<Box<dyn Operation>, PluginError>;

    /// Does it tell of each resource that it was restored or verified? One that does not tells of
    /// those that failed only, as the original's plugins did.
    fn tells_success(&self) -> bool {
        true
    }
}
