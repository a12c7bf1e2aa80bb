//! `cargo xtask ci`: each step runs even when one before it failed, so that one run tells all.

use std::time::Instant;

use clap::Args;

use crate::{circles, failure::Failure, levels, reference, shell, stores, test};

#[derive(Args)]
pub(crate) struct CiArguments {
    /// Leave the tests out (`.ci/run` ends with them itself)
    #[arg(long)]
    no_test: bool,
}

type Step = (&'static str, fn() -> Result<(), Failure>);

const STEPS: &[Step] = &[
    ("levels", levels::run),
    ("circles", circles::run),
    ("stores", stores::run),
    ("format", format),
    ("lints", lints),
    ("licences and bans", deny),
    ("configuration reference", || reference::run(true)),
    ("tests", || test::run(&test::TestArguments::default())),
];

/// Runs the steps and sums up.
pub(crate) fn run(arguments: &CiArguments) -> Result<(), Failure> {
    let mut summary = Vec::new();
    let mut failed = Vec::new();
    for (name, step) in STEPS {
        if arguments.no_test && *name == "tests" {
            continue;
        }
        eprintln!("\n=== {name}");
        let began = Instant::now();
        let outcome = step();
        let seconds = began.elapsed().as_secs();
        match outcome {
            Ok(()) => summary.push(format!("ok      {name} ({seconds} s)")),
            Err(error) => {
                eprintln!("error: {error}");
                summary.push(format!("FAILED  {name} ({seconds} s): {error}"));
                failed.push(*name);
            }
        }
    }
    println!("\n{}", summary.join("\n"));
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("failed: {}", failed.join(", ")).into())
    }
}

fn format() -> Result<(), Failure> {
    shell::run(&mut shell::cargo_command(&["fmt", "--all", "--check"]))
}

fn lints() -> Result<(), Failure> {
    shell::run(&mut shell::cargo_command(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]))
}

/// Advisories are left out: their database has to be fetched, and CI may run without a network
/// beyond the package registry.
fn deny() -> Result<(), Failure> {
    if !shell::succeeds(&mut shell::cargo_command(&["deny", "--version"])) {
        return Err("cargo-deny is not here: `cargo install cargo-deny --locked`".into());
    }
    shell::run(&mut shell::cargo_command(&[
        "deny",
        "--workspace",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))
}
