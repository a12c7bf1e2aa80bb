//! Reading declarations.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
};

use karbor_plugins::applications::{Applications, Problem};
use tempfile::TempDir;

use super::DIRECTORY;

fn read(files: &[(&str, &str)]) -> Applications {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    Applications::load(dir.path()).unwrap()
}

/// What was read, if nothing is wrong.
fn load(files: &[(&str, &str)]) -> Result<Applications, Vec<Problem>> {
    let applications = read(files);
    let problems: Vec<_> = applications.problems().cloned().collect();
    match problems.is_empty() {
        true => Ok(applications),
        false => Err(problems),
    }
}

/// The problems of one file, without its directory.
fn problems(text: &str) -> Vec<String> {
    let found = load(&[("shop.toml", text)]).unwrap_err();
    found.iter().map(Problem::brief).collect()
}

const SHOP: &str = r#"
name = "shop"
description = "The web shop"
projects = ["default", "other"]
restore_roots = ["/srv/restore"]
[quiesce]
command = ["/bin/true", "a b", "$(reboot)"]
timeout = 5
[[directory]]
name = "uploads"
path = "/srv/shop/uploads"
exclude = ["*.tmp"]
[[sqlite]]
name = "sessions"
path = "/srv/shop/sessions.db"
[[postgresql]]
name = "orders"
database = "shop"
host = "/run/postgresql"
globals = true
"#;

#[test]
fn a_declaration_is_read() {
    let applications = load(&[
        ("shop.toml", SHOP),
        (".shop.toml.swp", "x"),
        ("README", "x"),
    ])
    .unwrap();
    let [shop] = applications.all() else { panic!() };
    assert_eq!(shop.name, "shop");
    assert_eq!(shop.components.len(), 3);
    let quiesce = shop.hooks.quiesce.as_ref().unwrap();
    assert_eq!(quiesce.argv, ["/bin/true", "a b", "$(reboot)"]);
    assert_eq!(quiesce.timeout.as_secs(), 5);
    assert_eq!(applications.visible("other").count(), 1);
    assert_eq!(applications.visible("stranger").count(), 0);
}

/// Checkpoints are found again by these: they never change.
#[test]
fn ids_are_stable() {
    let applications = load(&[("shop.toml", SHOP)]).unwrap();
    let shop = &applications.all()[0];
    assert_eq!(shop.id.to_string(), "ded9ffa6-f5ae-57c7-a383-a4c78696a42f");
    let ids: Vec<String> = shop.components.iter().map(|c| c.id.to_string()).collect();
    assert_eq!(
        ids,
        [
            "08f808ca-c298-50c6-b50d-356b144c6fce",
            "41838e86-1112-5ec1-8a79-ad37bbab4728",
            "07616584-f060-5cca-9863-14eebaff2b94",
        ]
    );
    // In a file of another name, and an application with an id may be renamed.
    let moved = load(&[("x.toml", SHOP)]).unwrap();
    assert_eq!(moved.all()[0].id, shop.id);
    let with_id = format!(
        "id = \"{}\"\n{}",
        shop.id,
        SHOP.replace("\"shop\"\nd", "\"boutique\"\nd")
    );
    let renamed = load(&[("shop.toml", &with_id)]).unwrap();
    assert_eq!(renamed.all()[0].name, "boutique");
    assert_eq!(renamed.all()[0].components[0].id, shop.components[0].id);
    assert!(renamed.component("default", DIRECTORY, &ids[0]).is_some());
    assert!(renamed.component("stranger", DIRECTORY, &ids[0]).is_none());
}

#[test]
fn what_is_wrong_is_named() {
    for (text, wanted) in [
        ("name = ", "shop.toml: name (line 1)"),
        ("projects = [\"d\"]", "missing field `name`"),
        (
            "name = \"a\"\nprojects = [\"d\"]\npath = \"/x\"",
            "shop.toml: path (line 3): unknown field `path`",
        ),
        (
            "name=\"a\"\nprojects=[\"d\"]\n[[directory]]\nname=\"b\"\npath=\"/x\"\nincludes=[]",
            "shop.toml: includes (line 6): unknown field `includes`",
        ),
        (
            "name=\"a\"\nprojects=[\"d\"]\n[[postgresql]]\nname=\"b\"\ndatabase=\"x\"\nport=\"5432\"",
            "shop.toml: port (line 6): invalid type",
        ),
        (
            "name=\"a\"\nprojects=[\"d\"]\n[[postgresql]]\nname=\"b\"\ndatabase=\"x\"\npassword=\"p\"",
            "shop.toml: password (line 6): unknown field `password`",
        ),
        ("name=\"a\"\nprojects=[\"d\"]", "it has no component"),
    ] {
        let found = problems(text);
        assert!(found[0].contains(wanted), "{text}: {found:?}");
    }
}

#[test]
fn every_problem_is_told_at_once() {
    let found = problems(
        r#"
name = "../a"
projects = []
restore_roots = ["/", "x"]
[quiesce]
command = []
[resume]
command = ["true"]
timeout = 0
[[directory]]
name = "b"
path = "srv"
exclude = ["a["]
[[sqlite]]
name = "b"
path = "/srv/../etc/shadow"
[[postgresql]]
name = "c"
database = ""
port = 0
passfile = "pgpass"
sslmode = "on"
sslrootcert = "ca.pem"
lock_timeout = 0
maintenance_database = ""
"#,
    );
    for wanted in [
        "name: '../a' is not a name",
        "projects: no project may see it",
        "restore_roots: '/' would let a restore write anywhere",
        "restore_roots: 'x' is not an absolute path",
        "quiesce.command: it is empty",
        "resume.command: 'true' is not an absolute path",
        "resume.timeout: a timeout is 1 to 86400 seconds",
        "directory.b.path: 'srv' is not an absolute path",
        "directory.b.exclude: 'a[' is not a pattern",
        "sqlite.b: another component of this application has the same name",
        "sqlite.b.path: '/srv/../etc/shadow' has a '..' in it",
        "postgresql.c.database: a database's name",
        "postgresql.c.port: a port is 1 to 65535",
        "postgresql.c.passfile: 'pgpass' is not an absolute path",
        "postgresql.c.sslmode: it is one of disable, allow",
        "postgresql.c.sslrootcert: 'ca.pem' is not an absolute path",
        "postgresql.c.lock_timeout: a timeout is 1 to 86400 seconds",
        "postgresql.c.maintenance_database: a database's name",
    ] {
        assert!(
            found.iter().any(|problem| problem.contains(wanted)),
            "{wanted}: {found:#?}"
        );
    }
    assert_eq!(found.len(), 18, "{found:#?}");
}

#[test]
fn names_and_ids_are_used_once() {
    let one = "name=\"a\"\nprojects=[\"d\"]\n[[directory]]\nname=\"b\"\npath=\"/x\"";
    let found = load(&[("1.toml", one), ("2.toml", one)]).unwrap_err();
    assert!(
        found[0]
            .message
            .contains("is also the name of the application in"),
        "{found:?}"
    );
    let id = "id = \"11111111-2222-4333-8444-555555555555\"\n";
    let other = one.replace("\"a\"", "\"other\"");
    let found = load(&[
        ("1.toml", &format!("{id}{one}")),
        ("2.toml", &format!("{id}{other}")),
    ]);
    let found = found.unwrap_err();
    assert!(found[0].message.contains("is used twice"), "{found:?}");
}

#[test]
fn a_directory_that_is_not_there_declares_nothing() {
    let dir = TempDir::new().unwrap();
    let applications = Applications::load(&dir.path().join("none")).unwrap();
    assert!(applications.all().is_empty());
    // But what is there and cannot be read is a problem.
    fs::create_dir(dir.path().join("x.toml")).unwrap();
    let applications = Applications::load(dir.path()).unwrap();
    assert_eq!(applications.problems().count(), 1);
    assert_eq!(applications.broken()[0].name, "x");
}

#[test]
fn a_broken_file_spoils_its_own_application_only() {
    let good = "name=\"a\"\nprojects=[\"default\"]\n[[directory]]\nname=\"b\"\npath=\"/x\"";
    let whole = read(&[("shop.toml", SHOP)]);
    let shop = &whole.all()[0];
    let uploads = shop.components[0].id;
    for (text, is_known) in [
        // A slip in a value, a key that nobody knows, something that is not so: it is known whose it is.
        (SHOP.replace("timeout = 5", "timeout = "), true),
        (SHOP.replace("timeout = 5", "timout = 5"), true),
        (SHOP.replace("/srv/restore", "srv/restore"), true),
        (SHOP.replace("a b", "a b\\"), true),
        // Half a file, and nothing of it.
        (SHOP[..60].to_owned(), false),
        (String::new(), false),
        ("\0\u{1}[[[".to_owned(), false),
    ] {
        let read = read(&[("a.toml", good), ("shop.toml", &text)]);
        assert_eq!(read.all().len(), 1, "{text}");
        assert_eq!(read.all()[0].name, "a");
        let [broken] = read.broken() else {
            panic!("{text}")
        };
        assert_eq!(
            (broken.name.as_str(), broken.id),
            ("shop", shop.id),
            "{text}"
        );
        assert!(
            broken.reason().contains("(shop.toml: "),
            "{}",
            broken.reason()
        );
        if is_known {
            assert_eq!(broken.projects.as_ref(), Some(&shop.projects), "{text}");
            assert!(broken.components.contains(&uploads), "{text}");
        }
        let resource = broken.resource();
        assert_eq!(resource.broken(), Some(broken.reason().as_str()));
    }
}

/// Which of the two is meant cannot be told.
#[test]
fn of_two_with_one_name_neither_can_be_used() {
    let one = "name=\"a\"\nprojects=[\"d\"]\n[[directory]]\nname=\"b\"\npath=\"/x\"";
    let other = one.replace("\"a\"", "\"c\"");
    let read = read(&[("1.toml", one), ("2.toml", one), ("3.toml", &other)]);
    assert_eq!(read.all().len(), 1);
    let files: Vec<_> = read.problems().map(Problem::brief).collect();
    assert!(files[0].starts_with("1.toml: name"), "{files:?}");
    assert!(files[1].starts_with("2.toml: name"), "{files:?}");
}

/// Who may write a declaration decides what the service, perhaps as root, reads, writes and runs.
#[test]
fn a_declaration_that_others_may_change_is_not_obeyed() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("shop.toml");
    fs::write(&file, SHOP).unwrap();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    // What only its owner can enter shelters what is below.
    mode(dir.path(), 0o755);
    mode(&file, 0o644);
    Applications::load(dir.path()).unwrap();
    let refused = |wanted: &str| {
        let read = Applications::load(dir.path()).unwrap();
        let [broken] = read.broken() else {
            panic!("{:?} should be the broken one", read.broken());
        };
        let said = &broken.problems[0].message;
        assert!(said.contains(wanted), "{said}");
        assert!(read.all().is_empty());
    };
    mode(&file, 0o664);
    let advice = format!(
        "may be changed by its group (mode 0664): chmod go-w {}",
        file.display()
    );
    refused(&advice);
    mode(&file, 0o644);
    mode(dir.path(), 0o777);
    let folder = Applications::load(dir.path()).unwrap_err();
    assert!(
        folder.message.contains("may be changed by everybody"),
        "{folder:?}"
    );
    mode(dir.path(), 0o755);
    if rustix::process::geteuid().is_root() {
        chown(&file, Some(12_345), None).unwrap();
        refused("belongs to the account 12345");
    }
}
