//! SIGTERM, SIGINT and SIGHUP.

use std::{future::Future, io};

use tokio::{
    signal::unix::{self, SignalKind},
    sync::mpsc,
};
use tracing::{info, warn};

/// A signal that a service obeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: end.
    Terminate,
    /// SIGINT: end.
    Interrupt,
    /// SIGHUP: read the configuration again.
    Hangup,
}

/// Where signals come from.
pub struct Signals {
    source: Source,
}

enum Source {
    Process {
        terminate: unix::Signal,
        interrupt: unix::Signal,
        hangup: unix::Signal,
    },
    Channel(mpsc::Receiver<Signal>),
}

impl Signals {
    /// This process's signals. From here on they no longer end it by themselves.
    ///
    /// # Errors
    /// When the handlers cannot be set.
    pub fn of_process() -> io::Result<Self> {
        let source = Source::Process {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
        };
        Ok(Self { source })
    }

    /// Signals that are sent by hand.
    #[must_use]
    pub fn channel() -> (mpsc::Sender<Signal>, Self) {
        let (sender, receiver) = mpsc::channel(2);
        let source = Source::Channel(receiver);
        (sender, Self { source })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        match &mut self.source {
            Source::Process {
                terminate,
                interrupt,
                hangup,
            } => tokio::select! {
                _ = terminate.recv() => Signal::Terminate,
                _ = interrupt.recv() => Signal::Interrupt,
                _ = hangup.recv() => Signal::Hangup,
            },
            Source::Channel(receiver) => match receiver.recv().await {
                Some(signal) => signal,
                None => std::future::pending().await,
            },
        }
    }

    /// The next signal that ends a service. A SIGHUP before it has nothing to do: what starts has just
    /// read its configuration, what ends needs none.
    async fn next_end(&mut self) -> Signal {
        loop {
            let signal = self.next().await;
            if signal != Signal::Hangup {
                return signal;
            }
        }
    }
}

/// How [`start_unless_signal`] ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started<T> {
    /// The start came to its end.
    Done(T),
    /// A signal came before that.
    Stopped(Signal),
}

/// Runs `start` to its end, unless a signal that ends the service comes first: then the start is
/// dropped where it stands.
pub async fn start_unless_signal<Fut: Future>(
    signals: &mut Signals,
    start: Fut,
) -> Started<Fut::Output> {
    tokio::select! {
        biased;
        signal = signals.next_end() => {
            info!(?signal, "stopping before the start is done");
            Started::Stopped(signal)
        }
        output = start => Started::Done(output),
    }
}

/// How [`run_until_signal`] and [`drain_unless_signal`] ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped<T> {
    /// The drain came to its end.
    Drained(T),
    /// A second signal cut it short: leave the process with an error, at once.
    AtOnce,
}

/// Waits for a signal that ends the service, and runs `reload` at each SIGHUP until then. Then runs
/// `drain` to its end, unless a second signal comes first ([`drain_unless_signal`]).
pub async fn run_until_signal<F, Fut>(
    signals: &mut Signals,
    mut reload: impl AsyncFnMut(),
    drain: F,
) -> Stopped<Fut::Output>
where
    F: FnOnce() -> Fut,
    Fut: Future,
{
    let first = loop {
        match signals.next().await {
            Signal::Hangup => reload().await,
            end => break end,
        }
    };
    info!(signal = ?first, "stopping; a second signal stops at once");
    drain_unless_signal(signals, drain()).await
}

/// Runs `drain` to its end, unless a signal that ends the service comes first: then the drain is
/// dropped where it stands.
pub async fn drain_unless_signal<Fut: Future>(
    signals: &mut Signals,
    drain: Fut,
) -> Stopped<Fut::Output> {
    tokio::select! {
        biased;
        second = signals.next_end() => {
            warn!(signal = ?second, "stopping at once");
            Stopped::AtOnce
        }
        output = drain => Stopped::Drained(output),
    }
}
