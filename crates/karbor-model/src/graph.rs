//! The resource graph: what an operation runs over. Parents point at the resources they depend on.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use crate::Resource;

/// Why a graph could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// A resource depends on itself, directly or through others.
    #[error("the resources depend on each other in a loop: {}", .path.join(" -> "))]
    Loop {
        /// `type#id` of each resource on the loop; first and last are the same.
        path: Vec<String>,
    },
    /// It is larger than any may be.
    #[error(
        "the graph has more than {MAX_RESOURCES} resources or {MAX_DEPENDENCIES} dependencies",
        MAX_RESOURCES = ResourceGraph::MAX_RESOURCES,
        MAX_DEPENDENCIES = ResourceGraph::MAX_DEPENDENCIES
    )]
    TooLarge,
    /// A stored graph is not of the form that Karbor writes.
    #[error("the stored resource graph cannot be read: {0}")]
    Malformed(String),
}

/// A directed acyclic graph of resources. A shared child is one node with several parents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceGraph {
    nodes: Vec<Resource>,
    children: Vec<Vec<usize>>,
    edges: HashSet<(usize, usize)>,
    index: HashMap<String, usize>,
}

impl ResourceGraph {
    /// More resources are in no graph that is protected or read.
    pub const MAX_RESOURCES: usize = 10_000;
    /// More dependencies are in no graph that is protected or read.
    pub const MAX_DEPENDENCIES: usize = 100_000;

    /// An empty graph.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a resource, or finds the one with the same type and id; returns its place.
    pub fn add(&mut self, resource: Resource) -> usize {
        let key = resource.key();
        if let Some(&at) = self.index.get(&key) {
            return at;
        }
        self.nodes.push(resource);
        self.children.push(Vec::new());
        self.index.insert(key, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    /// Says that `parent` depends on `child`.
    pub fn depend(&mut self, parent: usize, child: usize) {
        if self.edges.insert((parent, child)) {
            self.children[parent].push(child);
        }
    }

    /// The resources, each at its place.
    #[must_use]
    pub fn nodes(&self) -> &[Resource] {
        &self.nodes
    }

    /// The places of what the resource at `at` depends on.
    #[must_use]
    pub fn children(&self, at: usize) -> &[usize] {
        &self.children[at]
    }

    /// The place of a resource by its type and id.
    #[must_use]
    pub fn find(&self, resource_type: &str, id: &str) -> Option<usize> {
        self.index.get(&format!("{resource_type}#{id}")).copied()
    }

    /// Is it larger than any may be?
    ///
    /// # Errors
    /// [`GraphError::TooLarge`].
    pub fn check_size(&self) -> Result<(), GraphError> {
        within_bounds(self.nodes.len(), self.edges.len())
    }

    /// Places in an order in which every child comes before its parents.
    ///
    /// # Errors
    /// [`GraphError::Loop`] with the path of the loop.
    pub fn post_order(&self) -> Result<Vec<usize>, GraphError> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; self.nodes.len()];
        let mut order = Vec::with_capacity(self.nodes.len());
        for root in 0..self.nodes.len() {
            if marks[root] != Mark::New {
                continue;
            }
            // An explicit stack: a deep graph must not overflow the thread's.
            let mut stack = vec![(root, 0)];
            marks[root] = Mark::Open;
            while let Some(&mut (at, ref mut next)) = stack.last_mut() {
                let Some(&child) = self.children[at].get(*next) else {
                    marks[at] = Mark::Done;
                    order.push(at);
                    stack.pop();
                    continue;
                };
                *next += 1;
                match marks[child] {
                    Mark::Done => {}
                    Mark::New => {
                        marks[child] = Mark::Open;
                        stack.push((child, 0));
                    }
                    Mark::Open => {
                        let from = stack.iter().position(|(on, _)| *on == child).unwrap_or(0);
                        let path = stack[from..]
                            .iter()
                            .map(|(on, _)| *on)
                            .chain([child])
                            .map(|on| self.nodes[on].key())
                            .collect();
                        return Err(GraphError::Loop { path });
                    }
                }
            }
        }
        Ok(order)
    }

    /// The JSON text that a checkpoint's index holds:
    /// `[{"0x0": [type, id, name, extra_info], ..}, [[parent, [children]], ..]]`,
    /// names given in post-order (reference: "Bank keys").
    ///
    /// # Errors
    /// [`GraphError::Loop`], [`GraphError::TooLarge`].
    pub fn pack(&self) -> Result<String, GraphError> {
        self.check_size()?;
        let order = self.post_order()?;
        let mut sids = vec![String::new(); self.nodes.len()];
        let mut nodes = Map::new();
        for (position, &at) in order.iter().enumerate() {
            let sid = format!("{position:#x}");
            let node = &self.nodes[at];
            nodes.insert(
                sid.clone(),
                json!([node.resource_type, node.id, node.name, node.extra_info]),
            );
            sids[at] = sid;
        }
        let edges: Vec<Value> = order
            .iter()
            .filter(|&&at| !self.children[at].is_empty())
            .map(|&at| {
                let children: Vec<&String> = self.children[at].iter().map(|&c| &sids[c]).collect();
                json!([sids[at], children])
            })
            .collect();
        Ok(json!([nodes, edges]).to_string())
    }

    /// Reads what [`pack`](Self::pack), or the original, wrote.
    ///
    /// # Errors
    /// [`GraphError::Malformed`] names what is wrong; [`GraphError::Loop`], [`GraphError::TooLarge`].
    pub fn unpack(text: &str) -> Result<Self, GraphError> {
        type Node = (String, String, Option<String>, Option<Value>);
        type Edges = Vec<(String, Vec<String>)>;
        let malformed = |reason: String| GraphError::Malformed(reason);
        let (nodes, edges): (HashMap<String, Node>, Edges) =
            serde_json::from_str(text).map_err(|e| malformed(e.to_string()))?;
        let dependencies = edges.iter().map(|(_, children)| children.len()).sum();
        within_bounds(nodes.len(), dependencies)?;
        let mut sids = nodes
            .keys()
            .map(|sid| {
                let number = u64::from_str_radix(sid.trim_start_matches("0x"), 16)
                    .map_err(|_| malformed(format!("'{sid}' is not a node name")))?;
                Ok((number, sid))
            })
            .collect::<Result<Vec<_>, GraphError>>()?;
        sids.sort();
        let mut graph = Self::new();
        let mut places = HashMap::new();
        for (_, sid) in sids {
            let (resource_type, id, name, extra_info) = nodes[sid].clone();
            let name = name.unwrap_or_default();
            let at = graph.add(Resource {
                id,
                resource_type,
                name,
                extra_info,
            });
            places.insert(sid.as_str(), at);
        }
        for (parent, children) in &edges {
            let place = |sid: &String| {
                places
                    .get(sid.as_str())
                    .copied()
                    .ok_or_else(|| malformed(format!("'{sid}' is not among the nodes")))
            };
            let parent = place(parent)?;
            for child in children {
                let child = place(child)?;
                graph.depend(parent, child);
            }
        }
        graph.post_order()?;
        Ok(graph)
    }
}

fn within_bounds(resources: usize, dependencies: usize) -> Result<(), GraphError> {
    let fits = resources <= ResourceGraph::MAX_RESOURCES
        && dependencies <= ResourceGraph::MAX_DEPENDENCIES;
    fits.then_some(()).ok_or(GraphError::TooLarge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(id: &str) -> Resource {
        Resource::new("T", id, id)
    }

    #[test]
    fn packs_as_the_original_did() {
        let mut graph = ResourceGraph::new();
        let mut volume = Resource::new("OS::Cinder::Volume", "v", "volume-2");
        volume.extra_info = Some(json!({"availability_zone": "nova"}));
        let server = graph.add(Resource::new("OS::Nova::Server", "s", "server"));
        let volume = graph.add(volume);
        graph.depend(server, volume);
        assert_eq!(
            graph.pack().unwrap(),
            r#"[{"0x0":["OS::Cinder::Volume","v","volume-2",{"availability_zone":"nova"}],"0x1":["OS::Nova::Server","s","server",null]},[["0x1",["0x0"]]]]"#
        );
    }

    #[test]
    fn a_loop_is_refused_with_its_path() {
        let mut graph = ResourceGraph::new();
        let (a, b, c) = (
            graph.add(node("a")),
            graph.add(node("b")),
            graph.add(node("c")),
        );
        graph.depend(a, b);
        graph.depend(b, c);
        graph.depend(c, b);
        let GraphError::Loop { path } = graph.post_order().unwrap_err() else {
            panic!("not a loop");
        };
        assert_eq!(path, ["T#b", "T#c", "T#b"]);
    }

    #[test]
    fn the_same_resource_twice_is_one_node() {
        let mut graph = ResourceGraph::new();
        assert_eq!(graph.add(node("a")), graph.add(node("a")));
    }

    #[test]
    fn a_deep_graph_does_not_overflow() {
        let mut graph = ResourceGraph::new();
        for i in 0..100_000 {
            graph.add(node(&i.to_string()));
            if i > 0 {
                graph.depend(i - 1, i);
            }
        }
        assert_eq!(graph.post_order().unwrap().len(), 100_000);
    }

    proptest! {
        #[test]
        fn unpack_never_panics(text in ".*") {
            let _ = ResourceGraph::unpack(&text);
        }

        #[test]
        fn pack_and_unpack_keep_nodes_and_edges(
            edges in proptest::collection::vec((0usize..12, 0usize..12), 0..40)
        ) {
            let mut graph = ResourceGraph::new();
            for i in 0..12 { graph.add(node(&i.to_string())); }
            for (a, b) in edges { if a < b { graph.depend(a, b); } }
            let back = ResourceGraph::unpack(&graph.pack().unwrap()).unwrap();
            prop_assert_eq!(back.nodes().len(), 12);
            for (at, resource) in graph.nodes().iter().enumerate() {
                let there = back.find("T", &resource.id).unwrap();
                let mut kids: Vec<_> = graph.children(at).iter().map(|&c| graph.nodes()[c].id.clone()).collect();
                let mut back_kids: Vec<_> = back.children(there).iter().map(|&c| back.nodes()[c].id.clone()).collect();
                kids.sort();
                back_kids.sort();
                prop_assert_eq!(kids, back_kids);
            }
        }
    }
}
