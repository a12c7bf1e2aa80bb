//! SIGTERM and SIGINT.

use std::{future::Future, io};

use tokio::{
    signal::unix::{self, SignalKind},
    sync::mpsc,
};
use tracing::{info, warn};

/// A signal that ends a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
}

/// Where signals come from.
pub struct Signals {
    source: Source,
}

enum Source {
    Process {
        terminate: unix::Signal,
        interrupt: unix::Signal,
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
            } => tokio::select! {
                _ = terminate.recv() => Signal::Terminate,
                _ = interrupt.recv() => Signal::Interrupt,
            },
            Source::Channel(receiver) => match receiver.recv().await {
                Some(signal) => signal,
                None => std::future::pending().await,
            },
        }
    }
}

/// How [`run_until_signal`] ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped<T> {
    /// The drain came to its end.
    Drained(T),
    /// A second signal cut it short: leave the process with an error, at once.
    AtOnce,
}

/// Waits for a signal, then runs `drain` to its end, unless a second signal comes first: then the
/// drain is dropped where it stands.
pub async fn run_until_signal<F, Fut>(signals: &mut Signals, drain: F) -> Stopped<Fut::Output>
where
    F: FnOnce() -> Fut,
    Fut: Future,
{
    let first = signals.next().await;
    info!(signal = ?first, "stopping; a second signal stops at once");
    tokio::select! {
        biased;
        second = signals.next() => {
            warn!(signal = ?second, "stopping at once");
            Stopped::AtOnce
        }
        output = drain() => Stopped::Drained(output),
    }
}
