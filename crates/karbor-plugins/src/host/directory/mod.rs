//! `karbor-host-directory-plugin`: a tree of files.

mod databases_inside;
mod globs;
mod look;
mod own_places;
mod source;
mod undeclared_databases;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use karbor_fs::Found;
use karbor_plugin::{HookReport, OperationContext, PluginError};
use karbor_vault::{
    OnUnreadable, Overwrite, RestoreOptions, RestoreSummary, Snapshot, SnapshotWriter, TreeFilter,
    TreeOptions,
};
use rustix::io::Errno;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use self::{
    databases_inside::{DatabasesInside, is_file_of},
    globs::{Filter, Globs, LEAVE_OUT_ALL},
    own_places::refuse_own,
    source::DirectorySource,
    undeclared_databases::Undeclared,
};
use super::{
    applications::ComponentChecks,
    component::{Kind, Restoring, Saved},
    metadata::{LeftOut, Metadata, incomplete_tag, missing},
    notes::{Mark, Marker},
    occupied::Place,
    parameters::{LISTED, REFUSED},
    places::{self, FilePlace, resolve},
    schemas,
    shared::{Declared, Host, blocking},
};

/// What a declaration says of a tree of files.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DirectoryTable {
    name: String,
    id: Option<Uuid>,
    path: PathBuf,
    #[serde(default)]
    include: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    one_file_system: bool,
    #[serde(default)]
    exclude_caches: bool,
    #[serde(default)]
    on_unreadable: OnUnreadable,
}

/// What a restore may be told.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DirectoryParameters {
    pub(crate) overwrite: Overwrite,
    pub(crate) dry_run: bool,
    pub(crate) restore_to: Option<String>,
    pub(crate) delete_extra: bool,
}

/// Directories.
pub(crate) struct DirectoryKind;

#[async_trait]
impl Kind for DirectoryKind {
    const PLUGIN: &'static str = "karbor-host-directory-plugin";
    const TYPE: &'static str = "Host::Directory";
    const TITLE: &'static str = "Host Directory";

    type Table = DirectoryTable;
    type Source = DirectorySource;
    type Parameters = DirectoryParameters;

    fn identity(table: &DirectoryTable) -> (&str, Option<Uuid>) {
        (&table.name, table.id)
    }

    fn declare(table: DirectoryTable, checks: &mut ComponentChecks<'_>) -> DirectorySource {
        let source = DirectorySource {
            path: table.path,
            include: table.include,
            exclude: table.exclude,
            one_file_system: table.one_file_system,
            exclude_caches: table.exclude_caches,
            on_unreadable: table.on_unreadable,
        };
        checks.path("path", &source.path);
        for (field, patterns) in [("include", &source.include), ("exclude", &source.exclude)] {
            if let Err(message) = Globs::new(patterns, &source.path) {
                checks.problem(field, message);
            }
        }
        source
    }

    fn restore_schema() -> Value {
        json!({
            "overwrite": schemas::overwrite(),
            "dry_run": schemas::dry_run(),
            "restore_to": schemas::restore_to(),
            "delete_extra": {
                "type": "boolean", "title": "Delete Extra", "default": false,
                "description": "With overwrite 'if-changed' or 'always': remove what is in the place and not in the checkpoint. What the declaration's patterns leave out stays.",
            },
        })
    }

    async fn place(_: &Host, declared: &Declared) -> Result<Value, PluginError> {
        let path = declared.source::<DirectorySource>()?.path.clone();
        let place = blocking(move || {
            let dir = open(&path)?;
            let found = rustix::fs::fstat(&dir).map_err(|error| cannot(&path, error))?;
            Ok(FilePlace {
                path,
                resolved: dir.path().to_owned(),
                mode: Some(found.st_mode & 0o7777),
                owner: Some((found.st_uid, found.st_gid)),
            })
        })
        .await?;
        Ok(json!(place))
    }

    async fn save(
        host: &Host,
        context: &OperationContext,
        declared: &Declared,
        writer: &mut SnapshotWriter,
    ) -> Result<Saved, PluginError> {
        let source = declared.source::<DirectorySource>()?;
        let filter = Filter::new(source).map_err(PluginError::new)?;
        let path = source.path.clone();
        let dir = blocking(move || open(&path)).await?;
        own_places(host, source, dir.path(), &filter)?;
        let (databases, mut warnings) = databases(host, context, declared, source, &filter).await?;
        let mut excludes = source.exclude.clone();
        excludes.extend(databases.iter().map(|path| format!("/{}", path.display())));
        let left_out = LeftOut {
            include: source.include.clone(),
            exclude: source.exclude.clone(),
            one_file_system: source.one_file_system,
            exclude_caches: source.exclude_caches,
            databases: databases.clone(),
        };
        let undeclared = Arc::new(Undeclared::new(dir.clone()));
        let (used, looker) = (filter.clone(), undeclared.clone());
        let left_something = Arc::new(AtomicBool::new(false));
        let left = left_something.clone();
        let options = TreeOptions {
            filter: Some(Arc::new(move |path: &Path, is_dir| {
                let wanted = filter.takes_here(path, is_dir);
                if !wanted {
                    left.store(true, Ordering::Relaxed);
                }
                let taken = wanted && !databases.iter().any(|database| is_file_of(database, path));
                if taken && !is_dir {
                    looker.look(path);
                }
                taken
            })),
            one_file_system: source.one_file_system,
            exclude_caches: source.exclude_caches,
            on_unreadable: source.on_unreadable,
            excludes,
        };
        let stored = writer.add_tree(&dir, options).await?;
        warnings.extend(used.unused_includes().map(|pattern| {
            format!(
                "the pattern '{pattern}' in 'include' matches no file: nothing is protected by it"
            )
        }));
        // Those that lead to what is included are nothing that is protected; others are, and links count as files.
        let has_dirs = stored.dirs > 1 && source.include.is_empty();
        if stored.files == 0 && !has_dirs && left_something.load(Ordering::Relaxed) {
            warnings.push(format!("'{}': {LEAVE_OUT_ALL}", source.path.display()));
        }
        if stored.unreadable.total > 0 {
            writer.tag(incomplete_tag(stored.unreadable.total));
        }
        warnings.extend(undeclared.warning());
        Ok(Saved {
            warnings,
            left_out: Some(left_out),
        })
    }

    fn led_elsewhere(declared: &Declared, before: &Snapshot, now: &Snapshot) -> Option<String> {
        let declared = declared
            .source::<DirectorySource>()
            .ok()?
            .path
            .to_string_lossy();
        let (before, now) = (before.paths.first()?, now.paths.first()?);
        (*now != declared && now != before).then(|| {
            format!(
                "'{declared}' leads to '{now}' by a symbolic link; in the checkpoint before it was '{before}'. If that is not meant, remove the link: while it is there, earlier checkpoints are not restored to their place"
            )
        })
    }

    fn item(snapshot: &Snapshot, _: &str) -> Result<String, PluginError> {
        let path = snapshot.paths.first().cloned();
        path.ok_or_else(|| PluginError::new(format!("the snapshot {} is empty", snapshot.id)))
    }

    async fn restore(run: &Restoring<'_, DirectoryParameters>) -> Result<HookReport, PluginError> {
        let parameters = &run.parameters;
        if parameters.delete_extra && parameters.overwrite == Overwrite::Never {
            return Err(PluginError::new(
                "'delete_extra' needs 'overwrite' to be 'if-changed' or 'always'",
            ));
        }
        let restore_to = parameters.restore_to.as_deref();
        let target = places::target(run.host, run.context, run.kept, restore_to, None)
            .await?
            .path;
        if !parameters.dry_run {
            let place = Place::Path(target.clone());
            run.host.occupied.take(run.context, place)?;
        }
        let path = target.clone();
        let (found, is_taken) = blocking(move || {
            let found = places::find(&path)?;
            let is_taken = occupied(&found)?;
            Ok((found, is_taken))
        })
        .await?;
        let mut warnings = Vec::new();
        let mut refused = None;
        let mut goes_on = false;
        if parameters.overwrite == Overwrite::Never {
            let mark = Mark {
                target: target.to_string_lossy().into_owned(),
                made: false,
                loaded: false,
            };
            if run.marker.read().await?.as_ref() == Some(&mark) {
                goes_on = true;
            } else if is_taken {
                let refusal = format!(
                    "the place of '{}' is not empty: restore with overwrite 'if-changed' or 'always', or give 'restore_to'",
                    run.kept.name
                );
                if !parameters.dry_run {
                    return Err(PluginError::new(refusal));
                }
                warnings.push(refusal.clone());
                refused = Some(refusal);
            } else if !parameters.dry_run {
                run.marker.set(&mark).await?;
                goes_on = true;
            }
        }
        if parameters.delete_extra {
            let unread = missing(&run.vault.snapshot(&run.kept.snapshot).await?);
            if unread > 0 {
                return Err(PluginError::new(format!(
                    "{unread} files of '{}' could not be read when it was protected, and 'delete_extra' would remove them: restore without it, or a checkpoint that is complete",
                    run.kept.name
                )));
            }
        }
        let stored = stored(run).await?;
        let options = RestoreOptions {
            overwrite: parameters.overwrite,
            goes_on,
            dry_run: parameters.dry_run,
            subpath: Some(run.kept.item.clone()),
            delete_extra: parameters.delete_extra,
            one_file_system: stored.as_ref().is_some_and(|stored| stored.one_file_system),
            exclude_caches: stored.as_ref().is_some_and(|stored| stored.exclude_caches),
            filter: stored.map(|stored| stored.filter),
        };
        let snapshot = &run.kept.snapshot;
        let done = run
            .vault
            .restore_tree(snapshot, found, options, run.control())
            .await?;
        if goes_on && done.skipped > 0 {
            warnings.push(format!(
                "{} files came into the place while it was being restored and were left as they are: restore with overwrite 'if-changed' to have those of the checkpoint",
                done.skipped
            ));
        }
        let mut report = report(&done, parameters.dry_run, warnings);
        report.extend(refused.map(|reason| (REFUSED.to_owned(), json!(reason))));
        Ok(report)
    }
}

/// Writes all files of a snapshot into a folder under a restore root, as if they were a directory's.
pub(crate) async fn restore_as_files<P: Sync>(
    run: &Restoring<'_, P>,
    parameters: DirectoryParameters,
) -> Result<HookReport, PluginError> {
    let root = Path::new("/").to_owned();
    let place = FilePlace {
        path: root.clone(),
        resolved: root,
        mode: None,
        owner: None,
    };
    let kept = Metadata {
        item: "/".to_owned(),
        place: json!(place),
        ..run.kept.clone()
    };
    DirectoryKind::restore(&Restoring {
        host: run.host,
        context: run.context,
        kept: &kept,
        vault: run.vault,
        parameters,
        marker: Marker::of(run.host, run.context),
    })
    .await
}

/// Opens a declared directory. Neither it nor a folder above it may be a link that somebody else than root or
/// the service's own account could have put there: he would choose what is read with the service's rights.
fn open(path: &Path) -> Result<karbor_fs::Dir, PluginError> {
    use karbor_fs::Refused;
    karbor_fs::Dir::open(path).map_err(|refused| match refused.errno() {
        None if matches!(&refused, Refused::Kind { path: at, .. } if at == path) => {
            cannot(path, "it is not a directory")
        }
        Some(Errno::NOENT) => cannot(path, "it is not there: is its file system mounted?"),
        Some(Errno::ACCESS) => cannot(
            path,
            "the service may not read it: the operator has to give it access",
        ),
        Some(errno) => cannot(path, errno),
        None => cannot(path, refused),
    })
}

fn cannot(path: &Path, reason: impl std::fmt::Display) -> PluginError {
    PluginError::new(format!(
        "'{}' cannot be protected: {reason}",
        path.display()
    ))
}

/// The databases to leave to their own components, with a word on each.
async fn databases(
    host: &Host,
    context: &OperationContext,
    declared: &Declared,
    source: &DirectorySource,
    filter: &Filter,
) -> Result<(Vec<PathBuf>, Vec<String>), PluginError> {
    let applications = host.applications().await?;
    let inside = DatabasesInside::find(&applications, &declared.application, source, filter);
    if let Some((owner, component, path)) = inside.foreign.first() {
        // Whose it is, is nothing that a project need know which may not see that application.
        let mut visible = applications.visible(&context.project_id);
        let whose = match visible.any(|application| application.id == owner.id) {
            true => format!("the application '{}'", owner.name),
            false => "another application".to_owned(),
        };
        let (source, inside) = (source.path.display(), path.display());
        let error = PluginError::new(match path.as_os_str().is_empty() {
            true => format!(
                "'{source}' is declared as a database of {whose}, too: the operator has to declare another directory, or mend the database's path"
            ),
            false => format!(
                "'{source}' holds a database of {whose}, '{inside}', which is not protected with it: the operator has to exclude '/{inside}*' or to declare the database in this application"
            ),
        });
        return Err(error.with_cause(format!("{} of {}", component.key(), owner.name)));
    }
    let told = |(name, path): &(&str, PathBuf)| {
        format!("'{}' is left to the component '{name}'", path.display())
    };
    let warnings = inside.own.iter().map(told).collect();
    Ok((
        inside.own.into_iter().map(|(_, path)| path).collect(),
        warnings,
    ))
}

/// The bank inside what goes into the bank would grow for ever.
fn own_places(
    host: &Host,
    source: &DirectorySource,
    root: &Path,
    filter: &Filter,
) -> Result<(), PluginError> {
    let own: Result<Vec<_>, _> = host.off_limits.iter().map(|place| resolve(place)).collect();
    let advice = |inside: &Path| format!("the operator has to exclude '/{}'", inside.display());
    refuse_own(source, root, &own?, filter, advice).map_err(PluginError::new)
}

fn occupied(target: &Found) -> Result<bool, PluginError> {
    match target {
        Found::Dir(dir) => match dir.names() {
            Ok(names) => Ok(!names.is_empty()),
            Err(error) => Err(PluginError::new(format!(
                "the place to restore to cannot be used: {error}"
            ))),
        },
        Found::Missing(..) => Ok(false),
        Found::Other(..) => Err(PluginError::new(
            "there is something at the place to restore to that is not a directory: remove it first",
        )),
    }
}

/// What the declarations of then and of today both take: all else may have been left out of the checkpoint by
/// choice, or is none of the component's.
struct Stored {
    filter: TreeFilter,
    one_file_system: bool,
    exclude_caches: bool,
}

/// Fails if files are to be deleted and it is not known what was left out of the checkpoint by choice.
async fn stored(run: &Restoring<'_, DirectoryParameters>) -> Result<Option<Stored>, PluginError> {
    let deletes = run.parameters.delete_extra;
    let Some(declared) = run.host.component(run.context).await? else {
        return match deletes {
            false => Ok(None),
            true => Err(PluginError::new(format!(
                "{}: what its patterns leave out is not known, so 'delete_extra' cannot be used",
                run.host.undeclared(run.context).await
            ))),
        };
    };
    // Of a database that is given out as files nothing was left out.
    let Some(source) = declared.component.source::<DirectorySource>() else {
        return Ok(None);
    };
    let then = match then(run, source) {
        Err(reason) if deletes => return Err(reason),
        then => then.ok(),
    };
    let filter = Filter::new(source).map_err(PluginError::new)?;
    let applications = run.host.applications().await?;
    let inside = DatabasesInside::find(&applications, &declared.application, source, &filter);
    let own = inside.own.into_iter().map(|(_, path)| path);
    let foreign = inside.foreign.into_iter().map(|(_, _, path)| path);
    let mut databases: Vec<_> = own.chain(foreign).collect();
    let root = resolve(&source.path)?;
    let mut own = Vec::new();
    for place in &run.host.off_limits {
        own.extend(resolve(place)?.strip_prefix(&root).map(Path::to_owned));
    }
    let (mut one_file_system, mut exclude_caches) = (source.one_file_system, source.exclude_caches);
    let mut filter_then = None;
    if let Some((filter, left_out)) = then {
        one_file_system |= left_out.one_file_system;
        exclude_caches |= left_out.exclude_caches;
        databases.extend_from_slice(&left_out.databases);
        filter_then = Some(filter);
    }
    Ok(Some(Stored {
        filter: Arc::new(move |path: &Path, is_dir| {
            filter.takes(path, is_dir)
                && filter_then
                    .as_ref()
                    .is_none_or(|then| then.takes(path, is_dir))
                && !databases.iter().any(|database| is_file_of(database, path))
                && !own
                    .iter()
                    .any(|own| path.starts_with(own) || own.starts_with(path))
        }),
        one_file_system,
        exclude_caches,
    }))
}

/// What the checkpoint keeps of what was left out, and its patterns.
fn then<'a>(
    run: &Restoring<'a, DirectoryParameters>,
    today: &DirectorySource,
) -> Result<(Filter, &'a LeftOut), PluginError> {
    let name = &run.kept.name;
    let left_out = run.kept.left_out.as_ref().ok_or_else(|| {
        PluginError::new(format!(
            "the checkpoint does not say what of '{name}' was left out of it by choice, and 'delete_extra' could remove that: restore without it, or a checkpoint that was made by this version"
        ))
    })?;
    let filter = Filter::new(&DirectorySource {
        path: places::FilePlace::of(run.kept)?.path,
        include: left_out.include.clone(),
        exclude: left_out.exclude.clone(),
        ..today.clone()
    });
    let filter = filter.map_err(|reason| {
        PluginError::new(format!(
            "what was left out of the checkpoint of '{name}' is not understood, so 'delete_extra' cannot be used: {reason}"
        ))
    })?;
    Ok((filter, left_out))
}

/// What is in the place and not in the checkpoint, and stays.
fn extras(done: &RestoreSummary) -> Option<String> {
    let stay = done
        .extra
        .checked_sub(done.deleted)
        .filter(|stay| *stay > 0)?;
    let named = done
        .extras
        .iter()
        .map(|path| format!("'{}'", path.display()));
    let named: Vec<_> = named.collect();
    let more = match done.extra > named.len() as u64 {
        true => ", …",
        false => "",
    };
    Some(format!(
        "{stay} files or folders are in the place and not in the checkpoint, and stay (restore with delete_extra to remove them): {}{more}",
        named.join(", ")
    ))
}

fn report(done: &RestoreSummary, dry_run: bool, mut warnings: Vec<String>) -> HookReport {
    let mut report = HookReport::new();
    for (name, value) in [
        ("files", done.files),
        ("bytes", done.bytes),
        ("unchanged", done.unchanged),
        ("skipped", done.skipped),
    ] {
        report.insert(name.to_owned(), json!(value));
    }
    if dry_run {
        let listed: Vec<_> = done.changes.iter().take(LISTED).collect();
        report.insert("changes".to_owned(), json!(listed));
        report.insert("changes_total".to_owned(), json!(done.changes_total));
    }
    if done.extra > 0 {
        report.insert("extra".to_owned(), json!(done.extra));
        warnings.extend(extras(done));
    }
    if done.deleted > 0 {
        report.insert("deleted".to_owned(), json!(done.deleted));
    }
    let named = done.warned.len() as u64;
    warnings.extend(done.warned.iter().cloned());
    if let Some(more @ 1..) = done.warnings.checked_sub(named) {
        warnings.push(format!(
            "{more} more attributes (owners, modes, extended attributes) or special files could not be restored"
        ));
    }
    if !warnings.is_empty() {
        report.insert("warnings".to_owned(), json!(warnings));
    }
    report
}
