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
    let mut error = PluginError::new(text).with_cause(said);
    let passing = [
        "ERROR 2002",
        "error: 2002",
        "ERROR 2003",
        "error: 2003",
        "ERROR 2006",
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
    let mut of_errors = lines.iter().rev().copied().filter(speaks);
    let found = of_errors.next().or_else(|| lines.last().copied());
    let found = found.unwrap_or_default();
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

/// What to do about it.
fn advice(said: &str) -> &'static str {
    let advice = [
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
        (
            "Lock wait timeout",
            "Somebody uses the database: stop the application first (its quiesce and before_restore commands can do that); 'lock_timeout' in the declaration is the limit",
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
        let said = "mariadb-dump: Got error: 1045: \"Access denied for user 'x'@'localhost'\" when trying to connect";
        assert!(reason(said).contains("Access denied"));
        assert!(advice(said).contains("password_file"));
    }
}
