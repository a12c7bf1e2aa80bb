//! The reference of options, for the documentation.

use std::{collections::BTreeMap, fmt::Write};

use super::{OptionDef, OptionKind};

/// Markdown: a table for each group, groups and options in order of their names, `DEFAULT` first.
#[must_use]
pub fn reference(options: &[OptionDef]) -> String {
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
        let _ = writeln!(
            out,
            "| option | kind | default | environment | what it is for |"
        );
        let _ = writeln!(out, "|---|---|---|---|---|");
        for (name, option) in options {
            let _ = writeln!(
                out,
                "| `{name}` | {} | {} | `OS_{}__{}` | {}{} |",
                kind(option.kind),
                default(option),
                group.to_ascii_uppercase(),
                name.to_ascii_uppercase(),
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
