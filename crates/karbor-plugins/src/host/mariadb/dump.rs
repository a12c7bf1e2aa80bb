//! Running `mariadb-dump`, and knowing whether all of a dump has come.

use std::{
    collections::BTreeSet,
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
    client::{Client, not_started, unquoted},
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

/// The longest statement that any server takes, in bytes: `max_allowed_packet` goes no higher.
const LONGEST: u64 = 1024 * 1024 * 1024;

/// A dump on its way, of which the end is remembered.
pub(super) struct Output<R> {
    from: R,
    end: Vec<u8>,
    statements: Statements,
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
        self.statements.pass(new);
        let kept = new.len().saturating_sub(LAST_LINE.len());
        self.end.extend_from_slice(&new[kept..]);
        let over = self.end.len().saturating_sub(LAST_LINE.len());
        self.end.drain(..over);
        Poll::Ready(Ok(()))
    }
}

/// How long the statements of a dump are, and which tables it makes.
#[derive(Debug, Default)]
struct Statements {
    /// Bytes of the one that passes.
    now: u64,
    /// Bytes of the longest.
    longest: u64,
    last: u8,
    /// How the line that passes begins.
    begin: Vec<u8>,
    /// Tables and sequences.
    made: BTreeSet<String>,
}

/// As much of a line is kept as a statement with the longest name needs: 64 characters, each a backquote twice or of
/// four bytes.
const BEGIN: usize = 300;

impl Statements {
    /// A statement ends with the line; within values, `mariadb-dump` writes no line ends.
    fn pass(&mut self, bytes: &[u8]) {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.now += line.len() as u64;
            self.longest = self.longest.max(self.now);
            let ends = match line {
                [.., b';', b'\n'] => true,
                [b'\n'] => self.last == b';',
                _ => false,
            };
            if ends {
                self.now = 0;
            }
            self.last = line.last().copied().unwrap_or(self.last);
            let room = BEGIN.saturating_sub(self.begin.len());
            self.begin.extend(line.iter().take(room));
            if self.last == b'\n' {
                self.made.extend(made(&self.begin));
                self.begin.clear();
            }
        }
    }
}

/// The table or sequence that a line begins to make.
fn made(line: &[u8]) -> Option<String> {
    let kinds: [&[u8]; 2] = [b"CREATE TABLE ", b"CREATE SEQUENCE "];
    let rest = kinds.iter().find_map(|kind| line.strip_prefix(*kind))?;
    let rest = String::from_utf8_lossy(rest);
    unquoted(&rest).map(|(name, _)| name)
}

/// What a dump was, besides its text.
pub(super) struct Ended {
    /// What the program warned of.
    pub(super) said: Option<String>,
    /// Bytes of its longest statement.
    pub(super) longest: u64,
    /// The tables and sequences that it makes.
    pub(super) made: BTreeSet<String>,
}

/// What a restore of so long a statement takes, if that is more than the server has. Fails if no server takes it.
pub(super) async fn too_long(
    client: &Client<'_>,
    longest: u64,
) -> Result<Option<String>, PluginError> {
    let sql = "SELECT @@GLOBAL.max_allowed_packet;";
    let limit = client.ask::<u64>(sql).await?;
    longer(longest, limit.first().copied().unwrap_or(0))
}

fn longer(longest: u64, limit: u64) -> Result<Option<String>, PluginError> {
    let advice = "binary data take two bytes for each";
    if longest >= LONGEST {
        return Err(PluginError::new(format!(
            "a row takes a statement of {longest} bytes in the dump, and no server takes back {LONGEST} or more ({advice}): keep such data in files, or in several rows"
        )));
    }
    Ok((longest >= limit).then(|| {
        format!(
            "a row takes a statement of {longest} bytes in the dump ({advice}), and the server takes less than {limit}: before a restore, set its max_allowed_packet to more than {longest} (SET GLOBAL max_allowed_packet = …; at most {LONGEST})"
        )
    }))
}

/// Runs `mariadb-dump` and hands what it prints to `take`. Fails unless all of it came: the program must end well, and
/// its last line must say so; a dump that was cut short is none. Answers with what `take` does, and what the dump was.
pub(super) async fn dump<T, F, E>(
    client: &Client<'_>,
    arguments: &[String],
    cancel: &CancellationToken,
    take: impl FnOnce(Output<tokio::process::ChildStdout>) -> F,
) -> Result<(T, Ended), PluginError>
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
        statements: Statements::default(),
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
    let Statements { longest, made, .. } = output.statements;
    let ended = Ended {
        said,
        longest,
        made,
    };
    Ok((taken, ended))
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

/// Of views, which must not be there: what drops them in `mariadb-dump`'s way drops a table of the name too.
pub(super) fn views(database: &str, views: &[String]) -> Vec<String> {
    let options = [
        "--no-data",
        "--skip-triggers",
        "--skip-add-drop-table",
        "--",
        database,
    ];
    let mut arguments: Vec<_> = options.map(str::to_owned).into();
    arguments.extend_from_slice(views);
    arguments
}

#[cfg(test)]
mod tests {
    use super::{super::client::named, *};

    #[test]
    fn statements_are_measured_wherever_their_text_is_cut() {
        let text = b"-- x\nSET a;\nINSERT INTO t VALUES\n(1,'a;b'),\n(2,'c;');\nUNLOCK TABLES;\n";
        let longest = "INSERT INTO t VALUES\n(1,'a;b'),\n(2,'c;');\n".len() as u64;
        for size in 1..=text.len() {
            let mut statements = Statements::default();
            for piece in text.chunks(size) {
                statements.pass(piece);
            }
            assert_eq!(statements.longest, longest, "{size}");
        }
    }

    #[test]
    fn tables_that_a_dump_makes_are_known_wherever_its_text_is_cut() {
        let long = "ä".repeat(32) + &"`".repeat(32);
        let text = format!(
            "CREATE TABLE `a``b` (\n  `c` int COMMENT 'CREATE TABLE `no`'\n);\nINSERT INTO `a``b` VALUES\n('\\nCREATE TABLE `no` (');\nCREATE SEQUENCE `s` start with 1;\nCREATE TABLE {} (\n",
            named(&long)
        );
        let wanted = BTreeSet::from(["a`b".to_owned(), "s".to_owned(), long]);
        for size in 1..=text.len() {
            let mut statements = Statements::default();
            for piece in text.as_bytes().chunks(size) {
                statements.pass(piece);
            }
            assert_eq!(statements.made, wanted, "{size}");
        }
    }

    #[test]
    fn what_no_server_takes_back_is_refused() {
        assert_eq!(longer(1000, 1001).unwrap(), None);
        let warned = longer(1000, 1000).unwrap().unwrap_or_default();
        assert!(warned.contains("max_allowed_packet"), "{warned}");
        assert!(longer(LONGEST - 1, LONGEST).unwrap().is_none());
        longer(LONGEST, LONGEST).unwrap_err();
    }
}
