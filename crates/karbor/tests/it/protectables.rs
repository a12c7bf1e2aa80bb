//! What may be protected depends on who can.

use std::fs;

use crate::house::House;

/// As recorded (081): a service whose providers protect OpenStack's types offers these and no others.
#[test]
fn types_that_no_provider_protects_are_not_offered() {
    let mut house = House::new();
    let folder = house.state().join("providers.d");
    fs::create_dir_all(&folder).unwrap();
    let text = "[provider]\nname = Nothing\nid = 22222222-2222-4333-8444-555555555556\nenabled = true\n\
                bank = karbor-fs-bank-plugin\nplugin = karbor-noop-protection-plugin\n\
                [file_system_bank_plugin]\nfile_system_bank_path = ";
    let text = format!("{text}{}\n", house.bank().display());
    fs::write(folder.join("nothing.conf"), text).unwrap();
    house.start();
    let types = house.json(&["protectable", "list"]);
    let types = types.as_array().unwrap();
    assert_eq!(types.len(), 8, "{types:?}");
    for kind in types {
        let name = kind["name"].as_str().unwrap();
        assert!(name.starts_with("OS::"), "{name}");
    }
    let refused = house.client(&["protectable", "show", "Host::Directory"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("Invalid protectable type"), "{said}");
}
