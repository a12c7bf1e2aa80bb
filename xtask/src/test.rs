//! `cargo xtask test`: every test there is, with the servers and tools that they need.
//!
//! Tests start their servers themselves, each its own, on private ports and directories; what must
//! be there is the programs. With `KARBOR_REQUIRE_SERVERS=1` a test that misses one fails instead of
//! passing over it, so that a green run means that everything ran.

use std::{fs, path::PathBuf, process::Command, time::Instant};

use clap::Args;

use crate::{failure::Failure, original, python, shell};

/// The variable that turns "passed over" into "failed".
const REQUIRE_SERVERS: &str = "KARBOR_REQUIRE_SERVERS";

/// The variable that puts the managers of every service of a test behind their RPC clients.
const LOCAL_RPC: &str = "KARBOR_TEST_LOCAL_RPC";

#[derive(Args, Default)]
pub(crate) struct TestArguments {
    /// Run without what is missing; the tests that need it are passed over, and that is said
    #[arg(long)]
    allow_missing: bool,
    /// Install nothing, only check
    #[arg(long)]
    no_install: bool,
}

/// Something that tests start.
struct Tool {
    /// What it is, for a person.
    name: &'static str,
    /// The Debian package.
    package: &'static str,
    /// The programs that must be there.
    programs: &'static [&'static str],
    /// Which tests need it.
    used_by: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool {
        name: "restic",
        package: "restic",
        programs: &["restic"],
        used_by: "the vault's exchange with the real restic, the demo's check of the bank",
    },
    Tool {
        name: "PostgreSQL",
        package: "postgresql",
        programs: &[
            "initdb",
            "pg_ctl",
            "postgres",
            "pg_dump",
            "pg_restore",
            "psql",
        ],
        used_by: "Host::PostgreSQL::Database, the demo's database",
    },
    Tool {
        name: "MariaDB",
        package: "mariadb-server",
        programs: &["mariadbd", "mariadb-install-db", "mariadb", "mariadb-dump"],
        used_by: "Host::MariaDB::Database",
    },
    Tool {
        name: "Python",
        package: "python3-venv",
        programs: &["python3"],
        used_by: "what is compared with Python's own libraries",
    },
    Tool {
        name: "keystone",
        package: "python3-keystone",
        programs: &["keystone-manage"],
        used_by: "auth_strategy = keystone and trusts against a real keystone, the real clients' life with it",
    },
    Tool {
        name: "strace",
        package: "strace",
        programs: &["strace"],
        used_by: "the order in which the file system bank flushes",
    },
    Tool {
        name: "groff",
        package: "groff-base",
        programs: &["groff"],
        used_by: "the man pages' form",
    },
    Tool {
        name: "zsh",
        package: "zsh",
        programs: &["zsh"],
        used_by: "the completions for zsh",
    },
    Tool {
        name: "fish",
        package: "fish",
        programs: &["fish"],
        used_by: "the completions for fish",
    },
];

/// Installs, checks, runs.
pub(crate) fn run(arguments: &TestArguments) -> Result<(), Failure> {
    let missing = prepare(arguments.no_install)?;
    if !missing.is_empty() && !arguments.allow_missing {
        return Err(advice(&missing).into());
    }
    let environments = python::prepare(arguments.no_install)?;
    if let Some(missing) = environments.first().filter(|_| !arguments.allow_missing) {
        return Err(python::advice(missing).into());
    }
    let original = original::fetch();
    if let Err(error) = &original
        && !arguments.allow_missing
    {
        return Err(format!("the original's source could not be fetched: {error}").into());
    }
    let complete = missing.is_empty() && environments.is_empty() && original.is_ok();
    let mut took = Vec::new();
    let mut timed = |part: &str, run: &mut dyn FnMut() -> Result<(), Failure>| {
        let began = Instant::now();
        let outcome = run();
        let minutes = began.elapsed().as_secs_f64() / 60.0;
        took.push(format!("{minutes:6.1} min  {part}"));
        outcome
    };
    timed("tests", &mut || tests(complete))?;
    timed("tests of the binary, by RPC", &mut || {
        tests_by_rpc(complete)
    })?;
    timed("tests in the documentation", &mut || {
        shell::run(&mut cargo_test(&["--doc"], complete))
    })?;
    timed("examples", &mut examples)?;
    for lab in ["clients", "openapi"] {
        if !environments.iter().any(|(name, _)| name == lab) {
            timed(lab, &mut || shell::run(&mut self::lab(lab, complete)))?;
        }
    }
    println!("\n{}\n", took.join("\n"));
    if complete {
        println!("All tests ran, with every server and tool they need.");
    } else {
        for tool in &missing {
            println!(
                "*** PASSED OVER, because {} is not here: {} ***",
                tool.name, tool.used_by
            );
        }
        for (name, _) in &environments {
            println!("*** PASSED OVER, because the Python environment '{name}' is not here ***");
        }
        if let Err(error) = original {
            println!("*** PASSED OVER: the original's sample files ({error}) ***");
        }
    }
    Ok(())
}

/// Installs what is missing if we may, and returns what still is.
fn prepare(no_install: bool) -> Result<Vec<&'static Tool>, Failure> {
    let missing = missing();
    let may_install = shell::is_root() && shell::find("apt-get", &[]).is_some();
    if missing.is_empty() || no_install || !may_install {
        return Ok(missing);
    }
    let mut install = Command::new("apt-get");
    install
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "--yes", "--no-install-recommends"])
        .args(missing.iter().map(|tool| tool.package));
    let mut update = Command::new("apt-get");
    shell::run(update.args(["update", "--quiet"]))?;
    shell::run(&mut install)?;
    Ok(self::missing())
}

fn missing() -> Vec<&'static Tool> {
    let mut extra = postgresql_directories();
    // Where Debian keeps servers, and not every account looks.
    extra.push(PathBuf::from("/usr/sbin"));
    TOOLS
        .iter()
        .filter(|tool| {
            !tool
                .programs
                .iter()
                .all(|program| shell::find(program, &extra).is_some())
        })
        .collect()
}

/// Debian keeps the server's programs out of `PATH`, by version.
fn postgresql_directories() -> Vec<PathBuf> {
    fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect()
}

fn advice(missing: &[&Tool]) -> String {
    let packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    let names: Vec<_> = missing.iter().map(|tool| tool.name).collect();
    format!(
        "{} not found. Install with `apt-get install {}` (or your system's way), or run \
         `cargo xtask test --allow-missing` to do without.",
        names.join(" and "),
        packages.join(" ")
    )
}

/// All but doc tests.
fn tests(complete: bool) -> Result<(), Failure> {
    let mut command = match has_nextest() {
        true => {
            shell::cargo_command(&["nextest", "run", "--no-fail-fast", "--workspace", "--tests"])
        }
        false => cargo_test(&["--tests", "--no-fail-fast"], complete),
    };
    shell::run(require(&mut command, complete))
}

/// The tests of the binary once more, with every manager behind its RPC client.
fn tests_by_rpc(complete: bool) -> Result<(), Failure> {
    // The whole workspace is named, so that nothing is built anew.
    const OF_THE_BINARY: &str = "package(karbor) and kind(test)";
    let mut command = match has_nextest() {
        true => {
            let run = ["nextest", "run", "--no-fail-fast", "--workspace", "--tests"];
            let mut command = shell::cargo_command(&run);
            command.args(["-E", OF_THE_BINARY]);
            command
        }
        false => shell::cargo_command(&["test", "--package", "karbor", "--test", "it"]),
    };
    shell::run(require(command.env(LOCAL_RPC, "1"), complete))
}

fn has_nextest() -> bool {
    shell::succeeds(&mut shell::cargo_command(&["nextest", "--version"]))
}

fn cargo_test(arguments: &[&str], complete: bool) -> Command {
    let mut command = shell::cargo_command(&["test", "--workspace"]);
    command.args(arguments);
    require(&mut command, complete);
    command
}

/// What drives us from Python.
fn lab(name: &str, complete: bool) -> Command {
    let mut command = Command::new(shell::root().join("lab").join(name).join("run"));
    require(&mut command, complete);
    command
}

fn require(command: &mut Command, complete: bool) -> &mut Command {
    if complete {
        command.env(REQUIRE_SERVERS, "1")
    } else {
        command.env_remove(REQUIRE_SERVERS)
    }
}

/// Every example of every crate: each must end, and end well.
fn examples() -> Result<(), Failure> {
    let metadata = shell::metadata()?;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        for target in package["targets"].as_array().into_iter().flatten() {
            if target["kind"][0] == "example" {
                let example = target["name"].as_str().unwrap_or_default();
                shell::run(&mut shell::cargo_command(&[
                    "run",
                    "--quiet",
                    "--package",
                    name,
                    "--example",
                    example,
                ]))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_says_what_to_install() {
        let text = advice(&TOOLS.iter().collect::<Vec<_>>());
        assert!(
            text.contains(
                "restic and PostgreSQL and MariaDB and Python and keystone and strace and"
            ),
            "{text}"
        );
        assert!(
            text.contains("apt-get install restic postgresql mariadb-server python3-venv python3-keystone strace"),
            "{text}"
        );
    }

    #[test]
    fn a_complete_run_lets_no_test_pass_over_its_server() {
        for command in [cargo_test(&[], true), lab("clients", true)] {
            let set = command.get_envs().any(|(name, value)| {
                name == REQUIRE_SERVERS && value.is_some_and(|value| value == "1")
            });
            assert!(set, "{command:?}");
        }
    }
}
