//! Values in the words of Python: the original's messages and stored texts are its `str`, `repr`
//! and `json.dumps`, and clients match on them.

use std::fmt::Write as _;

use serde_json::Value;

/// A message never repeats more of a value than this many characters.
const LONGEST: usize = 500;

/// `str(value)`: a text as it is, anything else as [`repr`].
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => shorten(text.clone()),
        other => repr(other),
    }
}

/// `repr(value)`.
pub(crate) fn repr(value: &Value) -> String {
    let mut out = String::new();
    write_repr(&mut out, value);
    shorten(out)
}

/// `repr` of a text.
pub(crate) fn repr_str(text: &str) -> String {
    let mut out = String::new();
    write_repr_str(&mut out, text);
    shorten(out)
}

/// `str(value)` of a parameter, whole: parameters are kept as a dictionary of texts.
pub(crate) fn parameter(value: Value) -> Value {
    Value::String(match value {
        Value::String(text) => text,
        other => {
            let mut out = String::new();
            write_repr(&mut out, &other);
            out
        }
    })
}

/// `json.dumps(value)`: a space after each comma and colon.
pub(crate) fn json(value: &Value) -> String {
    let mut out = String::new();
    write_json(&mut out, value);
    out
}

/// The texts in a literal of Python: of a list, a tuple, a set or a single quoted text, which is what
/// clients write where one of several values will do. `None` for what is not such a literal. Numbers and
/// constants are the text that they were written as.
pub(crate) fn literals(text: &str) -> Option<Vec<String>> {
    let mut reader = Literals(text.trim());
    let close = match reader.0.chars().next()? {
        '[' => ']',
        '(' => ')',
        '{' => '}',
        _ => {
            let only = reader.quoted()?;
            return reader.0.is_empty().then(|| vec![only]);
        }
    };
    reader.0 = &reader.0[1..];
    let mut items = Vec::new();
    let mut comma = true;
    loop {
        reader.0 = reader.0.trim_start();
        if let Some(rest) = reader.0.strip_prefix(close) {
            // `{}` is a dictionary.
            let is_dictionary = close == '}' && items.is_empty();
            return (rest.is_empty() && !is_dictionary).then_some(items);
        }
        if !comma {
            return None;
        }
        items.push(reader.item()?);
        reader.0 = reader.0.trim_start();
        comma = reader.take(',');
    }
}

/// What is left of a literal.
struct Literals<'a>(&'a str);

impl Literals<'_> {
    fn take(&mut self, wanted: char) -> bool {
        match self.0.strip_prefix(wanted) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn item(&mut self) -> Option<String> {
        if let Some(text) = self.quoted() {
            return Some(text);
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_');
        let end = self.0.find(|c| !is_part(c)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        let known = matches!(word, "True" | "False" | "None") || word.parse::<f64>().is_ok();
        let begins = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.');
        // Rust reads "inf" as a number, Python does not.
        let known = known && (word.starts_with(begins) || word.starts_with(char::is_uppercase));
        self.0 = rest;
        known.then(|| word.to_owned())
    }

    /// A text in quotes, with what its escapes stand for. Nothing is taken where there is none.
    fn quoted(&mut self) -> Option<String> {
        let rest = self.0.strip_prefix(['u', 'U']).unwrap_or(self.0);
        let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let mut chars = rest[1..].chars();
        let mut text = String::new();
        loop {
            match chars.next()? {
                c if c == quote => {
                    self.0 = chars.as_str();
                    return Some(text);
                }
                '\\' => text.push(escaped(&mut chars)?),
                c => text.push(c),
            }
        }
    }
}

/// What stands after a backslash. Escapes that Python leaves alone are not needed by anybody.
fn escaped(chars: &mut std::str::Chars<'_>) -> Option<char> {
    let digits = match chars.next()? {
        'n' => return Some('\n'),
        't' => return Some('\t'),
        'r' => return Some('\r'),
        c @ ('\\' | '\'' | '"') => return Some(c),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => return None,
    };
    let code = chars.as_str().get(..digits)?;
    let code = u32::from_str_radix(code, 16).ok()?;
    chars.nth(digits - 1);
    char::from_u32(code)
}

fn shorten(text: String) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

// No depth limit is needed: the JSON parser refused anything deeper than 128.
fn write_repr(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(number) => {
            let _ = write!(out, "{number}");
        }
        Value::String(text) => write_repr_str(out, text),
        Value::Array(items) => {
            write_items(out, '[', ']', items, write_repr);
        }
        Value::Object(map) => write_items(out, '{', '}', map, |out, (key, value)| {
            write_repr_str(out, key);
            out.push_str(": ");
            write_repr(out, value);
        }),
    }
}

fn write_repr_str(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

fn write_json(out: &mut String, value: &Value) {
    match value {
        Value::Array(items) => {
            write_items(out, '[', ']', items, write_json);
        }
        Value::Object(map) => write_items(out, '{', '}', map, |out, (key, value)| {
            let _ = write!(out, "{}: ", Value::from(key.as_str()));
            write_json(out, value);
        }),
        scalar => {
            let _ = write!(out, "{scalar}");
        }
    }
}

fn write_items<I: IntoIterator>(
    out: &mut String,
    open: char,
    close: char,
    items: I,
    write: impl Fn(&mut String, I::Item),
) {
    out.push(open);
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        write(out, item);
    }
    out.push(close);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn speaks_python() {
        let value = json!({"a": [1, true, null, "it's", "x\u{1}"], "b": 1.5});
        assert_eq!(
            repr(&value),
            r#"{'a': [1, True, None, "it's", 'x\x01'], 'b': 1.5}"#
        );
        assert_eq!(text(&json!("plain")), "plain");
        assert_eq!(parameter(json!(true)), json!("True"));
        assert_eq!(
            super::json(&json!({"created_by": "manual", "n": [1, 2]})),
            r#"{"created_by": "manual", "n": [1, 2]}"#
        );
    }

    #[test]
    fn reads_what_python_writes_for_several_values() {
        for (literal, expected) in [
            ("['a', 'b']", Some(vec!["a", "b"])),
            (
                r#"["it's", u'\xe9\u20ac', '\\']"#,
                Some(vec!["it's", "é€", "\\"]),
            ),
            ("('a',)", Some(vec!["a"])),
            ("('a')", Some(vec!["a"])),
            (" {'a', 'b',} ", Some(vec!["a", "b"])),
            ("[1, -2.5, True]", Some(vec!["1", "-2.5", "True"])),
            ("[]", Some(vec![])),
            ("()", Some(vec![])),
            ("'started'", Some(vec!["started"])),
            // Not literals: a regular expression, a word, something broken or more than texts.
            ("[ab]", None),
            ("[0-9]", None),
            ("(a|b)", None),
            ("('a'|'b')", None),
            ("{}", None),
            ("{'a': 1}", None),
            ("started", None),
            ("['a'", None),
            ("['a' 'b']", None),
            ("[['a']]", None),
            ("[inf, nan]", None),
            ("['\\q']", None),
            ("['a'] x", None),
            ("[,]", None),
            ("'", None),
            ("", None),
        ] {
            let expected = expected.map(|texts| texts.into_iter().map(str::to_owned).collect());
            assert_eq!(literals(literal), expected, "{literal}");
        }
    }

    #[test]
    fn a_huge_value_is_not_repeated_whole() {
        assert!(repr(&json!("é".repeat(100_000))).len() < 1100);
    }
}
