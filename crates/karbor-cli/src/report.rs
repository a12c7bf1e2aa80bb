//! What an operation did, told when it has ended.

use std::collections::{BTreeMap, BTreeSet};

use karbor_model::{OperationType, ResourceGraph, RunReport, one_line};
use serde_json::{Map, Value};

use crate::arguments::WaitOptions;
use crate::{
    error::{CliError, Exit},
    flaws::Flaws,
    output::{Column, bytes, plain, string, text, unpacked},
    session::Session,
    wait::{Job, Outcome, wait},
};

/// A number in a resource's report, and how it is shown.
type Figure = (&'static str, &'static str, fn(&Value) -> String);

const FIGURES: &[Figure] = &[
    ("files", "FILES", plain),
    ("bytes", "BYTES", bytes),
    ("new_bytes", "NEW BYTES", bytes),
    ("unchanged", "UNCHANGED", plain),
    ("left_out", "LEFT OUT", plain),
];

/// The resources of a checkpoint, or nothing when it does not (yet) know them.
pub(crate) fn graph(checkpoint: &Value) -> Option<ResourceGraph> {
    ResourceGraph::unpack(checkpoint["resource_graph"].as_str()?).ok()
}

/// Names of the resources of a checkpoint by `type#id`.
pub(crate) fn names(checkpoint: &Value) -> BTreeMap<String, String> {
    graph(checkpoint)
        .iter()
        .flat_map(|graph| graph.nodes())
        .map(|resource| (resource.key(), resource.in_words()))
        .collect()
}

impl Session {
    /// Prints a record whose operation was just asked for; with --wait, waits for its end first.
    pub(crate) async fn started(
        &mut self,
        job: Job,
        record: Value,
        columns: &[Column],
        options: WaitOptions,
    ) -> Result<(), CliError> {
        // A refusal is answered with a record too: it has ended already.
        if refusal(&record).is_some() {
            let outcome = Outcome {
                ok: false,
                record,
                log: None,
            };
            return self.ended(&job, outcome, columns);
        }
        if !options.wait {
            self.show(columns, &record)?;
            return self.note(&format!(
                "\nrunning; `{}` shows how it is going",
                job.follow_up()
            ));
        }
        let outcome = wait(self, &job, options.timeout).await?;
        self.ended(&job, outcome, columns)
    }

    /// Prints how an operation ended. An error when it did not go well.
    pub(crate) fn ended(
        &mut self,
        job: &Job,
        outcome: Outcome,
        columns: &[Column],
    ) -> Result<(), CliError> {
        let Outcome {
            ok,
            mut record,
            log,
        } = outcome;
        let names = match names(&record) {
            of_record if of_record.is_empty() => job.names.clone(),
            of_record => of_record,
        };
        let mut log = log.unwrap_or_default();
        let report = RunReport::read(log.get("extra_info"));
        if log.is_object() {
            log["extra_info"] = unpacked(&log["extra_info"]);
        }
        let failure = match refusal(&record) {
            Some(reason) => refused(job, &reason),
            None => failure(job, &reasons(&log, &record, &names), &record),
        };
        let mut resources = report.each().map(|(_, told)| told);
        let dry_run = resources.any(|told| told.get("changes").is_some());
        if let Some(fields) = record.as_object_mut() {
            fields.insert("operation_log".to_owned(), log);
        }
        self.show(columns, &record)?;
        self.reports(&report, &names)?;
        self.changes(&report, &names, dry_run)?;
        let unwilling: Vec<_> = report
            .each()
            .filter_map(|(key, told)| Some((key, told.get("refused")?)))
            .map(|(key, reason)| format!("{}: {}", name(&names, key), plain(reason)))
            .collect();
        match (ok, unwilling.is_empty()) {
            (false, _) => Err(failure),
            (true, false) => Err(would_refuse(job, &unwilling)),
            (true, true) if job.operation == OperationType::Protect => {
                incomplete(job, &record, &names)
            }
            (true, true) => Ok(()),
        }
    }

    /// What became of each resource, and why, as the record of a restore or verification keeps it.
    pub(crate) async fn by_resource(&mut self, record: &Value) -> Result<(), CliError> {
        let (status, reason) = (&record["resources_status"], &record["resources_reason"]);
        let told = [status, reason].into_iter().filter_map(Value::as_object);
        let keys: BTreeSet<_> = told.flat_map(Map::keys).collect();
        if keys.is_empty() || !self.view.for_people() {
            return Ok(());
        }
        let (provider, checkpoint) = (
            string(record, "provider_id"),
            string(record, "checkpoint_id"),
        );
        let path = ["providers", provider, "checkpoints", checkpoint];
        // It may be gone by now; then ids have to do.
        let found = self.client.get(&path).await;
        let names = found.map_or_else(|_| BTreeMap::new(), |found| names(&found["checkpoint"]));
        let rows = keys
            .into_iter()
            .map(|key| vec![name(&names, key), text(status, key), text(reason, key)])
            .collect();
        self.more("Resources", vec!["RESOURCE", "STATUS", "REASON"], rows)
    }

    /// The figures of each resource, and what it warned of.
    fn reports(
        &mut self,
        report: &RunReport,
        names: &BTreeMap<String, String>,
    ) -> Result<(), CliError> {
        let used: Vec<_> = FIGURES
            .iter()
            .filter(|(key, ..)| report.each().any(|(_, told)| told.get(key).is_some()))
            .collect();
        let rows = report
            .each()
            .filter(|(_, told)| used.iter().any(|(key, ..)| told.get(key).is_some()))
            .map(|(key, told)| {
                let figure = |figure| told.get(figure).unwrap_or(&Value::Null);
                let figures = used.iter().map(|(name, _, show)| show(figure(name)));
                std::iter::once(name(names, key)).chain(figures).collect()
            })
            .collect();
        let mut titles = vec!["RESOURCE"];
        titles.extend(used.iter().map(|(_, title, _)| *title));
        self.more("Resources", titles, rows)?;
        let warnings = report.each().flat_map(|(key, told)| {
            let warnings = told.warnings().into_iter();
            warnings.map(move |warning| vec![name(names, key), plain(warning)])
        });
        self.more("Warnings", vec!["RESOURCE", "WARNING"], warnings.collect())
    }

    /// What a restore would change, or changed.
    fn changes(
        &mut self,
        report: &RunReport,
        names: &BTreeMap<String, String>,
        dry_run: bool,
    ) -> Result<(), CliError> {
        let rows: Vec<_> = report
            .each()
            .flat_map(|(key, told)| {
                let changes = told.get("changes").and_then(Value::as_array);
                changes
                    .into_iter()
                    .flatten()
                    .map(move |change| match change {
                        Value::Object(_) => {
                            vec![
                                name(names, key),
                                plain(&change["kind"]),
                                one_line(&plain(&change["path"])).into_owned(),
                            ]
                        }
                        other => vec![name(names, key), String::new(), plain(other)],
                    })
            })
            .collect();
        if dry_run && rows.is_empty() {
            return self.note("\nnothing would change");
        }
        self.more("Changes", vec!["RESOURCE", "CHANGE", "PATH"], rows)
    }
}

fn name(names: &BTreeMap<String, String>, key: &str) -> String {
    names.get(key).cloned().unwrap_or_else(|| key.to_owned())
}

/// Why, one resource a line: as the log tells it, else as the record does.
fn reasons(log: &Value, record: &Value, names: &BTreeMap<String, String>) -> Vec<String> {
    let told = string(log, "error_info");
    if !told.trim().is_empty() {
        return told.lines().map(str::to_owned).collect();
    }
    let by_resource = record["resources_reason"].as_object();
    by_resource
        .into_iter()
        .flatten()
        .map(|(key, reason)| format!("{}: {}", name(names, key), plain(reason)))
        .collect()
}

/// A checkpoint that was made without some of what it should hold is not what was asked for.
fn incomplete(
    job: &Job,
    checkpoint: &Value,
    names: &BTreeMap<String, String>,
) -> Result<(), CliError> {
    let flaws = Flaws::of(checkpoint);
    if !flaws.is_incomplete() {
        return Ok(());
    }
    let mut message = format!(
        "checkpoint {} of {} was made, and is incomplete: {} files or directories cannot be read",
        job.checkpoint,
        job.label,
        flaws.missing()
    );
    for line in flaws.lines(names) {
        message.push_str("\n  ");
        message.push_str(&line);
    }
    Err(CliError::new(Exit::Incomplete, message).hint(
        "it can be restored without them; mend the cause and protect again, or exclude them from \
         the application",
    ))
}

/// Why a restore that was only tried would not be done.
fn would_refuse(job: &Job, reasons: &[String]) -> CliError {
    let label = &job.label;
    let message = format!(
        "the restore of {label} would be refused\n  {}",
        reasons.join("\n  ")
    );
    CliError::new(Exit::Failed, message)
        .hint("nothing was changed; say what may be overwritten, or restore to another place")
}

/// Why a restore or verification did not begin, if its record says so: it was about the checkpoint then,
/// not about a resource.
fn refusal(record: &Value) -> Option<String> {
    let mut reasons = record["resources_reason"].as_object()?.iter();
    let (_, reason) = reasons.find(|(key, _)| key.starts_with("Checkpoint#"))?;
    Some(plain(reason))
}

fn refused(job: &Job, reason: &str) -> CliError {
    let (operation, label) = (job.operation, &job.label);
    let message = format!("the {operation} of {label} was refused\n  {reason}");
    let done = job.operation.readback().map_or("done", |names| names.done);
    CliError::new(Exit::Failed, message).hint(format!("it did not begin: nothing was {done}"))
}

fn failure(job: &Job, reasons: &[String], record: &Value) -> CliError {
    let mut message = format!("the {} of {} failed", job.operation, job.label);
    for reason in reasons {
        message.push_str("\n  ");
        message.push_str(reason);
    }
    if reasons.is_empty() {
        message.push_str("; the service recorded no reason");
    }
    let hint = match job.operation {
        OperationType::Protect => format!(
            "mend the cause and protect again; checkpoint {} cannot be restored and may be deleted",
            job.checkpoint
        ),
        OperationType::Restore => {
            let mut outcomes = record["resources_status"].as_object().into_iter().flatten();
            let restored = outcomes.any(|(_, outcome)| outcome == "available");
            let stays = match restored {
                true => "; what was restored stays",
                false => "",
            };
            format!("mend the cause and restore again{stays}")
        }
        OperationType::Verify => format!(
            "do not rely on checkpoint {}: protect again, and look after the bank",
            job.checkpoint
        ),
        OperationType::Delete => "mend the cause and delete it again".to_owned(),
        other => format!("mend the cause and {other} again"),
    };
    CliError::new(Exit::Failed, message).hint(hint)
}
