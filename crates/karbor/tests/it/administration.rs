//! Taking over from the original, and looking after what is there.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use crate::house::{House, data, everything, files, out};

/// Runs a program that may not be on this machine; then that is said, or it is a failure where nothing
/// may be passed over.
fn run_if_here(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            let program = command.get_program().display();
            let message = format!("{program} is not on this machine ({error})");
            let required = std::env::var("KARBOR_REQUIRE_SERVERS").is_ok_and(|value| value == "1");
            assert!(!required, "{message}, and KARBOR_REQUIRE_SERVERS=1");
            eprintln!("SKIPPED: {message}");
            None
        }
    }
}

#[test]
fn the_originals_configuration_is_understood() {
    let house = House::new();
    let file = data("karbor.conf");
    let validated = house.client(&[
        "config",
        "validate",
        "--config-file",
        file.to_str().unwrap(),
    ]);
    let told = everything(&validated);
    assert!(validated.status.success(), "{told}");
    assert!(!told.contains("unknown option"), "{told}");
    for idle in [
        "use_syslog",
        "transport_url",
        "osapi_karbor_workers",
        "rabbit_ha_queues",
    ] {
        assert!(told.contains(&format!("] {idle} in ")), "{idle}: {told}");
    }
    assert!(!told.contains("secret"), "{told}");

    let shown = house.client(&["config", "show", "--config-file", file.to_str().unwrap()]);
    let shown: serde_json::Value = serde_json::from_str(&out(&shown)).unwrap();
    assert_eq!(shown["DEFAULT"]["osapi_max_limit"]["value"], 500);
    assert_eq!(
        shown["DEFAULT"]["osapi_max_limit"]["source"],
        format!("file {}", file.display())
    );
    // --state-dir and its variable win over the file.
    assert_eq!(
        shown["DEFAULT"]["state_path"]["value"],
        house.state().to_str().unwrap()
    );
}

#[test]
fn a_misspelt_option_is_named_with_what_was_meant() {
    let house = House::new();
    let file = house.path("more.conf");
    fs::write(
        &file,
        "[DEFAULT]\nosapi_max_limt = 5\n[databse]\nconnection = x\n",
    )
    .unwrap();
    let arguments = [
        "config",
        "validate",
        "--config-file",
        file.to_str().unwrap(),
    ];
    let told = out(&house.client(&arguments));
    assert!(
        told.contains("osapi_max_limt") && told.contains("did you mean 'osapi_max_limit'?"),
        "{told}"
    );
    assert!(
        told.contains("did you mean 'connection' in [database]?"),
        "{told}"
    );
}

#[test]
fn later_files_win_and_folders_come_after_files() {
    let house = House::new();
    fs::write(
        house.state().join("karbor.conf"),
        "[DEFAULT]\nosapi_max_limit = 1\nreport_interval = 7\n",
    )
    .unwrap();
    let folder = house.path("conf.d");
    fs::create_dir(&folder).unwrap();
    let file = house.path("a.conf");
    fs::write(
        &file,
        "[DEFAULT]\nosapi_max_limit = 2\nperiodic_interval = 8\n",
    )
    .unwrap();
    fs::write(folder.join("1.conf"), "[DEFAULT]\nosapi_max_limit = 3\n").unwrap();
    fs::write(folder.join("2.conf"), "[DEFAULT]\nosapi_max_limit = 4\n").unwrap();
    fs::write(
        folder.join("ignored.txt"),
        "[DEFAULT]\nosapi_max_limit = 5\n",
    )
    .unwrap();
    let list = |option: &str| {
        let arguments = [
            "manage",
            "--config-dir",
            folder.to_str().unwrap(),
            "config",
            "list",
            option,
            "--config-file",
            file.to_str().unwrap(),
        ];
        house.text(&arguments)
    };
    assert_eq!(list("osapi_max_limit"), "osapi_max_limit = 4\n");
    assert_eq!(list("periodic_interval"), "periodic_interval = 8.0\n");
    assert_eq!(list("report_interval"), "report_interval = 7.0\n");
    assert_eq!(list("database.connection"), "database.connection =\n");
    let missing = house.client(&["manage", "config", "list", "osapi_max_limt"]);
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn the_state_directory_may_be_named_by_a_file() {
    let house = House::new();
    let elsewhere = house.path("elsewhere");
    let file = house.path("karbor.conf");
    fs::write(
        &file,
        format!("[DEFAULT]\nstate_path = {}\n", elsewhere.display()),
    )
    .unwrap();
    let synced = Command::new(env!("CARGO_BIN_EXE_karbor"))
        .args([
            "manage",
            "db",
            "sync",
            "--config-file",
            file.to_str().unwrap(),
        ])
        .env_remove("KARBOR_STATE_DIR")
        .status()
        .unwrap();
    assert!(synced.success());
    assert!(elsewhere.join("karbor.db").is_file());
}

#[test]
fn values_that_disagree_are_told() {
    let house = House::new();
    let text = "[DEFAULT]\nosapi_request_timeout = 20\nrpc_response_timeout = 60\n\
                [protection]\nmax_parallel_tasks = 0\n";
    fs::write(house.state().join("karbor.conf"), text).unwrap();
    let validated = house.client(&["config", "validate"]);
    let told = everything(&validated);
    assert_eq!(validated.status.code(), Some(1), "{told}");
    assert!(
        told.contains("osapi_request_timeout") && told.contains("max_parallel_tasks"),
        "{told}"
    );
    assert!(told.contains("2 to mend"), "{told}");
}

#[test]
fn intervals_that_are_too_short_for_the_windows_are_named() {
    let house = House::new();
    let text = "[DEFAULT]\nmin_interval = 60\n";
    fs::write(house.state().join("karbor.conf"), text).unwrap();
    for command in [&["config", "validate"][..], &["serve"]] {
        let refused = house.client(command);
        let told = everything(&refused);
        assert_eq!(refused.status.code(), Some(1), "{told}");
        assert!(told.contains("min_interval (60) must be"), "{told}");
    }
}

#[test]
fn a_database_that_cannot_be_opened_is_told_and_none_is_made() {
    let house = House::new();
    assert!(house.client(&["config", "validate"]).status.success());
    assert!(!house.state().join("karbor.db").exists());
    fs::write(house.state().join("karbor.db"), "this is no database").unwrap();
    let validated = house.client(&["config", "validate"]);
    assert_eq!(validated.status.code(), Some(1));
    assert!(out(&validated).contains("karbor.db"), "{}", out(&validated));
}

/// Every sample that the original ships, as it is.
#[test]
fn the_originals_samples_load() {
    let original = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../original/karbor-1.6.0");
    if !original.is_dir() {
        let message = "the original's source is not here: `cargo xtask test` fetches it";
        let required = std::env::var("KARBOR_REQUIRE_SERVERS").is_ok_and(|value| value == "1");
        assert!(!required, "{message}, and KARBOR_REQUIRE_SERVERS=1");
        eprintln!("SKIPPED: {message}");
        return;
    }
    let mut house = House::new();
    let mut enabled = 0;
    for folder in ["etc/providers.d", "devstack/providers.d"] {
        for entry in fs::read_dir(original.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            enabled += usize::from(text.to_lowercase().contains("enabled=true"));
            house.provider(path.file_name().unwrap().to_str().unwrap(), &text);
        }
    }
    let mut arguments = vec!["config".to_owned(), "validate".to_owned()];
    for path in files(&original.join("etc")) {
        let path = original.join("etc").join(path);
        // The configuration of a web server is not the original's own form.
        let ours = path
            .extension()
            .is_some_and(|extension| extension == "conf")
            && !path.to_string_lossy().contains("apache2")
            && !path.to_string_lossy().contains("providers.d");
        if ours {
            arguments.extend(["--config-file".to_owned(), path.display().to_string()]);
        }
    }
    assert!(arguments.len() > 4, "{arguments:?}");
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let validated = house.client(&arguments);
    let told = everything(&validated);
    assert!(validated.status.success(), "{told}");
    assert_eq!(told.matches("is not usable").count(), enabled, "{told}");
    assert!(!told.contains("which does not exist"), "{told}");
    assert!(!told.contains(".conf: unknown option"), "{told}");
    house.start();
    assert_eq!(house.log().matches("is not usable").count(), enabled);
}

#[test]
fn the_database_is_made_looked_at_and_purged() {
    let mut house = House::simulating();
    let none = house.client(&["manage", "db", "version"]);
    assert_eq!(none.status.code(), Some(1), "{}", everything(&none));
    let early = house.client(&["manage", "service", "list"]);
    assert!(
        everything(&early).contains("karbor manage db sync"),
        "{}",
        everything(&early)
    );
    house.text(&["manage", "db", "sync"]);
    assert!(house.text(&["manage", "db", "version"]).starts_with("m0"));
    house.start();
    house.simulated_plan("gone", &["a", "b"]);
    house.text(&["plan", "delete", "gone"]);
    let listed = house.text(&["manage", "service", "list"]);
    let protection = listed
        .lines()
        .find(|line| line.starts_with("karbor-protection"));
    assert!(protection.unwrap().contains(":-)"), "{listed}");
    // Deleted just now, so nothing is old enough.
    let purged = house.text(&["manage", "db", "purge", "1"]);
    assert_eq!(purged.trim(), "0 rows gone");
    let dry = house.text(&["manage", "db", "purge", "1", "--dry-run"]);
    assert_eq!(dry.trim(), "0 rows would go");
    for age in ["0", "-1", "soon"] {
        let refused = house.client(&["manage", "db", "purge", age]);
        assert_eq!(refused.status.code(), Some(2), "{age}");
    }
}

#[test]
fn policies_are_found_beside_the_configuration_file() {
    let house = House::new();
    let etc = house.path("etc");
    fs::create_dir_all(&etc).unwrap();
    let file = etc.join("karbor.conf");
    fs::write(&file, "[DEFAULT]\n").unwrap();
    let check = || {
        house.client(&[
            "config",
            "validate",
            "--config-file",
            file.to_str().unwrap(),
        ])
    };
    assert!(check().status.success());
    // One that cannot be understood must not be passed over in silence.
    fs::write(etc.join("policy.yaml"), "\"plan:get\": \"role:\n").unwrap();
    let refused = check();
    assert_eq!(refused.status.code(), Some(1), "{}", everything(&refused));
    assert!(
        everything(&refused).contains("policy.yaml"),
        "{}",
        everything(&refused)
    );
    fs::write(house.state().join("policy.yaml"), "{}\n").unwrap();
    assert!(
        check().status.success(),
        "the state directory's own wins: {}",
        everything(&check())
    );
}

#[test]
fn quotas_are_counted_anew() {
    let mut house = House::simulating();
    house.start();
    house.simulated_plan("counted", &["a"]);
    house.protected("counted");
    let fixed = house.text(&["manage", "quota", "usage-fix"]);
    assert_eq!(
        fixed,
        "0 checkpoints were not counted and are now; 0 were counted and are gone\n"
    );
    let used = house.json(&["quota", "show", "--detail"]);
    assert_eq!(used["checkpoints"]["in_use"], 1, "{used}");
}

/// What a bank on a mount point looks like when its file system is not mounted.
#[test]
fn an_emptied_bank_is_told() {
    let mut house = House::simulating();
    house.start();
    house.simulated_plan("kept", &["a"]);
    house.protected("kept");
    house.terminate();
    house.ended();
    fs::rename(house.state().join("bank"), house.path("unmounted")).unwrap();
    let checked = house.client(&["status", "upgrade", "check"]);
    assert_eq!(checked.status.code(), Some(2), "{}", out(&checked));
    house.start();
    assert!(
        house.log().contains("is its file system mounted?"),
        "{}",
        house.log()
    );
}

#[test]
fn an_upgrade_is_checked() {
    let mut house = House::new();
    let check = |house: &House| {
        let output = house.client(&["status", "upgrade", "check"]);
        (output.status.code(), everything(&output))
    };
    let (code, told) = check(&house);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("no database yet"), "{told}");
    house.start();
    let (code, told) = check(&house);
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.starts_with('+') && told.contains("| Check: Database schema"),
        "{told}"
    );
    assert!(
        !told.contains("Warning") && !told.contains("Failure"),
        "{told}"
    );
    house.terminate();
    house.ended();

    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&house.path(""), 0o755);
    mode(&house.state(), 0o777);
    let (code, told) = check(&house);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("chmod go-w"), "{told}");
    mode(&house.state(), 0o700);

    fs::write(
        house.state().join("karbor.conf"),
        "[DEFAULT]\nosapi_max_limit = many\n",
    )
    .unwrap();
    let (code, told) = check(&house);
    assert_eq!(code, Some(255), "{told}");
}

#[test]
fn completions_are_scripts() {
    let house = House::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = house.text(&["completions", shell]);
        for word in ["scheduled-operation", "quota-class", "upgrade"] {
            assert!(script.contains(word), "{shell} does not complete {word}");
        }
        let file = house.path(shell);
        fs::write(&file, script).unwrap();
        if let Some(checked) = run_if_here(Command::new(shell).arg("-n").arg(&file)) {
            assert!(
                checked.status.success(),
                "{shell}: {}",
                everything(&checked)
            );
        }
    }
}

#[test]
fn man_pages_are_well_formed() {
    let house = House::new();
    let folder = house.path("man");
    house.text(&["man", folder.to_str().unwrap()]);
    let pages = files(&folder);
    let names: Vec<_> = pages.iter().map(|page| page.to_str().unwrap()).collect();
    for name in [
        "karbor.1",
        "karbor-serve.1",
        "karbor-manage-db-purge.1",
        "karbor-status-upgrade-check.1",
        "karbor-scheduled-operation-create.1",
        "karbor-checkpoint-copy.1",
    ] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    for page in &pages {
        let text = fs::read_to_string(folder.join(page)).unwrap();
        for part in [".TH ", ".SH NAME", ".SH SYNOPSIS"] {
            assert!(text.contains(part), "{part} in {}", page.display());
        }
        let mut groff = Command::new("groff");
        groff
            .args(["-Kutf8", "-man", "-ww", "-z", "-Tutf8"])
            .arg(folder.join(page));
        if let Some(formatted) = run_if_here(&mut groff) {
            let warnings = String::from_utf8_lossy(&formatted.stderr);
            assert!(
                formatted.status.success() && warnings.is_empty(),
                "{}: {warnings}",
                page.display()
            );
        }
    }
}

/// sshd's StrictModes: who may write what the service obeys is root where the service is.
#[test]
fn what_others_may_change_is_not_obeyed() {
    let house = House::new();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let state = house.state();
    // What only its owner can enter shelters what is below.
    mode(&house.path(""), 0o755);
    mode(&state, 0o755);
    for (file, text) in [
        ("karbor.conf", "[DEFAULT]\n"),
        ("policy.yaml", "{}\n"),
        (
            "providers.d/p.conf",
            "[provider]\nname = p\nid = cf1a0bb1-2f9e-4e3c-8d5c-0a7a4e5a5a01\n\
             bank = karbor-fs-bank-plugin\nplugin = karbor-host-directory-plugin\n\
             [file_system_bank_plugin]\nfile_system_bank_path = /tmp\n",
        ),
    ] {
        let path = state.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        mode(&path, 0o646);
        for arguments in [
            &["config", "validate"][..],
            &["serve", "--listen", "127.0.0.1:0"],
        ] {
            let refused = house.client(arguments);
            let told = everything(&refused);
            assert_eq!(refused.status.code(), Some(1), "{file}: {told}");
            let advice = format!("chmod go-w {}", path.display());
            assert!(told.contains(&advice), "{file}: {told}");
        }
        fs::remove_file(&path).unwrap();
    }
    mode(&state, 0o770);
    let told = everything(&house.client(&["config", "validate"]));
    assert!(
        told.contains(&format!("chmod go-w {}", state.display())),
        "{told}"
    );
    mode(&state, 0o700);
    if !rustix::process::geteuid().is_root() {
        return;
    }
    std::os::unix::fs::chown(&state, Some(12_345), None).unwrap();
    for arguments in [
        &["config", "validate"][..],
        &["serve", "--listen", "127.0.0.1:0"],
    ] {
        let refused = house.client(arguments);
        let told = everything(&refused);
        assert_eq!(refused.status.code(), Some(1), "{told}");
        assert!(told.contains("belongs to the account 12345"), "{told}");
    }
    std::os::unix::fs::chown(&state, Some(0), None).unwrap();
}
