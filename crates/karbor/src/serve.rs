//! `karbor serve`: everything in one process.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use karbor_api::{ApiManager, AuthStrategy, ensure_admin_token, policy::Policy};
use karbor_db::Db;
use karbor_manager::{
    Clock, Config, InProcess, Manager, ManagerBase, RpcTransport, RunningService, Service,
    ServiceClient, ServiceOptions, ServiceStore, SystemClock,
    service::{Signals, Stopped, run_until_signal},
};
use karbor_notification::Courier;
use karbor_operationengine::OperationEngineManager;
use karbor_plugin::{ProviderConfig, Registry};
use karbor_plugins::{HostOptions, applications::Surroundings};
use karbor_protection::{
    MasterKey, ProtectionManager, ProtectionParts, Providers, load_provider_configs,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    owners::owners,
    providers::{embedded, protectors, remarks},
    settings::{self, ConfigFiles, Loaded, Place},
    state::StateDir,
};

type Failure = Box<dyn std::error::Error>;

/// The program that runs, also after a newer one was put in its place.
const SELF: &str = "/proc/self/exe";

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
pub(crate) fn run(place: &Place<'_>, arguments: &ServeArguments) -> Result<(), Failure> {
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
    let runtime = crate::command::runtime()?;
    let done = runtime.block_on(serve(&state, config));
    // What still runs in the background had its time; a plugin's thread must not keep us.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

async fn serve(state: &StateDir, config: Config) -> Result<(), Failure> {
    state.create()?;
    state.create_folder(&settings::folder(&config, state, "application_config_dir")?)?;
    let _lock = state.lock()?;
    let mut signals = Signals::of_process()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let db = Db::connect(&settings::database(&config, state)?).await?;
    db.migrate().await?;
    let transport: Arc<dyn RpcTransport> = Arc::new(InProcess::new());
    let protection = protection(state, &config, &db, clock.clone(), transport.clone()).await?;
    let base = ManagerBase::new(None, db.clone(), config.clone(), clock.clone());
    let owners = owners(&config, clock.clone())?;
    let engine = OperationEngineManager::new(base, protection.manager().clone(), owners)?;
    let store: Arc<dyn ServiceStore> = Arc::new(db.clone());
    let options = ServiceOptions::from_config(&config)?;
    let engine = Service::new(Arc::new(engine), options, store, transport.clone())
        .start()
        .await?;
    start_courier(&config, &db, clock.clone(), protection.manager())?;
    let services = ServiceClient::new(
        transport,
        config.seconds("DEFAULT", "rpc_response_timeout")?,
    );
    let base = ManagerBase::new(None, db.clone(), config.clone(), clock);
    let (protection_api, engine_api) = (protection.manager().clone(), engine.manager().clone());
    let policy = Policy::open(
        settings::policy_files(&config, state)?,
        base.clock().clone(),
    )?;
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
    let deadline = config.seconds("DEFAULT", "graceful_shutdown_timeout")?;
    let stop = CancellationToken::new();
    let server = tokio::spawn(karbor_api::serve(listener, api, stop.clone(), deadline));
    state.write_endpoint(&format!("http://{address}/v1/{project}"))?;
    tracing::info!(state = %state.path().display(), "karbor is ready");
    let ended = run_until_signal(&mut signals, || {
        drain(stop, server, engine, protection, deadline)
    });
    let ended = ended.await;
    state.remove_endpoint();
    match ended {
        Stopped::Drained(done) => done,
        Stopped::AtOnce => {
            Err("stopped at once; operations that were running go on at the next start".into())
        }
    }
}

/// What happened is told for as long as the protection manager works; what it wrote last is told at the
/// next start.
fn start_courier(
    config: &Config,
    db: &Db,
    clock: Arc<dyn Clock>,
    protection: &ProtectionManager,
) -> Result<(), Failure> {
    let base = protection.base();
    let courier = Courier::new(
        Arc::new(db.clone()),
        karbor_notification::sinks(config)?,
        clock,
        base.host(),
        config.seconds("notifications", "max_age")?,
    );
    let stop = base.tasks().cancelled().clone();
    base.tasks().spawn("deliver notifications", async move {
        courier.run(&stop).await;
    });
    Ok(())
}

/// First no more requests, then nothing more that runs by itself, then no more operations.
async fn drain(
    stop: CancellationToken,
    server: tokio::task::JoinHandle<Result<(), karbor_api::ServeError>>,
    engine: RunningService<OperationEngineManager>,
    protection: RunningService<ProtectionManager>,
    deadline: Duration,
) -> Result<(), Failure> {
    let started = std::time::Instant::now();
    stop.cancel();
    let served = server.await?;
    engine
        .shutdown(deadline.saturating_sub(started.elapsed()))
        .await;
    protection
        .shutdown(deadline.saturating_sub(started.elapsed()))
        .await;
    Ok(served?)
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

/// What is configured: the plugins there are, and the providers made of them.
pub(crate) struct Configured {
    pub(crate) registry: Arc<Registry>,
    pub(crate) providers: Providers,
    /// What the applications have to get along with.
    pub(crate) surroundings: Surroundings,
    /// What an operator should know of the providers' files.
    pub(crate) remarks: Vec<String>,
}

impl Configured {
    /// Reads `providers.d`, or takes the embedded providers when there is none.
    pub(crate) fn load(state: &StateDir, config: &Config) -> Result<Self, Failure> {
        let folder = settings::folder(config, state, "provider_config_dir")?;
        if folder.exists() {
            settings::obeyed(&folder)?;
        }
        let mut configs = load_provider_configs(&folder)?;
        for file in configs.iter().filter_map(|config| config.file.as_ref()) {
            settings::obeyed(file)?;
        }
        if configs.is_empty() {
            configs = embedded(state);
        }
        let banks = configs.iter().flat_map(ProviderConfig::banks);
        let banks = banks.filter_map(|bank| {
            bank.option("file_system_bank_plugin", "file_system_bank_path")
                .map(PathBuf::from)
        });
        let off_limits: Vec<PathBuf> = std::iter::once(state.path().to_owned())
            .chain(banks)
            .collect();
        let registry = karbor_plugins::registry_with_host(HostOptions {
            applications_dir: settings::folder(config, state, "application_config_dir")?,
            scratch_dir: state.join("scratch"),
            sqlite_worker: PathBuf::from(SELF),
            off_limits: off_limits.clone(),
        });
        let providers = Providers::new(&configs, &registry)?;
        let remarks = remarks(&configs, &providers, &registry);
        let surroundings = Surroundings {
            off_limits,
            protectors: protectors(&configs, &providers),
            sqlite_worker: PathBuf::from(SELF),
        };
        Ok(Self {
            registry: Arc::new(registry),
            providers,
            surroundings,
            remarks,
        })
    }
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
