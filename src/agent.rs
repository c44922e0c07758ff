//! Wires the rooms into one process and sees it through its life: bind the API, open the state, start the engine, the
//! sources and the reconciler, follow signals, and take it all down in the reverse order.
//!
//! Configuration never ends the process. What does: an API address that cannot be bound, settings that make no sense,
//! and a state directory that another agent holds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use invar_components_prometheus::remote_write::keep_closed_logs;
use invar_components_remote::ModuleLoader;
use invar_engine::{Engine, EngineOptions, Services};
use invar_rollout::{
    AgentIdentity, BootMode, EnginePipeline, OpenError, PollerFeed, Rollout, RolloutOptions, StateDirectory,
};
use invar_secrets::{SecretStores, SnapshotFiles};
use invar_sources::{AgentAttributes, Poller, PollerOptions, Source, SourceEnvironment, SourceSettings};
use invar_syntax::Stability;
use prometheus::process_collector::ProcessCollector;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::blocks::livedebugging::LiveDebuggingSwitch;
use crate::blocks::remotecfg;
use crate::encrypted_files::EncryptedFiles;
use crate::exit::Exit;
use crate::module_feed::LoaderFeed;
use crate::secrets::{SecretMetrics, Secrets};
use crate::server::{Rooms, Server, SourceDeclaration};
use crate::settings::Settings;
use crate::store_secrets::StoreSecrets;
use crate::webhook::{AgentTarget, Webhooks};

/// How long components may take to shut down, unless a flag says otherwise.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(30);

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(
        "cannot listen on {address}: {reason}; another address goes with `[server] listen` or --server.http.listen-addr"
    )]
    Listen { address: String, reason: std::io::Error },
    #[error("{0}")]
    Settings(String),
    #[error(transparent)]
    State(#[from] OpenError),
    #[error("{0}")]
    Signals(std::io::Error),
    #[error("{0}")]
    Metrics(#[from] prometheus::Error),
}

/// Runs the agent until it is told to stop.
pub(crate) fn main(settings: Settings, shutdown_deadline: Option<Duration>) -> Exit {
    crate::tls::install_provider();
    let log = crate::log::start();
    forbid_core_dumps();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("invar").build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the runtime cannot be started");
            return Exit::Failed;
        }
    };
    let services = Services::new();
    services.insert(log);
    let deadline = shutdown_deadline.unwrap_or(SHUTDOWN_DEADLINE);
    let exit = match runtime.block_on(run(settings, services, deadline)) {
        Ok(()) => Exit::Done,
        Err(error) => {
            tracing::error!("{error}");
            match error {
                StartError::Settings(_) => Exit::Usage,
                _ => Exit::Failed,
            }
        }
    };
    // Whatever blocking call is still under way (a fetch) must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    exit
}

/// Secrets are in memory; a core file would put them on disk.
fn forbid_core_dumps() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Core, none) {
        tracing::warn!(%error, "core dumps cannot be switched off");
    }
    // The limit is for files; a program that the kernel hands dumps to would get one all the same. This also keeps other
    // processes of the same user from reading the memory. What the agent reads of itself in /proc stays readable to it.
    let not = rustix::process::DumpableBehavior::NotDumpable;
    if let Err(error) = rustix::process::set_dumpable_behavior(not) {
        tracing::warn!(%error, "the memory cannot be closed to other processes");
    }
}

async fn run(settings: Settings, services: Services, deadline: Duration) -> Result<(), StartError> {
    let mut signals = Signals::new().map_err(StartError::Signals)?;
    let server = Server::bind(&settings.server.listen)
        .await
        .map_err(|reason| StartError::Listen { address: settings.server.listen.clone(), reason })?;
    tracing::info!(address = %server.address(), version = env!("CARGO_PKG_VERSION"), "invar is starting");
    let face = server.face();
    let stop_server = CancellationToken::new();
    let serving = tokio::spawn(server.serve(stop_server.clone()));

    services.insert(face.gate());
    services.insert(Arc::new(LiveDebuggingSwitch::new(settings.allows_live_debugging())));
    let secrets = Secrets::of(&settings).map_err(|problems| StartError::Settings(problems.join("\n")))?;
    let state = StateDirectory::open(&settings.state.dir)?;
    let secrets = secrets.with_offline(&settings.state).await;
    let agent = Agent::start(&settings, services, &secrets, state)?;
    let target = AgentTarget {
        rollout: agent.rollout.clone(),
        sources: agent.poller.clone(),
        modules: agent.modules.poller().clone(),
    };
    let metrics = agent.pipeline.engine().metrics();
    metrics.register(Box::new(SecretMetrics::new(secrets.stores.clone())?))?;
    let (webhooks, stores) = (&settings.webhook, secrets.stores.clone());
    let webhooks = Webhooks::start(webhooks, Arc::new(target), stores, &metrics)?;
    face.open(Rooms {
        pipeline: agent.pipeline.clone(),
        rollout: agent.rollout.clone(),
        declared: agent.declared.clone(),
        secrets: secrets.stores.clone(),
        secret_users: crate::secrets::users(&settings),
        webhooks,
    });
    // Not started by systemd: nothing to tell.
    drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));

    agent.follow(&mut signals).await;

    tracing::info!("invar is stopping");
    drop(sd_notify::notify(&[sd_notify::NotifyState::Stopping]));
    face.stop();
    agent.stop(deadline).await;
    secrets.shutdown().await;
    stop_server.cancel();
    if let Err(error) = serving.await {
        tracing::error!(%error, "the HTTP server did not end in order");
    }
    tracing::info!("invar has stopped");
    Ok(())
}

/// The signals the agent follows.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// The rooms, running.
struct Agent {
    pipeline: EnginePipeline,
    rollout: Rollout,
    poller: Poller,
    modules: Arc<ModuleLoader>,
    /// What the settings say of the sources.
    declared: Vec<SourceDeclaration>,
    /// Looks after the logs of components that are gone.
    log_keeper: JoinHandle<()>,
    /// Tells the secret stores that the files of the configuration are others. Ends with the poller.
    files: JoinHandle<()>,
    /// Tells a control plane what becomes of what it sends. Ends with the rollout.
    verdicts: JoinHandle<()>,
}

impl Agent {
    fn start(
        settings: &Settings,
        services: Services,
        secrets: &Secrets,
        state: StateDirectory,
    ) -> Result<Self, StartError> {
        state.panic_note().install();
        let identity = identity(settings);
        let source = invar_engine::Secrets::of(Arc::new(StoreSecrets(secrets.stores.clone())));
        let engine =
            Engine::new(EngineOptions { secrets: source.clone(), ..engine_options(settings, services)? });
        about_this_process(&engine.metrics())?;
        let policy = Arc::new(settings.policy().map_err(StartError::Settings)?);
        let pipeline =
            EnginePipeline::new(engine, &identity, module_path(settings)).under(policy).with_secrets(source);
        let sources = sources(settings, &identity)?;
        let declared = sources.iter().map(SourceDeclaration::of).collect();
        // A fleet that reboots together has something to run, and so no reason to ask its servers all at once; but an agent
        // that is told to wait for them does not.
        let warm = state.has_committed() && settings.state.boot == BootMode::CacheFirst;
        let environment = source_environment(settings, secrets.stores.clone());
        let poller = poller(&environment, &sources, &identity, warm)?;
        let files = provide_files(&poller, &secrets.snapshot, settings.state.dir.join("encrypted"));
        let modules = Arc::new(ModuleLoader::new(&poller, environment));
        let options = RolloutOptions {
            settings: settings.rollout.clone(),
            boot: settings.state.boot,
            history: settings.state.history,
            agent: identity,
            memory_limit: settings.limits.memory,
            metrics: prometheus::Registry::clone(&pipeline.engine().metrics()),
            modules: LoaderFeed::new(Arc::clone(&modules)),
            secrets: secrets.stores.clone(),
            ..RolloutOptions::new(state)
        };
        let rollout = Rollout::start(options, Arc::new(pipeline.clone()), PollerFeed::new(poller.clone()))?;
        let services = pipeline.engine().services().clone();
        let log_keeper = tokio::spawn(keep_closed_logs(services, components_directory(settings)));
        let verdicts = tokio::spawn(remotecfg::report_verdicts(rollout.clone(), Arc::clone(&modules)));
        Ok(Self { pipeline, rollout, poller, modules, declared, log_keeper, files, verdicts })
    }

    /// Reconciles at SIGHUP, keeps systemd's watchdog quiet, and returns when told to stop.
    async fn follow(&self, signals: &mut Signals) {
        let mut watchdog = watchdog();
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return,
                _ = signals.interrupt.recv() => return,
                _ = signals.hangup.recv() => self.reload().await,
                () = self.rollout.ended() => {
                    // A defect of ours. A fresh process starts from disk; this one could only go on deaf.
                    tracing::error!("the reconciler ended by itself");
                    return;
                }
                _ = watchdog.tick() => drop(sd_notify::notify(&[sd_notify::NotifyState::Watchdog])),
            }
        }
    }

    /// SIGHUP: as `invar reconcile --no-wait`. Not waited for, since a second signal, or the end, must be heard meanwhile.
    async fn reload(&self) {
        let mut reloading = vec![sd_notify::NotifyState::Reloading];
        reloading.extend(sd_notify::NotifyState::monotonic_usec_now().ok());
        // Not started by systemd: nothing to tell.
        drop(sd_notify::notify(&reloading));
        if let Err(error) = self.rollout.request(&[], "SIGHUP").await {
            tracing::warn!(%error, "SIGHUP: the sources cannot be looked at");
        }
        drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
    }

    async fn stop(self, deadline: Duration) {
        // The rollout first: it marks a probation as cleanly interrupted before anything drains.
        self.rollout.shutdown().await;
        self.poller.shutdown().await;
        self.modules.shutdown().await;
        for task in [self.log_keeper, self.files, self.verdicts] {
            task.abort();
            // It was cancelled just now; there is nothing to learn from how it ended.
            drop(task.await);
        }
        self.pipeline.engine().shutdown(deadline).await;
    }
}

/// Has encrypted files read from the newest snapshots; what is returned tells that they may be others, until it is ended.
fn provide_files(poller: &Poller, files: &SnapshotFiles, directory: PathBuf) -> JoinHandle<()> {
    let mut states = poller.subscribe();
    let mut version = states.borrow_and_update().version;
    let kept = EncryptedFiles::new(poller.clone(), directory);
    files.provide(move |path| kept.read(path));
    let files = files.clone();
    tokio::spawn(async move {
        while states.changed().await.is_ok() {
            let newest = states.borrow_and_update().version;
            if newest != version {
                version = newest;
                files.changed();
            }
        }
    })
}

/// Who the agent with these settings is.
pub(crate) fn identity(settings: &Settings) -> AgentIdentity {
    AgentIdentity {
        name: settings.agent_name(),
        environment: settings.agent.environment.clone(),
        labels: settings.agent.labels.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Registers what every process says of itself: its resources and its version.
fn about_this_process(metrics: &prometheus::Registry) -> Result<(), prometheus::Error> {
    metrics.register(Box::new(ProcessCollector::for_self()))?;
    let options = prometheus::Opts::new("alloy_build_info", "Which build runs; the value is always 1")
        .const_label("version", env!("CARGO_PKG_VERSION"))
        .const_label("goos", std::env::consts::OS)
        .const_label("goarch", std::env::consts::ARCH);
    let build = prometheus::Gauge::with_opts(options)?;
    build.set(1.0);
    metrics.register(Box::new(build))
}

/// Ticks at half of systemd's watchdog interval; once a day where there is none.
fn watchdog() -> tokio::time::Interval {
    let every = sd_notify::watchdog_enabled().map_or(Duration::from_secs(86_400), |interval| interval / 2);
    tokio::time::interval(every.max(Duration::from_millis(100)))
}

/// Where components keep what outlives them: one folder a node.
fn components_directory(settings: &Settings) -> PathBuf {
    settings.state.dir.join("components")
}

fn engine_options(settings: &Settings, services: Services) -> Result<EngineOptions, StartError> {
    services.insert(Arc::new(invar_components_prometheus::LogLimit(settings.limits.log)));
    services.insert(Arc::new(invar_components_prometheus::InProcessAddress(
        settings.server.memory_address.clone(),
    )));
    Ok(EngineOptions {
        minimum_stability: stability(&settings.features.stability)?,
        community: settings.features.community_components,
        services,
        ..EngineOptions::new(crate::registry::components(), components_directory(settings))
    })
}

/// Where relative paths of a pipeline begin: its own folder if it is a local one, else the working directory.
fn module_path(settings: &Settings) -> String {
    let local = settings.source.iter().find_map(|source| source.file.as_ref());
    let folder = local.map(|file| match file.path.is_dir() {
        true => file.path.clone(),
        false => file.path.parent().map(Path::to_path_buf).unwrap_or_default(),
    });
    folder.unwrap_or_default().display().to_string()
}

pub(crate) fn stability(text: &str) -> Result<Stability, StartError> {
    match text {
        "experimental" => Ok(Stability::Experimental),
        "public-preview" => Ok(Stability::PublicPreview),
        "generally-available" => Ok(Stability::GenerallyAvailable),
        other => Err(StartError::Settings(format!(
            "`[features] stability` is `{other}`; it can be experimental, public-preview or generally-available"
        ))),
    }
}

pub(crate) fn source_environment(settings: &Settings, secrets: SecretStores) -> SourceEnvironment {
    SourceEnvironment { state_directory: settings.state.dir.clone(), secrets }
}

fn sources(settings: &Settings, agent: &AgentIdentity) -> Result<Vec<SourceSettings>, StartError> {
    if settings.source.is_empty() {
        return Err(StartError::Settings("no `[[source]]` says where configuration comes from".to_owned()));
    }
    let sources = declared_sources(settings, agent).map_err(|errors| {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        StartError::Settings(texts.join("\n"))
    })?;
    let names: Vec<String> = sources.iter().filter_map(|source| source.name.clone()).collect();
    crate::webhook::check(&settings.webhook, &names)
        .map_err(|problems| StartError::Settings(problems.join("\n")))?;
    Ok(sources)
}

/// The sources as the settings declare them, each with a name, and with the agent's attributes in their place.
///
/// # Errors
/// All that is wrong with them, in order.
pub(crate) fn declared_sources(
    settings: &Settings,
    agent: &AgentIdentity,
) -> Result<Vec<SourceSettings>, Vec<invar_sources::SettingsError>> {
    let mut sources = settings.source.clone();
    invar_sources::normalize(&mut sources)?;
    let attributes = AgentAttributes {
        name: agent.name.clone(),
        environment: Some(agent.environment.clone()).filter(|environment| !environment.is_empty()),
        labels: agent.labels.clone(),
    };
    for source in &mut sources {
        source.substitute(&attributes).map_err(|error| vec![error])?;
    }
    Ok(sources)
}

fn poller(
    environment: &SourceEnvironment,
    sources: &[SourceSettings],
    agent: &AgentIdentity,
    warm: bool,
) -> Result<Poller, StartError> {
    let mut opened: Vec<Arc<dyn Source>> = Vec::new();
    for source in sources {
        let source = invar_sources::open(source, environment)
            .map_err(|error| StartError::Settings(error.to_string()))?;
        opened.push(source);
    }
    let mut options = PollerOptions::new(opened);
    options.agent_name.clone_from(&agent.name);
    options.warm = warm;
    Ok(Poller::start(options))
}
