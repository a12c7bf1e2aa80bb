//! `karbor serve`: everything in one process.

use std::{
    mem::ManuallyDrop,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use karbor_api::{ApiManager, AuthStrategy, ensure_admin_token, policy::Policy};
use karbor_db::Db;
use karbor_manager::{
    Clock, Config, InProcess, Manager, ManagerBase, RpcTransport, RunningService, Service,
    ServiceClient, ServiceOptions, ServiceStore, SystemClock,
    service::{
        Signals, Started, Stopped, drain_unless_signal, run_until_signal, start_unless_signal,
    },
};
use karbor_notification::Courier;
use karbor_operationengine::OperationEngineManager;
use karbor_protection::{MasterKey, ProtectionManager, ProtectionParts, Providers};
use tokio::{net::TcpListener, sync::Mutex, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    configured::Configured,
    logging::LogFilter,
    owners::owners,
    settings::{self, ConfigFiles, Loaded, Place},
    state::StateDir,
};

type Failure = Box<dyn std::error::Error>;

/// Arguments of `karbor serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// Where to listen [default: 127.0.0.1:8799, or what the configuration says; port 0 is any]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) files: ConfigFiles,
}

/// Runs the service until a signal ends it.
pub(crate) fn run(
    place: &Place<'_>,
    arguments: &ServeArguments,
    log: LogFilter,
) -> Result<(), Failure> {
    let mut overrides = Vec::new();
    if let Some(listen) = arguments.listen {
        overrides.push(("DEFAULT", "osapi_karbor_listen", listen.ip().to_string()));
        overrides.push((
            "DEFAULT",
            "osapi_karbor_listen_port",
            listen.port().to_string(),
        ));
    }
    let Loaded { state, config } = place.load(&overrides)?;
    log.apply(&config)?;
    for unknown in config.unknown() {
        tracing::warn!("unknown option {unknown}: it has no effect");
    }
    for disagreement in settings::disagreements(&config)? {
        tracing::warn!("{disagreement}");
    }
    let idle = config.idle().len();
    if idle > 0 {
        tracing::info!(
            "{idle} options of OpenStack Karbor have no effect here: `karbor config validate` tells why"
        );
    }
    let reload = Reload {
        place,
        overrides: &overrides,
        log,
        started: config.clone(),
        applied: config.clone(),
    };
    let runtime = crate::terminal::runtime()?;
    let done = runtime.block_on(serve(&state, config, reload));
    if matches!(done, Ok(End::Graceful)) {
        runtime.shutdown_timeout(Duration::from_secs(1));
    } else {
        // What still works is interrupted by the end of the process, as by a crash. Without its runtime
        // it would panic instead.
        let _ = ManuallyDrop::new(runtime);
    }
    done.map(|_| ())
}

/// How the service ended, when no error ended it.
enum End {
    /// Everything came to its end.
    Graceful,
    /// Something was dropped and may be at work still.
    Dropped,
}

async fn serve(state: &StateDir, config: Config, mut reload: Reload<'_>) -> Result<End, Failure> {
    state.create()?;
    state.create_folder(&settings::folder(&config, state, "application_config_dir")?)?;
    let _lock = state.lock()?;
    let mut signals = Signals::of_process()?;
    let deadline = config.seconds("DEFAULT", "graceful_shutdown_timeout")?;
    let running = Arc::new(Mutex::new(Running::default()));
    let start = {
        let (running, state) = (running.clone(), state.clone());
        // A task of its own: whatever it waits for, signals are heard.
        tokio::spawn(async move {
            let started = running.lock().await.start(&state, &config, deadline).await;
            started.map_err(|error| error.to_string())
        })
    };
    let abort = start.abort_handle();
    let drain = || Running::drain(running.clone(), deadline);
    let ended = match start_unless_signal(&mut signals, start).await {
        Started::Done(started) => {
            started??;
            let gone = running.lock().await.gone.clone();
            let reload = async || reload.run(&running).await;
            run_until_over(&mut signals, &gone, reload, drain).await
        }
        Started::Stopped(_) => {
            abort.abort();
            drain_unless_signal(&mut signals, drain()).await
        }
    };
    state.remove_endpoint();
    match ended {
        Stopped::Drained(done) => done,
        Stopped::AtOnce => {
            Err("stopped at once; operations that were running go on at the next start".into())
        }
    }
}

/// As [`run_until_signal`]; a role that ends by itself ends the whole, too, and with an error: who started the
/// service starts it again then.
async fn run_until_over<F, Fut>(
    signals: &mut Signals,
    gone: &CancellationToken,
    reload: impl AsyncFnMut(),
    drain: F,
) -> Stopped<Result<End, Failure>>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<End, Failure>>,
{
    tokio::select! {
        stopped = run_until_signal(signals, reload, &drain) => return stopped,
        () = gone.cancelled() => {}
    }
    match drain_unless_signal(signals, drain()).await {
        Stopped::Drained(Ok(_)) => Stopped::Drained(Err(
            "a part of the service ended by itself; its log names it".into(),
        )),
        other => other,
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

type Failing = Box<dyn std::error::Error + Send + Sync>;

/// What has been started, as far as it has.
#[derive(Default)]
struct Running {
    stop: CancellationToken,
    /// Something that was to last until `stop` has ended.
    gone: CancellationToken,
    server: Option<JoinHandle<Result<(), Failing>>>,
    api: Option<Arc<ApiManager>>,
    engine: Option<RunningService<OperationEngineManager>>,
    protection: Option<RunningService<ProtectionManager>>,
    db: Option<Db>,
    /// Ends the delivery of notifications.
    courier: CancellationToken,
}

/// Tenths of the deadline after which a drain goes on to the next: requests, then what runs by itself,
/// then operations. What one does not need is the next one's.
const REQUESTS: u32 = 4;
const ENGINE: u32 = 7;

impl Running {
    async fn start(
        &mut self,
        state: &StateDir,
        config: &Config,
        deadline: Duration,
    ) -> Result<(), Failure> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let db = Db::connect(&settings::database(config, state)?).await?;
        db.migrate().await?;
        self.db = Some(db.clone());
        let transport: Arc<dyn RpcTransport> = Arc::new(InProcess::new());
        let protection = protection(state, config, &db, clock.clone(), transport.clone()).await?;
        let protection = self.protection.insert(protection);
        let base = ManagerBase::new(None, db.clone(), config.clone(), clock.clone());
        let owners = owners(config, clock.clone())?;
        let engine = OperationEngineManager::new(base, protection.manager().clone(), owners)?;
        let store: Arc<dyn ServiceStore> = Arc::new(db.clone());
        let options = ServiceOptions::from_config(config)?;
        let engine = Service::new(Arc::new(engine), options, store, transport.clone())
            .start()
            .await?;
        let engine = self.engine.insert(engine);
        start_courier(config, &db, protection.manager(), &self.courier)?;
        let services = ServiceClient::new(
            transport,
            config.seconds("DEFAULT", "rpc_response_timeout")?,
        );
        let base = ManagerBase::new(None, db.clone(), config.clone(), clock);
        let (protection_api, engine_api) = (protection.manager().clone(), engine.manager().clone());
        let policy = Policy::open(settings::policy_files(config, state)?, base.clock().clone())?;
        let api = ApiManager::new(base, protection_api, engine_api, services)?;
        let api = Arc::new(api.with_policy(policy));
        let project = config.str("DEFAULT", "default_project")?.to_owned();
        if api.settings().auth_strategy != AuthStrategy::Keystone {
            ensure_admin_token(&db, &state.join("token"), &project).await?;
        }
        let place = SocketAddr::new(api.settings().listen, api.settings().port);
        let listener = TcpListener::bind(place).await.map_err(|error| {
            format!("cannot listen on {place}: {error}; choose another place with --listen")
        })?;
        let address = listener.local_addr()?;
        self.api = Some(api.clone());
        let requests = deadline * REQUESTS / 10;
        let server = karbor_api::serve(listener, api, self.stop.clone(), requests);
        let (stop, gone) = (self.stop.clone(), self.gone.clone());
        self.server = Some(tokio::spawn(attended("API", server, stop, gone)));
        state.write_endpoint(&format!("http://{address}/v1/{project}"))?;
        tracing::info!(state = %state.path().display(), "karbor is ready");
        Ok(())
    }

    /// First no more requests, then nothing more that runs by itself, then no more operations; all
    /// within one deadline.
    async fn drain(running: Arc<Mutex<Self>>, deadline: Duration) -> Result<End, Failure> {
        let begun = Instant::now();
        let until = |tenths| (deadline * tenths / 10).saturating_sub(begun.elapsed());
        let Ok(mut running) = tokio::time::timeout(until(10), running.lock()).await else {
            return Err("stopped while starting; a start that hangs was cut short".into());
        };
        let running = std::mem::take(&mut *running);
        running.stop.cancel();
        let served = match running.server {
            Some(server) => server.await?,
            None => Ok(()),
        };
        let mut graceful = true;
        if let Some(engine) = running.engine {
            graceful &= engine.shutdown(until(ENGINE)).await.is_graceful();
        }
        if let Some(protection) = running.protection {
            graceful &= protection.shutdown(until(10)).await.is_graceful();
        }
        served.map_err(|error| -> Failure { error })?;
        Ok(match graceful {
            true => End::Graceful,
            false => End::Dropped,
        })
    }
}

/// What happened is told for as long as the protection manager works, or until `stop`; what it wrote last
/// is told at the next start.
fn start_courier(
    config: &Config,
    db: &Db,
    protection: &ProtectionManager,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let base = protection.base();
    let courier = Arc::new(Courier::new(
        Arc::new(db.clone()),
        karbor_notification::sinks(config)?,
        base.clock().clone(),
        base.host(),
        config.seconds("notifications", "max_age")?,
    ));
    let (stop, end) = (stop.clone(), base.tasks().cancelled().clone());
    let deliver = move || {
        let (courier, stop, end) = (courier.clone(), stop.clone(), end.clone());
        async move {
            tokio::select! {
                () = courier.run(&end) => {}
                () = stop.cancelled() => {}
            }
        }
    };
    base.tasks()
        .supervise("deliver notifications", base.clock().clone(), deliver);
    Ok(())
}

/// What SIGHUP does: reads the configuration again and takes up what can change while the service runs.
struct Reload<'a> {
    place: &'a Place<'a>,
    overrides: &'a [(&'static str, &'static str, String)],
    log: LogFilter,
    /// What the service was started with.
    started: Config,
    /// What was read last and could be used.
    applied: Config,
}

/// Groups and options that are taken up: all of a group where no option is named.
const RELOADED: &[(&str, &str)] = &[
    ("DEFAULT", "debug"),
    ("DEFAULT", "log_filter"),
    ("notifications", ""),
    ("oslo_policy", ""),
];

impl Reload<'_> {
    async fn run(&mut self, running: &Mutex<Running>) {
        tracing::info!("SIGHUP: reading the configuration again");
        match self.take_up(&mut *running.lock().await) {
            Ok(()) => tracing::info!("log level, policies and notifications are as configured"),
            Err(error) => tracing::error!("what is wrong stays as it was: {error}"),
        }
    }

    fn take_up(&mut self, running: &mut Running) -> Result<(), Failure> {
        let Loaded { state, config } = self.place.load(self.overrides)?;
        for unknown in config.unknown() {
            tracing::warn!("unknown option {unknown}: it has no effect");
        }
        self.log.apply(&config)?;
        if let Some(api) = &running.api {
            api.policy()
                .reload(settings::policy_files(&config, &state)?)?;
        }
        let changed = config.differences(&self.applied);
        if let (true, Some(db), Some(protection)) = (
            changed.iter().any(|(group, _)| *group == "notifications"),
            &running.db,
            &running.protection,
        ) {
            let stop = CancellationToken::new();
            start_courier(&config, db, protection.manager(), &stop)?;
            std::mem::replace(&mut running.courier, stop).cancel();
        }
        let needs_restart: Vec<String> = config
            .differences(&self.started)
            .iter()
            .filter(|(group, name)| {
                let taken_up = |(g, n): &(&str, &str)| g == group && (n.is_empty() || n == name);
                !RELOADED.iter().any(taken_up)
            })
            .map(|(group, name)| format!("[{group}] {name}"))
            .collect();
        if !needs_restart.is_empty() {
            tracing::warn!(
                "changed, but a restart is needed: {}",
                needs_restart.join(", ")
            );
        }
        self.applied = config;
        Ok(())
    }
}

async fn protection(
    state: &StateDir,
    config: &Config,
    db: &Db,
    clock: Arc<dyn Clock>,
    transport: Arc<dyn RpcTransport>,
) -> Result<RunningService<ProtectionManager>, Failure> {
    let Configured {
        registry,
        providers,
        remarks,
        ..
    } = Configured::load(state, config)?;
    for remark in remarks {
        tracing::warn!("{remark}");
    }
    for emptied in crate::status::emptied(db, &providers).await? {
        tracing::error!("{emptied}");
    }
    let master_key = master_key(state, &providers).await?;
    let parts = ProtectionParts {
        registry,
        providers,
        master_key,
    };
    let manager = ProtectionManager::new(None, db.clone(), config.clone(), clock, parts)?;
    let store: Arc<dyn ServiceStore> = Arc::new(db.clone());
    let options = ServiceOptions::from_config(config)?;
    Ok(Service::new(Arc::new(manager), options, store, transport)
        .start()
        .await?)
}

/// The master key. Where repositories exist it is never made anew: they could not be opened with it.
async fn master_key(state: &StateDir, providers: &Providers) -> Result<MasterKey, Failure> {
    let path = state.join("master.key");
    let repositories = match path.exists() {
        true => false,
        false => crate::status::repositories(providers).await.map_err(|error| {
            format!("there is no master key, and whether an old one is needed cannot be told: {error}")
        })?,
    };
    let key = MasterKey::load_or_create(&path, !repositories)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::io;

    use karbor_manager::service::Signal;

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

    #[tokio::test]
    async fn a_part_that_ends_by_itself_ends_the_service_with_an_error() {
        let (drained, gone) = tokens();
        let drain = || async {
            drained.cancel();
            Ok(End::Graceful)
        };
        let (_signal, mut signals) = Signals::channel();
        gone.cancel();
        match run_until_over(&mut signals, &gone, async || {}, drain).await {
            Stopped::Drained(Err(error)) => assert!(error.to_string().contains("by itself")),
            _ => panic!("it is an error"),
        }
        assert!(drained.is_cancelled(), "what is left comes to its end");

        let (_, gone) = tokens();
        let (signal, mut signals) = Signals::channel();
        signal.send(Signal::Terminate).await.unwrap();
        let ended = run_until_over(&mut signals, &gone, async || {}, drain).await;
        assert!(matches!(ended, Stopped::Drained(Ok(End::Graceful))));
    }
}
