//! The levels of the house, checked (`docs/architecture.md` has the drawing).
//!
//! A crate may import crates of lower levels only, so two of one level never see each other, and
//! what one service asks of another goes through `karbor-interfaces`. Heavy libraries have one room
//! each: what the rest of the house sees of them is the crate that wraps them. Tests may look
//! further: a dev-dependency may also be one of [`TEST_HELP`].

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{failure::Failure, shell};

/// Every crate and its level.
const LEVELS: &[(&str, u8)] = &[
    ("karbor-model", 0),
    ("karbor-manager", 1),
    ("karbor-plugin", 1),
    ("karbor-fs", 1),
    ("karbor-db", 2),
    ("karbor-interfaces", 2),
    ("karbor-notification", 3),
    ("karbor-vault", 2),
    ("karbor-flow", 2),
    ("karbor-identity", 2),
    ("karbor-banks", 2),
    ("karbor-plugins", 3),
    ("karbor-protection", 3),
    ("karbor-operationengine", 3),
    ("karbor-api", 3),
    ("karbor-cli", 3),
    ("karbor", 4),
    // Of no level: nothing that is shipped may import them.
    ("karbor-testkit", DEV),
    ("xtask", DEV),
];

const DEV: u8 = u8::MAX;

/// What tests of any crate may use besides what the crate itself may.
const TEST_HELP: &[&str] = &["karbor-testkit", "karbor-banks", "karbor-plugins"];

/// Crates that see less of the house than their level would let them.
const NARROW: &[(&str, &[&str])] = &[("karbor-cli", &["karbor-model"])];

/// Libraries that have one room, and who that is.
const ROOMS: &[(&str, &[&str])] = &[
    ("sea-orm", &["karbor-db"]),
    ("sea-orm-migration", &["karbor-db"]),
    ("sqlx", &["karbor-db"]),
    ("axum", &["karbor-api"]),
    ("tower", &["karbor-api"]),
    ("tower-http", &["karbor-api"]),
    ("jsonschema", &["karbor-api", "karbor-protection"]),
    (
        "reqwest",
        &["karbor-cli", "karbor-identity", "karbor-notification"],
    ),
    ("comfy-table", &["karbor-cli"]),
    ("indicatif", &["karbor-cli"]),
    ("clap", &["karbor-cli", "karbor", "xtask"]),
    ("clap_complete", &["karbor"]),
    ("clap_mangen", &["karbor"]),
    ("rusqlite", &["karbor-plugins", "karbor"]),
    ("rrule", &["karbor-operationengine"]),
    ("icalendar", &["karbor-operationengine"]),
    ("croner", &["karbor-operationengine"]),
    ("fastcdc", &["karbor-vault"]),
    ("zstd", &["karbor-vault"]),
    ("aes", &["karbor-vault"]),
    ("poly1305", &["karbor-vault"]),
    ("scrypt", &["karbor-vault"]),
    ("rust-ini", &["karbor-manager", "karbor-protection"]),
];

/// Checks the workspace and prints the edges that offend.
pub(crate) fn run() -> Result<(), Failure> {
    let offences = offences(&shell::metadata()?);
    for offence in &offences {
        eprintln!("levels: {offence}");
    }
    if offences.is_empty() {
        println!("levels: {} crates, every import goes down", LEVELS.len());
        Ok(())
    } else {
        Err(format!("{} imports break the levels", offences.len()).into())
    }
}

/// What is wrong with the workspace that `cargo metadata` describes, one sentence each.
fn offences(metadata: &Value) -> Vec<String> {
    let levels: BTreeMap<&str, u8> = LEVELS.iter().copied().collect();
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let mut offences = Vec::new();
    for package in &packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(&level) = levels.get(name) else {
            offences.push(format!(
                "{name} has no level: give it one in xtask/src/levels.rs"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let other = dependency["name"].as_str().unwrap_or_default();
            let is_dev = dependency["kind"].as_str() == Some("dev");
            offences.extend(match levels.get(other) {
                Some(&below) => inner_offence((name, level), (other, below), is_dev),
                None if is_dev => None,
                None => outer_offence(name, other),
            });
        }
    }
    offences
}

/// An import of one of our own crates.
fn inner_offence(
    (name, level): (&str, u8),
    (other, below): (&str, u8),
    is_dev: bool,
) -> Option<String> {
    if is_dev && (TEST_HELP.contains(&other) || below < level) {
        return None;
    }
    if let Some((_, allowed)) = NARROW.iter().find(|(narrow, _)| *narrow == name)
        && !allowed.contains(&other)
    {
        return Some(format!(
            "{name} -> {other}: {name} may see only {}",
            allowed.join(", ")
        ));
    }
    if below == DEV {
        return Some(format!("{name} -> {other}: {other} is for tests only"));
    }
    if level == DEV || below < level {
        return None;
    }
    Some(format!(
        "{name} (level {level}) -> {other} (level {below}): imports go down only"
    ))
}

/// An import of a library that has a room of its own elsewhere.
fn outer_offence(name: &str, library: &str) -> Option<String> {
    let (_, rooms) = ROOMS.iter().find(|(heavy, _)| *heavy == library)?;
    (!rooms.contains(&name)).then(|| {
        format!(
            "{name} -> {library}: only {} may use {library}",
            rooms.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workspace(name: &str, dependency: &str, kind: Option<&str>) -> Value {
        json!({"packages": [
            {"name": name, "dependencies": [{"name": dependency, "kind": kind}]}
        ]})
    }

    #[test]
    fn down_is_allowed_up_and_sideways_are_not() {
        assert!(offences(&workspace("karbor-db", "karbor-manager", None)).is_empty());
        assert!(offences(&workspace("karbor", "karbor-api", None)).is_empty());
        assert_eq!(
            offences(&workspace("karbor-manager", "karbor-db", None)),
            ["karbor-manager (level 1) -> karbor-db (level 2): imports go down only"]
        );
        assert_eq!(
            offences(&workspace("karbor-api", "karbor-protection", None)),
            ["karbor-api (level 3) -> karbor-protection (level 3): imports go down only"]
        );
    }

    #[test]
    fn a_build_dependency_counts_as_an_import() {
        assert_eq!(
            offences(&workspace("karbor-model", "karbor-db", Some("build"))).len(),
            1
        );
    }

    #[test]
    fn the_client_sees_the_model_only() {
        assert!(offences(&workspace("karbor-cli", "karbor-model", None)).is_empty());
        assert_eq!(
            offences(&workspace("karbor-cli", "karbor-db", None)),
            ["karbor-cli -> karbor-db: karbor-cli may see only karbor-model"]
        );
    }

    #[test]
    fn tests_may_use_the_testkit_and_the_plugins_but_no_peer() {
        assert!(offences(&workspace("karbor-db", "karbor-testkit", Some("dev"))).is_empty());
        assert!(offences(&workspace("karbor-flow", "karbor-plugins", Some("dev"))).is_empty());
        assert_eq!(
            offences(&workspace("karbor-db", "karbor-testkit", None)),
            ["karbor-db -> karbor-testkit: karbor-testkit is for tests only"]
        );
        assert_eq!(
            offences(&workspace("karbor-api", "karbor-cli", Some("dev"))).len(),
            1
        );
    }

    #[test]
    fn heavy_libraries_stay_in_their_rooms() {
        assert!(offences(&workspace("karbor-db", "sqlx", None)).is_empty());
        assert!(offences(&workspace("karbor-flow", "sqlx", Some("dev"))).is_empty());
        assert_eq!(
            offences(&workspace("karbor-api", "sqlx", None)),
            ["karbor-api -> sqlx: only karbor-db may use sqlx"]
        );
        assert_eq!(
            offences(&workspace("karbor-protection", "rusqlite", None)),
            ["karbor-protection -> rusqlite: only karbor-plugins, karbor may use rusqlite"]
        );
    }

    #[test]
    fn a_crate_without_a_level_is_told_to_get_one() {
        assert_eq!(
            offences(&workspace("karbor-new", "serde", None)),
            ["karbor-new has no level: give it one in xtask/src/levels.rs"]
        );
    }
}
