//! What is done when all files are there: hard links, what the snapshot does not have, attributes of
//! directories; then all goes on stable storage.

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use karbor_fs::{Dir, Identity, Movers, Refused, Staging, Trail};
use rustix::fs::Stat;

use super::{
    attributes::xattrs_of,
    compare::has_content,
    file::{Batch, Writing, temp_name},
    plan::{Link, Planner, Visited},
    run::{Restoring, has_no_links, refused},
};
use crate::{Overwrite, RestoreSummary, VaultError, node::Node, repository::lock};

impl Planner {
    /// Finishes every directory, each after those in it; fails in the end if one was exchanged for another.
    pub(super) fn finish(&mut self) -> Result<RestoreSummary, VaultError> {
        let dirs = std::mem::take(&mut self.dirs);
        let (Some(root), false) = (self.root.clone(), self.run.is_dry()) else {
            return Ok(std::mem::take(&mut self.summary));
        };
        let mut trail = Trail::new(root.clone()).map_err(|e| refused(&self.run.target, &e))?;
        let mut open: Vec<Visited> = Vec::new();
        // Below this depth, nothing is where it was.
        let mut lost = usize::MAX;
        // The first, and how many there are.
        let mut exchanged: Option<(PathBuf, u64)> = None;
        for dir in dirs {
            if dir.depth > lost {
                continue;
            }
            lost = usize::MAX;
            while open.last().is_some_and(|last| last.depth >= dir.depth) {
                self.leave(&mut trail, &mut open)?;
            }
            if dir.depth > 0 {
                match trail.enter(&dir.name, Some(dir.known)) {
                    Ok(()) => {}
                    Err(Refused::Exchanged(_)) => {
                        lost = dir.depth;
                        let path = || trail.dir().path_of(&dir.name);
                        exchanged.get_or_insert_with(|| (path(), 0)).1 += 1;
                        continue;
                    }
                    Err(error) => {
                        return Err(refused(&trail.dir().path_of(&dir.name), &error));
                    }
                }
            }
            open.push(dir);
        }
        while !open.is_empty() {
            self.leave(&mut trail, &mut open)?;
        }
        rustix::fs::syncfs(&root)
            .map_err(|error| VaultError::target(self.run.target.to_string_lossy(), error))?;
        match exchanged {
            None => Ok(std::mem::take(&mut self.summary)),
            Some((path, number)) => Err(is_lost(&path, number)),
        }
    }

    fn leave(&mut self, trail: &mut Trail, open: &mut Vec<Visited>) -> Result<(), VaultError> {
        self.run.check()?;
        let dir = trail.dir().clone();
        if let Some(last) = open.last() {
            let extras = match last.extras.is_empty() {
                true => 0,
                false => self.delete(&dir, open),
            };
            if let Some(last) = open.pop() {
                self.finish_dir(&dir, last, extras)?;
            }
        }
        let left = trail.leave();
        left.map(|_| ())
            .map_err(|error| refused(dir.path(), &error))
    }

    fn finish_dir(
        &mut self,
        dir: &Dir,
        visited: Visited,
        deleted: usize,
    ) -> Result<(), VaultError> {
        let path = dir.path().to_owned();
        if !visited.links.is_empty() {
            let staging = Arc::new(Staging::apart(dir.clone(), temp_name(&self.run)));
            for link in visited.links {
                self.run.check()?;
                self.make_link(&staging, link)?;
            }
        }
        if visited.depth == 0 {
            // Nothing more is made in the top, which gets its times now.
            lock(&self.run.stash).take();
        }
        let Some(node) = visited.node else {
            return Ok(());
        };
        let failed = |error| refused(&path, &error);
        let stat = dir.stat().map_err(failed)?;
        let holds_more = match visited.is_new {
            // Opened to others since, it may hold anything.
            true => !dir.is_own().map_err(failed)?,
            false => visited.more > deleted,
        };
        if holds_more && gives_away(dir, &stat, &node) {
            let reason = "it was somebody else's, and holds what the checkpoint does not have: \
                          look at it, and remove that or set them yourself";
            self.run.warn(&path, "owner and mode", reason);
            return Ok(());
        }
        self.run.set_attributes(dir.as_fd(), &node, &path)
    }

    /// Removes what the snapshot does not have from the last of the directories; answers with how many are gone.
    fn delete(&mut self, dir: &Dir, open: &[Visited]) -> usize {
        let relative: PathBuf = open.iter().map(|visited| &visited.name).collect();
        let extras = open.last().map(|last| &last.extras);
        let filter = self.run.options.filter.clone();
        let is_wanted = |path: &Path, is_dir| {
            let wanted = filter.as_ref();
            wanted.is_none_or(|wanted| wanted(&relative.join(path), is_dir))
        };
        let mut gone = 0;
        for name in extras.into_iter().flatten() {
            match dir.remove_wanted(name, is_wanted) {
                // What was not wanted in it stays, and it with that.
                Ok(()) => gone += usize::from(matches!(dir.look(name), Ok(None))),
                Err(error) => {
                    let what = "the state without it";
                    self.run.warn(&dir.path_of(name), what, error);
                }
            }
        }
        self.summary.deleted += gone as u64;
        gone
    }

    fn make_link(&mut self, staging: &Arc<Staging>, link: Link) -> Result<(), VaultError> {
        let name = link.node.os_name();
        let path = staging.place().path_of(&name);
        let failed = |error: Refused| refused(&path, &error);
        let stashed = self.run.stashed(&link.key).map_err(failed)?;
        let present = staging.place().look(&name).map_err(failed)?;
        let is_never = self.run.options.overwrite == Overwrite::Never;
        if let (Some(present), Some((_, stashed))) = (&present, &stashed)
            && Identity::of(present) == stashed.identity
        {
            self.summary.unchanged += 1;
            self.run.control.progress.add_bytes(link.node.size);
            return Ok(());
        }
        if present.is_some() && is_never && !is_whole(&self.run, staging.place(), &link.node)? {
            self.run.skip(&path);
            return Ok(());
        }
        let Some((from, stashed)) = stashed else {
            return self.copy(staging, link.node);
        };
        let temp = temp_name(&self.run);
        let dir = staging.dir().map_err(failed)?;
        match from.link(&stashed.name, &dir, &temp) {
            Ok(()) => {}
            Err(error) if error.errno().is_some_and(has_no_links) => {
                return self.copy(staging, link.node);
            }
            Err(error) => return Err(failed(error)),
        }
        let renamed = self
            .run
            .rename(staging, &dir, &temp, &name, present.is_some());
        // If both names were one file already, renaming does nothing and leaves the other name.
        let removed = dir.remove_file(&temp);
        renamed?;
        removed.map_err(failed)?;
        self.summary.files += 1;
        Ok(())
    }

    /// Where there can be no link, the file is written once more.
    fn copy(&mut self, staging: &Arc<Staging>, node: Node) -> Result<(), VaultError> {
        let path = staging.place().path_of(&node.os_name());
        self.run.warn(
            &path,
            "its being one file with another",
            "it is a file of its own now",
        );
        let mut batch = Batch::new(1);
        for segment in Writing::begin(&self.run, staging.clone(), node, true)? {
            if let Some(file) = segment.write(&self.run, &mut self.decoder)? {
                batch.add(&self.run, file)?;
            }
        }
        batch.place(&self.run)
    }
}

/// Directories were exchanged for others while they were being restored: what belongs into them is not there.
fn is_lost(path: &Path, number: u64) -> VaultError {
    let others = match number {
        1 => String::new(),
        more => format!(" (as with {} others)", more - 1),
    };
    let reason = format!(
        "somebody put another directory in its place while it was being restored{others}, so what the checkpoint \
         has of it is not there: look at what is there now, and restore again"
    );
    VaultError::target(path.to_string_lossy(), reason)
}

fn is_whole(run: &Restoring, dir: &Dir, node: &Node) -> Result<bool, VaultError> {
    match dir.open_file(&node.os_name()) {
        Ok(mut file) => has_content(run, node, &mut file),
        Err(_) => Ok(false),
    }
}

/// Would the attributes let somebody at what is in a directory who may not get at it now, and who could have
/// moved it there? By a rename alone, a user could have another's directory opened.
fn gives_away(dir: &Dir, present: &Stat, node: &Node) -> bool {
    match dir.movers() {
        Movers::Nobody => return false,
        Movers::One(user) if user == present.st_uid => return false,
        _ => {}
    }
    let lists = |xattrs: &[(String, Vec<u8>)]| -> Vec<_> {
        let of_access = |(name, _): &&(String, Vec<u8>)| name.starts_with("system.posix_acl_");
        xattrs.iter().filter(of_access).cloned().collect()
    };
    let new = lists(&node.xattrs);
    (node.uid != present.st_uid && node.uid != 0)
        || (node.gid != present.st_gid && node.mode & 0o070 != 0)
        || node.mode & !present.st_mode & 0o077 != 0
        || (!new.is_empty() && new != lists(&xattrs_of(dir.as_fd())))
}
