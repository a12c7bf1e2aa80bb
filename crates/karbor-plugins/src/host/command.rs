//! Running programs: without a shell, without the service's environment, never longer than allowed,
//! and with every process they started gone in the end.

use std::{
    io::{Read, Seek, SeekFrom},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use karbor_plugin::PluginError;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::host::applications::{HookCommand, obeyed::obeyed};

/// How much of a program's standard error is kept: the end, where the reason is.
const KEPT: u64 = 16 * 1024;

/// A command in a process group of its own with a small, fixed environment: what the service was
/// started with (its options, perhaps secrets) is none of the program's business.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("LC_ALL", "C.UTF-8")
        .envs(std::env::var_os("HOME").map(|home| ("HOME", home)))
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// Where a program is: in the declared directory if there is one, else in the first of the usual places that has it.
/// One that others may change is not run. `package`: what to install if it is nowhere.
pub(crate) fn find_program(
    name: &str,
    declared: Option<&Path>,
    usual: impl FnOnce() -> Vec<PathBuf>,
    package: &str,
) -> Result<PathBuf, PluginError> {
    let dirs = declared.map_or_else(usual, |dir| vec![dir.to_owned()]);
    let there = dirs.iter().map(|dir| dir.join(name));
    let mut refused = None;
    for path in there.filter(|path| path.is_file()) {
        match obeyed(&path) {
            Ok(()) => return Ok(path),
            Err(reason) => refused = refused.or(Some(reason)),
        }
    }
    Err(PluginError::new(refused.unwrap_or_else(
        || match declared {
            Some(_) => format!("'{name}' is not in the declared bin_dir"),
            None => {
                format!("'{name}' is not on this machine: install {package}, or declare bin_dir")
            }
        },
    )))
}

/// Kills a child and all that it started, when dropped before [`Group::done`].
pub(crate) struct Group(Option<Pid>);

impl Group {
    pub(crate) fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    pub(crate) fn kill(&self) {
        if let Some(pid) = self.0 {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// The child has ended by itself: what it left running was meant to stay.
    pub(crate) fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `exit status 3` or `killed by signal 9`.
pub(crate) fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Runs one of the operator's commands to its end. `what` names it in errors, e.g. `quiesce`.
/// What it prints reaches the service's log only: it may hold anything.
pub(crate) async fn run_hook(
    hook: &HookCommand,
    what: &str,
    environment: &[(&str, String)],
    cancel: Option<&CancellationToken>,
) -> Result<(), PluginError> {
    let program = hook.program();
    let failed = |reason: String| PluginError::new(format!("the {what} command failed: {reason}"));
    hook.obeyed().map_err(failed)?;
    // A file, not a pipe: what the command leaves running may hold its end open for ever.
    let mut errors = tempfile::tempfile()
        .map_err(|e| failed("no temporary file could be made".to_owned()).with_cause(e))?;
    let kept = errors
        .try_clone()
        .map_err(|e| failed("no temporary file could be made".to_owned()).with_cause(e))?;
    let mut child = command(program)
        .args(hook.argv.iter().skip(1))
        .envs(environment.iter().map(|(name, value)| (*name, value)))
        .stdout(Stdio::null())
        .stderr(kept)
        .spawn()
        .map_err(|e| {
            let program = program.display();
            failed(format!("'{program}' could not be started ({})", e.kind())).with_cause(e)
        })?;
    let group = Group::of(&child);
    let status = tokio::select! {
        status = child.wait() => status.map_err(|e| failed("it was lost".to_owned()).with_cause(e))?,
        () = tokio::time::sleep(hook.timeout) => {
            group.kill();
            let _ = child.wait().await;
            return Err(failed(format!("it took longer than {} s and was killed", hook.timeout.as_secs())));
        }
        () = cancelled(cancel) => {
            group.kill();
            let _ = child.wait().await;
            return Err(PluginError::cancelled());
        }
    };
    group.done();
    if status.success() {
        return Ok(());
    }
    let text = tail(&mut errors).unwrap_or_default();
    tracing::error!(command = %program.display(), what, status = %ending(status), stderr = %text, "a command of the operator failed");
    Err(failed(format!(
        "{}; what it said is in the service's log",
        ending(status)
    ))
    .with_cause(text))
}

async fn cancelled(cancel: Option<&CancellationToken>) {
    match cancel {
        Some(cancel) => cancel.cancelled().await,
        None => std::future::pending().await,
    }
}

fn tail(file: &mut std::fs::File) -> std::io::Result<String> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(KEPT)))?;
    let mut bytes = Vec::new();
    file.take(KEPT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// Reads to the end and keeps the last of it, so that a chatty program neither blocks nor fills
/// the memory.
pub(crate) async fn drain(from: impl tokio::io::AsyncRead + Unpin) -> String {
    drain_up_to(from, KEPT as usize).await
}

/// As [`drain`], keeping that much.
pub(crate) async fn drain_up_to(
    mut from: impl tokio::io::AsyncRead + Unpin,
    most: usize,
) -> String {
    use tokio::io::AsyncReadExt as _;
    let mut kept = Vec::new();
    let mut buffer = [0_u8; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..read]);
        let over = kept.len().saturating_sub(most);
        kept.drain(..over);
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

/// The time that a helper program may take to answer a small question.
pub(crate) const QUESTION: Duration = Duration::from_secs(30);
