//! The server: connections, with a limit on everything that a client can do to us.
//!
//! A client may be slow, or mean to be: each connection must bring the head of a request within
//! [`client_socket_timeout`](crate::OPTIONS), its body likewise, and take our answer without
//! pausing for longer. Heads and bodies are bounded, and so is the number of connections, in all and of one
//! peer: silent ones make room for others ([`super::connections`]).

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::Router;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustix::process::{Resource, getrlimit};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Sleep, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connections::{Admission, Connections, Guest},
    routes::router,
};
use crate::{ApiManager, AuthStrategy, settings::Settings};

/// The largest head of a request.
const MAX_HEAD: usize = 64 * 1024;

/// Pause after the system could not accept a connection (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a peer is told whose connections all have a request.
static PEER_IS_FULL: LazyLock<String> = LazyLock::new(|| {
    let body = json!({"serviceUnavailable": {
        "code": 503,
        "message": "Too many requests at once from this address. Try again in a moment.",
    }})
    .to_string();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
});

/// How often at most the log says that peers were refused.
const REFUSALS_TOLD_EVERY: Duration = Duration::from_secs(60);

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
/// more, requests under way are finished, for `deadline` at most in all, what is left is dropped, and
/// it returns.
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
        tracing::warn!(%address, "noauth_on_any_address: anybody who reaches the API may do anything");
    }
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "tokens travel in the clear: put a proxy that speaks TLS before it");
    }
    tracing::info!(%address, "the API listens");
    let guests = Connections::new(
        most_connections(settings),
        settings.max_connections_per_peer,
    );
    let connections = TaskTracker::new();
    // Cancelled when it returns, or is dropped: nobody's request outlives it.
    let gone = CancellationToken::new();
    let _gone = gone.clone().drop_guard();
    let routes = router(manager.clone());
    let mut refusals_told = None;
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!("a connection could not be accepted: {e}");
                manager.clock().sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let guest = loop {
            match guests.admit(peer.ip()) {
                Admission::Seated(guest) => break Some(guest),
                Admission::PeerIsFull => {
                    // It fits the buffer of a new connection, or else nobody can be told.
                    let _ = stream.try_write(PEER_IS_FULL.as_bytes());
                    let now = manager.clock().monotonic();
                    if refusals_told.is_none_or(|told| now - told >= REFUSALS_TOLD_EVERY) {
                        refusals_told = Some(now);
                        tracing::warn!(peer = %peer.ip(), "a peer has too many requests at once: more are refused");
                    }
                    break None;
                }
                Admission::Full => tokio::select! {
                    () = shutdown.cancelled() => break None,
                    () = guests.changed() => {}
                },
            }
        };
        let Some(guest) = guest else {
            continue;
        };
        let timeout = manager.settings().client_timeout;
        let connection = connection(stream, guest, routes.clone(), timeout, shutdown.clone());
        let gone = gone.clone();
        connections.spawn(async move {
            tokio::select! {
                () = connection => {}
                () = gone.cancelled() => {}
            }
        });
    }
    drop(listener);
    connections.close();
    let clock = manager.clock();
    let begun = clock.monotonic();
    if karbor_manager::timeout(clock, deadline, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(left = connections.len(), "connections did not end in time");
    }
    // What clients that hung up had asked for.
    let passed = clock.monotonic().saturating_sub(begun);
    let left = deadline.saturating_sub(passed);
    manager.tasks().join(clock, left).await;
    Ok(())
}

/// How many connections there may be: half of the files that may be open are the database's and the
/// banks'.
fn most_connections(settings: &Settings) -> usize {
    let files = getrlimit(Resource::Nofile).current;
    let files = files.map_or(usize::MAX, |files| {
        usize::try_from(files).unwrap_or(usize::MAX)
    });
    let (wanted, most) = (settings.max_connections, (files / 2).max(1));
    if wanted > most {
        tracing::warn!(
            "osapi_max_connections is {wanted}, and {files} files may be open: no more than {most} connections \
             are taken; raise the limit of open files (LimitNOFILE=, ulimit -n) for more"
        );
    }
    wanted.min(most)
}

async fn connection(
    stream: TcpStream,
    guest: Guest,
    routes: Router,
    timeout: Duration,
    shutdown: CancellationToken,
) {
    let guest = Arc::new(Seated {
        guest,
        answering: AtomicBool::new(false),
    });
    // Answers are written whole; waiting to fill a packet would only add latency.
    let _ = stream.set_nodelay(true);
    let stream = Impatient::new(stream, timeout, guest.clone());
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        guest.begin();
        let answer = routes.call(request);
        let guest = &guest;
        async move {
            let answer = answer.await;
            guest.answering.store(true, Ordering::Relaxed);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        biased;
        outcome = connection.as_mut() => outcome,
        () = guest.guest.has_to_leave() => {
            if !guest.guest.is_busy() {
                return;
            }
            // A request came in the very moment: it is the last.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = outcome {
        tracing::debug!("a connection ended early: {e}");
    }
}

/// A guest, and whether its answer is on its way out.
struct Seated {
    guest: Guest,
    answering: AtomicBool,
}

impl Seated {
    fn begin(&self) {
        self.answering.store(false, Ordering::Relaxed);
        self.guest.begin();
    }

    /// All that was to be written is.
    fn flushed(&self) {
        if self.answering.swap(false, Ordering::Relaxed) {
            self.guest.rest();
        }
    }
}

/// A stream that gives up when the other side takes nothing for too long.
struct Impatient {
    stream: TcpStream,
    limit: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    guest: Arc<Seated>,
}

impl Impatient {
    fn new(stream: TcpStream, limit: Duration, guest: Arc<Seated>) -> Self {
        Self {
            stream,
            limit,
            waiting: None,
            guest,
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
        let outcome = self.watch(context, outcome);
        if matches!(outcome, Poll::Ready(Ok(()))) {
            self.guest.flushed();
        }
        outcome
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
