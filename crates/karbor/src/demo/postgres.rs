//! A PostgreSQL server of the demo's own, if the programs are on the machine.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::failure::{Failure, during};

/// Its port: the name of a socket in a folder of its own, so it meets no other server.
pub(super) const PORT: u16 = 54_329;
/// The superuser that it is made with.
pub(super) const USER: &str = "demo";
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server; stopped when dropped.
pub(super) struct Postgres {
    bin: PathBuf,
    folder: PathBuf,
    account: Option<(u32, u32)>,
    server: Option<Child>,
}

impl Postgres {
    /// Where `initdb`, `postgres`, `psql` and `pg_dump` are, if they are.
    pub(super) fn programs() -> Option<PathBuf> {
        let mut places: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
            .collect();
        places.sort();
        places.reverse();
        let path = std::env::var_os("PATH").unwrap_or_default();
        places.extend(std::env::split_paths(&path));
        let needed = ["initdb", "postgres", "psql", "pg_dump", "pg_restore"];
        places
            .into_iter()
            .find(|place| needed.iter().all(|name| place.join(name).is_file()))
    }

    /// Makes a server in `folder` and starts it.
    pub(super) fn start(bin: PathBuf, folder: PathBuf) -> Result<Self, Failure> {
        fs::create_dir(&folder)?;
        let mut server = Self {
            bin,
            folder,
            account: account()?,
            server: None,
        };
        let sockets = server.sockets();
        fs::create_dir(&sockets)?;
        for place in [&server.folder, &sockets] {
            fs::set_permissions(place, fs::Permissions::from_mode(0o755))?;
            if let Some((user, group)) = server.account {
                std::os::unix::fs::chown(place, Some(user), Some(group))?;
            }
        }
        let made = server
            .program("initdb")
            .args([
                "--no-sync",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "-U",
                USER,
                "-D",
            ])
            .arg(server.folder.join("data"))
            .output()
            .map_err(during("initdb"))?;
        if !made.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)).into());
        }
        let log = fs::File::create(server.folder.join("log"))?;
        let running = server
            .program("postgres")
            .args([
                "-c",
                "listen_addresses=",
                "-c",
                "unix_socket_permissions=0777",
                "-p",
                &PORT.to_string(),
                "-k",
            ])
            .arg(&sockets)
            .arg("-D")
            .arg(server.folder.join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(during("postgres"))?;
        server.server = Some(running);
        let since = Instant::now();
        while let Err(error) = server.sql("postgres", "SELECT 1") {
            if since.elapsed() > PATIENCE {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    pub(super) fn sockets(&self) -> PathBuf {
        self.folder.join("sockets")
    }

    pub(super) fn bin(&self) -> &Path {
        &self.bin
    }

    /// Runs SQL and answers what it prints.
    pub(super) fn sql(&self, database: &str, sql: &str) -> Result<String, Failure> {
        let output = self
            .program("psql")
            .args([
                "--no-psqlrc",
                "-qAt",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                USER,
                "-p",
                &PORT.to_string(),
                "-h",
            ])
            .arg(self.sockets())
            .args(["-d", database, "-c", sql])
            .output()
            .map_err(during("psql"))?;
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout)?);
        }
        Err(format!("psql: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.current_dir("/").env("LC_ALL", "C");
        // The server refuses to run as root.
        if let Some((user, group)) = self.account {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let stopped = self
            .program("pg_ctl")
            .args(["stop", "--wait", "--mode=fast", "-D"])
            .arg(self.folder.join("data"))
            .output();
        if let Some(server) = &mut self.server {
            if !stopped.is_ok_and(|output| output.status.success()) {
                let _ = server.kill();
            }
            let _ = server.wait();
        }
    }
}

/// For root, somebody else to run the server as.
fn account() -> io::Result<Option<(u32, u32)>> {
    if !rustix::process::getuid().is_root() {
        return Ok(None);
    }
    let accounts = fs::read_to_string("/etc/passwd")?;
    let find = |name: &str| {
        let mut fields = accounts
            .lines()
            .find(|line| line.split(':').next() == Some(name))?
            .split(':')
            .skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let account = find("postgres").or_else(|| find("nobody"));
    account.map(Some).ok_or_else(|| {
        io::Error::other("neither 'postgres' nor 'nobody' is an account on this machine")
    })
}
