//! The transport within one process. Messages still become JSON text and are read back, in both
//! directions, and run as tasks of the server's: a caller that goes away does not stop them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use karbor_model::{ApiError, RequestContext};
use serde_json::Value;
use tokio::sync::oneshot;
use tracing::error;

use super::{
    Dispatcher, RpcArgs, RpcEndpoint, RpcError, RpcMessage, RpcReply, RpcServer, RpcTransport,
    Target,
};
use crate::{Clock, SystemClock, TaskSet, timeout};

/// See the module. Cheap to clone; clones are the same transport.
#[derive(Clone)]
pub struct InProcess {
    clock: Arc<dyn Clock>,
    servers: Arc<Mutex<Servers>>,
}

#[derive(Default)]
struct Servers {
    listening: Vec<Arc<Listener>>,
    /// Whose turn it is, by exchange and topic.
    turns: HashMap<(Option<String>, String), usize>,
}

struct Listener {
    target: Target,
    dispatcher: Dispatcher,
    calls: TaskSet,
}

impl InProcess {
    /// A transport on the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock::new()))
    }

    /// A transport whose timeouts are `clock`'s.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            servers: Arc::default(),
        }
    }

    fn send(
        &self,
        target: &Target,
        context: &RequestContext,
        method: &str,
        args: RpcArgs,
    ) -> Result<Vec<oneshot::Receiver<String>>, ApiError> {
        let message = RpcMessage {
            method: method.to_owned(),
            args,
            namespace: target.namespace.clone(),
            version: target.version.unwrap_or_default(),
            context: context.clone(),
        };
        let text = serde_json::to_string(&message).map_err(ApiError::internal)?;
        // Chosen and started under one lock: a server that stops after this waits for the call.
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let chosen = servers.choose(target);
        if chosen.is_empty() && !target.fanout {
            let address = target.address();
            return Err(RpcError::NoServer { address }.into());
        }
        Ok(chosen
            .iter()
            .map(|listener| listener.start(method, text.clone()))
            .collect())
    }
}

impl Default for InProcess {
    fn default() -> Self {
        Self::new()
    }
}

impl Servers {
    fn choose(&mut self, target: &Target) -> Vec<Arc<Listener>> {
        let Some(topic) = &target.topic else {
            return Vec::new();
        };
        let mut fitting: Vec<Arc<Listener>> = self
            .listening
            .iter()
            .filter(|listener| {
                listener.target.exchange == target.exchange
                    && listener.target.topic == target.topic
                    && (target.fanout
                        || target.server.is_none()
                        || listener.target.server == target.server)
            })
            .cloned()
            .collect();
        if target.fanout || fitting.len() <= 1 {
            return fitting;
        }
        let key = (target.exchange.clone(), topic.clone());
        let turn = self.turns.entry(key).or_default();
        *turn = turn.wrapping_add(1);
        let at = turn.wrapping_sub(1) % fitting.len();
        vec![fitting.swap_remove(at)]
    }
}

impl Listener {
    /// Runs a message; its answer, as text, comes through the receiver.
    fn start(&self, method: &str, text: String) -> oneshot::Receiver<String> {
        let (sender, receiver) = oneshot::channel();
        let dispatcher = self.dispatcher.clone();
        self.calls.spawn(format!("rpc {method}"), async move {
            let outcome = match serde_json::from_str::<RpcMessage>(&text) {
                Ok(message) => dispatcher.dispatch(message).await,
                Err(error) => Err(ApiError::internal(error)),
            };
            match serde_json::to_string(&RpcReply::from(outcome)) {
                // A caller that has gone away, or never wanted to know, is no fault.
                Ok(reply) => drop(sender.send(reply)),
                Err(error) => error!("an RPC reply cannot be written: {error}"),
            }
        });
        receiver
    }
}

#[async_trait]
impl RpcTransport for InProcess {
    async fn call(
        &self,
        target: &Target,
        context: &RequestContext,
        method: &str,
        args: RpcArgs,
        limit: Duration,
    ) -> Result<Value, ApiError> {
        target.check_message(true)?;
        let replies = self.send(target, context, method, args)?;
        let address = target.address();
        let method = method.to_owned();
        let Some(reply) = replies.into_iter().next() else {
            return Err(RpcError::NoServer { address }.into());
        };
        match timeout(&*self.clock, limit, reply).await {
            Ok(Ok(text)) => serde_json::from_str::<RpcReply>(&text)
                .map_err(ApiError::internal)?
                .into(),
            Ok(Err(_)) => Err(RpcError::Stopped { address, method }.into()),
            Err(_) => Err(RpcError::Timeout {
                address,
                method,
                after: limit,
            }
            .into()),
        }
    }

    async fn cast(
        &self,
        target: &Target,
        context: &RequestContext,
        method: &str,
        args: RpcArgs,
    ) -> Result<(), ApiError> {
        target.check_message(false)?;
        self.send(target, context, method, args).map(drop)
    }

    async fn serve(
        &self,
        target: Target,
        endpoints: Vec<Arc<dyn RpcEndpoint>>,
    ) -> Result<Box<dyn RpcServer>, ApiError> {
        target.check_server()?;
        let listener = Arc::new(Listener {
            target,
            dispatcher: Dispatcher::new(endpoints),
            calls: TaskSet::new(),
        });
        self.servers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .listening
            .push(listener.clone());
        Ok(Box::new(Server {
            listener,
            clock: self.clock.clone(),
            servers: Arc::downgrade(&self.servers),
        }))
    }
}

struct Server {
    listener: Arc<Listener>,
    clock: Arc<dyn Clock>,
    servers: Weak<Mutex<Servers>>,
}

impl Server {
    fn close(&self) {
        if let Some(servers) = self.servers.upgrade() {
            servers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .listening
                .retain(|listener| !Arc::ptr_eq(listener, &self.listener));
        }
    }
}

#[async_trait]
impl RpcServer for Server {
    async fn stop(&self) {
        self.close();
    }

    async fn wait(&self, deadline: Duration) -> Vec<String> {
        self.listener.calls.join(&*self.clock, deadline).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
        self.listener.calls.abort();
    }
}
