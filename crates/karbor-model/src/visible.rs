//! Text from outside, made fit to be shown: names of files, reasons of others, what a bank says.

use std::borrow::Cow;

/// Text with everything that could command a terminal or reorder what is read made visible: control characters and
/// Unicode's invisible and bidirectional marks. Line ends stay, for text that has lines.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && is_hidden(c))
}

/// As [`visible`], but one line whatever it holds: for log lines, names and rows.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden)
}

fn escaped(text: &str, is_bad: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_bad) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match is_bad(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Characters that are not seen, but change what is.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_commands_no_terminal_and_forges_no_line() {
        assert_eq!(visible("a\u{1b}[2Jb\rc"), "a\\u{1b}[2Jb\\rc");
        assert_eq!(visible("line\nline"), "line\nline");
        assert_eq!(one_line("line\nline\ttab"), "line\\nline\\ttab");
        assert_eq!(
            one_line("\u{9b}2J \u{202e}txt.exe"),
            "\\u{9b}2J \\u{202e}txt.exe"
        );
        for plain in ["Grüße.txt", "数据", "a b\\c", ""] {
            assert!(matches!(one_line(plain), Cow::Borrowed(same) if same == plain));
        }
    }

    proptest! {
        #[test]
        fn whatever_is_shown_is_one_line_of_plain_characters(text in any::<String>()) {
            prop_assert!(!one_line(&text).chars().any(is_hidden));
            prop_assert!(!visible(&text).chars().any(|c| c != '\n' && is_hidden(c)));
        }
    }
}
