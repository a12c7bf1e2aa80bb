//! Where in the snapshot the trees and streams of a writer go: trees at their absolute paths, as restic
//! does, streams at the root.

use std::collections::BTreeMap;

use crate::{
    VaultError,
    engine::{Worker, WriterState},
    id::Id,
    node::{MOST_ENTRIES, Node, tree_to_json},
    pack::BlobKind,
};

/// A directory that is not read but made up of the places of what is stored.
#[derive(Default)]
pub(super) struct Folder {
    /// The tree of everything, if `/` itself was stored.
    whole: Option<Id>,
    children: BTreeMap<Vec<u8>, Child>,
}

enum Child {
    /// A file, stream or read directory.
    Whole(Node),
    Folder(Node, Folder),
}

/// What was stored under a path.
pub(super) struct Placed {
    /// The directories above, outermost first.
    pub(super) above: Vec<Node>,
    pub(super) node: Node,
}

impl Folder {
    /// Is there something at this path, above it, or below it, that would be hidden?
    pub(super) fn is_taken<'a>(&self, path: impl IntoIterator<Item = &'a [u8]>) -> bool {
        let mut folder = self;
        if self.whole.is_some() {
            return true;
        }
        for name in path {
            match folder.children.get(name) {
                None => return false,
                Some(Child::Whole(_)) => return true,
                Some(Child::Folder(_, inner)) => folder = inner,
            }
        }
        !folder.children.is_empty()
    }

    /// `/` itself was stored. Nothing else was.
    pub(super) fn insert_whole(&mut self, tree: Id) {
        self.whole = Some(tree);
    }

    pub(super) fn insert(&mut self, placed: Placed) -> Result<(), VaultError> {
        let taken =
            || VaultError::Invalid("two parts of a snapshot have the same place".to_owned());
        let mut folder = self;
        for node in placed.above {
            let name = node.name.clone();
            let place = folder
                .children
                .entry(name)
                .or_insert_with(|| Child::Folder(node, Self::default()));
            match place {
                Child::Folder(_, inner) => folder = inner,
                Child::Whole(_) => return Err(taken()),
            }
        }
        let name = placed.node.name.clone();
        match folder.children.insert(name, Child::Whole(placed.node)) {
            None => Ok(()),
            Some(_) => Err(taken()),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.children.is_empty() && self.whole.is_none()
    }

    /// Stores the trees, innermost first; answers with that of this folder and the number of folders.
    pub(super) fn store(
        self,
        worker: &mut Worker,
        writer: &WriterState,
    ) -> Result<(Id, u64), VaultError> {
        if let Some(tree) = self.whole {
            return Ok((tree, 0));
        }
        let mut nodes = Vec::new();
        let mut folders = 0;
        for place in self.children.into_values() {
            match place {
                Child::Whole(node) => nodes.push(node),
                // As deep as the paths that were given: a few levels.
                Child::Folder(mut node, folder) => {
                    let (tree, inner) = folder.store(worker, writer)?;
                    folders += inner + 1;
                    node.subtree = Some(tree);
                    nodes.push(node);
                }
            }
        }
        let (json, left) =
            tree_to_json(nodes.into_iter(), MOST_ENTRIES).map_err(VaultError::Internal)?;
        if left > 0 {
            return Err(VaultError::Invalid(format!(
                "a snapshot has room for {left} trees and streams less"
            )));
        }
        let tree = worker.store(BlobKind::Tree, &json, writer)?;
        Ok((tree, folders))
    }
}
