//! `karbor serve`: everything in one process.

use std::{
    mem::ManuallyDrop,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use karbor_manager::{
    Config, RunningService,
    service::{
        Signals, Started, Stopped, drain_unless_signal, run_until_signal, start_unless_signal,
    },
};
use karbor_notification::NotificationManager;
use karbor_operationengine::OperationEngineManager;
use karbor_protection::ProtectionManager;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    logging::LogFilter,
    roles::{self, Common, Failure},
    settings::{self, ConfigFiles, Loaded, Sources},
    state::StateDir,
};

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
    place: &Sources<'_>,
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

/// What has been started, as far as it has.
#[derive(Default)]
struct Running {
    /// Is cancelled when a role that was to last has ended by itself.
    gone: CancellationToken,
    notification: Option<RunningService<NotificationManager>>,
    protection: Option<RunningService<ProtectionManager>>,
    engine: Option<RunningService<OperationEngineManager>>,
    api: Option<roles::api::Running>,
}

/// Tenths of the deadline after which a drain goes on to the next: requests, then what runs by itself,
/// then operations. What one does not need is the next one's.
const REQUESTS: u32 = 4;
const ENGINE: u32 = 7;

impl Running {
    /// Starts every role, after those that it calls.
    async fn start(
        &mut self,
        state: &StateDir,
        config: &Config,
        deadline: Duration,
    ) -> Result<(), Failure> {
        let common = Common::open(state, config).await?;
        let protection = self
            .protection
            .insert(roles::protection::start(&common).await?);
        let protection = common.protection(protection);
        let engine = roles::operationengine::start(&common, protection.clone()).await?;
        let engine = common.engine(self.engine.insert(engine));
        self.notification = Some(roles::notification::start(&common).await?);
        let requests = deadline * REQUESTS / 10;
        let api = roles::api::start(&common, protection, engine, requests, &self.gone).await?;
        self.api = Some(api);
        tracing::info!(state = %state.path().display(), "karbor is ready");
        Ok(())
    }

    /// First no more requests, then nothing more that runs by itself, then no more operations; all
    /// within one deadline. What happened last is told at the next start.
    async fn drain(running: Arc<Mutex<Self>>, deadline: Duration) -> Result<End, Failure> {
        let begun = Instant::now();
        let until = |tenths| (deadline * tenths / 10).saturating_sub(begun.elapsed());
        let Ok(mut running) = tokio::time::timeout(until(10), running.lock()).await else {
            return Err("stopped while starting; a start that hangs was cut short".into());
        };
        let running = std::mem::take(&mut *running);
        let served = match running.api {
            Some(api) => api.shutdown().await,
            None => Ok(()),
        };
        let mut graceful = true;
        if let Some(engine) = running.engine {
            graceful &= engine.shutdown(until(ENGINE)).await.is_graceful();
        }
        let protection = async {
            match running.protection {
                Some(protection) => protection.shutdown(until(10)).await.is_graceful(),
                None => true,
            }
        };
        let notification = async {
            match running.notification {
                Some(notification) => notification.shutdown(until(10)).await.is_graceful(),
                None => true,
            }
        };
        let (protection, notification) = tokio::join!(protection, notification);
        graceful &= protection && notification;
        served?;
        Ok(match graceful {
            true => End::Graceful,
            false => End::Dropped,
        })
    }
}

/// What SIGHUP does: reads the configuration again and takes up what can change while the service runs.
struct Reload<'a> {
    place: &'a Sources<'a>,
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
            api.manager()
                .policy()
                .reload(settings::policy_files(&config, &state)?)?;
        }
        let changed = config.differences(&self.applied);
        if let Some(notification) = &running.notification
            && changed.iter().any(|(group, _)| *group == "notifications")
        {
            notification.manager().reload(&config)?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use karbor_manager::service::Signal;

    use super::*;

    fn tokens() -> (CancellationToken, CancellationToken) {
        Default::default()
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
