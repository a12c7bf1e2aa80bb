//! Where a restore of files may write.

use std::{
    fs, io,
    path::{Component as PathPart, Path, PathBuf},
};

use karbor_fs::{Dir, Found, Refused};
use karbor_plugin::{OperationContext, PluginError};
use serde::{Deserialize, Serialize};

use super::{
    metadata::Metadata,
    shared::{Declared, Host, blocking},
};

/// Where files come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FilePlace {
    /// As declared.
    pub(crate) path: PathBuf,
    /// The same without symbolic links.
    pub(crate) resolved: PathBuf,
    /// Permission bits, and owner, of the file.
    #[serde(default)]
    pub(crate) mode: Option<u32>,
    #[serde(default)]
    pub(crate) owner: Option<(u32, u32)>,
}

impl FilePlace {
    pub(crate) fn of(kept: &Metadata) -> Result<Self, PluginError> {
        serde_json::from_value(kept.place.clone()).map_err(|error| {
            PluginError::new(format!(
                "the checkpoint's metadata of '{}' are corrupt: {error}",
                kept.name
            ))
        })
    }
}

/// A path that a restore may write to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    pub(crate) place: FilePlace,
}

/// Decides where the component goes. `leaf` is put below a `restore_to` (the file's name, for
/// components that are one file).
pub(crate) async fn target(
    host: &Host,
    context: &OperationContext,
    kept: &Metadata,
    restore_to: Option<&str>,
    leaf: Option<&std::ffi::OsStr>,
) -> Result<Target, PluginError> {
    let declared = host.component(context).await?;
    let place = FilePlace::of(kept)?;
    let off_limits = host.off_limits.clone();
    let Some(wanted) = restore_to else {
        let Some(declared) = declared else {
            let error = host.undeclared(context).await;
            return Err(PluginError::new(format!("{error}, or give 'restore_to'")));
        };
        let back = place.clone();
        let path = blocking(move || {
            let path = original(&declared, &back)?;
            outside(&path, &off_limits).map(|()| path)
        })
        .await?;
        return Ok(Target { path, place });
    };
    let roots = roots(host, context, declared.as_ref()).await?;
    let mut below: PathBuf = [safe_part(&kept.application)?, safe_part(&kept.name)?]
        .iter()
        .collect();
    if let Some(leaf) = leaf {
        below.push(leaf);
    }
    let wanted = PathBuf::from(wanted);
    let path = blocking(move || {
        let path = under_a_root(&roots, &wanted, &below)?;
        outside(&path, &off_limits).map(|()| path)
    })
    .await?;
    Ok(Target { path, place })
}

/// The restore roots that count: those of the component's application; of every application that
/// the project may see when its own is gone.
async fn roots(
    host: &Host,
    context: &OperationContext,
    declared: Option<&Declared>,
) -> Result<Vec<PathBuf>, PluginError> {
    let roots: Vec<PathBuf> = match declared {
        Some(declared) => declared.application.restore_roots.clone(),
        None => {
            let applications = host.applications().await?;
            let visible = applications.visible(&context.project_id);
            visible
                .flat_map(|application| application.restore_roots.clone())
                .collect()
        }
    };
    if roots.is_empty() {
        return Err(PluginError::new(
            "'restore_to' needs a restore root, and none is declared: the operator adds restore_roots = [\"/...\"] to the application",
        ));
    }
    Ok(roots)
}

fn original(declared: &Declared, place: &FilePlace) -> Result<PathBuf, PluginError> {
    let path = declared.component.source.path();
    let path = path.ok_or_else(|| PluginError::new("the component has no path"))?;
    if path != place.path {
        return Err(PluginError::new(format!(
            "'{}' is declared at another place now than when it was protected: give 'restore_to', or ask the operator",
            declared.component.name
        )));
    }
    let resolved = resolve(path)?;
    let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    if is_link && resolved != place.resolved {
        return Err(PluginError::new(format!(
            "the place of '{}' is now a symbolic link to somewhere else: remove the link or give 'restore_to'",
            declared.component.name
        )));
    }
    Ok(resolved)
}

fn under_a_root(roots: &[PathBuf], wanted: &Path, below: &Path) -> Result<PathBuf, PluginError> {
    let refuse = |reason: &str| PluginError::new(format!("'restore_to' is refused: {reason}"));
    if wanted
        .components()
        .any(|part| matches!(part, PathPart::ParentDir | PathPart::CurDir))
    {
        return Err(refuse("it has a '.' or '..' in it"));
    }
    if wanted.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(refuse("it has a NUL character in it"));
    }
    let missing = |error: Refused| match error.is_missing() {
        true => refuse(
            "the application's restore root is not there; the operator has to make the directory",
        ),
        false => refuse(&format!("the application's restore root: {error}")),
    };
    for root in roots {
        let inside = match wanted.is_absolute() {
            false => wanted,
            true => match wanted.strip_prefix(root) {
                Ok(inside) => inside,
                Err(_) => continue,
            },
        };
        let root = Dir::open(root).map_err(missing)?;
        let root = root.path();
        let resolved = resolve(&root.join(inside).join(below))?;
        if !resolved.starts_with(root) {
            return Err(refuse("a symbolic link leads out of the restore root"));
        }
        return Ok(resolved);
    }
    Err(refuse(
        "it does not lie under a restore root of the application",
    ))
}

/// The path without symbolic links, as far as it exists. A link that somebody else than root or the service's
/// account could have put there is not followed: he would choose what is read or written.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf, PluginError> {
    karbor_fs::resolve(path).map_err(|error| refused(&error))
}

/// As [`resolve`], for people who look at declarations: a path that cannot be followed is taken as it is.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    resolve(path).unwrap_or_else(|_| path.to_owned())
}

/// Why a path cannot be looked at, for the operator.
pub(crate) fn describe(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("'{}' is not there", path.display()),
        io::ErrorKind::PermissionDenied => {
            format!(
                "the service's account may not look into '{}'",
                path.display()
            )
        }
        _ => format!("'{}': {error}", path.display()),
    }
}

fn refused(error: &Refused) -> PluginError {
    PluginError::new(match error {
        Refused::Link(_) => format!(
            "the place to restore to cannot be trusted: {error}; remove the link, or restore to another place"
        ),
        error => format!("the place to restore to cannot be looked at: {error}"),
    })
}

/// Opens a place that was decided on, or what is there of the way to it.
pub(crate) fn find(place: &Path) -> Result<Found, PluginError> {
    let found = Dir::find(place).map_err(|error| refused(&error))?;
    let led = match &found {
        Found::Dir(dir) => dir.path().to_owned(),
        Found::Other(dir, name, _) => dir.path().join(name),
        Found::Missing(dir, names) => names.iter().fold(dir.path().to_owned(), |p, n| p.join(n)),
    };
    match led == place {
        true => Ok(found),
        false => Err(PluginError::new(
            "the place to restore to was changed to a symbolic link meanwhile",
        )),
    }
}

fn outside(path: &Path, off_limits: &[PathBuf]) -> Result<(), PluginError> {
    for place in off_limits {
        if path.starts_with(resolve(place)?) {
            return Err(PluginError::new(
                "the place to restore to belongs to the service itself: choose another",
            ));
        }
    }
    Ok(())
}

/// Names come from a declaration, by way of a bank that somebody may have tampered with.
fn safe_part(name: &str) -> Result<&str, PluginError> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(PathPart::Normal(_)), None) if !name.contains(['/', '\0']) => Ok(name),
        _ => Err(PluginError::new(
            "the checkpoint's metadata are corrupt: a name is not a name",
        )),
    }
}
