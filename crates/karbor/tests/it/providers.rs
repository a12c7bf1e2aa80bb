//! Providers' files: what an operator reads about them.

use std::fs;

use crate::house::{House, data, everything, out};

fn bank(house: &House, path: &str) -> String {
    format!(
        "[provider]\nname = Files\nid = 22222222-2222-4333-8444-555555555555\nenabled = true\n\
         bank = karbor-fs-bank-plugin\nplugin = karbor-noop-protection-plugin\n\
         [file_system_bank_plugin]\nfile_system_bank_path = {}\n",
        house.path(path).display()
    )
}

/// A provider that is off because of a slip of the pen would be missed only when it is needed.
#[test]
fn a_misspelt_option_of_a_provider_is_named() {
    let house = House::new();
    let misspelt = bank(&house, "bank").replace("enabled", "enabeld");
    house.provider("files.conf", &misspelt);
    let told = everything(&house.client(&["config", "validate"]));
    let wanted = "unknown option [provider] enabeld (did you mean 'enabled'?)";
    assert!(told.contains(wanted), "{told}");
}

/// A provider of plugins that are not here does no harm to the others, and is never silent.
#[test]
fn a_provider_without_its_plugins_is_told_and_the_others_serve() {
    let mut house = House::new();
    house.provider(
        "cloud.conf",
        &fs::read_to_string(data("providers.d/cloud.conf")).unwrap(),
    );
    house.provider("files.conf", &bank(&house, "bank"));
    let copies = bank(&house, "other")
        .replace("Files", "Copies")
        .replace("22222222", "33333333")
        .replace("bank = k", "copy_bank = karbor-s3-bank-plugin\nbank = k");
    house.provider("copies.conf", &copies);
    let validated = house.client(&["config", "validate"]);
    let told = out(&validated);
    assert!(validated.status.success(), "{told}");
    for part in [
        "warning: provider 'A cloud' in ",
        "/providers.d/cloud.conf is not usable: ",
        "line 10 names 'karbor-swift-bank-plugin' (a bank in OpenStack Swift), which is not here yet",
        "line 7 names 'karbor-volume-protection-plugin'",
        "line 8 names 'karbor-server-protection-plugin'",
        "warning: provider 'Copies' in ",
        "/providers.d/copies.conf is not usable: line 5 names 'karbor-s3-bank-plugin'",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(
        !told.contains("noop") && !told.contains("unknown option"),
        "{told}"
    );
    house.start();
    assert!(
        house.log().contains("provider 'A cloud'"),
        "{}",
        house.log()
    );
    let providers = house.json(&["provider", "list"]);
    let names: Vec<_> = providers
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(names, ["Files"]);
}

/// The original does not have it either: a slip of the pen.
#[test]
fn a_plugin_that_does_not_exist_is_told_with_its_place_and_what_was_meant() {
    let house = House::new();
    let misspelt = bank(&house, "bank").replace("karbor-noop-", "karbor-nop-");
    house.provider("files.conf", &misspelt);
    let told = out(&house.client(&["config", "validate"]));
    let wanted = "/providers.d/files.conf is not usable: line 6 names 'karbor-nop-protection-plugin', \
                  which does not exist (did you mean 'karbor-noop-protection-plugin'?)";
    assert!(told.contains(wanted), "{told}");
}

/// Declares an application with a component of two kinds.
fn shop(house: &House) {
    fs::create_dir(house.path("uploads")).unwrap();
    let database = house.path("sessions.db");
    fs::write(&database, "").unwrap();
    let text = format!(
        "name = \"shop\"\nprojects = [\"default\"]\n\
         [[directory]]\nname = \"uploads\"\npath = \"{}\"\n\
         [[sqlite]]\nname = \"sessions\"\npath = \"{}\"\n",
        house.path("uploads").display(),
        database.display()
    );
    fs::write(house.state().join("applications.d/shop.toml"), text).unwrap();
}

/// A plan may name it, and every protect of that plan is refused.
#[test]
fn a_component_that_a_provider_has_no_plugin_for_is_named() {
    let house = House::new();
    shop(&house);
    let validated = house.client(&["config", "validate"]);
    let told = everything(&validated);
    assert!(!told.contains("warning"), "the embedded has all: {told}");

    let some = "karbor-host-application-plugin\nplugin = karbor-host-directory-plugin";
    let text = bank(&house, "bank").replace("karbor-noop-protection-plugin", some);
    house.provider("files.conf", &text);
    // It protects no application and is not meant to.
    let other = bank(&house, "other")
        .replace("Files", "Other")
        .replace("22222222", "33333333");
    house.provider("other.conf", &other);
    let validated = house.client(&["config", "validate"]);
    let told = out(&validated);
    assert!(validated.status.success(), "{told}");
    for part in [
        "warning: ",
        "/applications.d/shop.toml: sqlite.sessions: provider 'Files' in ",
        "/providers.d/files.conf cannot protect it",
        "plugin = karbor-host-sqlite-plugin",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(told.matches("cannot protect it").count(), 1, "{told}");
}

#[test]
fn an_application_that_no_provider_protects_is_named() {
    let house = House::new();
    shop(&house);
    house.provider("files.conf", &bank(&house, "bank"));
    let told = out(&house.client(&["config", "validate"]));
    let wanted = "/applications.d/shop.toml: no provider protects applications";
    assert_eq!(told.matches(wanted).count(), 1, "{told}");
    assert!(!told.contains("cannot protect it"), "{told}");
}

#[test]
fn a_provider_that_is_not_enabled_is_not_told() {
    let house = House::new();
    let text = fs::read_to_string(data("providers.d/cloud.conf")).unwrap();
    house.provider("cloud.conf", &text.replace("enabled=True", "enabled=False"));
    house.provider(
        "files.conf",
        &bank(&house, "bank").replace("file_system_bank_path", "file_system_bank_pth"),
    );
    let told = everything(&house.client(&["config", "validate"]));
    assert!(!told.contains("A cloud"), "{told}");
}

#[test]
fn providers_are_found_beside_the_configuration_file() {
    let house = House::new();
    let etc = house.path("etc");
    fs::create_dir_all(etc.join("providers.d")).unwrap();
    fs::write(etc.join("karbor.conf"), "[DEFAULT]\n").unwrap();
    fs::write(etc.join("providers.d/files.conf"), bank(&house, "bank")).unwrap();
    let file = etc.join("karbor.conf");
    let told = out(&house.client(&[
        "config",
        "validate",
        "--config-file",
        file.to_str().unwrap(),
    ]));
    assert!(told.contains("1 provider, 0 applications in "), "{told}");
}
