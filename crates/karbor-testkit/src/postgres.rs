//! A real PostgreSQL server of a test's own: temporary data, a private socket, no TCP port. It goes
//! with the value.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A running server. Connect to the socket in [`socket_dir`](Self::socket_dir), port
/// [`PORT`](Self::PORT), as [`USER`](Self::USER), no password asked.
#[derive(Debug)]
pub struct PostgresServer {
    bin: PathBuf,
    root: TempDir,
    account: Option<(u32, u32)>,
    server: Option<Child>,
}

impl PostgresServer {
    /// The port, which names the socket; nothing listens on TCP.
    pub const PORT: u16 = 5432;
    /// The superuser.
    pub const USER: &'static str = "karbor";

    /// Starts a server if its programs are on this machine. When they are not: says so loudly and
    /// answers `None`, or panics when `KARBOR_REQUIRE_SERVERS=1`.
    ///
    /// # Panics
    /// When the programs are there and the server does not start.
    #[must_use]
    #[allow(clippy::panic, clippy::print_stderr, reason = "for tests only")]
    pub fn start() -> Option<Self> {
        let Some(bin) = Self::binaries() else {
            let message = "PostgreSQL's server programs (initdb, postgres) are not on this machine";
            if std::env::var("KARBOR_REQUIRE_SERVERS").is_ok_and(|v| v == "1") {
                panic!("{message}, and KARBOR_REQUIRE_SERVERS=1");
            }
            eprintln!("SKIPPED: {message}");
            return None;
        };
        match Self::start_in(bin) {
            Ok(server) => Some(server),
            Err(error) => panic!("PostgreSQL did not start: {error}"),
        }
    }

    /// Where `initdb` and `postgres` are: the newest of Debian's places, or the `PATH`.
    #[must_use]
    pub fn binaries() -> Option<PathBuf> {
        let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
        let mut places: Vec<(u32, PathBuf)> = debian
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let version = entry.file_name().to_str()?.parse().ok()?;
                Some((version, entry.path().join("bin")))
            })
            .collect();
        places.sort();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path: Vec<PathBuf> = std::env::split_paths(&path).collect();
        let newest_first = places.into_iter().rev().map(|(_, place)| place);
        newest_first
            .chain(path)
            .find(|place| place.join("initdb").is_file() && place.join("postgres").is_file())
    }

    fn start_in(bin: PathBuf) -> io::Result<Self> {
        let root = tempfile::Builder::new().prefix("karbor-pg-").tempdir()?;
        let mut server = Self {
            bin,
            root,
            account: unprivileged("postgres")?,
            server: None,
        };
        give_away(server.root.path(), server.account)?;
        fs::create_dir(server.socket_dir())?;
        give_away(&server.socket_dir(), server.account)?;
        let made = server
            .program("initdb")
            .args([
                "--no-sync",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "-U",
                Self::USER,
                "-D",
            ])
            .arg(server.data_dir())
            .output()?;
        succeeded("initdb", &made)?;
        server.run()?;
        Ok(server)
    }

    /// Starts the server again after [`stop`](Self::stop).
    ///
    /// # Errors
    /// When it does not answer within half a minute.
    pub fn run(&mut self) -> io::Result<()> {
        let log = fs::File::create(self.root.path().join("log"))?;
        let child = self
            .program("postgres")
            .args([
                "-c",
                "listen_addresses=",
                "-c",
                "fsync=off",
                "-c",
                "max_connections=20",
            ])
            .args([
                "-c",
                "shared_buffers=16MB",
                "-c",
                "unix_socket_permissions=0777",
            ])
            .args(["-p", &Self::PORT.to_string(), "-k"])
            .arg(self.socket_dir())
            .arg("-D")
            .arg(self.data_dir())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.server = Some(child);
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if self.try_sql("postgres", "SELECT 1").is_ok() {
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

    /// Stops the server at once; its data stay.
    pub fn stop(&mut self) {
        let Some(mut child) = self.server.take() else {
            return;
        };
        let asked = self
            .program("pg_ctl")
            .args(["stop", "--wait", "--mode=fast", "-D"])
            .arg(self.data_dir())
            .output();
        if !asked.is_ok_and(|output| output.status.success()) {
            let _ = child.kill();
        }
        let _ = child.wait();
    }

    /// Where the socket is: the `host` to connect to.
    #[must_use]
    pub fn socket_dir(&self) -> PathBuf {
        self.root.path().join("s")
    }

    /// Where the server's data are.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// Where the server's programs are.
    #[must_use]
    pub fn bin_dir(&self) -> &Path {
        &self.bin
    }

    /// Runs SQL in a database and answers what `psql` prints, unaligned and without headings.
    ///
    /// # Panics
    /// When it fails.
    #[allow(clippy::panic, reason = "for tests only")]
    pub fn sql(&self, database: &str, sql: &str) -> String {
        match self.try_sql(database, sql) {
            Ok(text) => text,
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    /// As [`sql`](Self::sql), with a failure to look at.
    ///
    /// # Errors
    /// What `psql` said.
    pub fn try_sql(&self, database: &str, sql: &str) -> io::Result<String> {
        let output = self.psql(database).args(["-c", sql]).output()?;
        succeeded("psql", &output)?;
        Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned())
    }

    /// A `psql` that is connected to a database.
    #[must_use]
    pub fn psql(&self, database: &str) -> Command {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args(["-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1"])
            .args([
                "-p",
                &Self::PORT.to_string(),
                "-U",
                Self::USER,
                "-d",
                database,
                "-h",
            ])
            .arg(self.socket_dir())
            .stdin(Stdio::null());
        psql
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.current_dir("/").env("LC_ALL", "C");
        // initdb and postgres refuse to run as root.
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Lets a server's account have a directory.
pub(crate) fn give_away(path: &Path, account: Option<(u32, u32)>) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    match account {
        Some((uid, gid)) => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

pub(crate) fn succeeded(program: &str, output: &Output) -> io::Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{program}: {}: {said}",
        output.status
    )))
}

/// The account to run a server as, when we are root: its own, or `nobody`.
pub(crate) fn unprivileged(own: &str) -> io::Result<Option<(u32, u32)>> {
    let me = fs::metadata("/proc/self")?;
    if std::os::unix::fs::MetadataExt::uid(&me) != 0 {
        return Ok(None);
    }
    let accounts = fs::read_to_string("/etc/passwd")?;
    let find = |name: &str| {
        let line = accounts
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    match find(own).or_else(|| find("nobody")) {
        Some(account) => Ok(Some(account)),
        None => Err(io::Error::other(format!(
            "neither '{own}' nor 'nobody' is an account here"
        ))),
    }
}
