use std::{fs, path::Path};

use karbor_manager::Config;
use karbor_testkit::FakeClock;

use serde_json::json;

use super::*;

fn files(folder: &Path, named: Option<&str>) -> PolicyFiles {
    let mut config = Config::builder()
        .options(karbor_manager::OPTIONS)
        .options(crate::OPTIONS);
    if let Some(named) = named {
        config = config.set("oslo_policy", "policy_file", named);
    }
    PolicyFiles::from_config(&config.build().unwrap(), folder).unwrap()
}

fn member() -> RequestContext {
    RequestContext::for_project("u", "p", false)
}

fn may(policy: &Policy, rule: &'static str) -> bool {
    policy.permit(Caller::new(&member(), rule), "p").is_ok()
}

#[test]
fn a_file_that_nobody_named_need_not_exist() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(files(folder.path(), None).load().unwrap(), Rules::default());
    let missing = files(folder.path(), Some("mine.yaml")).load().unwrap_err();
    assert!(
        missing.to_string().contains("mine.yaml cannot be read"),
        "{missing}"
    );
}

#[test]
fn files_in_the_folder_win_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("policy.json"), r#"{"plan:get": "!"}"#).unwrap();
    let policy =
        |folder: &Path| Policy::open(files(folder, None), FakeClock::new().shared()).unwrap();
    assert!(!may(&policy(folder.path()), "plan:get"));
    // The new name wins over the old.
    fs::write(at("policy.yaml"), "'plan:create': '!'").unwrap();
    assert!(may(&policy(folder.path()), "plan:get"));
    assert!(!may(&policy(folder.path()), "plan:create"));
    fs::create_dir(at("policy.d")).unwrap();
    fs::write(at("policy.d/1.yaml"), "'plan:create': 'role:x'").unwrap();
    fs::write(at("policy.d/2.yaml"), "'plan:create': 'role:member'").unwrap();
    fs::write(at("policy.d/.hidden"), "broken").unwrap();
    assert!(may(&policy(folder.path()), "plan:create"));
}

#[test]
fn a_changed_file_counts_within_a_second_and_a_broken_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    let clock = FakeClock::new();
    let policy = Policy::open(files(folder.path(), None), clock.shared()).unwrap();
    let second = || clock.turn(LOOK_EVERY);
    assert!(may(&policy, "plan:create"));
    fs::write(&file, "'plan:create': '!'").unwrap();
    assert!(may(&policy, "plan:create"));
    second();
    assert!(!may(&policy, "plan:create"));
    fs::write(&file, "'plan:create': '@ or'").unwrap();
    second();
    assert!(!may(&policy, "plan:create"));
    fs::write(&file, "'plan:create': 'role:member'").unwrap();
    second();
    assert!(may(&policy, "plan:create"));
    fs::remove_file(&file).unwrap();
    fs::write(&file, "'plan:create': 'role:nobody'").unwrap();
    second();
    assert!(!may(&policy, "plan:create"));
    // Gone, or there and not to be read, it never means the defaults.
    fs::remove_file(&file).unwrap();
    second();
    assert!(!may(&policy, "plan:create"));
    std::os::unix::fs::symlink(folder.path().join("nowhere"), &file).unwrap();
    second();
    assert!(!may(&policy, "plan:create"));
    fs::remove_file(&file).unwrap();
    fs::write(&file, "'plan:create': 'role:member'").unwrap();
    second();
    assert!(may(&policy, "plan:create"));
}

#[test]
fn a_link_to_nowhere_at_start_is_no_absent_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    std::os::unix::fs::symlink(folder.path().join("nowhere"), &file).unwrap();
    let opened = Policy::open(files(folder.path(), None), FakeClock::new().shared());
    assert!(matches!(opened, Err(PolicyError::Unreadable { .. })));
}

#[test]
fn a_broken_file_at_start_is_told_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("policy.yaml"), "\n'a': 'role:x or'").unwrap();
    let error = files(folder.path(), None).load().unwrap_err().to_string();
    assert!(
        error.ends_with("policy.yaml, line 2: rule 'a': a check is missing before the end"),
        "{error}"
    );
}

#[test]
fn a_rule_may_ask_for_attributes_of_the_record_and_of_who_asks() {
    let folder = tempfile::tempdir().unwrap();
    let text = "'plan:get': \"'started':%(status)s\"\n'plan:update': 'user_id:%(user_id)s'\n\
                'plan:delete': 'is_admin:False and roles:member and user_id:%(owner)s'";
    fs::write(folder.path().join("policy.yaml"), text).unwrap();
    let policy = Policy::open(files(folder.path(), None), FakeClock::new().shared()).unwrap();
    let on = |rule: &'static str, record: Value| {
        let member = member();
        let caller = Caller::new(&member, rule);
        policy.allow_on(caller, "p", &|| record.clone()).is_ok()
    };
    assert!(on("plan:get", json!({"status": "started"})));
    assert!(!on("plan:get", json!({"status": "suspended"})));
    // A list has no record, and so no status.
    assert!(!may(&policy, "plan:get"));
    assert!(on("plan:update", json!({})));
    assert!(on("plan:update", json!({"user_id": "u"})));
    assert!(!on("plan:update", json!({"user_id": "v"})));
    assert!(on("plan:delete", json!({"owner": "u"})));
    assert!(!on("plan:delete", json!({})));
}

#[test]
fn who_is_an_administrator_is_a_rule() {
    let folder = tempfile::tempdir().unwrap();
    let text = "context_is_admin: 'role:cloud_admin and not user_id:mallory'";
    fs::write(folder.path().join("policy.yaml"), text).unwrap();
    let policy = Policy::open(files(folder.path(), None), FakeClock::new().shared()).unwrap();
    let with = |user: &str, role: &str, is_admin: bool| {
        let mut context = RequestContext::for_project(user, "p", is_admin);
        context.roles = vec![role.to_owned()];
        policy.is_admin(&context)
    };
    assert!(with("u", "Cloud_Admin", false));
    assert!(!with("mallory", "cloud_admin", true));
    assert!(!with("u", "admin", true));
}

/// Where keystone sets one project apart, an administrator of another is none of everything.
#[test]
fn administrators_of_an_ordinary_project_can_be_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let text = "context_is_admin: 'role:admin and is_admin_project:True'";
    fs::write(folder.path().join("policy.yaml"), text).unwrap();
    let policy = Policy::open(files(folder.path(), None), FakeClock::new().shared()).unwrap();
    let mut context = RequestContext::for_project("u", "p", true);
    assert!(policy.is_admin(&context));
    context.is_admin_project = false;
    assert!(!policy.is_admin(&context));
}

/// What was in the way may be gone, and the file looks as it did when it could not be read.
#[test]
fn a_load_that_failed_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    fs::write(&file, "'plan:create': '!'").unwrap();
    let there = files(folder.path(), None);
    let policy = Policy::open(there.clone(), FakeClock::new().shared()).unwrap();
    fs::write(&file, "'plan:create': 'role:member'").unwrap();
    let fail = || {
        Err(PolicyError::Unreadable {
            file: file.clone(),
            error: std::io::ErrorKind::PermissionDenied.into(),
        })
    };
    let renew = |load: &dyn Fn() -> Result<Rules, PolicyError>| {
        policy.state.lock().unwrap().renew(there.stamp(), load);
    };
    renew(&fail);
    assert!(!may(&policy, "plan:create"));
    renew(&|| there.load());
    assert!(may(&policy, "plan:create"));
}

/// As large as before, and with the old time put back.
#[test]
fn a_file_that_was_changed_with_its_time_kept_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.yaml");
    fs::write(&path, "'plan:create': '!'").unwrap();
    let clock = FakeClock::new();
    let policy = Policy::open(files(folder.path(), None), clock.shared()).unwrap();
    let before = fs::metadata(&path).unwrap();
    let changed = |path: &Path| {
        use std::os::unix::fs::MetadataExt as _;
        let found = fs::metadata(path).unwrap();
        (found.ctime(), found.ctime_nsec())
    };
    let first = changed(&path);
    // The clock of the file system may stand still for a moment.
    while changed(&path) == first {
        fs::write(&path, "'plan:create': '@'").unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(before.modified().unwrap()).unwrap();
    }
    clock.turn(LOOK_EVERY);
    assert!(may(&policy, "plan:create"));
}

/// A folder that cannot be looked into is no empty folder.
#[test]
fn a_folder_that_cannot_be_read_leaves_the_rules_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("policy.d");
    let clock = FakeClock::new();
    let policy = Policy::open(files(folder.path(), None), clock.shared()).unwrap();
    fs::write(&rules, "not a folder").unwrap();
    fs::write(folder.path().join("policy.yaml"), "'plan:create': '!'").unwrap();
    clock.turn(LOOK_EVERY);
    assert!(may(&policy, "plan:create"));
    fs::remove_file(&rules).unwrap();
    clock.turn(LOOK_EVERY);
    assert!(!may(&policy, "plan:create"));
}
