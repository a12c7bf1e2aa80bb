//! A real MariaDB server of a test's own: temporary data, a private socket, no TCP port. It goes with the value.

use std::{
    fs, io,
    io::Write as _,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::postgres::{give_away, succeeded, unprivileged};

/// A running server. Connect to [`socket`](Self::socket) as [`USER`](Self::USER), no password asked.
#[derive(Debug)]
pub struct MariadbServer {
    root: TempDir,
    account: Option<(u32, u32)>,
    server: Option<Child>,
    /// What it is started with besides.
    options: Vec<String>,
}

/// The server's programs, which Debian keeps in directories that not every account has in its `PATH`.
const DIRECTORIES: [&str; 4] = [
    "/usr/sbin",
    "/usr/bin",
    "/usr/local/mysql/bin",
    "/usr/local/bin",
];

impl MariadbServer {
    /// The account with all rights.
    pub const USER: &'static str = "karbor";

    /// Starts a server if its programs are on this machine. When they are not: says so loudly and
    /// answers `None`, or panics when `KARBOR_REQUIRE_SERVERS=1`.
    ///
    /// # Panics
    /// When the programs are there and the server does not start.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// As [`start`](Self::start), with more options.
    ///
    /// # Panics
    /// When the programs are there and the server does not start.
    #[must_use]
    #[allow(clippy::panic, clippy::print_stderr, reason = "for tests only")]
    pub fn start_with(options: &[&str]) -> Option<Self> {
        let needed = ["mariadbd", "mariadb-install-db", "mariadb", "mariadb-dump"];
        if needed.iter().any(|name| find(name).is_none()) {
            let message = "MariaDB's programs (mariadbd, mariadb-install-db, mariadb, mariadb-dump) are not on this machine";
            if std::env::var("KARBOR_REQUIRE_SERVERS").is_ok_and(|v| v == "1") {
                panic!("{message}, and KARBOR_REQUIRE_SERVERS=1");
            }
            eprintln!("SKIPPED: {message}");
            return None;
        }
        match Self::start_in(options) {
            Ok(server) => Some(server),
            Err(error) => panic!("MariaDB did not start: {error}"),
        }
    }

    fn start_in(options: &[&str]) -> io::Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("karbor-mariadb-")
            .tempdir()?;
        let account = unprivileged("mysql")?;
        let mut server = Self {
            root,
            account,
            server: None,
            options: options.iter().map(|&option| option.to_owned()).collect(),
        };
        give_away(server.root.path(), account)?;
        // A server that starts removes temporary tables from this directory; those of other servers too.
        fs::create_dir(server.temporary_dir())?;
        give_away(&server.temporary_dir(), account)?;
        let made = server
            .program("mariadb-install-db")
            .args(["--no-defaults", "--skip-test-db", "--skip-name-resolve"])
            .arg("--auth-root-authentication-method=normal")
            .arg(format!("--datadir={}", server.data_dir().display()))
            .arg(format!("--tmpdir={}", server.temporary_dir().display()))
            .args(&server.options)
            .output()?;
        succeeded("mariadb-install-db", &made)?;
        server.run()?;
        let user = Self::USER;
        server.try_sql_as(
            "root",
            "mysql",
            &format!("CREATE USER {user}@localhost; GRANT ALL ON *.* TO {user}@localhost WITH GRANT OPTION"),
        )?;
        Ok(server)
    }

    /// Starts the server again after [`stop`](Self::stop).
    ///
    /// # Errors
    /// When it does not answer within half a minute.
    pub fn run(&mut self) -> io::Result<()> {
        let log = fs::File::create(self.root.path().join("log"))?;
        let child = self
            .program("mariadbd")
            .args(["--no-defaults", "--skip-networking"])
            .args(["--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M"])
            .args([
                "--innodb-flush-log-at-trx-commit=0",
                "--skip-innodb-doublewrite",
                "--innodb-flush-method=nosync",
                "--sync-frm=0",
            ])
            .args(["--event-scheduler=ON", "--max-connections=40"])
            .arg(format!("--datadir={}", self.data_dir().display()))
            .arg(format!("--socket={}", self.socket().display()))
            .arg(format!("--pid-file={}", self.pid_file().display()))
            .arg(format!("--tmpdir={}", self.temporary_dir().display()))
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.server = Some(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if self.try_sql_as("root", "mysql", "SELECT 1").is_ok() {
                return Ok(());
            }
            let ended = match &mut self.server {
                Some(child) => child.try_wait()?.is_some(),
                None => true,
            };
            if ended || Instant::now() > deadline {
                let log = fs::read_to_string(self.root.path().join("log")).unwrap_or_default();
                return Err(io::Error::other(format!(
                    "the server does not answer:\n{log}"
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops the server; its data stay.
    pub fn stop(&mut self) {
        let Some(mut child) = self.server.take() else {
            return;
        };
        if self.try_sql_as("root", "mysql", "SHUTDOWN").is_err() {
            let _ = child.kill();
        }
        let _ = child.wait();
    }

    /// Waits until the server has ended, e.g. because its process was killed; its data stay.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn ended(&mut self) -> io::Result<()> {
        match self.server.take() {
            Some(mut child) => child.wait().map(|_| ()),
            None => Ok(()),
        }
    }

    /// The file with the number of its process.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.root.path().join("pid")
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.root.path().join("s")
    }

    fn temporary_dir(&self) -> PathBuf {
        self.root.path().join("tmp")
    }

    fn data_dir(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// Runs SQL in a database and answers what `mariadb` prints, without headings.
    ///
    /// # Panics
    /// When it fails.
    #[allow(clippy::panic, reason = "for tests only")]
    pub fn sql(&self, database: &str, sql: &str) -> String {
        match self.try_sql_as(Self::USER, database, sql) {
            Ok(text) => text,
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    /// As [`sql`](Self::sql), as another account, with a failure to look at.
    ///
    /// # Errors
    /// What `mariadb` said.
    pub fn try_sql_as(&self, user: &str, database: &str, sql: &str) -> io::Result<String> {
        let mut child = self.client(user, database).spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // It may have ended already; then its exit status says why.
            let _ = input.write_all(sql.as_bytes());
        }
        let output: Output = child.wait_with_output()?;
        succeeded("mariadb", &output)?;
        Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned())
    }

    /// A `mariadb` that is connected to a database, and waits for its input.
    #[must_use]
    pub fn client(&self, user: &str, database: &str) -> Command {
        let mut client = Command::new(find("mariadb").unwrap_or_default());
        client
            .args([
                "--no-defaults",
                "--batch",
                "--raw",
                "--skip-column-names",
                "--unbuffered",
            ])
            .arg("--default-character-set=utf8mb4")
            .arg(format!("--socket={}", self.socket().display()))
            .arg(format!("--user={user}"))
            .arg(format!("--database={database}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        client
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(find(name).unwrap_or_default());
        command.current_dir("/").env("LC_ALL", "C");
        // mariadbd refuses to run as root.
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for MariadbServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let places = DIRECTORIES.iter().map(|place| Path::new(place).join(name));
    places.into_iter().find(|path| path.is_file())
}
