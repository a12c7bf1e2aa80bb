//! What MariaDB's programs say, for people: the reason, and advice.

use std::process::ExitStatus;

use karbor_plugin::PluginError;

use crate::host::command::ending;

/// Why a program failed, in its own words and with advice.
pub(super) fn failure(program: &str, status: ExitStatus, said: &str) -> PluginError {
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
    let mut error = PluginError::new(text);
    if program != "mariadb" {
        error = error.with_cause(said);
    } // Else it quotes the statement: rows are not for the service's log either.
    let passing = [
        "ERROR 2002",
        "error: 2002",
        "ERROR 2003",
        "error: 2003",
        "ERROR 2013",
        "error 2013",
        "ERROR 1040",
        "error: 1040",
        "ERROR 1205",
        "ERROR 1213",
    ];
    error.retryable = passing.iter().any(|sign| said.contains(sign));
    error
}

/// The last line that speaks of an error. What quotes a value of a row is not for an operation log.
fn reason(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<_> = lines.collect();
    let speaks = |line: &&str| {
        line.contains("ERROR ") || line.contains("rror: ") || line.contains("Couldn't")
    };
    // What is quoted of a statement may have more lines, which may speak of errors too.
    let is_of_client = |line: &&str| {
        let number = line.strip_prefix("ERROR ");
        number.is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
    };
    let mut of_client = lines.iter().rev().copied().filter(is_of_client);
    let mut of_errors = lines.iter().rev().copied().filter(speaks);
    let found = of_client.next().or_else(|| of_errors.next());
    let found = found.or_else(|| lines.last().copied());
    let found = found.unwrap_or_default();
    // The rest is text of the dump.
    let found = match found.contains("ERROR 1064") {
        true => found.split(" near '").next().unwrap_or(found),
        false => found,
    };
    let quotes_rows = [
        "(23000)",
        "(22001)",
        "(22003)",
        "(22007)",
        "(01000)",
        "(HY000) at line",
    ];
    let is_of_rows = quotes_rows.iter().any(|state| found.contains(state))
        && [
            "uplicate entry",
            "ncorrect ",
            "too long",
            "ut of range",
            "truncated",
        ]
        .iter()
        .any(|word| found.contains(word));
    match found.split_once("): ").or_else(|| found.split_once(": ")) {
        Some((number, _)) if is_of_rows => {
            let number = number.split(" at line").next().unwrap_or(number);
            format!("{number}: the server refused a row")
        }
        _ => cut(found),
    }
}

/// The end of what a program said.
pub(super) fn last_lines(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<_> = lines.collect();
    cut(&lines[lines.len().saturating_sub(2)..].join("; "))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

const TOO_LONG: &str = "Either the server went down, or a statement is longer than it takes: raise its max_allowed_packet (SET GLOBAL max_allowed_packet = …; the protect warned of the size), and restore again";

/// What to do about it.
fn advice(said: &str) -> &'static str {
    let advice = [
        (
            "ERROR 1242 (21000): Subquery returns",
            "Another run of this restore still works on the server, or has taken over: restore again when it has ended",
        ),
        (
            "Access denied for user",
            "Look at the declared user and password_file: is the account there, and may it do this?",
        ),
        (
            "command denied",
            "Grant the declared user that right (see the guide for the rights that protects and restores need)",
        ),
        (
            "you need (at least one of)",
            "Grant the declared user that right (see the guide for the rights that protects and restores need)",
        ),
        (
            "Can't connect to",
            "Is the server running, and the declared socket or host right?",
        ),
        ("ERROR 2006", TOO_LONG),
        ("ERROR 1153", TOO_LONG),
        (
            "Lock wait timeout",
            "Somebody uses the database: stop the application first (its quiesce and before_restore commands can do that); 'lock_timeout' in the declaration is the limit",
        ),
        (
            "is full",
            "The server has no more room: a restore needs room for the database twice",
        ),
        (
            "ERROR 1021",
            "The server has no more room: a restore needs room for the database twice",
        ),
        (
            "specified as a definer",
            "Make that account, or give the view, routine or event another definer: while it runs with the rights of an account that is not there, nobody can dump it",
        ),
        (
            "transaction-precise history",
            "No dump has such a history: give the table one by time (ROW START and ROW END of type TIMESTAMP), or keep it in another database",
        ),
        (
            "references invalid table",
            "Repair or drop that view first: while it is there, nobody can dump the database",
        ),
        (
            "Unknown storage engine",
            "Install that storage engine on the server first",
        ),
        (
            "Table definition has changed",
            "The database was changed while it was dumped: protect it again, or quiesce the application",
        ),
        (
            "unknown option",
            "Install MariaDB's client programs of version 10.11.8 or later, or declare bin_dir",
        ),
        (
            "ertificate",
            "Look at the declared ssl_ca, ssl_cert and ssl_key",
        ),
    ];
    let found = advice.iter().find(|(sign, _)| said.contains(sign));
    found.map_or("", |(_, text)| text)
}

/// A name from outside, on one line.
pub(super) fn shown(name: &str) -> String {
    let escaped = |c: char| match c {
        '\'' | '"' | '\\' => c.to_string(),
        c => c.escape_debug().to_string(),
    };
    name.chars().take(128).map(escaped).collect()
}

/// Some of a list, in quotes.
pub(super) fn some<T: AsRef<str>>(names: &[T]) -> String {
    let list = names.iter().take(5);
    let list: Vec<_> = list
        .map(|name| format!("'{}'", shown(name.as_ref())))
        .collect();
    match names.len().saturating_sub(5) {
        0 => list.join(", "),
        more => format!("{} and {more} more", list.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_table_do_not_reach_people() {
        for said in [
            "--------------\nINSERT INTO `t` VALUES ('anna@example.org')\n--------------\n\nERROR 1062 (23000) at line 7: Duplicate entry 'anna@example.org' for key 'PRIMARY'",
            "ERROR 1366 (22007) at line 9: Incorrect string value: '\\xF0anna' for column `shop`.`p`.`n` at row 2",
        ] {
            let reason = reason(said);
            assert!(reason.starts_with("ERROR 1"), "{reason}");
            assert!(!reason.contains("anna"), "{reason}");
        }
        for said in [
            "ERROR 1064 (42000) at line 3: You have an error in your SQL syntax; check the manual that corresponds to your MariaDB server version for the right syntax to use near 'anna@example.org'',1)' at line 1",
            "--------------\nINSERT INTO `t` VALUES ('x','anna\n--------------\n\nERROR 1064 (42000) at line 3: You have an error in your SQL syntax; check the manual for the right syntax to use near 'anna\nERROR of anna\nrror: anna' at line 1",
        ] {
            let reason = reason(said);
            assert!(
                reason.starts_with("ERROR 1064 (42000) at line 3: You have"),
                "{reason}"
            );
            assert!(!reason.contains("anna"), "{reason}");
        }
        let said = "mariadb-dump: Got error: 1045: \"Access denied for user 'x'@'localhost'\" when trying to connect";
        assert!(reason(said).contains("Access denied"));
        assert!(advice(said).contains("password_file"));
    }

    #[test]
    fn a_statement_that_is_too_long_is_not_tried_again() {
        for said in [
            "ERROR 2006 (HY000) at line 40: Server has gone away",
            "ERROR 1153 (08S01) at line 40: Got a packet bigger than 'max_allowed_packet' bytes",
        ] {
            let error = failure("mariadb", ExitStatus::default(), said);
            assert!(
                error.message.contains("raise its max_allowed_packet"),
                "{error}"
            );
            assert!(!error.retryable);
        }
    }

    #[test]
    fn statements_do_not_reach_the_log() {
        let said = "--------------\nINSERT INTO `t` VALUES ('anna@example.org')\n--------------\n\nERROR 2013 (HY000) at line 7: Lost connection to server during query";
        let error = failure("mariadb", ExitStatus::default(), said);
        assert!(error.message.contains("ERROR 2013") && error.retryable);
        assert!(!format!("{error:?}").contains("anna"), "{error:?}");
    }
}
