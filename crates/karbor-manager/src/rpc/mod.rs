//! Calling managers on other hosts.
//!
//! The rules are oslo.messaging's. A *server* listens on a topic under a host's name and offers
//! *endpoints*, each an interface with a namespace and a version. A message names a topic and, if
//! it is meant for one host, a server; without one the servers of the topic take turns; with
//! `fanout` each gets a copy. A *call* waits for the answer, a *cast* does not. A message carries
//! the interface version that it needs: an endpoint takes it when the major number is the same and
//! the minor at most its own ([`RpcVersion::accepts`]). A call to all servers is refused, and so is
//! an argument that the method does not have. A test beside the real oslo.messaging
//! (`tests/it/against_oslo.rs`) holds that the rules are the same.
//!
//! The layers, from the top:
//! * [`rpc_interface!`](crate::rpc_interface) makes trait, client and endpoint of one declaration;
//! * [`Dispatcher`] finds the endpoint for a message, catches panics, logs causes;
//! * [`RpcTransport`] moves messages. [`InProcess`] moves them within the process, yet as JSON text,
//!   so nothing works there that would fail on a wire. A transport over AMQP is one more module
//!   beside it: it encodes [`RpcMessage`] in its own way and ends at the same [`Dispatcher`].
//!
//! An error that crosses keeps its kind, class and message. Its cause never does: it is logged
//! where it happened, under the request's id.

mod dispatch;
mod error;
mod in_process;
mod interface;
mod target;
mod version;
pub(crate) mod wire;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
pub use dispatch::Dispatcher;
pub use error::RpcError;
pub use in_process::InProcess;
use karbor_model::{ApiError, RequestContext};
use serde_json::{Map, Value};
pub use target::Target;
pub use version::{RpcVersion, VersionError};
pub use wire::{RpcMessage, RpcReply};

/// Arguments of a call, by name.
pub type RpcArgs = Map<String, Value>;

/// How a method is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RpcKind {
    /// To one server; waits for the answer.
    Call,
    /// To one server; does not wait.
    Cast,
    /// To every server of the topic; does not wait.
    Fanout,
}

/// A method of an interface, as declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RpcMethod {
    /// Its name.
    pub name: &'static str,
    /// The interface version that brought it: what a message for it asks for.
    pub since: RpcVersion,
    /// How it is sent.
    pub kind: RpcKind,
    /// Names of its arguments, in order.
    pub arguments: &'static [&'static str],
}

/// An interface that a server answers.
#[async_trait]
pub trait RpcEndpoint: Send + Sync + 'static {
    /// Its namespace and version.
    fn target(&self) -> Target;

    /// Its methods.
    fn methods(&self) -> &'static [RpcMethod];

    /// Runs a method that [`methods`](RpcEndpoint::methods) names.
    async fn dispatch(
        &self,
        context: &RequestContext,
        method: &str,
        args: RpcArgs,
    ) -> Result<Value, ApiError>;
}

/// Moves messages to servers.
#[async_trait]
pub trait RpcTransport: Send + Sync + 'static {
    /// Sends to one server of the target's topic and waits for the answer: the method's error, or
    /// `Unavailable` when nobody listens, `Timeout` when no answer came in time, `InvalidTarget`
    /// ([`Target::check_message`]).
    async fn call(
        &self,
        target: &Target,
        context: &RequestContext,
        method: &str,
        args: RpcArgs,
        timeout: Duration,
    ) -> Result<Value, ApiError>;

    /// Sends to one server of the target's topic, or to all if the target says `fanout`, and does
    /// not wait until it is done.
    async fn cast(
        &self,
        target: &Target,
        context: &RequestContext,
        method: &str,
        args: RpcArgs,
    ) -> Result<(), ApiError>;

    /// Sends to every server of the target's topic.
    async fn fanout(
        &self,
        target: &Target,
        context: &RequestContext,
        method: &str,
        args: RpcArgs,
    ) -> Result<(), ApiError> {
        self.cast(&target.clone().with_fanout(true), context, method, args)
            .await
    }

    /// Begins to answer on the target's topic, under its server name.
    async fn serve(
        &self,
        target: Target,
        endpoints: Vec<Arc<dyn RpcEndpoint>>,
    ) -> Result<Box<dyn RpcServer>, ApiError>;
}

/// A server that answers. Dropping it closes the intake.
#[async_trait]
pub trait RpcServer: Send + Sync {
    /// Closes the intake: messages from now on go elsewhere, or nowhere.
    async fn stop(&self);

    /// Waits for the calls in flight, for `deadline` at most. Those that are not done by then are
    /// dropped and named.
    async fn wait(&self, deadline: Duration) -> Vec<String>;
}
