//! `$option` and `${group.option}` in values; `$$` and `\$` are a dollar sign.

use std::collections::BTreeMap;

/// References within references, at most: more is a loop.
const DEPTH: usize = 16;

/// `text` with its references replaced. A name without a group is looked for in `group`, then in
/// `DEFAULT`.
///
/// # Errors
/// What is wrong with a reference; the text itself is not repeated, it may be secret.
pub(super) fn substitute(
    text: &str,
    group: &str,
    values: &BTreeMap<(&str, &str), String>,
) -> Result<String, String> {
    expand(text, group, values, DEPTH)
}

fn expand(
    text: &str,
    group: &str,
    values: &BTreeMap<(&str, &str), String>,
    depth: usize,
) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['$', '\\']) {
        out.push_str(&rest[..at]);
        let found = &rest[at..];
        if found.starts_with("$$") || found.starts_with("\\$") {
            out.push('$');
            rest = &found[2..];
        } else if let Some(after) = found.strip_prefix('\\') {
            out.push('\\');
            rest = after;
        } else {
            let (name, after) = reference(&found[1..])?;
            if depth == 0 {
                return Err(format!("'${name}' refers to itself"));
            }
            let (group, value) = look_up(name, group, values)?;
            out.push_str(&expand(value, group, values, depth - 1)?);
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The name at the beginning of `text`, and what follows it.
fn reference(text: &str) -> Result<(&str, &str), String> {
    const LONE: &str = "a '$' that begins no reference must be written '$$'";
    if let Some(inner) = text.strip_prefix('{') {
        return inner.split_once('}').ok_or_else(|| LONE.to_owned());
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
    // A full stop ends a sentence, not a name.
    let name = text[..end].trim_end_matches('.');
    if name.is_empty() {
        return Err(LONE.to_owned());
    }
    Ok((name, &text[name.len()..]))
}

fn look_up<'a>(
    name: &str,
    group: &'a str,
    values: &'a BTreeMap<(&str, &str), String>,
) -> Result<(&'a str, &'a str), String> {
    let find = |key: (&str, &str)| values.iter().find(|(other, _)| **other == key);
    let tries = match name.split_once('.') {
        Some((group, name)) => vec![(group, name)],
        None => vec![(group, name), ("DEFAULT", name)],
    };
    tries
        .into_iter()
        .find_map(find)
        .map(|((group, _), value)| (*group, value.as_str()))
        .ok_or_else(|| {
            format!("'${name}' refers to an option that does not exist; a '$' is written '$$'")
        })
}
