//! Any text is a rule, a policy file, or refused; what was read can be written and read again.
#![no_main]

use karbor_api::policy::{Check, Rules};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(check) = text.parse::<Check>() {
        assert_eq!(check.to_string().parse().as_ref(), Ok(&check));
    }
    let _ = Rules::default().overridden(text);
});
