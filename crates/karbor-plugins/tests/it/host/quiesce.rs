//! The operator's commands around an application, in real flows.

use karbor_manager::SystemClock;
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use async_trait::async_trait;
use karbor_flow::{
    Executor, ExecutorOptions, FlowNode, FlowOutcome, FlowStatus, Hook, HookContext, HookRunner,
    MemoryJournal, Unwatched, plan,
};
use karbor_model::{CheckpointId, OperationId, OperationType, ResourceGraph};
use karbor_plugin::{HookReport, OperationContext, PluginError};
use karbor_plugins::applications::{APPLICATION, Problem};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{DIRECTORY, Lab};

/// Runs the plugins' hooks for a flow; each `times` times, as after crashes.
struct Runner {
    lab: Arc<Lab>,
    kind: OperationType,
    checkpoint: CheckpointId,
    operation: OperationId,
    parameters: Value,
    times: usize,
}

impl Runner {
    fn context(&self, node: &FlowNode) -> OperationContext {
        let parameters = self.parameters.get(&node.resource.resource_type).cloned();
        OperationContext {
            copy_target: None,
            operation_id: self.operation,
            ..self.lab.context(
                self.kind,
                self.checkpoint,
                &node.resource,
                parameters.unwrap_or_else(|| json!({})),
            )
        }
    }
}

#[async_trait]
impl HookRunner for Runner {
    async fn run(
        &self,
        node: &FlowNode,
        hook: Hook,
        flow: HookContext,
    ) -> Result<HookReport, PluginError> {
        let mut context = self.context(node);
        context.cancel = flow.cancel;
        let operation = self.lab.operation(self.kind, &node.resource);
        let mut report = HookReport::new();
        for _ in 0..self.times {
            report = match hook {
                Hook::PrepareBegin => operation.prepare_begin(&context).await?,
                Hook::PrepareFinish => operation.prepare_finish(&context).await?,
                Hook::Main => operation.main(&context).await?,
                Hook::Complete => operation.complete(&context).await?,
                Hook::Undo => panic!("undo is no hook to run"),
            };
        }
        Ok(report)
    }

    async fn undo(&self, node: &FlowNode, _: HookContext) -> Result<(), PluginError> {
        let operation = self.lab.operation(self.kind, &node.resource);
        for _ in 0..self.times {
            operation.undo(&self.context(node)).await?;
        }
        Ok(())
    }
}

struct Shop {
    lab: Arc<Lab>,
    graph: ResourceGraph,
    checkpoint: CheckpointId,
}

impl Shop {
    /// An application whose commands write their name and arguments into `log`.
    async fn new(commands: &str) -> Self {
        Self::over(Lab::new(), commands).await
    }

    async fn over(lab: Lab, commands: &str) -> Self {
        let script = lab.path("note");
        // Writes a line, then does what it is told.
        fs::write(
            &script,
            format!(
                "#!/bin/sh\necho \"$1 $KARBOR_APPLICATION $KARBOR_OPERATION${{SECRET}}\" >> {}\neval \"$2\"\n",
                lab.path("log").display()
            ),
        )
        .unwrap();
        let commands = commands.replace("NOTE", &format!("\"/bin/sh\", \"{}\"", script.display()));
        lab.declare(&format!(
            "{commands}\n[[directory]]\nname = \"files\"\npath = \"{}\"\n\
             [[directory]]\nname = \"more\"\npath = \"{}\"\n",
            lab.path("files").display(),
            lab.path("more").display()
        ));
        for name in ["files", "more"] {
            fs::create_dir(lab.path(name)).unwrap();
            fs::write(lab.path(name).join("x"), name).unwrap();
        }
        let mut graph = ResourceGraph::new();
        let shop = graph.add(lab.resource(APPLICATION).await);
        for component in lab.resources(DIRECTORY).await {
            let component = graph.add(component);
            graph.depend(shop, component);
        }
        Self {
            lab: Arc::new(lab),
            graph,
            checkpoint: CheckpointId::new(),
        }
    }

    async fn run(
        &self,
        kind: OperationType,
        parameters: Value,
        times: usize,
        cancel: CancellationToken,
    ) -> FlowOutcome {
        let runner = Runner {
            lab: self.lab.clone(),
            kind,
            checkpoint: self.checkpoint,
            operation: OperationId::new(),
            parameters,
            times,
        };
        let executor = Executor::new(ExecutorOptions::default(), Arc::new(SystemClock::new()));
        let plan = plan(&self.graph, kind).unwrap();
        executor
            .run(
                Arc::new(plan),
                Arc::new(runner),
                Arc::new(MemoryJournal::default()),
                Arc::new(Unwatched),
                cancel,
                Vec::new(),
            )
            .await
    }

    async fn protect(&self) -> FlowOutcome {
        self.run(
            OperationType::Protect,
            json!({}),
            1,
            CancellationToken::new(),
        )
        .await
    }

    fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.lab.path("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

const BOTH: &str = "quiesce.command = [NOTE, \"quiesce\"]\nresume.command = [NOTE, \"resume\"]";

fn reasons(outcome: &FlowOutcome) -> String {
    outcome.error_info().unwrap_or_default()
}

#[tokio::test]
async fn quiesce_comes_before_and_resume_after_all_components() {
    let shop = Shop::new(BOTH).await;
    // The component's file says when it was read.
    let outcome = shop.protect().await;
    assert_eq!(outcome.status, FlowStatus::Success, "{}", reasons(&outcome));
    assert_eq!(shop.log(), ["quiesce shop protect", "resume shop protect"]);
    assert_eq!(shop.lab.snapshots(), 2);
    assert_eq!(shop.lab.sections().len(), 3);
}

#[tokio::test]
async fn every_hook_twice() {
    let shop = Shop::new(BOTH).await;
    let outcome = shop
        .run(
            OperationType::Protect,
            json!({}),
            2,
            CancellationToken::new(),
        )
        .await;
    assert_eq!(outcome.status, FlowStatus::Success, "{}", reasons(&outcome));
    assert_eq!(shop.log().last().unwrap(), "resume shop protect");
    assert_eq!(shop.lab.snapshots(), 2, "a repeat makes no second snapshot");
}

#[tokio::test]
async fn a_failing_component_resumes_the_application_and_leaves_nothing() {
    let shop = Shop::new(BOTH).await;
    fs::remove_dir_all(shop.lab.path("more")).unwrap();
    let outcome = shop.protect().await;
    assert_eq!(outcome.status, FlowStatus::Failed);
    assert!(
        reasons(&outcome).contains("it is not there"),
        "{}",
        reasons(&outcome)
    );
    assert_eq!(shop.log(), ["quiesce shop protect", "resume shop protect"]);
    assert_eq!((shop.lab.snapshots(), shop.lab.sections().len()), (0, 0));
    // The next run works.
    fs::create_dir(shop.lab.path("more")).unwrap();
    assert_eq!(shop.protect().await.status, FlowStatus::Success);
}

#[tokio::test]
async fn a_failing_quiesce_fails_the_operation_and_resumes() {
    let shop = Shop::new(
        "quiesce.command = [NOTE, \"quiesce\", \"echo password=hunter2 >&2; exit 3\"]\nresume.command = [NOTE, \"resume\"]",
    )
    .await;
    let outcome = shop.protect().await;
    assert_eq!(outcome.status, FlowStatus::Failed);
    let told = reasons(&outcome);
    assert!(
        told.contains("the quiesce command failed: exit status 3"),
        "{told}"
    );
    assert!(!told.contains("hunter2"), "{told}");
    assert_eq!(shop.log(), ["quiesce shop protect", "resume shop protect"]);
    assert_eq!(shop.lab.snapshots(), 0);
}

#[tokio::test]
async fn a_failing_resume_is_no_success() {
    let shop = Shop::new(
        "quiesce.command = [NOTE, \"quiesce\"]\nresume.command = [NOTE, \"resume\", \"exit 1\"]",
    )
    .await;
    let outcome = shop.protect().await;
    assert_eq!(outcome.status, FlowStatus::Failed);
    assert!(
        reasons(&outcome).contains("the resume command failed"),
        "{}",
        reasons(&outcome)
    );
    // Tried in complete and again in undo.
    assert_eq!(
        shop.log()
            .iter()
            .filter(|line| line.starts_with("resume"))
            .count(),
        2
    );
    assert_eq!(shop.lab.snapshots(), 0);
}

#[tokio::test]
async fn a_quiesce_that_hangs_is_killed_with_all_it_started() {
    let shop = Shop::new(
        "quiesce = {command = [NOTE, \"quiesce\", \"sleep 1000 & echo $! > $0.pid; wait\"], timeout = 1}\nresume.command = [NOTE, \"resume\"]",
    )
    .await;
    let outcome = shop.protect().await;
    assert!(
        reasons(&outcome).contains("took longer than 1 s and was killed"),
        "{}",
        reasons(&outcome)
    );
    assert_eq!(shop.log().len(), 2);
    let pid = fs::read_to_string(shop.lab.path("note.pid")).unwrap();
    // It was killed, and dies when the kernel comes to it; `sleep 1000` outlives any test.
    let lives = || {
        let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        state.is_ok_and(|state| !state.contains(") Z "))
    };
    while lives() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_cancel_kills_the_quiesce_and_still_resumes() {
    let shop = Shop::new("quiesce.command = [NOTE, \"quiesce\", \"sleep 1000\"]\nresume.command = [NOTE, \"resume\"]").await;
    let cancel = CancellationToken::new();
    let stop = async {
        while shop.log().is_empty() {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let run = shop.run(OperationType::Protect, json!({}), 1, cancel.clone());
    let (outcome, ()) = tokio::join!(run, stop);
    assert_eq!(outcome.status, FlowStatus::Cancelled);
    assert_eq!(shop.log(), ["quiesce shop protect", "resume shop protect"]);
    assert_eq!(shop.lab.snapshots(), 0);
}

#[tokio::test]
async fn what_a_command_leaves_running_does_not_hold_us_up() {
    let shop =
        Shop::new("quiesce.command = [NOTE, \"quiesce\", \"sleep 1000 & echo $! > $0.pid\"]").await;
    let outcome = shop.protect().await;
    assert_eq!(outcome.status, FlowStatus::Success, "{}", reasons(&outcome));
    let pid: i32 = fs::read_to_string(shop.lab.path("note.pid"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)
        .expect("it was meant to stay");
}

#[tokio::test]
async fn restore_has_commands_of_its_own() {
    let shop = Shop::new(
        "before_restore.command = [NOTE, \"before\"]\nafter_restore.command = [NOTE, \"after\"]",
    )
    .await;
    assert_eq!(shop.protect().await.status, FlowStatus::Success);
    assert!(shop.log().is_empty());
    let restore = |parameters| {
        shop.run(
            OperationType::Restore,
            parameters,
            1,
            CancellationToken::new(),
        )
    };
    // Refused, because nothing was said about overwriting.
    let outcome = restore(json!({})).await;
    assert!(
        reasons(&outcome).contains("is not empty"),
        "{}",
        reasons(&outcome)
    );
    assert_eq!(shop.log(), ["before shop restore", "after shop restore"]);
    let outcome = restore(json!({DIRECTORY: {"overwrite": "if-changed"}})).await;
    assert_eq!(outcome.status, FlowStatus::Success, "{}", reasons(&outcome));
    assert_eq!(shop.log().len(), 4);
    let dry = json!({DIRECTORY: {"dry_run": true}, APPLICATION: {"dry_run": true}});
    assert_eq!(restore(dry).await.status, FlowStatus::Success);
    assert_eq!(shop.log().len(), 4, "a dry run stops nothing");
    for kind in [OperationType::Verify, OperationType::Delete] {
        let outcome = shop.run(kind, json!({}), 1, CancellationToken::new()).await;
        assert_eq!(outcome.status, FlowStatus::Success, "{}", reasons(&outcome));
    }
    assert_eq!((shop.lab.snapshots(), shop.lab.sections().len()), (0, 0));
}

#[tokio::test]
async fn what_was_stopped_is_resumed_whatever_is_declared_by_then() {
    // Quiescing, the operator breaks the declarations.
    let broken = "quiesce.command = [NOTE, \"quiesce\", \"echo [ > DECLARED\"]\nresume = {command = [NOTE, \"resume\"], timeout = 7}";
    let lab = Lab::new();
    let declared = lab.path("applications.d/shop.toml").display().to_string();
    let shop = Shop::over(lab, &broken.replace("DECLARED", &declared)).await;
    let outcome = shop.protect().await;
    assert_eq!(outcome.status, FlowStatus::Failed);
    assert!(
        reasons(&outcome).contains("its declaration cannot be used (shop.toml: "),
        "{}",
        reasons(&outcome)
    );
    assert_eq!(shop.log(), ["quiesce shop protect", "resume shop protect"]);
    assert!(shop.lab.scratch().is_empty(), "{:?}", shop.lab.scratch());
}

/// It was stopped by one operation, and is started again by the next.
#[tokio::test]
async fn the_note_of_a_resume_that_failed_goes_when_the_application_was_resumed() {
    let shop = Shop::new(
        "quiesce.command = [NOTE, \"quiesce\"]\nresume.command = [NOTE, \"resume\", \"test -e MENDED\"]",
    )
    .await;
    let file = shop.lab.path("applications.d/shop.toml");
    let mended = shop.lab.path("mended");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace("MENDED", &mended.display().to_string());
    fs::write(&file, text).unwrap();
    assert_eq!(shop.protect().await.status, FlowStatus::Failed);
    assert_eq!(shop.protect().await.status, FlowStatus::Failed);
    assert_eq!(shop.lab.scratch().len(), 2);
    fs::write(&mended, "").unwrap();
    // One that is under way keeps its note.
    let resource = shop.lab.resource(APPLICATION).await;
    let (kind, checkpoint) = (OperationType::Protect, CheckpointId::new());
    let context = shop.lab.context(kind, checkpoint, &resource, json!({}));
    let other = shop.lab.operation(kind, &resource);
    other.prepare_begin(&context).await.unwrap();
    let done = shop.protect().await;
    assert_eq!(done.status, FlowStatus::Success, "{}", reasons(&done));
    let left = shop.lab.scratch();
    let own = context.operation_id.to_string();
    assert!(
        left.len() == 1 && left[0].to_string_lossy().contains(&own),
        "{left:?}"
    );
    other.complete(&context).await.unwrap();
    assert!(shop.lab.scratch().is_empty());
}

/// A file that not even root can remove, as in a scratch directory that fails.
struct Immovable(fs::File);

impl Immovable {
    fn new(file: &Path) -> Option<Self> {
        let file = fs::File::open(file).unwrap();
        let flags = rustix::fs::ioctl_getflags(&file).ok()?;
        rustix::fs::ioctl_setflags(&file, flags | rustix::fs::IFlags::IMMUTABLE).ok()?;
        Some(Self(file))
    }
}

impl Drop for Immovable {
    fn drop(&mut self) {
        let flags = rustix::fs::ioctl_getflags(&self.0).unwrap();
        rustix::fs::ioctl_setflags(&self.0, flags - rustix::fs::IFlags::IMMUTABLE).unwrap();
    }
}

#[tokio::test]
async fn a_resume_that_went_well_is_no_failure_because_an_old_note_cannot_be_removed() {
    let shop = Shop::new("resume.command = [NOTE, \"resume\", \"test -e MENDED\"]").await;
    let file = shop.lab.path("applications.d/shop.toml");
    let mended = shop.lab.path("mended");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace("MENDED", &mended.display().to_string());
    fs::write(&file, text).unwrap();
    assert_eq!(shop.protect().await.status, FlowStatus::Failed);
    let old = shop.lab.scratch();
    assert_eq!(old.len(), 1);
    let Some(kept) = Immovable::new(&old[0]) else {
        eprintln!("SKIPPED: no file can be made immovable here");
        return;
    };
    fs::write(&mended, "").unwrap();
    let done = shop.protect().await;
    assert_eq!(done.status, FlowStatus::Success, "{}", reasons(&done));
    // Its own is gone.
    assert_eq!(shop.lab.scratch(), old);
    drop(kept);
    assert_eq!(shop.protect().await.status, FlowStatus::Success);
    assert!(shop.lab.scratch().is_empty());
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let shop = Shop::new("quiesce.command = [\"/no/such/program\"]").await;
    let told = reasons(&shop.protect().await);
    assert!(
        told.contains("'/no/such/program' could not be started"),
        "{told}"
    );
}

#[tokio::test]
async fn the_note_of_how_to_resume_is_private_and_survives_a_restart() {
    let shop = Shop::new(BOTH).await;
    let resource = shop.lab.resource(APPLICATION).await;
    let context = shop.lab.context(
        OperationType::Protect,
        shop.checkpoint,
        &resource,
        json!({}),
    );
    let operation = shop.lab.operation(OperationType::Protect, &resource);
    operation.prepare_begin(&context).await.unwrap();
    let notes = shop.lab.scratch();
    assert_eq!(notes.len(), 1);
    let mode = fs::metadata(&notes[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::remove_file(shop.lab.path("applications.d/shop.toml")).unwrap();
    let lab = Arc::into_inner(shop.lab).unwrap().restarted();
    let operation = lab.operation(OperationType::Protect, &resource);
    operation.undo(&context).await.unwrap();
    let log = fs::read_to_string(lab.path("log")).unwrap();
    assert_eq!(log, "quiesce shop protect\nresume shop protect\n");
    assert!(lab.scratch().is_empty());
}

/// Nothing is stopped either that the service would not start again.
#[tokio::test]
async fn a_program_that_others_may_change_is_not_run() {
    let lab = Lab::new();
    fs::set_permissions(lab.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["ours", "theirs"] {
        let program = lab.path(name);
        fs::write(
            &program,
            format!("#!/bin/sh\ntouch {}-ran\n", program.display()),
        )
        .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (ours, theirs) = (lab.path("ours"), lab.path("theirs"));
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o757)).unwrap();
    let commands = |before: &Path, after: &Path| {
        format!(
            "quiesce.command = [\"{}\"]\nresume.command = [\"{}\"]",
            before.display(),
            after.display()
        )
    };
    let mut lab = lab;
    for (commands, key) in [
        (commands(&theirs, &ours), "quiesce"),
        (commands(&ours, &theirs), "resume"),
    ] {
        let shop = Shop::over(lab, &commands).await;
        let outcome = shop.protect().await;
        assert_eq!(outcome.status, FlowStatus::Failed, "{key}");
        let told = reasons(&outcome);
        assert!(
            told.contains(key) && told.contains("may be changed by everybody"),
            "{told}"
        );
        assert!(!shop.lab.path("theirs-ran").exists());
        assert!(key == "quiesce" || !shop.lab.path("ours-ran").exists());
        let found = super::validate::validate(&shop.lab).await;
        let wanted = format!("{key}.command");
        let named =
            |problem: &&Problem| problem.key == wanted && problem.message.contains("chmod go-w");
        assert!(found.iter().any(|problem| named(&problem)), "{found:?}");
        lab = Arc::into_inner(shop.lab).unwrap();
        let _ = fs::remove_file(lab.path("ours-ran"));
        for name in ["files", "more"] {
            fs::remove_dir_all(lab.path(name)).unwrap();
        }
    }
}
