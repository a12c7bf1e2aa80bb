//! Layers: what a service wants of any bank, whichever it is, put around it where it is opened.
//!
//! ```text
//! the one who uses the bank
//!   └─ retry          repeats what failed in passing and may be repeated
//!       └─ concurrency  lets only so many requests to the bank at once
//!           └─ metrics    counts the requests, what they moved and how long they took
//!               └─ timeout  gives up what the bank does not answer
//!                   └─ the bank
//! ```
//! So neither the wait for a turn nor the pause before a repeat counts as the bank's time, and every attempt is
//! counted. A layer answers as the bank answers: each passes the contract of banks.

mod concurrency;
mod layer;
mod metrics;
mod retry;
mod timeout;

use std::{sync::Arc, time::Duration};

use karbor_model::{ConfigError, OptionDef, OptionKind, Options};

pub use concurrency::{AT_ONCE, concurrency};
pub use layer::Verb;
pub use metrics::{BankCounts, BankMetrics, metrics};
pub use retry::retry;
pub use timeout::timeout;

use crate::Bank;

/// The section of a provider's file that configures the layers of its bank; `copy.bank` those of its copy bank.
pub(crate) const SECTION: &str = "bank";

/// The options of the layers.
pub const OPTIONS: &[OptionDef] = &[
    OptionDef {
        group: SECTION,
        name: "max_requests",
        kind: OptionKind::Int,
        default: "40",
        help: "How many requests are made to the bank at once; the others wait. At least 1. Leases do not wait.",
        secret: false,
    },
    OptionDef {
        group: SECTION,
        name: "request_timeout",
        kind: OptionKind::Seconds,
        default: "600",
        help: "How long one request to the bank may take, and a second more for each MiB that it and those beside it may \
               move. What takes longer fails. 0: no limit.",
        secret: false,
    },
];

/// What the options of the layers say.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a request may take, as [`timeout`] has it.
    request: Duration,
    /// How many requests are made at once.
    at_once: usize,
}

impl Limits {
    /// As the options of [`OPTIONS`] say.
    ///
    /// # Errors
    /// [`ConfigError`]: an option says what cannot be.
    pub fn of(options: &Options) -> Result<Self, ConfigError> {
        let request = match options.seconds(SECTION, "request_timeout")? {
            Duration::ZERO => Duration::MAX,
            limit => limit,
        };
        let at_once = options.int(SECTION, "max_requests")?;
        let at_once = usize::try_from(at_once).ok().filter(|&at_once| at_once > 0);
        let at_once = at_once
            .ok_or_else(|| options.refused(SECTION, "max_requests", "expected at least 1"))?;
        Ok(Self { request, at_once })
    }
}

/// A bank with every layer around it, and what they count.
#[must_use]
pub fn layered(bank: Arc<dyn Bank>, limits: Limits) -> (Arc<dyn Bank>, Arc<BankMetrics>) {
    let (bank, counts) = metrics(timeout(bank, limits.request));
    (retry(concurrency(bank, limits.at_once)), counts)
}
