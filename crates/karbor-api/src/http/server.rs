//! The server: connections, with a limit on everything that a client can do to us.
//!
//! A client may be slow, or mean to be: each connection must bring the head of a request within
//! [`client_socket_timeout`](crate::OPTIONS), its body likewise, and take our answer without
//! pausing for longer. Heads and bodies are bounded, and so is the number of connections.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Sleep, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{ApiManager, AuthStrategy};

/// The largest head of a request.
const MAX_HEAD: usize = 64 * 1024;

/// Pause after the system could not accept a connection (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// `noauth` on an address that others can reach.
    #[error(
        "auth_strategy is 'noauth' and {0} can be reached from other machines: anybody could do \
         anything. Listen on 127.0.0.1, or set auth_strategy to 'local' or 'keystone'. Where nobody \
         else can reach it at all, noauth_on_any_address allows it."
    )]
    Exposed(SocketAddr),
    /// The listener is not usable.
    #[error("the listener cannot be used: {0}")]
    Listener(#[from] io::Error),
}

/// Serves `manager` on `listener` until `shutdown` is cancelled. Then no connection is accepted any
/// more, requests under way are finished, for `deadline` at most, and it returns.
///
/// # Errors
/// [`ServeError`] when it refuses to start.
pub async fn serve(
    listener: TcpListener,
    manager: Arc<ApiManager>,
    shutdown: CancellationToken,
    deadline: Duration,
) -> Result<(), ServeError> {
    let address = listener.local_addr()?;
    let settings = manager.settings();
    if settings.only_this_machine() && !address.ip().is_loopback() {
        return Err(ServeError::Exposed(address));
    }
    if settings.auth_strategy == AuthStrategy::Noauth && !address.ip().is_loopback() {
        tracing::warn!(%address, "noauth_on_any_address: whoever reaches the API may do anything");
    }
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "tokens travel in the clear: put a proxy that speaks TLS before it");
    }
    tracing::info!(%address, "the API listens");
    let places = Arc::new(Semaphore::new(settings.max_connections));
    let connections = TaskTracker::new();
    let routes = super::router(manager.clone());
    loop {
        let place = tokio::select! {
            () = shutdown.cancelled() => break,
            place = places.clone().acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::warn!("a connection could not be accepted: {e}");
                manager.clock().sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let timeout = manager.settings().client_timeout;
        let connection = connection(stream, routes.clone(), timeout, shutdown.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    let clock = manager.clock();
    if karbor_manager::timeout(clock, deadline, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(left = connections.len(), "connections did not end in time");
    }
    // What clients that hung up had asked for.
    manager.tasks().join(clock, deadline).await;
    Ok(())
}

async fn connection(
    stream: TcpStream,
    routes: Router,
    timeout: Duration,
    shutdown: CancellationToken,
) {
    // Answers are written whole; waiting to fill a packet would only add latency.
    let _ = stream.set_nodelay(true);
    let stream = Impatient::new(stream, timeout);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = outcome {
        tracing::debug!("a connection ended early: {e}");
    }
}

/// A stream that gives up when the other side takes nothing for too long.
struct Impatient {
    stream: TcpStream,
    limit: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn new(stream: TcpStream, limit: Duration) -> Self {
        Self {
            stream,
            limit,
            waiting: None,
        }
    }

    /// Passes progress on; counts the time without it.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waiting = None;
            return outcome;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, buffer);
        self.watch(context, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.watch(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
