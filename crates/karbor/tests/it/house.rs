//! A service in a process of its own.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The embedded provider.
pub const LOCAL: &str = "cf9d5f5c-5a2c-5d0e-9d63-6b6172626f72";

/// Longer than anything takes on a machine that is busy; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(180);

/// The user nobody.
const NOBODY: u32 = 65534;

/// Makes the managers of the service call each other by RPC, if this is the run of the tests that is about that.
fn calls() -> Vec<(String, String)> {
    let by_rpc = std::env::var_os("KARBOR_TEST_LOCAL_RPC").is_some();
    let option = ("OS_DEFAULT__LOCAL_RPC".to_owned(), "true".to_owned());
    by_rpc.then_some(option).into_iter().collect()
}

/// Waits until `look` finds something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A state directory, and the service on it while one runs.
pub struct House {
    root: TempDir,
    service: Option<Child>,
    starts: usize,
    environment: Vec<(String, String)>,
    /// Where the service listens.
    pub listen: &'static str,
    /// Of the service that runs as nobody.
    program: Option<PathBuf>,
}

impl House {
    /// Everything made, nothing started.
    pub fn new() -> Self {
        let root = tempfile::Builder::new()
            .prefix("karbor-it-")
            .tempdir()
            .unwrap();
        for name in ["state", "state/applications.d", "hold"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(root.path().join("state"), private).unwrap();
        Self {
            root,
            service: None,
            starts: 0,
            environment: calls(),
            listen: "127.0.0.1:0",
            program: None,
        }
    }

    /// With a provider that protects simulated resources too; nothing started.
    pub fn simulating() -> Self {
        let house = Self::new();
        house.local_provider("state/bank", None);
        house
    }

    /// With a service on it that protects simulated resources too.
    pub fn started_simulating() -> Self {
        let mut house = Self::simulating();
        house.start();
        house
    }

    /// With a service on it.
    pub fn started() -> Self {
        let mut house = Self::new();
        house.start();
        house
    }

    /// Root reads everything, so the service has to run as somebody else to fail at it.
    pub fn unprivileged(&mut self) {
        if !rustix::process::getuid().is_root() {
            return;
        }
        let owned = Command::new("chown")
            .args(["-R", &format!("{NOBODY}:{NOBODY}")])
            .arg(self.root.path())
            .status();
        assert!(owned.unwrap().success());
        // The build's directory may be closed to others.
        let program = self.path("karbor");
        fs::copy(env!("CARGO_BIN_EXE_karbor"), &program).unwrap();
        self.program = Some(program);
    }

    /// For the service, from the next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    pub fn bank(&self) -> PathBuf {
        self.path("state/bank/karbor")
    }

    /// The repository of the default project.
    pub fn repository(&self) -> PathBuf {
        self.bank().join("vaults").join(LOCAL).join("default")
    }

    /// Declares a provider.
    pub fn provider(&self, file: &str, text: &str) {
        let folder = self.state().join("providers.d");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(file), text).unwrap();
    }

    /// Declares a provider as the embedded one, that protects simulated resources too.
    pub fn local_provider(&self, bank: &str, copy_bank: Option<&str>) {
        let section = |prefix: &str, place: &str| {
            let place = self.path(place);
            format!(
                "[{prefix}file_system_bank_plugin]\nfile_system_bank_path = {}\n",
                place.display()
            )
        };
        let plugins = karbor_plugins::host::PLUGINS.map(|name| format!("plugin = {name}\n"));
        let plugins = plugins.concat();
        let mut text = format!(
            "[provider]\nname = local\nid = {LOCAL}\nenabled = True\nbank = karbor-fs-bank-plugin\n\
             {plugins}plugin = karbor-simulated-protection-plugin\n"
        );
        if copy_bank.is_some() {
            text.push_str("copy_bank = karbor-fs-bank-plugin\n");
        }
        text.push_str(&section("", bank));
        if let Some(copy_bank) = copy_bank {
            text.push_str(&section("copy.", copy_bank));
        }
        self.provider("local.conf", &text);
    }

    fn command(&self) -> Command {
        self.environment_of(Command::new(env!("CARGO_BIN_EXE_karbor")))
    }

    /// A process sees nothing of what this one was told about karbor.
    fn environment_of(&self, mut command: Command) -> Command {
        for (name, _) in std::env::vars_os() {
            let ours = |name: &str| name.starts_with("KARBOR_") || name.starts_with("OS_");
            if name.to_str().is_some_and(ours) {
                command.env_remove(name);
            }
        }
        command
            .env("KARBOR_STATE_DIR", self.state())
            .stdin(Stdio::null());
        command
    }

    fn service(&self) -> Command {
        let Some(program) = &self.program else {
            return self.command();
        };
        let mut command = self.environment_of(Command::new(program));
        command.uid(NOBODY).gid(NOBODY);
        command
    }

    fn log_file(&self) -> PathBuf {
        self.path(&format!("serve-{}.log", self.starts))
    }

    /// What the service that was started last has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap()
    }

    /// Starts a service, which may refuse.
    pub fn spawn(&mut self) -> Child {
        self.starts += 1;
        self.service()
            .args(["serve", "--listen", self.listen])
            .env("KARBOR_SIMULATED_HOLD_DIR", self.path("hold"))
            .env("KARBOR_LOG", "info,karbor_api=warn,sea_orm_migration=warn")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stderr(File::create(self.log_file()).unwrap())
            .spawn()
            .unwrap()
    }

    /// Starts the service and waits until it answers.
    pub fn start(&mut self) {
        assert!(self.service.is_none(), "a service runs already");
        let mut child = self.spawn();
        until("the service to be ready", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the service ended with {status}:\n{}", self.log());
            }
            self.log().contains("karbor is ready").then_some(())
        });
        if !calls().is_empty() {
            assert!(self.log().contains("call each other by RPC"));
        }
        self.service = Some(child);
    }

    /// Starts a service that must refuse, and answers with what it said.
    pub fn refused(&mut self) -> String {
        let mut child = self.spawn();
        let status = ended(&mut child);
        let said = self.log();
        assert_eq!(status.code(), Some(1), "{said}");
        said
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut service = self.service.take().unwrap();
        service.kill().unwrap();
        assert_eq!(
            service.wait().unwrap().signal(),
            Some(9),
            "it had died before:\n{}",
            self.log()
        );
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        signal(self.service.as_ref().unwrap(), Signal::TERM);
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        signal(self.service.as_ref().unwrap(), Signal::HUP);
    }

    /// Waits for the end of a service that was told to.
    pub fn ended(&mut self) -> ExitStatus {
        ended(&mut self.service.take().unwrap())
    }

    /// Runs the client.
    pub fn client(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    /// Runs the client with something to read.
    pub fn client_reads(&self, arguments: &[&str], input: &str) -> Output {
        let file = self.path("input");
        fs::write(&file, input).unwrap();
        self.command()
            .args(arguments)
            .stdin(File::open(file).unwrap())
            .output()
            .unwrap()
    }

    /// Posts to the API; the answer must be good.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let read = |name: &str| fs::read_to_string(self.state().join(name)).unwrap();
        let (endpoint, token) = (read("endpoint"), read("token"));
        let (address, root) = endpoint
            .trim()
            .strip_prefix("http://")
            .and_then(|rest| rest.split_once('/'))
            .unwrap();
        let body = body.to_string();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(
            stream,
            "POST /{root}/{path} HTTP/1.0\r\nHost: {address}\r\nX-Auth-Token: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            token.trim(),
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 OK"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    /// What the client printed; it must succeed.
    pub fn text(&self, arguments: &[&str]) -> String {
        let output = self.client(arguments);
        assert!(
            output.status.success(),
            "karbor {} ended with {}: {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same as JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(&[arguments, &["-f", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Makes a plan of simulated resources that have nothing to do with each other.
    pub fn simulated_plan(&self, name: &str, resources: &[&str]) {
        let resources: Vec<_> = resources
            .iter()
            .map(|resource| {
                let id = uuid::Uuid::new_v4();
                json!({"id": id, "type": "Simulated::Resource", "name": resource}).to_string()
            })
            .collect();
        let mut arguments = vec!["plan", "create", name, "--provider", "local"];
        for resource in &resources {
            arguments.extend(["--resource", resource]);
        }
        self.json(&arguments);
    }

    /// Begins a protect; answers with the checkpoint's id.
    pub fn protect(&self, plan: &str) -> String {
        id(&self.json(&["checkpoint", "create", plan]))
    }

    /// Protects to the end, which must be good.
    pub fn protected(&self, plan: &str) -> String {
        let checkpoint = self.json(&["checkpoint", "create", plan, "--wait"]);
        assert_eq!(checkpoint["status"], "available");
        id(&checkpoint)
    }

    pub fn checkpoint(&self, id: &str) -> Value {
        self.json(&["checkpoint", "show", id])
    }

    /// The log of an operation on a checkpoint, the newest.
    pub fn operation(&self, checkpoint: &str, operation: &str) -> Option<Value> {
        let logs = self.json(&["operation-log", "list", "--checkpoint", checkpoint]);
        let logs = logs.as_array().unwrap().clone();
        logs.into_iter()
            .filter(|log| log["operation_type"] == operation)
            .max_by_key(|log| log["started_at"].as_str().unwrap().to_owned())
    }

    /// The same when it has ended.
    pub fn operation_ended(&self, checkpoint: &str, operation: &str) -> Value {
        until("the operation to end", || {
            self.operation(checkpoint, operation)
                .filter(|log| !is_running(log))
        })
    }

    /// Operations that have not ended.
    pub fn unended(&self) -> Vec<Value> {
        let logs = self.json(&["operation-log", "list"]);
        let logs = logs.as_array().unwrap().iter();
        logs.filter(|log| is_running(log)).cloned().collect()
    }

    /// `index.json` of a checkpoint as it lies in the bank. A reader may look at any moment.
    pub fn index(&self, checkpoint: &str) -> Value {
        let path = self
            .bank()
            .join("checkpoints")
            .join(checkpoint)
            .join("index.json");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    /// How often hooks were held.
    pub fn held(&self) -> usize {
        fs::read_dir(self.path("hold")).unwrap().count()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(mut service) = self.service.take() {
            let _ = service.kill();
            let _ = service.wait();
        }
        if std::thread::panicking() && self.starts > 0 {
            eprintln!(
                "--- the log of the service that was started last:\n{}",
                self.log()
            );
        }
    }
}

/// Sends a signal to a process of ours.
pub fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Waits for the end of a process.
pub fn ended(child: &mut Child) -> ExitStatus {
    until("the service to end", || child.try_wait().unwrap())
}

/// A file of this crate's `tests/data`.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// What a command answered.
pub fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The same, and what it said beside.
pub fn everything(output: &Output) -> String {
    out(output) + &String::from_utf8_lossy(&output.stderr)
}

/// `id` of a record.
pub fn id(record: &Value) -> String {
    record["id"]
        .as_str()
        .unwrap_or_else(|| panic!("no id: {record}"))
        .to_owned()
}

/// Every file below a directory, as paths relative to it.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        // What vanishes under a look was not there.
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.filter_map(Result::ok) {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) => found.push(entry.path().strip_prefix(directory).unwrap().to_owned()),
                Err(_) => {}
            }
        }
    }
    found.sort();
    found
}

/// Does a record of the operation log say that the operation runs?
fn is_running(log: &Value) -> bool {
    matches!(
        log["status"].as_str(),
        Some("protecting" | "copying" | "deleting" | "in_progress")
    )
}

/// Does it say that the operation went well?
pub fn went_well(log: &Value) -> bool {
    matches!(
        log["status"].as_str(),
        Some("available" | "deleted" | "success")
    )
}
