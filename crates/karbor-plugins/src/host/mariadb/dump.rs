//! Running `mariadb-dump`, and knowing whether all of a dump has come.

use std::{
    pin::Pin,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use karbor_plugin::PluginError;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::sync::CancellationToken;

use super::{
    client::{Client, not_started},
    messages::{failure, last_lines},
};
use crate::host::command::{Group, drain};

/// The last line of every dump that is whole.
const LAST_LINE: &[u8] = b"\n-- Dump completed\n";

/// What every dump is made with: one transaction, one character set that holds all others, binary data as digits, and
/// nothing that is another at each dump.
const ALWAYS: [&str; 4] = [
    "--single-transaction",
    "--skip-dump-date",
    "--hex-blob",
    "--quick",
];

/// A dump on its way, of which the end is remembered.
pub(super) struct Output<R> {
    from: R,
    end: Vec<u8>,
    /// Bytes so far.
    count: Arc<AtomicU64>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Output<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.from).poll_read(cx, buffer))?;
        let new = buffer.filled().get(before..).unwrap_or_default();
        self.count.fetch_add(new.len() as u64, Ordering::Relaxed);
        let kept = new.len().saturating_sub(LAST_LINE.len());
        self.end.extend_from_slice(&new[kept..]);
        let over = self.end.len().saturating_sub(LAST_LINE.len());
        self.end.drain(..over);
        Poll::Ready(Ok(()))
    }
}

/// Runs `mariadb-dump` and hands what it prints to `take`. Fails unless all of it came: the program must end well, and
/// its last line must say so; a dump that was cut short is none. Answers with what `take` does, and what the program
/// warned of.
pub(super) async fn dump<T, F, E>(
    client: &Client<'_>,
    arguments: &[String],
    cancel: &CancellationToken,
    take: impl FnOnce(Output<tokio::process::ChildStdout>) -> F,
) -> Result<(T, Option<String>), PluginError>
where
    F: Future<Output = (Output<tokio::process::ChildStdout>, Result<T, E>)>,
    PluginError: From<E>,
{
    const PROGRAM: &str = "mariadb-dump";
    let mut program = client.program(PROGRAM)?;
    let mut child = program
        .command
        .args(ALWAYS)
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|e| not_started(PROGRAM, &e))?;
    let group = Group::of(&child);
    let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(PluginError::new("mariadb-dump has no output"));
    };
    let count = Arc::new(AtomicU64::new(0));
    let output = Output {
        from: output,
        end: Vec::new(),
        count: count.clone(),
    };
    let work = async { tokio::join!(take(output), drain(errors)) };
    let ((output, taken), said) = tokio::select! {
        done = work => done,
        () = cancel.cancelled() => return Err(PluginError::cancelled()),
        error = stuck(client, &count) => return Err(error),
    };
    // What took it comes first: the program's own failure is then only that nobody read on.
    let taken = taken?;
    let status = child
        .wait()
        .await
        .map_err(|e| PluginError::new("mariadb-dump was lost").with_cause(e))?;
    group.done();
    if !status.success() {
        return Err(failure(PROGRAM, status, &said));
    }
    if output.end != LAST_LINE {
        return Err(PluginError::new(
            "mariadb-dump ended before all of the dump had come: its last line is missing",
        ));
    }
    let said = (!said.is_empty()).then(|| format!("{PROGRAM}: {}", last_lines(&said)));
    Ok((taken, said))
}

/// Ends when nothing has come for longer than the limit while the server says that the account waits for a lock: no
/// option of `mariadb-dump` limits that, and a protect keeps its application quiesced meanwhile.
async fn stuck(client: &Client<'_>, count: &AtomicU64) -> PluginError {
    let limit = client.lock_timeout();
    let pause = (limit / 8).clamp(Duration::from_millis(200), Duration::from_secs(5));
    let sql = format!(
        "SELECT JSON_ARRAY(ID, STATE) FROM information_schema.PROCESSLIST
            WHERE USER = SUBSTRING_INDEX(USER(), '@', 1) AND ID <> CONNECTION_ID()
            AND STATE LIKE 'Waiting for%lock%' AND TIME >= {};",
        limit.as_secs()
    );
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        tokio::time::sleep(pause).await;
        let now = count.load(Ordering::Relaxed);
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        if since.elapsed() < limit {
            continue;
        }
        match client.ask::<(u64, String)>(&sql).await {
            Ok(waiting) if waiting.is_empty() => {}
            Ok(waiting) => {
                let state = waiting.first().map_or("", |(_, state)| state.as_str());
                return PluginError::new(format!(
                    "gave up after {} s without data ({state}): another session holds a lock that the dump waits for. End that session (SHOW PROCESSLIST), or stop the application first (its quiesce command can do that); 'lock_timeout' in the declaration is the limit",
                    since.elapsed().as_secs()
                ));
            }
            // A server without room for one more session is no reason to give up a dump.
            Err(error) => tracing::warn!(%error, "whether a lock is waited for could not be asked"),
        }
    }
}

/// Of the tables and sequences of a database, with their rows; views are left out, each by its name.
pub(super) fn tables(database: &str, views: &[String], has_history: bool) -> Vec<String> {
    let mut arguments = vec!["--skip-triggers".to_owned()];
    let left_out = views
        .iter()
        .map(|view| format!("--ignore-table={database}.{view}"));
    arguments.extend(left_out);
    arguments.extend(has_history.then(|| "--dump-history".to_owned()));
    arguments.extend(["--".to_owned(), database.to_owned()]);
    arguments
}

/// Of triggers, routines and events; each replaces the one of its name.
pub(super) fn code(database: &str) -> Vec<String> {
    let options = [
        "--no-data",
        "--no-create-info",
        "--triggers",
        "--add-drop-trigger",
        "--routines",
        "--events",
        "--",
        database,
    ];
    options.map(str::to_owned).into()
}

/// Of views; each replaces the one of its name.
pub(super) fn views(database: &str, views: &[String]) -> Vec<String> {
    let options = ["--no-data", "--skip-triggers", "--", database];
    let mut arguments: Vec<_> = options.map(str::to_owned).into();
    arguments.extend_from_slice(views);
    arguments
}
