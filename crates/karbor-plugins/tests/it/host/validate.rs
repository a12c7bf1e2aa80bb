//! `karbor config validate`: is what is declared really there?

use std::fs;

use karbor_plugins::applications::{Applications, Problem, Protector, Severity, Surroundings};
use karbor_plugins::host::TYPES;
use karbor_testkit::PostgresServer;
use rusqlite::Connection;

use super::Lab;

pub(super) async fn validate(lab: &Lab) -> Vec<Problem> {
    let applications = Applications::load(&lab.path("applications.d")).unwrap();
    let surroundings = Surroundings {
        off_limits: vec![lab.path("state")],
        protectors: vec![Protector {
            label: "provider 'local'".to_owned(),
            types: TYPES.into(),
        }],
        sqlite_worker: super::sqlite_worker(),
    };
    applications.validate(&surroundings).await
}

#[tokio::test]
async fn all_is_well() {
    let lab = Lab::new();
    fs::create_dir(lab.path("files")).unwrap();
    Connection::open(lab.path("s.db"))
        .unwrap()
        .execute_batch("CREATE TABLE t (x)")
        .unwrap();
    lab.declare(&format!(
        "quiesce.command = [\"/bin/true\"]\nresume.command = [\"/bin/true\"]\n\
         [[directory]]\nname = \"files\"\npath = \"{0}/files\"\n[[sqlite]]\nname = \"s\"\npath = \"{0}/s.db\"\n",
        lab.dir.path().display()
    ));
    let found = validate(&lab).await;
    assert!(found.is_empty(), "{found:?}");
}

#[tokio::test]
async fn patterns_that_match_nothing_are_listed() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("files/sub/cache")).unwrap();
    fs::write(lab.path("files/sub/a.jpg"), "").unwrap();
    fs::write(lab.path("files/sub/cache/b.png"), "").unwrap();
    lab.declare(&format!(
        "[[directory]]\nname = \"files\"\npath = \"{}/files\"\n\
         include = [\"*.jpg\", \"*.png\"]\nexclude = [\"cache/\", \"/cache\"]\n",
        lab.dir.path().display()
    ));
    let found = validate(&lab).await;
    let told: Vec<_> = found
        .iter()
        .map(|problem| (problem.key.as_str(), problem.severity))
        .collect();
    assert_eq!(
        told,
        [
            ("directory.files.exclude", Severity::Warning),
            ("directory.files.include", Severity::Warning)
        ]
    );
    assert!(found[0].message.contains("'/cache'"), "{found:?}");
    // It is there, and in what is left out.
    assert!(found[1].message.contains("'*.png'"), "{found:?}");
}

#[tokio::test]
async fn what_the_kernel_shows_of_itself_is_warned_of() {
    let lab = Lab::new();
    for path in ["/proc/sys/kernel", "/sys/kernel"] {
        lab.declare(&format!(
            "[[directory]]\nname = \"kernel\"\npath = \"{path}\"\n"
        ));
        let found = validate(&lab).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].severity, Severity::Warning);
        let message = &found[0].message;
        assert!(
            message.contains("there are no data to protect"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn everything_that_is_wrong_is_found() {
    let lab = Lab::new();
    let dir = lab.dir.path().display().to_string();
    fs::create_dir_all(lab.path("state/bank")).unwrap();
    fs::create_dir_all(lab.path("outer/inner")).unwrap();
    fs::write(lab.path("no.db"), "certainly not a database").unwrap();
    Connection::open(lab.path("outer/s.db"))
        .unwrap()
        .execute_batch("CREATE TABLE t (x)")
        .unwrap();
    lab.declare(&format!(
        r#"
quiesce.command = ["/no/such/program"]
[[directory]]
name = "gone"
path = "{dir}/gone"
[[directory]]
name = "all"
path = "{dir}"
exclude = ["outer"]
[[directory]]
name = "outer"
path = "{dir}/outer"
[[directory]]
name = "inner"
path = "{dir}/outer/inner"
[[sqlite]]
name = "no"
path = "{dir}/no.db"
[[sqlite]]
name = "inside"
path = "{dir}/outer/s.db"
[[postgresql]]
name = "pg"
database = "x"
host = "{dir}/gone"
bin_dir = "{dir}/gone"
"#
    ));
    let found = validate(&lab).await;
    for (key, wanted, severity) in [
        (
            "quiesce.command",
            "'/no/such/program' is not there",
            Severity::Error,
        ),
        ("quiesce", "no command that undoes it", Severity::Warning),
        ("directory.gone.path", "is not there", Severity::Error),
        (
            "directory.all.path",
            "add exclude = [\"/state\"]",
            Severity::Error,
        ),
        (
            "directory.outer",
            "holds the directory 'inner' too",
            Severity::Warning,
        ),
        (
            "sqlite.no.path",
            "cannot be read as an SQLite database",
            Severity::Error,
        ),
        (
            "postgresql.pg.bin_dir",
            "'psql' is not in the declared bin_dir",
            Severity::Error,
        ),
    ] {
        let is =
            |p: &&Problem| p.key == key && p.message.contains(wanted) && p.severity == severity;
        assert!(found.iter().any(|p| is(&p)), "{key}: {wanted}: {found:#?}");
    }
}

#[tokio::test]
async fn the_server_is_asked() {
    let Some(mut server) = PostgresServer::start() else {
        return;
    };
    server.sql("postgres", "CREATE DATABASE shop");
    let lab = Lab::new();
    let declare = |more: &str| {
        lab.declare(&format!(
            "[[postgresql]]\nname = \"pg\"\ndatabase = \"shop\"\nhost = \"{}\"\nuser = \"karbor\"\n{more}",
            server.socket_dir().display()
        ));
    };
    declare("");
    let found = validate(&lab).await;
    assert!(found.is_empty(), "{found:?}");
    let passfile = lab.path("pgpass");
    declare(&format!("passfile = \"{}\"\n", passfile.display()));
    let found = validate(&lab).await;
    assert!(found[0].message.contains("is not there"), "{found:?}");
    fs::write(&passfile, "*:*:*:*:x").unwrap();
    let found = validate(&lab).await;
    assert!(found[0].message.contains("chmod 600"), "{found:?}");
    declare("");
    server.stop();
    let found = validate(&lab).await;
    assert_eq!(found[0].key, "postgresql.pg");
    assert!(
        found[0].message.contains("Is the server running"),
        "{found:?}"
    );
}

/// What protects must be able to restore by the same declaration.
#[tokio::test]
async fn what_could_be_protected_and_not_restored_is_found() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let place = server.data_dir().with_file_name("fast");
    for sql in [
        &format!(
            "COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; mkdir {}'",
            place.display()
        ),
        &format!("CREATE TABLESPACE fast LOCATION '{}'", place.display()),
        "CREATE ROLE clerk LOGIN",
        "CREATE ROLE keeper",
        "CREATE DATABASE shop OWNER keeper",
    ] {
        server.sql("postgres", sql);
    }
    server.sql(
        "shop",
        "CREATE TABLE t (x int) TABLESPACE fast; ALTER TABLE t OWNER TO keeper;
         CREATE TABLE hidden (x int); GRANT SELECT ON t TO clerk",
    );
    let lab = Lab::new();
    let declare = |more: &str| {
        lab.declare(&format!(
            "[[postgresql]]\nname = \"pg\"\ndatabase = \"shop\"\nhost = \"{}\"\nuser = \"clerk\"\n{more}",
            server.socket_dir().display()
        ));
    };
    declare("globals = true\nmaintenance_database = \"gone\"\n");
    let found = validate(&lab).await;
    for (key, wanted, severity) in [
        ("globals", "may not read roles", Severity::Error),
        (
            "user",
            "cannot read all of 'public.hidden'",
            Severity::Error,
        ),
        (
            "user",
            "may not make databases: ALTER ROLE … CREATEDB",
            Severity::Warning,
        ),
        ("user", "no member of 'karbor', 'keeper'", Severity::Warning),
        (
            "user",
            "may not use the tablespace 'fast'",
            Severity::Warning,
        ),
        (
            "maintenance_database",
            "\"gone\" does not exist",
            Severity::Warning,
        ),
    ] {
        let key = format!("postgresql.pg.{key}");
        let is =
            |p: &&Problem| p.key == key && p.message.contains(wanted) && p.severity == severity;
        assert!(found.iter().any(|p| is(&p)), "{key}: {wanted}: {found:#?}");
    }
    assert_eq!(found.len(), 6, "{found:#?}");
    server.sql("shop", "DROP TABLE hidden");
    server.sql("postgres", "ALTER ROLE clerk CREATEDB");
    declare("no_owner = true\nno_tablespaces = true\n");
    let found = validate(&lab).await;
    assert!(found.is_empty(), "{found:#?}");
}

#[tokio::test]
async fn a_directory_that_holds_another_application_s_database_is_an_error() {
    let lab = Lab::new();
    let dir = lab.dir.path().display().to_string();
    fs::create_dir(lab.path("files")).unwrap();
    for name in ["files/own.db", "files/other.db"] {
        let database = Connection::open(lab.path(name)).unwrap();
        database.execute_batch("CREATE TABLE t (x)").unwrap();
    }
    lab.declare(&format!(
        "[[directory]]\nname = \"files\"\npath = \"{dir}/files\"\n\
         [[sqlite]]\nname = \"own\"\npath = \"{dir}/files/own.db\"\n"
    ));
    let other = format!(
        "name = \"other\"\nprojects = [\"p\"]\n[[sqlite]]\nname = \"s\"\npath = \"{dir}/files/other.db\"\n"
    );
    fs::write(lab.path("applications.d/other.toml"), other).unwrap();
    let found = validate(&lab).await;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(
        (found[0].key.as_str(), found[0].severity),
        ("directory.files", Severity::Error)
    );
    assert!(
        found[0].message.contains("exclude = [\"/other.db*\"]"),
        "{found:?}"
    );
}

/// The password decides which server is believed; the programs are run.
#[tokio::test]
async fn what_a_component_obeys_and_others_may_change_is_an_error() {
    let lab = Lab::new();
    let mode = |path: &std::path::Path, mode| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(lab.dir.path(), 0o755);
    let passfile = lab.path("pgpass");
    fs::write(&passfile, "*:*:*:*:x").unwrap();
    mode(&passfile, 0o602);
    let script = lab.path("stop.sh");
    fs::write(&script, "exit 0").unwrap();
    mode(&script, 0o666);
    lab.declare(&format!(
        "quiesce.command = [\"/bin/sh\", \"{}\"]\nresume.command = [\"/bin/true\"]\n\
         [[postgresql]]\nname = \"pg\"\ndatabase = \"shop\"\npassfile = \"{}\"\n",
        script.display(),
        passfile.display()
    ));
    let found = validate(&lab).await;
    let keys: Vec<_> = found.iter().map(|p| (p.key.as_str(), p.severity)).collect();
    let wanted = [
        ("postgresql.pg.passfile", Severity::Error),
        ("quiesce.command", Severity::Warning),
    ];
    assert_eq!(keys, wanted, "{found:#?}");
    assert!(
        found.iter().all(|p| p.message.contains("chmod go-w")),
        "{found:#?}"
    );
    let resource = lab.resource(super::POSTGRESQL).await;
    let error = lab.protect(&resource).await.unwrap_err();
    assert!(
        error.message.contains("may be changed by everybody"),
        "{error}"
    );
}
