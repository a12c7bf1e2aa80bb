//! Any text is read or refused; what is read means what a naive evaluator says.

use karbor_api::policy::{Check, Rules};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A rule as a tree, and its value.
#[derive(Debug, Clone)]
enum Tree {
    Leaf(&'static str, bool),
    Not(Box<Tree>),
    And(Box<Tree>, Box<Tree>),
    Or(Box<Tree>, Box<Tree>),
}

const LEAVES: [(&str, bool); 12] = [
    ("@", true),
    ("!", false),
    ("role:member", true),
    ("role:MEMBER", true),
    ("role:admin", false),
    ("project_id:%(project_id)s", true),
    ("user_id:%(owner)s", false),
    ("'x':%(missing)s", false),
    ("is_admin:False", true),
    ("'started':%(status)s", true),
    ("rule:yes", true),
    ("rule:no", false),
];

impl Tree {
    fn value(&self) -> bool {
        match self {
            Self::Leaf(_, value) => *value,
            Self::Not(tree) => !tree.value(),
            Self::And(a, b) => a.value() & b.value(),
            Self::Or(a, b) => a.value() | b.value(),
        }
    }

    fn strength(&self) -> u8 {
        match self {
            Self::Or(..) => 0,
            Self::And(..) => 1,
            Self::Not(_) | Self::Leaf(..) => 2,
        }
    }

    /// With no more parentheses than are needed around what binds weaker than `least`.
    fn written(&self, least: u8) -> String {
        let text = match self {
            Self::Leaf(text, _) => (*text).to_owned(),
            Self::Not(tree) => format!("not {}", tree.written(2)),
            Self::And(a, b) => format!("{} AND {}", a.written(1), b.written(1)),
            Self::Or(a, b) => format!("{}  or\t{}", a.written(0), b.written(0)),
        };
        if self.strength() < least {
            format!("( {text})")
        } else {
            text
        }
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = proptest::sample::select(LEAVES.to_vec());
    leaf.prop_map(|(text, value)| Tree::Leaf(text, value))
        .prop_recursive(6, 40, 2, |inner| {
            let two = (inner.clone(), inner.clone());
            prop_oneof![
                inner.prop_map(|a| Tree::Not(Box::new(a))),
                two.clone()
                    .prop_map(|(a, b)| Tree::And(Box::new(a), Box::new(b))),
                two.prop_map(|(a, b)| Tree::Or(Box::new(a), Box::new(b))),
            ]
        })
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn decide(rule: &str) -> bool {
    let file = json!({"yes": "@", "no": "!", "rule": rule}).to_string();
    let rules = Rules::default().overridden(&file).unwrap();
    let credentials = json!({
        "roles": ["Member"], "project_id": "p", "user_id": "u", "is_admin": false,
    });
    let target = json!({"project_id": "p", "owner": "v", "status": "started"});
    rules.allow("rule", &object(credentials), &object(target))
}

proptest! {
    #[test]
    fn a_rule_means_what_a_naive_reading_says(tree in tree()) {
        prop_assert_eq!(decide(&tree.written(0)), tree.value(), "{}", tree.written(0));
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = text.parse::<Check>();
        let _ = Rules::default().overridden(&text);
    }

    /// Texts of the language's own words get further into the parser. What is read can be written
    /// and read again.
    #[test]
    fn what_is_read_can_be_written(words in proptest::collection::vec(
        proptest::sample::select(vec![
            "and", "or", "not", "(", ")", "((", "))", "@", "!", "role:a", "(a:%(b)s", "c.d:e)",
            "'x':%%", "rule:r", "5:%(n)s", ":", "a", "%", "a:%(", "\"y\":z", "None:x",
        ]),
        0..12,
    )) {
        if let Ok(check) = words.join(" ").parse::<Check>() {
            let again = check.to_string().parse();
            prop_assert_eq!(again, Ok(check));
        }
    }
}
