//! Names as restic keeps them: escaped as Go's `strconv.Quote` does, so that any bytes fit into JSON.

use std::fmt::Write;

/// Escapes a name.
pub(crate) fn quote(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            quote_char(c, &mut out);
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

fn quote_char(c: char, out: &mut String) {
    match c {
        '"' | '\\' => {
            out.push('\\');
            out.push(c);
        }
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        '\0'..='\x1f' | '\x7f' => {
            let _ = write!(out, "\\x{:02x}", u32::from(c));
        }
        _ => out.push(c),
    }
}

/// Undoes [`quote`], and whatever else Go's `strconv.Unquote` takes. `None`: the text is no quoted name.
pub(crate) fn unquote(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' | '\n' => return None,
            '\\' => unquote_escape(&mut chars, &mut out)?,
            _ => push(c, &mut out),
        }
    }
    Some(out)
}

fn push(c: char, out: &mut Vec<u8>) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

fn unquote_escape(chars: &mut std::str::Chars<'_>, out: &mut Vec<u8>) -> Option<()> {
    let escape = chars.next()?;
    match escape {
        'a' => out.push(7),
        'b' => out.push(8),
        'f' => out.push(12),
        'n' => out.push(b'\n'),
        'r' => out.push(b'\r'),
        't' => out.push(b'\t'),
        'v' => out.push(11),
        '\\' | '"' => push(escape, out),
        'x' => out.push(u8::try_from(number(chars, 2, 16, 0)?).ok()?),
        'u' => push(char::from_u32(number(chars, 4, 16, 0)?)?, out),
        'U' => push(char::from_u32(number(chars, 8, 16, 0)?)?, out),
        '0'..='7' => out.push(u8::try_from(number(chars, 2, 8, escape.to_digit(8)?)?).ok()?),
        _ => return None,
    }
    Some(())
}

fn number(chars: &mut std::str::Chars<'_>, digits: u32, radix: u32, first: u32) -> Option<u32> {
    (0..digits).try_fold(first, |value, _| {
        value
            .checked_mul(radix)?
            .checked_add(chars.next()?.to_digit(radix)?)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_look_as_go_quotes_them() {
        for (name, quoted) in [
            (&b"plain.txt"[..], "plain.txt"),
            (b"a\"b\\c", r#"a\"b\\c"#),
            (b"tab\tnew\nline\x07\x7f\x01", r"tab\tnew\nline\a\x7f\x01"),
            ("ünïcode 文".as_bytes(), "ünïcode 文"),
            (b"latin\xe9\xff", r"latin\xe9\xff"),
        ] {
            assert_eq!(quote(name), quoted);
            assert_eq!(unquote(quoted).unwrap(), name);
        }
        assert_eq!(unquote(r"\u00e9\U0001F600\101").unwrap(), "é😀A".as_bytes());
        for bad in [r"\", r"\q", r"\x1", r"\u12", r"\ud800", "\"", r"\777"] {
            assert!(unquote(bad).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_name_survives(name in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(unquote(&quote(&name)).unwrap(), name);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\\\\xuU0-9a-f\"é]{0,20}") {
            let _ = unquote(&text);
        }
    }
}
