//! What PostgreSQL's programs say, for people: the reason, the server's own hints, and advice.

use std::process::ExitStatus;

use karbor_plugin::PluginError;

use crate::host::command::ending;

/// Why a program failed, in its own words and with advice.
pub(crate) fn failure(program: &str, status: ExitStatus, said: &str) -> PluginError {
    let reason = reason(said);
    let advice = advice(said);
    let separator = if advice.is_empty() { "" } else { ". " };
    let text = match reason.is_empty() {
        true => format!("{program} failed ({})", ending(status)),
        false => format!(
            "{program} failed ({}): {reason}{separator}{advice}",
            ending(status)
        ),
    };
    let mut error = PluginError::new(text).with_cause(said);
    let passing = [
        "Connection refused",
        "No such file or directory",
        "the database system is",
        "too many clients",
        "timeout expired",
        "terminating connection",
    ];
    error.retryable = passing.iter().any(|sign| said.contains(sign));
    error
}

/// The last line that speaks of an error, with the details and hints that follow it; the last line if
/// none does.
fn reason(said: &str) -> String {
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let speaks = |line: &&str| {
        ["error:", "ERROR:", "FATAL:", "PANIC:"]
            .iter()
            .any(|word| line.contains(word))
    };
    let Some(at) = lines.iter().rposition(speaks) else {
        return cut(lines.last().unwrap_or(&""));
    };
    let mut reason = cut(lines[at]);
    // A detail or hint may go on over lines of its own, until another part begins.
    let mut goes_on = false;
    for line in &lines[at + 1..] {
        goes_on = match more(line) {
            Some(text) => {
                reason.push_str("; ");
                reason.push_str(&cut(text));
                true
            }
            None if goes_on && !begins(line) => {
                reason.push_str(", ");
                reason.push_str(&cut(line));
                true
            }
            None => false,
        };
        if reason.len() > 1600 {
            break;
        }
    }
    reason
}

/// A detail or hint. Details that quote a row of a table are not for an operation log.
fn more(line: &str) -> Option<&str> {
    let text = ["DETAIL:", "HINT:", "detail:", "hint:"]
        .iter()
        .find_map(|word| line.split_once(word))
        .map(|(_, text)| text.trim())?;
    let row = text.starts_with("Key (") || text.starts_with("Failing row");
    (!row).then_some(text)
}

/// Does another part of a message begin here?
fn begins(line: &str) -> bool {
    let words = ["CONTEXT:", "Command was:", "LINE ", "STATEMENT:", "QUERY:"];
    words.iter().any(|word| line.starts_with(word))
        || [
            "DETAIL:", "HINT:", "detail:", "hint:", "warning:", "WARNING:",
        ]
        .iter()
        .any(|word| line.contains(word))
}

/// The end of what a program said.
pub(crate) fn last_lines(said: &str) -> String {
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    cut(&lines[lines.len().saturating_sub(2)..].join("; "))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What to do about it.
fn advice(said: &str) -> &'static str {
    let advice = [
        (
            "server version mismatch",
            "The server is newer than the programs: install client programs of its version and declare bin_dir",
        ),
        (
            "no password supplied",
            "Declare a passfile with the role's password",
        ),
        (
            "password authentication failed",
            "Look at the declared passfile: is the line for this server and role there, and its mode 0600?",
        ),
        (
            "does not support SSL",
            "The server speaks no TLS: declare sslmode = \"disable\" or \"prefer\"",
        ),
        (
            "no encryption",
            "If the server wants TLS for this role, declare sslmode = \"require\" or stricter",
        ),
        (
            "root certificate file",
            "Declare sslrootcert with the authority that signed the server's certificate",
        ),
        (
            "certificate verify failed",
            "Declare sslrootcert with the authority that signed the server's certificate",
        ),
        ("Connection refused", "Is the server running?"),
        (
            "No such file or directory",
            "Is the server running, and the declared host right?",
        ),
        (
            "max_locks_per_transaction",
            "A restore into a database that it makes itself needs no such locks: restore with 'swap', or under a new name with 'database'; else raise max_locks_per_transaction on the server",
        ),
        (
            "other objects depend on it",
            "Restore with 'swap', which puts the whole database back and keeps the present one under another name, or under a new name with 'database', or drop what is in the way",
        ),
        (
            "cannot run inside a transaction block",
            "Restore with 'swap', or under a new name with 'database': such objects cannot be replaced in place",
        ),
        (
            "permission denied to create database",
            "Give the declared user the right to make databases (ALTER ROLE … CREATEDB), or make an empty database first",
        ),
        (
            "permission denied",
            "The declared user needs the right to read everything it protects (and to be superuser for globals)",
        ),
        (
            "must be owner",
            "The declared user must own what is overwritten, or be superuser; 'no_owner' makes it own all that it restores",
        ),
        (
            "must be member of role",
            "Make the declared user a member of that role, or restore with 'no_owner'",
        ),
        (
            "must be able to SET ROLE",
            "Make the declared user a member of that role, or restore with 'no_owner'",
        ),
        (
            "lock timeout",
            "Somebody uses the database: stop the application first (its before_restore command can do that)",
        ),
        (
            "being accessed by other users",
            "End those sessions first (the application's before_restore command can do that), or restore with 'disconnect'",
        ),
        (
            "default_tablespace",
            "Make the tablespace first, or restore with 'no_tablespaces'",
        ),
        (
            "unrecognized configuration parameter",
            "The server is older than the one the dump was made from",
        ),
        (
            "is not available",
            "Install the package of the extension on the server",
        ),
        (
            "invalid locale name",
            "Install the locale on the server, or make an empty database with another one and restore into it",
        ),
    ];
    let found = advice.iter().find(|(sign, _)| said.contains(sign));
    let missing = |what: &str| {
        said.lines()
            .any(|line| line.contains(what) && line.contains("\" does not exist"))
    };
    match found {
        Some((_, text)) => text,
        None if missing("role \"") => "Make the role first, or restore with 'no_owner'",
        None if missing("tablespace \"") => {
            "Make the tablespace first, or restore with 'no_tablespaces'"
        }
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_s_hints_and_details_reach_the_person() {
        let said = "pg_restore: error: could not execute query: ERROR:  out of shared memory
HINT:  You might need to increase max_locks_per_transaction.
Command was: ALTER LARGE OBJECT 17 OWNER TO x;";
        let reason = reason(said);
        assert!(
            reason.ends_with(
                "out of shared memory; You might need to increase max_locks_per_transaction."
            ),
            "{reason}"
        );
        assert!(advice(said).contains("'swap'"));
        let said = "pg_restore: error: could not execute query: ERROR:  cannot drop table public.p because other objects depend on it
DETAIL:  constraint q_id_fkey on table public.q depends on table public.p
view public.v depends on table public.p
HINT:  Use DROP ... CASCADE to drop the dependent objects too.
Command was: DROP TABLE IF EXISTS public.p;";
        let reason = super::reason(said);
        assert!(
            reason.contains("depends on table public.p, view public.v depends"),
            "{reason}"
        );
        assert!(!reason.contains("Command was"), "{reason}");
        let said = "pg_dump: error: aborting because of server version mismatch
pg_dump: detail: server version: 99.1; pg_dump version: 15.1";
        assert!(super::reason(said).ends_with("; server version: 99.1; pg_dump version: 15.1"));
    }

    #[test]
    fn rows_of_a_table_do_not() {
        let said = "pg_restore: error: COPY failed for table \"t\": ERROR:  duplicate key value violates unique constraint \"t_pkey\"
DETAIL:  Key (email)=(anna@example.org) already exists.
CONTEXT:  COPY t, line 2";
        let reason = reason(said);
        assert!(reason.ends_with("\"t_pkey\""), "{reason}");
    }
}
