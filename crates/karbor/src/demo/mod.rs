//! `karbor demo`: a real application is made, protected twice, wrecked, restored and compared with
//! what it was. Everything is done by the commands that it prints, through the public API of a
//! service on a private port and directory; nothing outside that directory is touched.

mod application;
mod failure;
mod files;
mod postgres;
mod stage;

use std::time::Instant;

use application::Shop;
use clap::Args;
use failure::Failure;
use stage::Stage;

/// Arguments of `karbor demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Leave everything that the demo made, to look at
    #[arg(long)]
    keep: bool,
}

/// Runs the demo.
pub(crate) fn run(arguments: &DemoArguments) -> Result<(), Failure> {
    let started = Instant::now();
    let stage = Stage::set(arguments.keep)?;
    let played = play(&stage, started);
    let cleared = stage.clear();
    played?;
    Ok(cleared?)
}

fn play(stage: &Stage, started: Instant) -> Result<(), Failure> {
    stage.say("An application: files, an SQLite database, and a PostgreSQL database if its programs are here.");
    let mut shop = Shop::open(stage)?;
    shop.declare(stage)?;
    let service = stage.serve()?;
    stage.karbor(&["application", "list"])?;

    stage.say("It is protected, goes on working, and is protected again: the second time only what is new is stored.");
    stage.karbor(&["protect", "shop", "--wait"])?;
    shop.work()?;
    stage.karbor(&["protect", "shop", "--wait"])?;
    stage.karbor(&["checkpoint", "list", "shop"])?;
    let before = shop.state()?;

    stage.say("A bad day: files deleted and changed, SQLite overwritten with rubbish, the PostgreSQL database dropped.");
    shop.wreck()?;
    if shop.state().is_ok_and(|wrecked| wrecked == before) {
        return Err("the application was to be wrecked, and is as it was".into());
    }

    stage.say("What would a restore change? Then it is done.");
    stage.karbor(&[
        "restore",
        "shop",
        "--latest",
        "--overwrite",
        "always",
        "--dry-run",
    ])?;
    stage.karbor(&[
        "restore",
        "shop",
        "--latest",
        "--overwrite",
        "always",
        "--wait",
    ])?;
    shop.compare(stage, &before)?;

    stage.say("Every byte in the bank is read back and checked.");
    let newest = stage.ask(&[
        "checkpoint",
        "list",
        "shop",
        "--limit",
        "1",
        "-f",
        "value",
        "-c",
        "ID",
    ])?;
    stage.karbor(&["verification", "create", newest.trim(), "--data", "--wait"])?;
    stage.show_with_restic()?;
    service.stop()?;
    stage.say(&format!(
        "Protected, destroyed, restored, proved equal: {} in {:.0} s.",
        shop.parts(),
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}
