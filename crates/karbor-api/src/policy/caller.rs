//! Who asks for an operation, before and after the operation's rule was asked.

use karbor_model::RequestContext;

/// Who asks for an operation, and the rule that says who may.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    context: &'a RequestContext,
    rule: &'static str,
}

impl<'a> Caller<'a> {
    /// `rule` is that of the operation: its one place is beside the operation's route.
    pub(crate) fn new(context: &'a RequestContext, rule: &'static str) -> Self {
        Self { context, rule }
    }

    pub(crate) fn context(self) -> &'a RequestContext {
        self.context
    }

    pub(crate) fn rule(self) -> &'static str {
        self.rule
    }
}

/// Proof that the operation's rule allows it, in a project, to who asks; [`Policy::permit`](super::Policy::permit)
/// alone makes one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permit<'a> {
    caller: Caller<'a>,
    project: &'a str,
}

impl<'a> Permit<'a> {
    pub(super) fn new(caller: Caller<'a>, project: &'a str) -> Self {
        Self { caller, project }
    }

    pub(crate) fn context(self) -> &'a RequestContext {
        self.caller.context
    }

    /// The project that the rule was asked of.
    pub(crate) fn project(self) -> &'a str {
        self.project
    }
}
