//! The role `api`: the REST API.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use karbor_api::{ApiManager, ApiStores, AuthStrategy, ensure_admin_token, policy::Policy};
use karbor_interfaces::{OperationEngineApi, ProtectionApi};
use karbor_manager::ServiceClient;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{Common, Failure};
use crate::settings;

/// A failure that a task ends with.
type Failing = Box<dyn std::error::Error + Send + Sync>;

/// The API at work.
pub(crate) struct Running {
    manager: Arc<ApiManager>,
    server: JoinHandle<Result<(), Failing>>,
    stop: CancellationToken,
}

/// Starts it. `requests`: how long requests that are under way when it stops may take. `gone` is cancelled when it ends
/// by itself.
pub(crate) async fn start(
    common: &Common,
    protection: Arc<dyn ProtectionApi>,
    engine: Arc<dyn OperationEngineApi>,
    requests: Duration,
    gone: &CancellationToken,
) -> Result<Running, Failure> {
    let Common {
        state, config, db, ..
    } = common;
    let services = ServiceClient::new(common.transport.clone(), common.response_timeout);
    let policy = Policy::open(settings::policy_files(config, state)?, common.clock.clone())?;
    let stores = ApiStores {
        plans: db.plans(),
        schedules: db.schedule_definitions(),
        quotas: db.quotas(),
        tokens: db.tokens(),
        services: db.service_admin(),
        runs: db.run_views(),
        announcements: db.announcements(),
    };
    let manager = ApiManager::new(common.base(stores), protection, engine, services)?;
    let manager = Arc::new(manager.with_policy(policy));
    let project = config.str("DEFAULT", "default_project")?;
    if manager.settings().auth_strategy != AuthStrategy::Keystone {
        ensure_admin_token(&db.tokens(), &state.join("token"), project).await?;
    }
    let place = SocketAddr::new(manager.settings().listen, manager.settings().port);
    let listener = TcpListener::bind(place).await.map_err(|error| {
        format!("cannot listen on {place}: {error}; choose another place with --listen")
    })?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let server = karbor_api::serve(listener, manager.clone(), stop.clone(), requests);
    let server = tokio::spawn(attended("API", server, stop.clone(), gone.clone()));
    state.write_endpoint(&format!("http://{address}/v1/{project}"))?;
    Ok(Running {
        manager,
        server,
        stop,
    })
}

impl Running {
    /// Its manager.
    pub(crate) fn manager(&self) -> &ApiManager {
        &self.manager
    }

    /// Takes no more requests, and waits for those under way.
    ///
    /// # Errors
    /// What the server ended with.
    pub(crate) async fn shutdown(self) -> Result<(), Failure> {
        self.stop.cancel();
        self.server.await?.map_err(|error| -> Failure { error })
    }
}

/// Carries out what is to last until `stop`. If it ends before, with or without an error or by a panic, the log
/// says so, and `gone` is cancelled.
async fn attended<E>(
    role: &'static str,
    work: impl Future<Output = Result<(), E>> + Send + 'static,
    stop: CancellationToken,
    gone: CancellationToken,
) -> Result<(), Failing>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let ended: Result<(), Failing> = match tokio::spawn(work).await {
        Ok(ended) => ended.map_err(Into::into),
        Err(panic) => Err(panic.into()),
    };
    if !stop.is_cancelled() {
        let reason = ended.as_ref().err().map(ToString::to_string);
        tracing::error!(
            role,
            reason,
            "a part of the service ended by itself: the service stops"
        );
        gone.cancel();
    }
    ended
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::io;

    use super::*;

    fn tokens() -> (CancellationToken, CancellationToken) {
        Default::default()
    }

    #[tokio::test]
    async fn what_ends_by_itself_is_noticed_and_what_is_stopped_is_not() {
        type Ended = Result<(), io::Error>;
        let (stop, gone) = tokens();
        let done = attended("API", async { Ended::Ok(()) }, stop.clone(), gone.clone()).await;
        assert!(done.is_ok() && gone.is_cancelled());

        let (stop, gone) = tokens();
        let failed = attended(
            "API",
            async { Ended::Err(io::Error::other("no")) },
            stop,
            gone.clone(),
        );
        assert_eq!(failed.await.unwrap_err().to_string(), "no");
        assert!(gone.is_cancelled());

        let (stop, gone) = tokens();
        let panicked = attended("API", async { panic!("no") as Ended }, stop, gone.clone()).await;
        assert!(panicked.is_err() && gone.is_cancelled());

        let (stop, gone) = tokens();
        let until = stop.clone();
        let work = async move {
            until.cancelled().await;
            Ended::Ok(())
        };
        let work = tokio::spawn(attended("API", work, stop.clone(), gone.clone()));
        stop.cancel();
        assert!(work.await.unwrap().is_ok() && !gone.is_cancelled());
    }
}
