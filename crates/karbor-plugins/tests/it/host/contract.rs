//! The contract suite, over real things.

use std::{fs, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use karbor_model::{OperationType, RequestContext, Resource};
use karbor_plugin::{Bank, ProtectionPlugin, contract::protection};
use karbor_plugins::applications::APPLICATION;
use karbor_testkit::{MariadbServer, MemoryBank, PostgresServer};
use rusqlite::Connection;
use serde_json::{Map, Value, json};

use super::{DIRECTORY, Lab, MARIADB, POSTGRESQL, SQLITE, object, request, tree};

struct Setting<'a> {
    lab: Lab,
    resource: Resource,
    server: Option<&'a PostgresServer>,
    mariadb: Option<&'a MariadbServer>,
}

impl<'a> Setting<'a> {
    async fn new(resource_type: &str, server: Option<&'a PostgresServer>) -> Self {
        Self::over(resource_type, server, None).await
    }

    async fn over(
        resource_type: &str,
        server: Option<&'a PostgresServer>,
        mariadb: Option<&'a MariadbServer>,
    ) -> Self {
        let lab = Lab::new();
        let data = lab.path("data");
        let log = lab.path("log");
        let append = |word: &str| {
            format!(
                "[\"/bin/sh\", \"-c\", \"echo {word} >> {}\"]",
                log.display()
            )
        };
        let postgresql = server.map_or_else(String::new, |server| {
            server.sql("postgres", "DROP DATABASE IF EXISTS shop WITH (FORCE)");
            server.sql("postgres", "CREATE DATABASE shop");
            server.sql("shop", "CREATE TABLE t AS SELECT i, md5(i::text) m FROM generate_series(1, 500) i");
            format!(
                "[[postgresql]]\nname = \"orders\"\ndatabase = \"shop\"\nhost = \"{}\"\nuser = \"{}\"\nglobals = true\n",
                server.socket_dir().display(),
                PostgresServer::USER
            )
        });
        let mariadb_table = mariadb.map_or_else(String::new, |server| {
            server.sql(
                "mysql",
                "CREATE OR REPLACE DATABASE shop; USE shop; CREATE TABLE t AS SELECT seq AS i, MD5(seq) AS m FROM seq_1_to_500;
                 CREATE VIEW v AS SELECT i FROM t; CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET @x = 1;
                 CREATE PROCEDURE p() SELECT 1",
            );
            format!(
                "[[mariadb]]\nname = \"stock\"\ndatabase = \"shop\"\nsocket = \"{}\"\nuser = \"{}\"\n",
                server.socket().display(),
                MariadbServer::USER
            )
        });
        lab.declare(&format!(
            "quiesce.command = {}\nresume.command = {}\n\
             [[directory]]\nname = \"files\"\npath = \"{}\"\n\
             [[sqlite]]\nname = \"sessions\"\npath = \"{}\"\n{postgresql}{mariadb_table}",
            append("quiesce"),
            append("resume"),
            data.display(),
            lab.path("sessions.db").display(),
        ));
        fs::create_dir_all(data.join("deep/er")).unwrap();
        fs::write(data.join("a"), "alpha").unwrap();
        fs::write(data.join("deep/er/b"), vec![7; 300_000]).unwrap();
        let database = Connection::open(lab.path("sessions.db")).unwrap();
        database
            .execute_batch("CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 'one'), (2, 'two')")
            .unwrap();
        let resource = lab.resource(resource_type).await;
        Self {
            lab,
            resource,
            server,
            mariadb,
        }
    }

    fn data(&self) -> PathBuf {
        self.lab.path("data")
    }
}

#[async_trait]
impl protection::Setting for Setting<'_> {
    fn plugin(&self) -> Arc<dyn ProtectionPlugin> {
        let mut plugins = self.lab.plugins.iter();
        let kind = self.resource.resource_type.as_str();
        plugins
            .find(|p| p.resource_types().contains(&kind))
            .unwrap()
            .clone()
    }

    fn resource(&self) -> Resource {
        self.resource.clone()
    }

    fn bank(&self) -> Arc<dyn Bank> {
        Arc::new(MemoryBank::new())
    }

    fn request(&self) -> RequestContext {
        request()
    }

    fn parameters(&self, operation: OperationType) -> Map<String, Value> {
        match (operation, self.resource.resource_type.as_str()) {
            (OperationType::Restore, DIRECTORY | SQLITE | POSTGRESQL | MARIADB) => {
                object(json!({"overwrite": "always"}))
            }
            (OperationType::Verify, DIRECTORY | SQLITE | POSTGRESQL | MARIADB) => {
                object(json!({"level": "data"}))
            }
            _ => Map::new(),
        }
    }

    fn keeps_data(&self) -> bool {
        self.resource.resource_type != APPLICATION
    }

    async fn wreck(&self) {
        match self.resource.resource_type.as_str() {
            DIRECTORY => {
                fs::remove_file(self.data().join("a")).unwrap();
                fs::write(self.data().join("deep/er/b"), "gone").unwrap();
            }
            SQLITE => fs::write(self.lab.path("sessions.db"), "no database").unwrap(),
            POSTGRESQL => {
                self.server.unwrap().sql("shop", "DELETE FROM t");
            }
            MARIADB => {
                self.mariadb.unwrap().sql("shop", "DELETE FROM t");
            }
            _ => {}
        }
    }

    async fn assert_intact(&self) {
        match self.resource.resource_type.as_str() {
            DIRECTORY => {
                let found = tree(&self.data());
                let names: Vec<&str> = found.keys().map(String::as_str).collect();
                assert_eq!(names, ["a", "deep/", "deep/er/", "deep/er/b"]);
                assert_eq!(found["a"], b"alpha");
                assert_eq!(found["deep/er/b"], vec![7; 300_000]);
            }
            SQLITE => {
                let database = Connection::open(self.lab.path("sessions.db")).unwrap();
                let sum: i64 = database
                    .query_row("SELECT sum(a) FROM t", [], |row| row.get(0))
                    .unwrap();
                assert_eq!(sum, 3);
            }
            POSTGRESQL => {
                let server = self.server.unwrap();
                let sum = server.sql(
                    "shop",
                    "SELECT count(*) || md5(string_agg(m, '' ORDER BY i)) FROM t",
                );
                assert!(sum.starts_with("500"), "{sum}");
            }
            MARIADB => {
                let server = self.mariadb.unwrap();
                let sum = server.sql(
                    "shop",
                    "SELECT COUNT(*), MD5(GROUP_CONCAT(m ORDER BY i)) FROM t; SELECT COUNT(*) FROM v; CALL p();
                     SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = 'shop';
                     SHOW DATABASES LIKE 'karbor-%'",
                );
                assert!(sum.starts_with("500\t"), "{sum}");
                assert!(sum.ends_with("\n500\n1\n1"), "{sum}");
            }
            _ => {
                let log = fs::read_to_string(self.lab.path("log")).unwrap_or_default();
                let last = log.lines().last();
                assert!(
                    last.is_none_or(|line| line == "resume"),
                    "left quiesced: {log}"
                );
            }
        }
        let scratch = self.lab.scratch();
        assert!(scratch.is_empty(), "left behind: {scratch:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_keep_the_contract() {
    protection::suite(async || Setting::new(DIRECTORY, None).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_databases_keep_the_contract() {
    protection::suite(async || Setting::new(SQLITE, None).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_keep_the_contract() {
    protection::suite(async || Setting::new(APPLICATION, None).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_databases_keep_the_contract() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    protection::suite(async || Setting::new(POSTGRESQL, Some(&server)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_databases_keep_the_contract() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    protection::suite(async || Setting::over(MARIADB, None, Some(&server)).await).await;
}
