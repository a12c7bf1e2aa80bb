//! What name and parameters tell a simulated operation to do.

use std::time::Duration;

use karbor_model::OperationType;
use karbor_plugin::{OperationContext, PluginError};
use serde_json::Value;

/// What to do.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Directives {
    pub(super) sleep: Duration,
    pub(super) bytes: u64,
    pub(super) fail: bool,
}

impl Directives {
    pub(super) fn of(context: &OperationContext) -> Result<Self, PluginError> {
        let mut directives = Self::default();
        for word in context.resource.name.split_whitespace() {
            directives.read_word(word, context.operation)?;
        }
        if let Some(value) = context.parameters.get("sleep") {
            directives.sleep = match value {
                Value::String(text) => seconds("sleep", text)?,
                other => seconds("sleep", &other.to_string())?,
            };
        }
        if let Some(value) = context.parameters.get("fail") {
            directives.fail |= truth(value)?;
        }
        Ok(directives)
    }

    fn read_word(&mut self, word: &str, operation: OperationType) -> Result<(), PluginError> {
        if let Some(failing) = word.strip_prefix("fail_") {
            self.fail |= failing == operation.as_str();
        } else if let Some(text) = word.strip_prefix("bytes=") {
            self.bytes = text.parse().map_err(|_| {
                PluginError::new(format!(
                    "'{word}' in the resource's name must give a number of bytes, like bytes=1048576"
                ))
            })?;
        } else if let Some(text) = word.strip_prefix("sleep=") {
            let duration = seconds(word, text)?;
            // As long as the original's harness: only making the checkpoint is slow.
            if operation == OperationType::Protect {
                self.sleep = duration;
            }
        }
        Ok(())
    }

    /// Fails if name or parameters said so.
    pub(super) fn fail_if_told(&self, context: &OperationContext) -> Result<(), PluginError> {
        if self.fail {
            return Err(PluginError::new(format!(
                "the simulated {} of '{}' was told to fail",
                context.operation, context.resource.name
            )));
        }
        Ok(())
    }
}

/// Does a name tell this hook of this operation to hold?
pub(super) fn holds(name: &str, operation: OperationType, hook: &str) -> bool {
    let wanted = format!("hold_{operation}_{hook}");
    name.split_whitespace().any(|word| word == wanted)
}

fn seconds(what: &str, text: &str) -> Result<Duration, PluginError> {
    let duration = text.trim().parse().ok().map(Duration::try_from_secs_f64);
    match duration {
        Some(Ok(duration)) => Ok(duration),
        _ => Err(PluginError::new(format!(
            "'{what}' must give a number of seconds, like sleep=2; it gives '{text}'"
        ))),
    }
}

fn truth(value: &Value) -> Result<bool, PluginError> {
    let text = match value {
        Value::String(text) => text.trim().to_ascii_lowercase(),
        other => other.to_string(),
    };
    match text.as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" | "" => Ok(false),
        _ => Err(PluginError::new(format!(
            "parameter 'fail' must be true or false; it is '{text}'"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(name: &str, operation: OperationType) -> Result<Directives, PluginError> {
        let mut directives = Directives::default();
        for word in name.split_whitespace() {
            directives.read_word(word, operation)?;
        }
        Ok(directives)
    }

    #[test]
    fn a_name_may_hold_several_words() {
        let read = read(
            "volume sleep=0.5 bytes=12 fail_protect fail_x",
            OperationType::Protect,
        );
        let wanted = Directives {
            sleep: Duration::from_millis(500),
            bytes: 12,
            fail: true,
        };
        assert_eq!(read.unwrap(), wanted);
    }

    #[test]
    fn each_failure_word_is_for_its_operation() {
        for (name, operation) in [
            ("fail_protect", OperationType::Protect),
            ("fail_restore", OperationType::Restore),
            ("fail_verify", OperationType::Verify),
            ("fail_delete", OperationType::Delete),
            ("fail_copy", OperationType::Copy),
        ] {
            assert!(read(name, operation).unwrap().fail, "{name}");
            assert_eq!(
                read(name, OperationType::Restore).unwrap().fail,
                operation == OperationType::Restore
            );
        }
    }

    #[test]
    fn a_name_may_hold_hooks_of_operations() {
        let name = "volume hold_protect_prepare_begin fail_delete hold_delete_undo";
        let every = [
            OperationType::Protect,
            OperationType::Restore,
            OperationType::Verify,
            OperationType::Delete,
        ];
        let hooks = [
            "prepare_begin",
            "prepare_finish",
            "main",
            "complete",
            "undo",
        ];
        let mut held = Vec::new();
        for operation in every {
            for hook in hooks {
                if holds(name, operation, hook) {
                    held.push((operation, hook));
                }
            }
        }
        assert_eq!(
            held,
            [
                (OperationType::Protect, "prepare_begin"),
                (OperationType::Delete, "undo")
            ]
        );
        for other in [
            "hold_",
            "hold_protect",
            "hold_protect_",
            "hold_protect_mainly",
            "protect_main",
        ] {
            assert!(!holds(other, OperationType::Protect, "main"), "{other}");
        }
    }

    #[test]
    fn only_protect_sleeps_by_name() {
        assert!(
            read("sleep=9", OperationType::Delete)
                .unwrap()
                .sleep
                .is_zero()
        );
    }

    #[test]
    fn nonsense_is_refused_and_named() {
        for name in [
            "sleep=x",
            "sleep=-1",
            "sleep=inf",
            "sleep=1e99",
            "bytes=-1",
            "bytes=",
        ] {
            let error = read(name, OperationType::Protect).unwrap_err();
            assert!(error.message.contains(name), "{error}");
        }
    }

    #[test]
    fn truth_comes_in_strings_numbers_and_booleans() {
        for value in [
            json!("true"),
            json!(true),
            json!(1),
            json!("1"),
            json!("True"),
        ] {
            assert!(truth(&value).unwrap(), "{value}");
        }
        for value in [json!("false"), json!(false), json!(0), json!("")] {
            assert!(!truth(&value).unwrap(), "{value}");
        }
        assert!(truth(&json!("perhaps")).is_err());
    }
}
