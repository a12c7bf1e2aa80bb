//! All rules together: the defaults, and what files say instead.

use std::collections::{BTreeMap, BTreeSet};

use saphyr::{LoadableYamlNode as _, MarkedYaml, Scalar, YamlData};
use serde_json::{Map, Value};

use super::{
    check::{Check, Facts, Target},
    defaults::DEFAULTS,
};

/// What is wrong with the text of a policy file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct LineError {
    /// Counted from 1.
    pub line: usize,
    /// What, and what to write instead.
    pub reason: String,
}

/// Rules by name. None refers to one that is not there, or through others to itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    checks: BTreeMap<String, Check>,
}

impl Default for Rules {
    fn default() -> Self {
        let parsed = DEFAULTS.iter().filter_map(|default| {
            let check = default.check.parse().ok()?;
            Some((default.name.to_string(), check))
        });
        Self {
            checks: parsed.collect(),
        }
    }
}

impl Rules {
    /// These rules, with those of a policy file in place of theirs. The file is a YAML mapping (so
    /// it may be JSON) from a rule's name to its text.
    ///
    /// # Errors
    /// [`LineError`] when the file cannot be understood, when a rule refers to one that does not
    /// exist or, through others, to itself.
    pub fn overridden(&self, text: &str) -> Result<Self, LineError> {
        let read = read(text)?;
        let mut checks = self.checks.clone();
        for (name, (_, check)) in &read {
            checks.insert(name.clone(), check.clone());
        }
        for (name, (line, _)) in &read {
            let wrong = |reason| LineError {
                line: *line,
                reason,
            };
            look_into(&checks, name, name, &mut BTreeSet::new()).map_err(wrong)?;
        }
        Ok(Self { checks })
    }

    /// Names that are neither ours nor used by another rule: misspelt, most likely.
    pub(super) fn unused(&self) -> Vec<&str> {
        let used: BTreeSet<_> = self.checks.values().flat_map(Check::references).collect();
        let names = self.checks.keys().map(String::as_str);
        names
            .filter(|name| DEFAULTS.iter().all(|default| default.name != *name))
            .filter(|name| !used.contains(name))
            .collect()
    }

    /// Does the rule let `credentials` do it to `target`? A rule that is not there lets nobody.
    #[must_use]
    pub fn allow(&self, name: &str, credentials: &Map<String, Value>, target: &dyn Target) -> bool {
        let facts = Facts {
            rule: &|name| self.checks.get(name),
            credentials,
            target,
        };
        let check = self.checks.get(name);
        check.and_then(|check| check.decide(&facts, 0)) == Some(true)
    }
}

/// Follows what `name` refers to.
fn look_into<'a>(
    checks: &'a BTreeMap<String, Check>,
    origin: &str,
    name: &'a str,
    way: &mut BTreeSet<&'a str>,
) -> Result<(), String> {
    let Some(check) = checks.get(name) else {
        return Err(format!(
            "rule '{origin}' refers to rule '{name}', which does not exist"
        ));
    };
    if !way.insert(name) {
        return Err(format!(
            "rule '{origin}' cannot be decided: rule '{name}' refers to itself"
        ));
    }
    for next in check.references() {
        look_into(checks, origin, next, way)?;
    }
    way.remove(name);
    Ok(())
}

type Read = BTreeMap<String, (usize, Check)>;

fn read(text: &str) -> Result<Read, LineError> {
    let documents = MarkedYaml::load_from_str(text).map_err(|error| LineError {
        line: error.marker().line(),
        reason: format!(
            "this is not YAML: {}. Put rules in quotes",
            error.info().trim()
        ),
    })?;
    let mut documents = documents.into_iter();
    let (Some(document), more) = (documents.next(), documents.next()) else {
        return Ok(Read::new());
    };
    let wrong = |node: &MarkedYaml<'_>, reason: String| LineError {
        line: node.span.start.line(),
        reason,
    };
    if let Some(more) = more {
        return Err(wrong(&more, "a second document begins here".to_owned()));
    }
    let pairs = match &document.data {
        YamlData::Mapping(pairs) => pairs,
        YamlData::Value(Scalar::Null) => return Ok(Read::new()),
        _ => {
            let reason = "give rules as '\"name\": \"rule\"', one a line".to_owned();
            return Err(wrong(&document, reason));
        }
    };
    let mut read = Read::new();
    for (key, value) in pairs {
        let name = string(key)
            .ok_or_else(|| wrong(key, "the name of a rule must be a text".to_owned()))?;
        let check = check(value).map_err(|why| wrong(value, format!("rule '{name}': {why}")))?;
        read.insert(name.to_owned(), (value.span.start.line(), check));
    }
    Ok(read)
}

fn string<'a>(node: &'a MarkedYaml<'_>) -> Option<&'a str> {
    match &node.data {
        YamlData::Value(Scalar::String(text)) => Some(text),
        _ => None,
    }
}

/// A rule is a text, or in the old form a list of alternatives.
fn check(node: &MarkedYaml<'_>) -> Result<Check, String> {
    let wanted = "a rule must be a text in quotes, such as \"role:admin\", \"@\" or \"!\"";
    if let Some(text) = string(node) {
        return text.parse::<Check>().map_err(|error| error.to_string());
    }
    let YamlData::Sequence(alternatives) = &node.data else {
        return Err(wanted.to_owned());
    };
    let alternatives: Option<Vec<Vec<String>>> = alternatives
        .iter()
        .map(|alternative| match &alternative.data {
            YamlData::Sequence(all) => all.iter().map(|c| string(c).map(str::to_owned)).collect(),
            // As in oslo.policy, an empty text is an empty list.
            _ => string(alternative).map(|text| match text {
                "" => Vec::new(),
                text => vec![text.to_owned()],
            }),
        })
        .collect();
    let alternatives = alternatives.ok_or_else(|| wanted.to_owned())?;
    Check::from_lists(&alternatives).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other}"),
        }
    }

    fn fails(text: &str) -> String {
        Rules::default().overridden(text).unwrap_err().to_string()
    }

    #[test]
    fn every_default_can_be_read_and_decided() {
        let rules = Rules::default();
        assert_eq!(rules.checks.len(), DEFAULTS.len());
        let mut written = String::new();
        for default in DEFAULTS.iter() {
            written.push_str(&format!("\"{}\": \"{}\"\n", default.name, default.check));
        }
        assert_eq!(rules.overridden(&written).unwrap(), rules);
        assert!(rules.unused().is_empty());
    }

    #[test]
    fn the_sample_uncommented_is_the_defaults() {
        let sample = super::super::sample();
        assert_eq!(
            Rules::default().overridden(&sample).unwrap(),
            Rules::default()
        );
        let lines = sample.lines().filter(|line| !line.starts_with("# "));
        let text: Vec<_> = lines.map(|line| line.trim_start_matches('#')).collect();
        let rules = Rules {
            checks: BTreeMap::new(),
        };
        assert_eq!(
            rules.overridden(&text.join("\n")).unwrap(),
            Rules::default()
        );
    }

    #[test]
    fn an_administrator_or_the_owner_may() {
        let rules = Rules::default();
        let target = map(json!({"project_id": "p"}));
        for (credentials, rule, allowed) in [
            (
                json!({"is_admin": true, "project_id": "q"}),
                "plan:get",
                true,
            ),
            (
                json!({"is_admin": false, "project_id": "q"}),
                "plan:get",
                false,
            ),
            (
                json!({"is_admin": false, "project_id": "p"}),
                "plan:get",
                true,
            ),
            (
                json!({"is_admin": false, "project_id": "p"}),
                "service:get_all",
                false,
            ),
            (
                json!({"is_admin": true, "project_id": "p"}),
                "service:get_all",
                true,
            ),
            (
                json!({"is_admin": true, "project_id": "p"}),
                "no:such",
                false,
            ),
            (json!({"roles": ["ADMIN"]}), "context_is_admin", true),
            (json!({"roles": ["member"]}), "context_is_admin", false),
        ] {
            let decided = rules.allow(rule, &map(credentials.clone()), &target);
            assert_eq!(decided, allowed, "{rule} {credentials}");
        }
    }

    #[test]
    fn json_is_yaml_and_lists_are_the_old_form() {
        let text =
            r#"{"plan:get": [["role:auditor"], "role:b"], "x": "role:c", "plan:create": "rule:x"}"#;
        let rules = Rules::default().overridden(text).unwrap();
        let target = Map::new();
        let may =
            |rule: &str, role: &str| rules.allow(rule, &map(json!({"roles": [role]})), &target);
        assert!(may("plan:get", "auditor") && may("plan:get", "B") && !may("plan:get", "c"));
        assert!(may("plan:create", "c") && !may("plan:create", "auditor"));
        assert!(rules.unused().is_empty());
    }

    #[test]
    fn a_broken_file_is_told_with_its_line() {
        for (text, expected) in [
            (
                "a: b\n",
                "line 1: rule 'a': 'b' is no check: one is '@', '!' or 'kind:value', such as 'role:admin'",
            ),
            (
                "\n\n\"plan:get\": \"role:a or\"",
                "line 3: rule 'plan:get': a check is missing before the end",
            ),
            (
                "- a",
                "line 1: give rules as '\"name\": \"rule\"', one a line",
            ),
            ("1: 'role:a'", "line 1: the name of a rule must be a text"),
            (
                "a: 'role:a'\nb: 5",
                "line 2: rule 'b': a rule must be a text in quotes, such as \"role:admin\", \"@\" or \"!\"",
            ),
            (
                "a:\n",
                "line 1: rule 'a': a rule must be a text in quotes, such as \"role:admin\", \"@\" or \"!\"",
            ),
            (
                "a: 'rule:b'",
                "line 1: rule 'a' refers to rule 'b', which does not exist",
            ),
            (
                "x: '@'\na: 'not rule:b'\nb: 'role:c and rule:a'",
                "line 2: rule 'a' cannot be decided: rule 'a' refers to itself",
            ),
            (
                "admin_api: 'rule:service:update'",
                "line 1: rule 'admin_api' cannot be decided: rule 'admin_api' refers to itself",
            ),
        ] {
            assert_eq!(fails(text), expected, "{text}");
        }
        assert!(fails("a: 'role:a'\na: 'role:b'").starts_with("line 2: this is not YAML: "));
        assert!(fails("a: 'role:a'\nb: @").starts_with("line 2: this is not YAML: "));
        assert!(fails("a: 'role:a'\nb: !").starts_with("line 2: "));
        assert!(fails("a: 'role:a'\n---\nb: 'role:b'").contains("a second document"));
        assert!(Rules::default().overridden("# nothing\n").is_ok());
        assert!(Rules::default().overridden("").is_ok());
    }
}
