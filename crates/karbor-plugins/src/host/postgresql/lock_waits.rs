//! A limit for waits on locks, which names who holds them.
//!
//! `pg_dump` and `pg_restore` set `lock_timeout` to 0 themselves, and a view's definition is asked for
//! with a lock that no option of theirs limits. So the server is asked, from a session beside theirs,
//! what they wait for. A session that waits too long is ended on the server: a session that waits for a lock
//! does not notice that its program is gone, and everybody who comes later queues up behind it.

use std::time::{Duration, Instant};

use karbor_plugin::PluginError;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::client::Client;

/// How long a program may take to end once its session was ended.
const GRACE: Duration = Duration::from_secs(10);

/// A session of ours that waits for a lock.
#[derive(Debug, Deserialize)]
struct Wait {
    /// What it waits for, the same as long as it is the same lock.
    lock: String,
    /// The relation, if it is one of this database.
    relation: Option<String>,
    /// Who is in the way.
    holders: Vec<Holder>,
}

#[derive(Debug, Deserialize)]
struct Holder {
    /// 0: a prepared transaction.
    pid: i32,
    user: Option<String>,
    application: Option<String>,
    state: Option<String>,
    since: Option<String>,
}

const WAITS: &str = "SELECT coalesce(json_agg(json_build_object(
        'lock', concat_ws(' ', a.pid, l.locktype, l.database, l.relation, l.page, l.tuple,
            l.virtualxid, l.transactionid, l.classid, l.objid, l.objsubid, l.mode),
        'relation', CASE WHEN l.relation IS NOT NULL AND l.database =
            (SELECT oid FROM pg_database WHERE datname = current_database())
            THEN l.relation::regclass::text END,
        'holders', (SELECT coalesce(json_agg(json_build_object('pid', b.pid, 'user', s.usename,
                'application', s.application_name, 'state', s.state,
                'since', to_char(s.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC'))), '[]')
            FROM (SELECT DISTINCT unnest(pg_blocking_pids(a.pid)) AS pid) b
            LEFT JOIN pg_stat_activity s ON s.pid = b.pid))), '[]')
    FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid AND NOT l.granted
    WHERE a.application_name = :'session' AND a.pid <> pg_backend_pid();";

/// Does the work of a program that talks to `database`, until it is done, cancelled, or has waited for
/// one lock for longer than the declared limit. Its sessions have ended then.
///
/// # Errors
/// [`PluginError::cancelled`]; or who holds what was waited for.
pub(super) async fn watched<T>(
    client: &Client<'_>,
    database: &str,
    cancel: &CancellationToken,
    work: impl Future<Output = T>,
) -> Result<T, PluginError> {
    tokio::pin!(work);
    let error = tokio::select! {
        done = &mut work => return Ok(done),
        () = cancel.cancelled() => PluginError::cancelled(),
        error = stuck(client, database) => error,
    };
    if let Err(failed) = client.end_sessions(database).await {
        tracing::warn!(error = %failed, "sessions that are not needed any more could not be ended");
    }
    // Dropped then, which kills it.
    let _ = tokio::time::timeout(GRACE, work).await;
    Err(error)
}

/// Ends when one lock was waited for longer than the limit.
async fn stuck(client: &Client<'_>, database: &str) -> PluginError {
    let limit = client.lock_timeout();
    let pause = (limit / 8).clamp(Duration::from_millis(200), Duration::from_secs(5));
    let mut waiting: Vec<(String, Instant)> = Vec::new();
    loop {
        tokio::time::sleep(pause).await;
        let variables = [("session", client.session())];
        let found: Vec<Wait> = match client.ask_json(database, &variables, WAITS).await {
            Ok(found) => found,
            Err(error) => {
                // A server without room for one more session is no reason to give up a dump.
                tracing::warn!(%error, "whether a lock is waited for could not be asked");
                continue;
            }
        };
        waiting.retain(|(lock, _)| found.iter().any(|wait| wait.lock == *lock));
        for wait in found {
            match waiting.iter().find(|(lock, _)| *lock == wait.lock) {
                Some((_, since)) if since.elapsed() >= limit => return wait.error(limit),
                Some(_) => {}
                None => waiting.push((wait.lock, Instant::now())),
            }
        }
    }
}

impl Wait {
    fn error(&self, limit: Duration) -> PluginError {
        let what = match &self.relation {
            Some(relation) => format!("a lock on '{}'", shown(relation)),
            None => "a lock".to_owned(),
        };
        let holders: Vec<String> = self.holders.iter().map(Holder::told).collect();
        let who = match holders.is_empty() {
            true => "nobody says who holds it".to_owned(),
            false => format!("in the way: {}", holders.join("; ")),
        };
        PluginError::new(format!(
            "gave up after waiting {} s for {what}; {who}. End that session, or stop the application first \
             (its before_restore and quiesce commands can do that); 'lock_timeout' in the declaration is the limit",
            limit.as_secs_f64().ceil()
        ))
    }
}

impl Holder {
    fn told(&self) -> String {
        if self.pid == 0 {
            return "a prepared transaction (see pg_prepared_xacts)".to_owned();
        }
        session(
            self.pid,
            self.user.as_deref(),
            self.application.as_deref(),
            self.state.as_deref(),
            self.since.as_deref(),
        )
    }
}

/// A session as people look for it in `pg_stat_activity`. Not what it asks the server: that may be
/// nobody's business.
pub(super) fn session(
    pid: i32,
    user: Option<&str>,
    application: Option<&str>,
    state: Option<&str>,
    since: Option<&str>,
) -> String {
    let mut text = format!("session {pid}");
    let named = [
        (" of ", user),
        (" by ", application),
        (", ", state),
        (", its transaction began ", since),
    ];
    for (word, value) in named {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            text.push_str(word);
            text.push_str(&shown(value));
        }
    }
    text
}

/// A name from outside, on one line.
pub(super) fn shown(name: &str) -> String {
    let escaped = |c: char| match c {
        '\'' | '"' | '\\' => c.to_string(),
        c => c.escape_debug().to_string(),
    };
    name.chars().take(128).map(escaped).collect()
}
