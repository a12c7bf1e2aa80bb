use std::{path::PathBuf, time::Duration};

use karbor_manager::{
    Config, ConfigBuilder, OptionDef, OptionKind,
    config::{IdleOptions, Places, reference},
};
use serde_json::json;
use tempfile::TempDir;

const fn option(
    group: &'static str,
    name: &'static str,
    kind: OptionKind,
    default: &'static str,
) -> OptionDef {
    OptionDef {
        group,
        name,
        kind,
        default,
        help: "What it is for.",
        secret: false,
    }
}

const OPTIONS: &[OptionDef] = &[
    option("DEFAULT", "state", OptionKind::Path, "/var/lib/karbor"),
    option("DEFAULT", "workers", OptionKind::Int, ""),
    option("DEFAULT", "debug", OptionKind::Bool, "false"),
    option("DEFAULT", "ratio", OptionKind::Float, "0.5"),
    option("DEFAULT", "wait", OptionKind::Seconds, "1.5"),
    option("bank", "path", OptionKind::Str, "$state/bank"),
    option("bank", "plugins", OptionKind::List, "one, two"),
    OptionDef {
        secret: true,
        ..option("database", "password", OptionKind::Str, "")
    },
    option(
        "database",
        "url",
        OptionKind::Str,
        "mysql://karbor:hunter2@db/karbor?x=1",
    ),
];

fn builder() -> ConfigBuilder {
    Config::builder().options(OPTIONS)
}

struct File(#[allow(dead_code)] TempDir, PathBuf);

fn file(text: &str) -> File {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("karbor.conf");
    std::fs::write(&path, text).unwrap();
    File(folder, path)
}

fn error_of(text: &str) -> String {
    let file = file(text);
    let error = builder().file(&file.1).build().err().unwrap();
    error.to_string().replace(file.1.to_str().unwrap(), "FILE")
}

#[test]
fn defaults_are_typed() {
    let config = builder().build().unwrap();
    assert_eq!(
        config.path("DEFAULT", "state").unwrap(),
        PathBuf::from("/var/lib/karbor")
    );
    assert!(!config.is_set("DEFAULT", "workers").unwrap());
    assert!(!config.bool("DEFAULT", "debug").unwrap());
    assert_eq!(config.float("DEFAULT", "ratio").unwrap(), 0.5);
    assert_eq!(
        config.seconds("DEFAULT", "wait").unwrap(),
        Duration::from_millis(1500)
    );
    assert_eq!(config.str("bank", "path").unwrap(), "/var/lib/karbor/bank");
    assert_eq!(config.list("bank", "plugins").unwrap(), ["one", "two"]);
    assert_eq!(config.str("database", "password").unwrap(), "");
}

#[test]
fn asking_for_what_nobody_declared_or_set_is_an_error() {
    let config = builder().build().unwrap();
    let undeclared = config.str("bank", "nothing").unwrap_err().to_string();
    assert_eq!(undeclared, "there is no option 'nothing' in group [bank]");
    let unset = config.int("DEFAULT", "workers").unwrap_err().to_string();
    assert!(
        unset.contains("'workers' in group [DEFAULT] is not set"),
        "{unset}"
    );
    assert!(config.int("bank", "path").is_err());
}

#[test]
fn the_later_layer_wins_and_says_so() {
    let first = file("[DEFAULT]\nworkers = 1\nratio = 1\nwait = 1\ndebug = yes\n");
    let second = file("[DEFAULT]\nratio = 2\nwait = 2\n");
    let variables = [
        ("OS_DEFAULT__WAIT", "3"),
        ("OS_AUTH_URL", "x"),
        ("HOME", "/"),
    ];
    let config = builder()
        .file(&first.1)
        .file(&second.1)
        .env(variables.map(|(name, value)| (name.to_owned(), value.to_owned())))
        .set("DEFAULT", "debug", "off")
        .build()
        .unwrap();
    assert_eq!(config.int("DEFAULT", "workers").unwrap(), 1);
    assert_eq!(config.float("DEFAULT", "ratio").unwrap(), 2.0);
    assert_eq!(
        config.seconds("DEFAULT", "wait").unwrap(),
        Duration::from_secs(3)
    );
    assert!(!config.bool("DEFAULT", "debug").unwrap());

    let effective = config.effective();
    let source = |name: &str| {
        effective["DEFAULT"][name]["source"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(source("state"), "default");
    assert_eq!(source("ratio"), format!("file {}", second.1.display()));
    assert_eq!(source("wait"), "environment OS_DEFAULT__WAIT");
    assert_eq!(source("debug"), "override");
    assert_eq!(effective["DEFAULT"]["wait"]["value"], json!(3.0));
}

#[test]
fn repeated_options_add_to_a_list_and_replace_anything_else() {
    let file = file("[bank]\nplugins = a,b\nplugins = c\npath = x\npath = y\n[bank]\nplugins=d");
    let config = builder().file(&file.1).build().unwrap();
    assert_eq!(
        config.list("bank", "plugins").unwrap(),
        ["a", "b", "c", "d"]
    );
    assert_eq!(config.str("bank", "path").unwrap(), "y");
    let config = builder()
        .set("bank", "plugins", "x")
        .set("bank", "plugins", "y");
    let config = config.file(&file.1).build().unwrap();
    assert_eq!(config.list("bank", "plugins").unwrap(), ["x", "y"]);
}

#[test]
fn quotes_backslashes_and_continued_lines_are_left_as_they_are() {
    let file = file("[bank]\npath = \"C:\\new\"\nplugins =\n  a\n  b\n# remark\n; remark\n");
    let config = builder().file(&file.1).build().unwrap();
    assert_eq!(config.str("bank", "path").unwrap(), "\"C:\\new\"");
    assert_eq!(config.list("bank", "plugins").unwrap(), ["a", "b"]);
}

#[test]
fn options_refer_to_options() {
    let path = |text: &str| {
        let config = builder().set("bank", "path", text).build();
        config.map(|config| config.str("bank", "path").unwrap().to_owned())
    };
    assert_eq!(path("$state/x").unwrap(), "/var/lib/karbor/x");
    assert_eq!(
        path("${state}x ${DEFAULT.ratio}.").unwrap(),
        "/var/lib/karborx 0.5."
    );
    assert_eq!(path("5$$ 6\\$ \\n").unwrap(), "5$ 6$ \\n");
    for (wrong, why) in [
        (
            "$nothing",
            "'$nothing' refers to an option that does not exist",
        ),
        ("100$", "'$$'"),
        ("${state", "'$$'"),
        ("$path", "refers to itself"),
    ] {
        let error = path(wrong).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(
            error.contains("'path' in group [bank] (override)"),
            "{error}"
        );
    }
}

#[test]
fn a_bad_value_is_told_with_file_group_option_and_what_was_expected() {
    assert_eq!(
        error_of("[DEFAULT]\nworkers = many\n"),
        "option 'workers' in group [DEFAULT] (file FILE): expected a whole number, found 'many'"
    );
    assert_eq!(
        error_of("[DEFAULT]\nwait = -1\n"),
        "option 'wait' in group [DEFAULT] (file FILE): expected a number of seconds, 0 or more, \
         found '-1'"
    );
    for wrong in ["debug = maybe", "ratio = NaN", "wait = inf", "wait = 1e300"] {
        let error = error_of(&format!("[DEFAULT]\n{wrong}\n"));
        assert!(error.contains("expected"), "{error}");
    }
}

#[test]
fn a_secret_is_in_no_error_and_in_no_report() {
    const SECRETS: &[OptionDef] = &[OptionDef {
        secret: true,
        ..option("a", "pin", OptionKind::Int, "")
    }];
    let builder = || Config::builder().options(SECRETS);
    let error = builder().set("a", "pin", "hunter2").build().err().unwrap();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    let error = builder()
        .set("a", "pin", "$hunter2 x")
        .build()
        .err()
        .unwrap();
    assert!(error.to_string().contains("does not exist"));
    let config = builder().set("a", "pin", "1234").build().unwrap();
    assert_eq!(config.effective()["a"]["pin"]["value"], json!("***"));
    assert_eq!(config.int("a", "pin").unwrap(), 1234);

    let url = &self::builder().build().unwrap().effective()["database"]["url"]["value"];
    assert_eq!(url, &json!("mysql://karbor:***@db/karbor?x=1"));
}

#[test]
fn unknown_options_are_named_and_are_no_error() {
    let file = file("[DEFAULT]\nwokers = 3\n[other]\nx = 1\n");
    let variables = [("OS_BANK__PTH", "x"), ("OS_OTHER__Y", "x")];
    let config = builder()
        .file(&file.1)
        .env(variables.map(|(name, value)| (name.to_owned(), value.to_owned())))
        .build()
        .unwrap();
    let path = file.1.display();
    assert_eq!(
        config.unknown(),
        [
            format!("[DEFAULT] wokers in {path} (did you mean 'workers'?)"),
            format!("[other] x in {path}"),
            "[bank] pth in the environment (OS_BANK__PTH) (did you mean 'path'?)".to_owned()
        ]
    );
    assert!(config.idle().is_empty());
    assert!(builder().set("DEFAULT", "wokers", "3").build().is_err());
}

#[test]
fn options_that_do_nothing_here_are_told_apart_from_misspelt_ones() {
    const IDLE: &[IdleOptions] = &[
        IdleOptions {
            group: "DEFAULT",
            names: &["topic", "workers"],
            why: "there is one process",
        },
        IdleOptions {
            group: "nova",
            names: &[],
            why: "it is not here",
        },
    ];
    let text = "[DEFAULT]\ntopic = t\nworkers = 3\n[nova]\nx = 1\n[bank]\npath = /srv/$topic\n";
    let file = file(text);
    let config = builder().idle(IDLE).file(&file.1).build().unwrap();
    let path = file.1.display();
    assert_eq!(
        config.idle(),
        [
            format!("[DEFAULT] topic in {path}: no effect, because there is one process"),
            format!("[nova] x in {path}: no effect, because it is not here"),
        ]
    );
    assert!(config.unknown().is_empty());
    // What is declared works, whatever is said of it; what does nothing may be referred to.
    assert_eq!(config.int("DEFAULT", "workers").unwrap(), 3);
    assert_eq!(config.str("bank", "path").unwrap(), "/srv/t");
}

#[test]
fn files_that_cannot_be_read_are_told_with_their_place() {
    assert!(error_of("workers = 3\n").contains("add [DEFAULT]"));
    let garbage = error_of("[DEFAULT]\nthis is no option\nworkers = 3\n");
    assert!(
        garbage.contains("'this is no option' is not of the form name = value"),
        "{garbage}"
    );
    assert!(error_of("[DEFAULT\nworkers = 3\n").contains("cannot be understood"));
    let error = builder()
        .file("/nonexistent/karbor.conf")
        .build()
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .contains("/nonexistent/karbor.conf cannot be read")
    );
}

#[test]
fn two_crates_may_share_an_option_but_not_disagree_on_it() {
    assert!(builder().options(OPTIONS).build().is_ok());
    let other = [option("DEFAULT", "ratio", OptionKind::Float, "0.7")];
    let error = builder().options(&other).build().err().unwrap();
    assert!(error.to_string().contains("declared twice"));
}

#[test]
fn the_reference_names_every_option() {
    let text = reference(OPTIONS, Places::Anywhere);
    assert!(text.starts_with("## [DEFAULT]\n"));
    let line = "| `wait` | seconds | `1.5` | `OS_DEFAULT__WAIT` | What it is for. |";
    assert!(text.contains(line), "{text}");
    assert!(
        text.contains("What it is for. Secret: never shown."),
        "{text}"
    );
    for option in OPTIONS {
        assert!(
            text.contains(&format!("| `{}` |", option.name)),
            "{}",
            option.name
        );
    }
    let text = reference(OPTIONS, Places::Files);
    let line = "| `wait` | seconds | `1.5` | What it is for. |";
    assert!(text.contains(line), "{text}");
    assert!(!text.contains("OS_"), "{text}");
}
