//! The notification service's manager.

use std::sync::{Arc, Mutex, PoisonError};

use karbor_manager::{Config, Manager, ManagerBase, NotificationOutbox};
use karbor_model::ApiError;
use tokio_util::sync::CancellationToken;

use crate::{Counts, Courier, SetupError, sinks};

/// Responsible for what was recorded to be told: it takes it to every sink of the configuration. It answers nothing over
/// RPC; what is to be told comes to it through the outbox.
pub struct NotificationManager {
    base: ManagerBase<Arc<dyn NotificationOutbox>>,
    delivery: Mutex<Delivery>,
}

/// A courier, and what ends its work.
#[derive(Clone)]
struct Delivery {
    courier: Arc<Courier>,
    end: CancellationToken,
}

impl NotificationManager {
    /// `base` brings host, outbox, configuration (see [`OPTIONS`](crate::OPTIONS)) and clock.
    ///
    /// # Errors
    /// [`SetupError`] names the option that is wrong.
    pub fn new(base: ManagerBase<Arc<dyn NotificationOutbox>>) -> Result<Self, SetupError> {
        let delivery = Delivery::new(&base, base.config())?;
        Ok(Self {
            base,
            delivery: Mutex::new(delivery),
        })
    }

    /// Goes on with the sinks that `config` asks for. With an error everything goes on as it was.
    ///
    /// # Errors
    /// [`SetupError`] names the option that is wrong.
    pub fn reload(&self, config: &Config) -> Result<(), SetupError> {
        let delivery = Delivery::new(&self.base, config)?;
        let mut present = self.delivery();
        present.end.cancel();
        *present = delivery;
        self.deliver(present.clone());
        Ok(())
    }

    /// What became of notifications since the configuration was read last.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.delivery().courier.counts()
    }

    fn deliver(&self, Delivery { courier, end }: Delivery) {
        let (tasks, clock) = (self.base.tasks(), self.base.clock().clone());
        let stop = tasks.cancelled().clone();
        tasks.supervise("deliver notifications", clock, move || {
            let (courier, stop, end) = (courier.clone(), stop.clone(), end.clone());
            async move {
                tokio::select! {
                    () = courier.run(&stop) => {}
                    () = end.cancelled() => {}
                }
            }
        });
    }

    fn delivery(&self) -> std::sync::MutexGuard<'_, Delivery> {
        self.delivery.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Delivery {
    fn new(
        base: &ManagerBase<Arc<dyn NotificationOutbox>>,
        config: &Config,
    ) -> Result<Self, SetupError> {
        let courier = Courier::new(
            base.db().clone(),
            sinks(config)?,
            base.clock().clone(),
            base.host(),
            config.seconds("notifications", "max_age")?,
        );
        Ok(Self {
            courier: Arc::new(courier),
            end: CancellationToken::new(),
        })
    }
}

impl Manager for NotificationManager {
    type Db = Arc<dyn NotificationOutbox>;

    const BINARY: &'static str = "karbor-notification";
    const TOPIC: &'static str = "karbor-notification";

    fn base(&self) -> &ManagerBase<Self::Db> {
        &self.base
    }

    async fn init_host_with_rpc(self: &Arc<Self>) -> Result<(), ApiError> {
        let delivery = self.delivery().clone();
        self.deliver(delivery);
        Ok(())
    }
}
