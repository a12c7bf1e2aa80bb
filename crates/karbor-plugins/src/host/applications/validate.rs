//! Looking at what is declared: is it there, may we read it, does the server answer? For
//! `karbor config validate`; nothing is changed.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{
    APPLICATION, APPLICATION_PLUGIN, Application, Applications, Component, Finding, Look, Problem,
};
use crate::host::{
    places::{describe, resolved},
    shared::blocking,
};

/// What the declarations have to get along with.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The service's own places: its state directory, its banks.
    pub off_limits: Vec<PathBuf>,
    /// The providers.
    pub protectors: Vec<Protector>,
    /// The program that becomes a process for SQLite (see [`HostOptions`](crate::HostOptions)).
    pub sqlite_worker: PathBuf,
}

/// A provider, and the types of components that it protects.
#[derive(Debug, Clone)]
pub struct Protector {
    /// Name and file.
    pub label: String,
    /// Of [`TYPES`](super::TYPES), those that it has a plugin for; none when it is for other things.
    pub types: BTreeSet<&'static str>,
}

impl Applications {
    /// Looks at everything that is declared. Empty: all is well.
    pub async fn validate(&self, surroundings: &Surroundings) -> Vec<Problem> {
        let Surroundings {
            off_limits,
            protectors,
            sqlite_worker,
        } = surroundings.clone();
        let this = self.clone();
        let looked = blocking(move || {
            let mut problems = Vec::new();
            for application in &this.list {
                look_at(
                    &this,
                    application,
                    &off_limits,
                    &sqlite_worker,
                    &mut problems,
                );
            }
            unprotected(&this, &protectors, &mut problems);
            Ok(problems)
        });
        let mut problems = match looked.await {
            Ok(problems) => problems,
            Err(error) => vec![Problem::error("", "", error.message)],
        };
        for application in &self.list {
            for component in &application.components {
                if component.obeyed().is_ok() {
                    let findings = component.source.ask().await;
                    problems.extend(told(application, component, findings));
                }
            }
        }
        problems.sort_by(|a, b| (&a.file, &a.key).cmp(&(&b.file, &b.key)));
        problems
    }
}

/// What was found of a component, as problems of its file.
fn told(
    application: &Application,
    component: &Component,
    findings: Vec<Finding>,
) -> impl Iterator<Item = Problem> {
    let (file, key) = (application.file.clone(), component.key());
    findings.into_iter().map(move |finding| Problem {
        file: file.clone(),
        key: match finding.field {
            "" => key.clone(),
            field => format!("{key}.{field}"),
        },
        message: finding.message,
        severity: finding.severity,
    })
}

fn look_at(
    all: &Applications,
    application: &Application,
    off_limits: &[PathBuf],
    sqlite_worker: &Path,
    problems: &mut Vec<Problem>,
) {
    let file = &application.file;
    let hooks = &application.hooks;
    let commands = [
        ("quiesce", &hooks.quiesce),
        ("resume", &hooks.resume),
        ("before_restore", &hooks.before_restore),
        ("after_restore", &hooks.after_restore),
    ];
    for (key, hook) in commands {
        let Some(hook) = hook else { continue };
        let key = format!("{key}.command");
        if let Err(reason) = executable(hook.program()).and_then(|()| hook.obeyed()) {
            problems.push(Problem::error(file, &key, reason));
        }
        for reason in hook.open_arguments() {
            let message = format!("{reason}; if the command runs it, it runs what they wrote");
            problems.push(Problem::warning(file, &key, message));
        }
    }
    for (one, other, key) in [
        (&hooks.quiesce, &hooks.resume, "quiesce"),
        (
            &hooks.before_restore,
            &hooks.after_restore,
            "before_restore",
        ),
    ] {
        if one.is_some() && other.is_none() {
            let message =
                "there is no command that undoes it: is the application to stay like that?";
            problems.push(Problem::warning(file, key, message));
        }
    }
    for root in &application.restore_roots {
        if let Err(problem) = restore_root(root, off_limits) {
            problems.push(Problem {
                file: file.clone(),
                ..problem
            });
        }
    }
    for component in &application.components {
        if let Err((field, reason)) = component.obeyed() {
            let key = format!("{}.{field}", component.key());
            problems.push(Problem::error(file, key, reason));
        }
        let look = Look {
            all,
            application,
            component,
            off_limits,
            sqlite_worker,
        };
        let findings = component.source.look(&look);
        problems.extend(told(application, component, findings));
    }
}

fn executable(program: &Path) -> Result<(), String> {
    let found = fs::metadata(program).map_err(|e| describe(program, &e))?;
    match found.is_file() && found.mode() & 0o111 != 0 {
        true => Ok(()),
        false => Err(format!("'{}' is not a program", program.display())),
    }
}

fn restore_root(root: &Path, off_limits: &[PathBuf]) -> Result<(), Problem> {
    let error = |message: String| Problem::error("", "restore_roots", message);
    let found = fs::metadata(root).map_err(|e| error(describe(root, &e)))?;
    if !found.is_dir() {
        return Err(error(format!("'{}' is not a directory", root.display())));
    }
    let at = resolved(root);
    if off_limits
        .iter()
        .any(|place| at.starts_with(resolved(place)))
    {
        return Err(error(format!(
            "'{}' belongs to the service itself: choose another directory",
            root.display()
        )));
    }
    // An account that can put a link there while a restore runs can lead it elsewhere.
    if found.permissions().mode() & 0o022 != 0 {
        return Err(Problem::warning(
            "",
            "restore_roots",
            format!(
                "'{}' can be written by others: let only the service's account write there",
                root.display()
            ),
        ));
    }
    Ok(())
}

/// What a plan may name and a provider that is for applications has no plugin for.
fn unprotected(all: &Applications, protectors: &[Protector], problems: &mut Vec<Problem>) {
    let meant = protectors.iter().filter(|one| !one.types.is_empty());
    let meant: Vec<_> = meant.collect();
    for application in all.all() {
        let file = &application.file;
        if meant.is_empty() {
            let message = "no provider protects applications: name the karbor-host-… plugins in a \
                           provider's file, or take the files away to use the built-in provider";
            problems.push(Problem::warning(file, "", message));
        }
        let components = application.components.iter();
        let components = components.map(|one| (one.key(), one.kind.resource_type, one.kind.plugin));
        let whole = (String::new(), APPLICATION, APPLICATION_PLUGIN);
        for (key, resource_type, plugin) in std::iter::once(whole).chain(components) {
            let lacking = meant
                .iter()
                .filter(|one| !one.types.contains(resource_type));
            for Protector { label, .. } in lacking {
                let message = format!(
                    "{label} cannot protect it: add 'plugin = {plugin}' to its [provider] section, or leave it out of plans with that provider"
                );
                problems.push(Problem::warning(file, &key, message));
            }
        }
    }
}
