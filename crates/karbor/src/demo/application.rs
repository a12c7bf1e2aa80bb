//! The application of the demo: a shop.

use std::{collections::BTreeMap, fs, path::PathBuf};

use rusqlite::Connection;

use super::{
    failure::{Failure, during},
    files,
    postgres::{PORT, Postgres, USER},
    stage::{Stage, print},
};

/// The shop.
pub(super) struct Shop {
    files: PathBuf,
    sqlite: PathBuf,
    postgres: Option<Postgres>,
}

/// All that the shop consists of, at one moment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents {
    files: BTreeMap<PathBuf, files::Remembered>,
    sqlite: String,
    postgres: Option<String>,
}

impl Shop {
    /// Makes it.
    pub(super) fn open(stage: &Stage) -> Result<Self, Failure> {
        let files = stage.path().join("shop/files");
        files::make(&files).map_err(during("the shop's files"))?;
        let sqlite = stage.path().join("shop/sessions.db");
        let sessions = Connection::open(&sqlite)?;
        sessions.execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE sessions (id INTEGER PRIMARY KEY, customer TEXT NOT NULL);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
             INSERT INTO sessions SELECT i, 'customer ' || (i * 7919 % 1000) FROM n;",
        )?;
        let postgres = match Postgres::programs() {
            Some(programs) => Some(Self::orders(Postgres::start(
                programs,
                stage.path().join("postgresql"),
            )?)?),
            None => {
                stage.shout("PostgreSQL's programs are NOT on this machine: the demo goes on without its database");
                stage.shout("(on Debian: apt-get install postgresql)");
                None
            }
        };
        Ok(Self {
            files,
            sqlite,
            postgres,
        })
    }

    fn orders(server: Postgres) -> Result<Postgres, Failure> {
        server.sql("postgres", "CREATE DATABASE orders")?;
        server.sql(
            "orders",
            "CREATE TABLE orders (id serial PRIMARY KEY, customer text NOT NULL, total numeric(10, 2) NOT NULL);
             INSERT INTO orders (customer, total) SELECT 'customer ' || n % 1000, n * 0.37 FROM generate_series(1, 20000) n;",
        )?;
        Ok(server)
    }

    /// Declares it to the service: the operator's part.
    pub(super) fn declare(&self, stage: &Stage) -> Result<(), Failure> {
        let mut text = format!(
            "name = \"shop\"\nprojects = [\"default\"]\n\n\
             [[directory]]\nname = \"files\"\npath = {:?}\n\n\
             [[sqlite]]\nname = \"sessions\"\npath = {:?}\n",
            self.files, self.sqlite
        );
        if let Some(postgres) = &self.postgres {
            text += &format!(
                "\n[[postgresql]]\nname = \"orders\"\ndatabase = \"orders\"\nhost = {:?}\nport = {PORT}\n\
                 user = \"{USER}\"\nbin_dir = {:?}\nglobals = true\n",
                postgres.sockets(),
                postgres.bin()
            );
        }
        stage.say("The operator declares what may be protected:");
        print(&format!(
            "\n   # applications.d/shop.toml\n   {}",
            text.trim_end().replace('\n', "\n   ")
        ));
        fs::create_dir_all(stage.state().join("applications.d"))?;
        Ok(fs::write(
            stage.state().join("applications.d/shop.toml"),
            text,
        )?)
    }

    /// An ordinary day.
    pub(super) fn work(&self) -> Result<(), Failure> {
        files::work(&self.files).map_err(during("the shop's files"))?;
        Connection::open(&self.sqlite)?.execute(
            "INSERT INTO sessions (customer) VALUES ('somebody new')",
            [],
        )?;
        if let Some(postgres) = &self.postgres {
            postgres.sql(
                "orders",
                "INSERT INTO orders (customer, total) VALUES ('somebody new', 12.34)",
            )?;
        }
        Ok(())
    }

    /// A bad day.
    pub(super) fn wreck(&self) -> Result<(), Failure> {
        files::wreck(&self.files).map_err(during("the shop's files"))?;
        fs::write(&self.sqlite, "rubbish".repeat(1000))?;
        if let Some(postgres) = &self.postgres {
            postgres.sql("postgres", "DROP DATABASE orders")?;
        }
        Ok(())
    }

    /// What it consists of now.
    pub(super) fn state(&mut self) -> Result<Contents, Failure> {
        let sqlite = Connection::open(&self.sqlite)?.query_row(
            "SELECT count(*) || ' rows, last ' || group_concat(line, char(10)) FROM (SELECT id || ' ' || customer AS line FROM sessions ORDER BY id)",
            [],
            |row| row.get(0),
        )?;
        let all = "SELECT count(*) || ' rows, md5 ' || md5(string_agg(o::text, ',' ORDER BY id)) FROM orders o";
        let postgres = self
            .postgres
            .as_ref()
            .map(|postgres| postgres.sql("orders", all))
            .transpose()?;
        Ok(Contents {
            files: files::remember(&self.files)?,
            sqlite,
            postgres,
        })
    }

    /// Is it as it was?
    pub(super) fn compare(&mut self, stage: &Stage, before: &Contents) -> Result<(), Failure> {
        stage.say("Is everything as it was?");
        let after = self.state()?;
        for (path, was) in &before.files {
            if after.files.get(path) != Some(was) {
                return Err(format!("{} is not as it was", path.display()).into());
            }
        }
        print(&format!(
            "\n   files       {} of {} equal: content, mode, owner, time, links",
            before.files.len(),
            before.files.len()
        ));
        if after.sqlite != before.sqlite {
            return Err("the SQLite database is not as it was".into());
        }
        print(&format!(
            "   SQLite      {} lines equal",
            before.sqlite.lines().count()
        ));
        if after.postgres != before.postgres {
            return Err(format!(
                "the PostgreSQL database is not as it was: {:?}",
                after.postgres
            )
            .into());
        }
        if let Some(rows) = &before.postgres {
            print(&format!("   PostgreSQL  equal: {}", rows.trim()));
        }
        Ok(())
    }

    /// Its parts, in words.
    pub(super) fn parts(&self) -> &'static str {
        match self.postgres {
            Some(_) => "a PostgreSQL database, an SQLite database and a tree of files",
            None => {
                "an SQLite database and a tree of files (WITHOUT PostgreSQL: it is not on this machine)"
            }
        }
    }
}
