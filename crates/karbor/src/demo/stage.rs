//! Where the demo plays: a private directory, the service, and the commands that are shown.

use std::{
    cell::Cell,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::failure::{Failure, during};

/// How long the service may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// Provider and project of the embedded set-up, as the bank's folders name them.
const REPOSITORY: [&str; 2] = ["cf9d5f5c-5a2c-5d0e-9d63-6b6172626f72", "default"];

/// The private directory.
pub(super) struct Stage {
    folder: tempfile::TempDir,
    keep: bool,
    step: Cell<u32>,
}

impl Stage {
    pub(super) fn set(keep: bool) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("karbor-demo-").tempdir()?;
        // PostgreSQL runs as another user and has to get through to its own folder.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711))?;
        fs::create_dir(folder.path().join("state"))?;
        fs::set_permissions(
            folder.path().join("state"),
            fs::Permissions::from_mode(0o700),
        )?;
        Ok(Self {
            folder,
            keep,
            step: Cell::new(1),
        })
    }

    pub(super) fn clear(self) -> std::io::Result<()> {
        if self.keep {
            let kept = self.folder.keep();
            print(&format!("\nKept: {}", kept.display()));
            return Ok(());
        }
        self.folder.close()
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// The next step, in words.
    pub(super) fn say(&self, what: &str) {
        print(&format!(
            "\n{}. {what}",
            self.step.replace(self.step.get() + 1)
        ));
    }

    /// Something that must not be overlooked.
    pub(super) fn shout(&self, what: &str) {
        print(&format!("   !! {what}"));
    }

    fn command(&self, arguments: &[&str]) -> Result<Command, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KARBOR_"))
        {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .env("KARBOR_STATE_DIR", self.state())
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Shows a command and runs it.
    pub(super) fn karbor(&self, arguments: &[&str]) -> Result<(), Failure> {
        print(&format!("\n   $ karbor {}", arguments.join(" ")));
        let status = self
            .command(arguments)?
            .status()
            .map_err(during("karbor"))?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("karbor {} failed: {status}", arguments.join(" ")).into())
        }
    }

    /// Runs a command for its answer.
    pub(super) fn ask(&self, arguments: &[&str]) -> Result<String, Failure> {
        let output = self
            .command(arguments)?
            .stderr(Stdio::inherit())
            .output()
            .map_err(during("karbor"))?;
        if !output.status.success() {
            return Err(format!("karbor {} failed: {}", arguments.join(" "), output.status).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts the service on a private port and waits until it answers.
    pub(super) fn serve(&self) -> Result<Service, Failure> {
        self.say("The service starts, on a port and a directory of its own.");
        print("\n   $ karbor serve --listen 127.0.0.1:0 &");
        let log = self.path().join("service.log");
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"])?;
        let child = command
            .stderr(fs::File::create(&log)?)
            .stdout(Stdio::null())
            .spawn()?;
        let mut service = Service { child: Some(child) };
        let endpoint = self.state().join("endpoint");
        let since = Instant::now();
        while !endpoint.exists() {
            if service.has_ended()? || since.elapsed() > PATIENCE {
                let log = fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("the service did not start:\n{log}").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        print(&format!("   {}", fs::read_to_string(endpoint)?.trim()));
        Ok(service)
    }

    /// Lets the real restic list and check what we wrote.
    pub(super) fn show_with_restic(&self) -> Result<(), Failure> {
        let repository = self
            .state()
            .join("bank/karbor/vaults")
            .join(REPOSITORY.join("/"));
        if Command::new("restic").arg("version").output().is_err() {
            self.shout("restic is not on this machine: its own look at the bank is left out");
            return Ok(());
        }
        self.say(
            "The bank holds an ordinary restic repository: the real restic lists and checks it.",
        );
        let password = self.ask(&["manage", "vault-password", REPOSITORY[0], REPOSITORY[1]])?;
        for arguments in [["snapshots", "--compact"], ["check", "--read-data"]] {
            print(&format!("\n   $ restic {}", arguments.join(" ")));
            let status = Command::new("restic")
                .args(["--no-cache", "-r"])
                .arg(&repository)
                .args(arguments)
                .env("RESTIC_PASSWORD", password.trim())
                .status()?;
            if !status.success() {
                return Err(format!("restic {} failed: {status}", arguments[0]).into());
            }
        }
        Ok(())
    }
}

/// The service; stopped when dropped.
pub(super) struct Service {
    child: Option<Child>,
}

impl Service {
    fn has_ended(&mut self) -> std::io::Result<bool> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?.is_some()),
            None => Ok(true),
        }
    }

    /// Asks it to stop and waits until it has.
    pub(super) fn stop(mut self) -> Result<(), Failure> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
        }
        let status = child.wait()?;
        self.child = None;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the service ended with {status}").into())
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A line for the person who watches. One who went away is no reason to stop half-way.
pub(super) fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
