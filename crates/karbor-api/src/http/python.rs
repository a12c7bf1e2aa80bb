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
    fn a_huge_value_is_not_repeated_whole() {
        assert!(repr(&json!("é".repeat(100_000))).len() < 1100);
    }
}
