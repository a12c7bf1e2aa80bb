//! The reference of options, for the documentation.

use std::{collections::BTreeMap, fmt::Write};

use karbor_model::{OptionDef, OptionKind};

/// Where options may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Places {
    /// In files, in the environment and on the command line.
    Anywhere,
    /// In files alone.
    Files,
}

/// Markdown: a table for each group, groups and options in order of their names, `DEFAULT` first.
#[must_use]
pub fn reference(options: &[OptionDef], places: Places) -> String {
    let mut groups: BTreeMap<(bool, &str), BTreeMap<&str, &OptionDef>> = BTreeMap::new();
    for option in options {
        groups
            .entry((option.group != "DEFAULT", option.group))
            .or_default()
            .insert(option.name, option);
    }
    let mut out = String::new();
    for ((_, group), options) in groups {
        // Writing into a String cannot fail.
        let _ = writeln!(out, "## [{group}]\n");
        let (title, line) = match places {
            Places::Anywhere => (" environment |", "---|"),
            Places::Files => ("", ""),
        };
        let _ = writeln!(
            out,
            "| option | kind | default |{title} what it is for |\n|---|---|---|{line}---|"
        );
        for (name, option) in options {
            let environment = match places {
                Places::Anywhere => format!(
                    " `OS_{}__{}` |",
                    group.to_ascii_uppercase(),
                    name.to_ascii_uppercase()
                ),
                Places::Files => String::new(),
            };
            let _ = writeln!(
                out,
                "| `{name}` | {} | {} |{environment} {}{} |",
                kind(option.kind),
                default(option),
                option.help.replace('|', "\\|").replace('\n', " "),
                if option.secret {
                    " Secret: never shown."
                } else {
                    ""
                },
            );
        }
        out.push('\n');
    }
    out
}

fn kind(kind: OptionKind) -> &'static str {
    match kind {
        OptionKind::Str => "text",
        OptionKind::Int => "integer",
        OptionKind::Bool => "boolean",
        OptionKind::Float => "number",
        OptionKind::List => "list",
        OptionKind::Path => "path",
        OptionKind::Seconds => "seconds",
    }
}

fn default(option: &OptionDef) -> String {
    match option.default {
        "" => "none".to_owned(),
        text => format!("`{}`", text.replace('|', "\\|")),
    }
}
