//! From the text of a rule to its [`Check`].
//!
//! ```text
//! any  = all *("or" all)
//! all  = one *("and" one)
//! one  = "not" one | "(" any ")" | "@" | "!" | kind ":" value
//! ```
//!
//! Words are parted by white space, so a parenthesis belongs to the grammar only at the begin or end
//! of a word: `(project_id:%(project_id)s)`. An empty rule lets everybody through. So says
//! oslo.policy, whose parser turns what it cannot read into "nobody" and a line in the log; here it
//! is an error that says where, because a rule that was misread is not what its author wanted.

use super::check::{Check, Part, Subject, Template};

/// The longest rule, in bytes.
const MAX_LENGTH: usize = 64 * 1024;
/// The deepest nesting of parentheses and `not`.
const MAX_NESTING: usize = 100;

/// What is wrong with the text of a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RuleError(String);

fn wrong(reason: impl Into<String>) -> RuleError {
    RuleError(reason.into())
}

#[derive(Debug, Clone, PartialEq)]
enum Token<'a> {
    Open,
    Close,
    And,
    Or,
    Not,
    Check(&'a str),
}

impl std::str::FromStr for Check {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text.len() > MAX_LENGTH {
            return Err(wrong(format!("it is longer than {MAX_LENGTH} bytes")));
        }
        if text.is_empty() {
            return Ok(Self::Always);
        }
        let mut parser = Parser {
            tokens: tokens(text),
            at: 0,
            nesting: 0,
        };
        let check = parser.any()?;
        match parser.next() {
            None => Ok(check),
            Some(Token::Close) => Err(wrong("there is a ')' without its '('")),
            Some(token) => Err(wrong(format!(
                "'and' or 'or' is missing before {}",
                shown(Some(&token))
            ))),
        }
    }
}

impl Check {
    /// The old form of a rule: alternatives, each a list of checks that must all hold.
    ///
    /// # Errors
    /// When a check cannot be read.
    pub fn from_lists(alternatives: &[Vec<String>]) -> Result<Self, RuleError> {
        if alternatives.is_empty() {
            return Ok(Self::Always);
        }
        let mut any = Vec::with_capacity(alternatives.len());
        for checks in alternatives.iter().filter(|checks| !checks.is_empty()) {
            let all = checks.iter().map(|text| check(text));
            any.push(several(all.collect::<Result<_, _>>()?, Self::All));
        }
        Ok(match any.is_empty() {
            true => Self::Never,
            false => several(any, Self::Any),
        })
    }
}

fn several(mut checks: Vec<Check>, join: fn(Vec<Check>) -> Check) -> Check {
    if checks.len() == 1 {
        checks.swap_remove(0)
    } else {
        join(checks)
    }
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    // Python counts the information separators as white space, too.
    let is_space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
    for word in text.split(is_space).filter(|word| !word.is_empty()) {
        let clean = word.trim_start_matches('(');
        tokens.extend((clean.len()..word.len()).map(|_| Token::Open));
        let inner = clean.trim_end_matches(')');
        match inner.to_ascii_lowercase().as_str() {
            "" => {}
            "and" => tokens.push(Token::And),
            "or" => tokens.push(Token::Or),
            "not" => tokens.push(Token::Not),
            _ => tokens.push(Token::Check(inner)),
        }
        tokens.extend((inner.len()..clean.len()).map(|_| Token::Close));
    }
    tokens
}

fn shown(token: Option<&Token<'_>>) -> String {
    match token {
        None => "the end".to_owned(),
        Some(Token::Open) => "'('".to_owned(),
        Some(Token::Close) => "')'".to_owned(),
        Some(Token::And) => "'and'".to_owned(),
        Some(Token::Or) => "'or'".to_owned(),
        Some(Token::Not) => "'not'".to_owned(),
        Some(Token::Check(text)) => format!("'{text}'"),
    }
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    nesting: usize,
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn accept(&mut self, wanted: &Token<'_>) -> bool {
        let found = self.tokens.get(self.at) == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn any(&mut self) -> Result<Check, RuleError> {
        let mut checks = vec![self.all()?];
        while self.accept(&Token::Or) {
            checks.push(self.all()?);
        }
        Ok(several(checks, Check::Any))
    }

    fn all(&mut self) -> Result<Check, RuleError> {
        let mut checks = vec![self.one()?];
        while self.accept(&Token::And) {
            checks.push(self.one()?);
        }
        Ok(several(checks, Check::All))
    }

    fn one(&mut self) -> Result<Check, RuleError> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(wrong(format!("it is nested deeper than {MAX_NESTING}")));
        }
        let parsed = match self.next() {
            Some(Token::Not) => Check::Not(Box::new(self.one()?)),
            Some(Token::Open) => {
                let inner = self.any()?;
                match self.next() {
                    Some(Token::Close) => inner,
                    None => return Err(wrong("there is a '(' without its ')'")),
                    Some(token) => {
                        return Err(wrong(format!(
                            "'and' or 'or' is missing before {}",
                            shown(Some(&token))
                        )));
                    }
                }
            }
            Some(Token::Check(text)) => check(text)?,
            token => {
                return Err(wrong(format!(
                    "a check is missing before {}",
                    shown(token.as_ref())
                )));
            }
        };
        self.nesting -= 1;
        Ok(parsed)
    }
}

/// One check: `@`, `!` or `kind:value`.
fn check(text: &str) -> Result<Check, RuleError> {
    match text {
        "@" => return Ok(Check::Always),
        "!" => return Ok(Check::Never),
        _ => {}
    }
    let (kind, value) = text.split_once(':').ok_or_else(|| {
        wrong(format!(
            "'{text}' is no check: one is '@', '!' or 'kind:value', such as 'role:admin'"
        ))
    })?;
    match kind {
        "rule" => Ok(Check::Rule(value.to_owned())),
        "role" => Ok(Check::Role(template(value)?)),
        "http" | "https" => Err(wrong(format!(
            "'{text}' would ask another server for every request; this service does not. Say it \
             with roles and attributes"
        ))),
        kind => Ok(Check::Equal(subject(kind)?, template(value)?)),
    }
}

fn subject(written: &str) -> Result<Subject, RuleError> {
    let constant = |text: &str| Subject::Constant {
        written: written.to_owned(),
        text: text.to_owned(),
    };
    for quote in ['\'', '"'] {
        let inner = written.strip_prefix(quote);
        if let Some(inner) = inner.and_then(|inner| inner.strip_suffix(quote)) {
            if inner.contains(['\\', quote]) {
                break;
            }
            return Ok(constant(inner));
        }
    }
    let digits = written.strip_prefix('-').unwrap_or(written);
    let is_number = digits.bytes().all(|b| b.is_ascii_digit())
        && !digits.is_empty()
        && (written == "0" || !digits.starts_with('0'));
    if is_number || matches!(written, "True" | "False" | "None") {
        return Ok(constant(written));
    }
    let is_name = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    if written.split('.').all(is_name) {
        let path = written.split('.').map(str::to_owned);
        return Ok(Subject::Credential(path.collect()));
    }
    Err(wrong(format!(
        "'{written}' before ':' is neither an attribute of who asks (such as 'project_id') nor a \
         constant (such as 'member' in quotes, True or 5)"
    )))
}

fn template(text: &str) -> Result<Template, RuleError> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            plain.push('%');
            rest = after;
            continue;
        }
        let place = rest.strip_prefix('(').and_then(|r| r.split_once(")s"));
        let Some((key, after)) = place.filter(|(key, _)| !key.contains(['(', ')', '%'])) else {
            return Err(wrong(format!(
                "'{text}' has a '%' that begins no '%(name)s'; write '%%' for the sign itself"
            )));
        };
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain)));
        }
        parts.push(Part::Key(key.to_owned()));
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(Template(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        text.parse::<Check>()
            .map_or_else(|error| format!("error: {error}"), |check| check.to_string())
    }

    #[test]
    fn not_binds_before_and_before_or() {
        for (text, expected) in [
            ("", "@"),
            ("@", "@"),
            ("a:1 or b:2 and not c:3", "(a:1 or (b:2 and not c:3))"),
            (
                "a:1 and b:2 or c:3 AND d:4",
                "((a:1 and b:2) or (c:3 and d:4))",
            ),
            ("not (a:1 or b:2) and c:3", "(not (a:1 or b:2) and c:3)"),
            ("not not role:x", "not not role:x"),
            ("((project_id:%(project_id)s))", "project_id:%(project_id)s"),
            ("'member':%(target.role)s", "'member':%(target.role)s"),
            ("rule:a:b", "rule:a:b"),
        ] {
            assert_eq!(parsed(text), expected, "{text}");
        }
    }

    #[test]
    fn errors_say_what_is_missing() {
        for (text, expected) in [
            (" ", "a check is missing before the end"),
            ("and", "a check is missing before 'and'"),
            ("a:1 or", "a check is missing before the end"),
            ("(a:1", "there is a '(' without its ')'"),
            ("a:1)", "there is a ')' without its '('"),
            ("a:1 b:2", "'and' or 'or' is missing before 'b:2'"),
            ("(a:1 b:2)", "'and' or 'or' is missing before 'b:2'"),
            (
                "admin",
                "'admin' is no check: one is '@', '!' or 'kind:value', such as 'role:admin'",
            ),
            (
                "a:%(b",
                "'%(b' has a '%' that begins no '%(name)s'; write '%%' for the sign itself",
            ),
            (
                "[1]:x",
                "'[1]' before ':' is neither an attribute of who asks (such as 'project_id') nor a constant (such as 'member' in quotes, True or 5)",
            ),
            (
                "http://a/b",
                "'http://a/b' would ask another server for every request; this service does not. Say it with roles and attributes",
            ),
        ] {
            assert_eq!(parsed(text), format!("error: {expected}"), "{text}");
        }
        let deep = format!("{}a:1", "(".repeat(50_000));
        assert!(parsed(&deep).starts_with("error: it is nested deeper"));
        let long = "a:1 or ".repeat(10_000);
        assert!(parsed(&long).starts_with("error: it is longer"));
    }

    #[test]
    fn the_old_form_is_a_list_of_alternatives() {
        let lists = |lists: &[&[&str]]| {
            let lists: Vec<Vec<String>> = lists
                .iter()
                .map(|all| all.iter().map(|text| (*text).to_owned()).collect())
                .collect();
            Check::from_lists(&lists).map(|check| check.to_string())
        };
        assert_eq!(lists(&[]).unwrap(), "@");
        assert_eq!(lists(&[&[]]).unwrap(), "!");
        assert_eq!(
            lists(&[&["role:admin"], &["a:1", "b:2"]]).unwrap(),
            "(role:admin or (a:1 and b:2))"
        );
        assert!(lists(&[&["role"]]).is_err());
    }
}
