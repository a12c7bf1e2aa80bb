//! A directory on its way into the repository. Its tree can be written when all its files' blobs and all
//! its subdirectories' trees are known; the one that brings the last of them writes it and tells the parent.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use crate::{
    VaultError,
    engine::{Sink, Worker, WriterState},
    id::Id,
    node::{Node, tree_to_json},
    pack::BlobKind,
    repository::lock,
};

/// Where the id of a directory's tree goes.
pub(crate) enum Parent {
    Dir(Arc<Dir>, usize),
    Root(Arc<Root>),
}

/// What becomes of everything.
#[derive(Default)]
pub(crate) struct Root {
    tree: Mutex<Option<Id>>,
    /// Directories that are too large for a tree, relative, and how many of their entries are left out.
    cut: Mutex<Vec<(PathBuf, u64)>>,
}

impl Root {
    pub(crate) fn take_tree(&self) -> Option<Id> {
        lock(&self.tree).take()
    }

    pub(crate) fn take_cut(&self) -> Vec<(PathBuf, u64)> {
        std::mem::take(&mut lock(&self.cut))
    }
}

pub(crate) struct Dir {
    parent: Parent,
    inner: Mutex<Inner>,
}

struct Inner {
    /// `None`: it was gone when we came to it, or is read again.
    nodes: Vec<Option<Node>>,
    /// Blobs and trees whose ids are not known yet, and one for as long as the directory is being read.
    missing: usize,
}

/// In a slot: which node, which of its blobs. No directory has 2^32 entries, no file 2^32 blobs.
const NODE_SHIFT: usize = 32;
/// The slot that closes a directory.
const CLOSE: usize = usize::MAX;

impl Dir {
    pub(crate) fn new(parent: Parent) -> Arc<Self> {
        Self::stored(parent, Vec::new())
    }

    /// A directory that was stored before, with its nodes: more may come.
    pub(crate) fn stored(parent: Parent, nodes: Vec<Node>) -> Arc<Self> {
        Arc::new(Self {
            parent,
            inner: Mutex::new(Inner {
                nodes: nodes.into_iter().map(Some).collect(),
                missing: 1,
            }),
        })
    }

    /// A subdirectory's tree is to come once more; answers with the one that it has.
    pub(crate) fn await_again(&self, node: usize) -> Option<Id> {
        let mut inner = lock(&self.inner);
        let tree = inner.nodes.get(node)?.as_ref()?.subtree?;
        inner.missing += 1;
        Some(tree)
    }

    /// How many nodes were added, those that were dropped again included.
    pub(crate) fn len(&self) -> usize {
        lock(&self.inner).nodes.len()
    }

    /// Adds a node.
    pub(crate) fn add(&self, node: Node) -> usize {
        let mut inner = lock(&self.inner);
        inner.nodes.push(Some(node));
        inner.nodes.len() - 1
    }

    /// Adds a subdirectory whose tree is to come.
    pub(crate) fn add_dir(&self, node: Node) -> usize {
        let mut inner = lock(&self.inner);
        inner.missing += 1;
        inner.nodes.push(Some(node));
        inner.nodes.len() - 1
    }

    /// Makes room for one more blob of a file; answers with its slot.
    pub(crate) fn next_blob(&self, node: usize) -> usize {
        let mut inner = lock(&self.inner);
        inner.missing += 1;
        let content = inner.nodes.get_mut(node).and_then(Option::as_mut);
        let blob = content.map_or(0, |node| {
            node.content.push(Id([0; 32]));
            node.content.len() - 1
        });
        node << NODE_SHIFT | blob
    }

    pub(crate) fn update(&self, node: usize, change: impl FnOnce(&mut Node)) {
        if let Some(Some(node)) = lock(&self.inner).nodes.get_mut(node) {
            change(node);
        }
    }

    /// Everything that is in it was added.
    pub(crate) fn close_slot() -> usize {
        CLOSE
    }

    /// The node is not to be in the tree: what it was is not there any more, or is read again. What of it
    /// is on its way is awaited all the same.
    pub(crate) fn drop_node(&self, node: usize) -> Option<Node> {
        lock(&self.inner).nodes.get_mut(node)?.take()
    }

    /// The nodes that are in it so far, by name, with their inodes.
    pub(crate) fn known(&self) -> HashMap<Vec<u8>, (usize, u64)> {
        let inner = lock(&self.inner);
        let nodes = inner.nodes.iter().enumerate();
        nodes
            .filter_map(|(at, node)| {
                let node = node.as_ref()?;
                Some((node.name.clone(), (at, node.inode)))
            })
            .collect()
    }

    /// Its tree has not all of its entries. Those above it are not complete yet, so its name is there still.
    fn note_cut(&self, left: u64) {
        let mut names = Vec::new();
        let mut at = &self.parent;
        let root = loop {
            match at {
                Parent::Root(root) => break root,
                Parent::Dir(above, node) => {
                    let inner = lock(&above.inner);
                    names.extend(
                        inner
                            .nodes
                            .get(*node)
                            .and_then(Option::as_ref)
                            .map(Node::os_name),
                    );
                    at = &above.parent;
                }
            }
        };
        let relative = names.into_iter().rev().collect();
        lock(&root.cut).push((relative, left));
    }

    /// Notes one arrival; the nodes, if it was the last.
    fn arrive(&self, note: impl FnOnce(&mut Inner)) -> Option<Vec<Option<Node>>> {
        let mut inner = lock(&self.inner);
        note(&mut inner);
        inner.missing -= 1;
        (inner.missing == 0).then(|| std::mem::take(&mut inner.nodes))
    }
}

impl Sink for Dir {
    fn taken(
        self: Arc<Self>,
        slot: usize,
        id: Id,
        worker: &mut Worker,
        writer: &WriterState,
    ) -> Result<(), VaultError> {
        let mut dir = self;
        let mut complete = dir.arrive(|inner| {
            let node = inner.nodes.get_mut(slot >> NODE_SHIFT);
            let Some(Some(node)) = node else {
                return;
            };
            if let Some(blob) = node.content.get_mut(slot & ((1 << NODE_SHIFT) - 1)) {
                *blob = id;
            }
        });
        while let Some(nodes) = complete {
            let mut nodes: Vec<_> = nodes.into_iter().flatten().collect();
            // Those found when it was listed again came last.
            nodes.sort_by(|a, b| a.name.cmp(&b.name));
            let most = worker.most_entries();
            let (json, left) =
                tree_to_json(nodes.into_iter(), most).map_err(VaultError::Internal)?;
            if left > 0 {
                dir.note_cut(left);
            }
            let tree = worker.store(BlobKind::Tree, &json, writer)?;
            let (parent, node) = match &dir.parent {
                Parent::Dir(parent, node) => (parent.clone(), *node),
                Parent::Root(root) => {
                    *lock(&root.tree) = Some(tree);
                    return Ok(());
                }
            };
            complete = parent.arrive(|inner| {
                if let Some(Some(node)) = inner.nodes.get_mut(node) {
                    node.subtree = Some(tree);
                }
            });
            dir = parent;
        }
        Ok(())
    }
}

/// The content of a stream on its way into the repository.
#[derive(Default)]
pub(crate) struct Content(Mutex<Vec<Id>>);

impl Content {
    pub(crate) fn next_blob(&self) -> usize {
        let mut content = lock(&self.0);
        content.push(Id([0; 32]));
        content.len() - 1
    }

    /// The ids, once all of them have arrived.
    pub(crate) fn take(&self) -> Vec<Id> {
        std::mem::take(&mut lock(&self.0))
    }
}

impl Sink for Content {
    fn taken(
        self: Arc<Self>,
        slot: usize,
        id: Id,
        _: &mut Worker,
        _: &WriterState,
    ) -> Result<(), VaultError> {
        if let Some(blob) = lock(&self.0).get_mut(slot) {
            *blob = id;
        }
        Ok(())
    }
}
