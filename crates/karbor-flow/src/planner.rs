//! The planner: a pure function from a resource graph and an operation to the tasks of a flow.

use std::fmt;

use karbor_model::{GraphError, OperationType, Resource, ResourceGraph};
use serde::{Deserialize, Serialize};

/// A hook of an operation, in the order in which those of one resource run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// Before the dependents' `prepare_begin`.
    PrepareBegin,
    /// After the dependents' `prepare_finish`.
    PrepareFinish,
    /// The work.
    Main,
    /// After the dependents' `complete`.
    Complete,
    /// Only after a failure or a cancel; never part of a plan.
    Undo,
}

impl Hook {
    /// The hooks of a plan.
    pub const FORWARD: [Self; 4] = [
        Self::PrepareBegin,
        Self::PrepareFinish,
        Self::Main,
        Self::Complete,
    ];

    /// The name, as task names and messages use it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PrepareBegin => "prepare_begin",
            Self::PrepareFinish => "prepare_finish",
            Self::Main => "main",
            Self::Complete => "complete",
            Self::Undo => "undo",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A resource in a flow.
#[derive(Debug, Clone, Serialize)]
pub struct FlowNode {
    /// Its place among the flow's nodes, which is its place in the graph.
    pub at: usize,
    /// `type#id`.
    pub key: String,
    /// The resource.
    pub resource: Resource,
    /// Places of what it depends on.
    pub children: Vec<usize>,
    /// Places of what depends on it.
    pub parents: Vec<usize>,
}

/// One hook of one resource.
#[derive(Debug, Clone, Serialize)]
pub struct FlowTask {
    /// `<hook>:<type>#<id>`: the same in every run, so that a resumed flow finds its tasks.
    pub name: String,
    /// The place of the resource.
    pub node: usize,
    /// The hook.
    pub hook: Hook,
    /// Places of the tasks that end before this one starts.
    pub after: Vec<usize>,
}

/// What a flow will do, as a value: print it, send it, or give it to the executor.
#[derive(Debug, Clone, Serialize)]
pub struct FlowPlan {
    operation: OperationType,
    goes_on: bool,
    nodes: Vec<FlowNode>,
    tasks: Vec<FlowTask>,
}

impl FlowPlan {
    /// The operation.
    #[must_use]
    pub fn operation(&self) -> OperationType {
        self.operation
    }

    /// The same, where a failure of one resource leaves the others their turn.
    #[must_use]
    pub fn going_on(mut self) -> Self {
        self.goes_on = true;
        self
    }

    /// Does a failure of one resource leave the others their turn?
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// The resources, each at its place.
    #[must_use]
    pub fn nodes(&self) -> &[FlowNode] {
        &self.nodes
    }

    /// The tasks, in an order in which they could be run one by one.
    #[must_use]
    pub fn tasks(&self) -> &[FlowTask] {
        &self.tasks
    }
}

impl fmt::Display for FlowPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} resources, {} tasks",
            self.operation,
            self.nodes.len(),
            self.tasks.len()
        )?;
        for task in &self.tasks {
            write!(f, "\n  {}", task.name)?;
            for (position, &before) in task.after.iter().enumerate() {
                let word = if position == 0 { " after " } else { ", " };
                write!(f, "{word}{}", self.tasks[before].name)?;
            }
        }
        Ok(())
    }
}

/// Plans an operation over a graph. Every operation has the same hooks and edges; what a hook does
/// is the plugin's. A shared child is one node, so each of its hooks is there once.
///
/// # Errors
/// [`GraphError::Loop`] with the path of the loop.
pub fn plan(graph: &ResourceGraph, operation: OperationType) -> Result<FlowPlan, GraphError> {
    let order = graph.post_order()?;
    let count = order.len();
    let mut position = vec![0; count];
    for (at, &node) in order.iter().enumerate() {
        position[node] = at;
    }
    let mut parents = vec![Vec::new(); count];
    for node in 0..count {
        for &child in graph.children(node) {
            parents[child].push(node);
        }
    }
    let nodes: Vec<FlowNode> = graph
        .nodes()
        .iter()
        .zip(parents)
        .enumerate()
        .map(|(at, (resource, parents))| FlowNode {
            at,
            key: resource.key(),
            resource: resource.clone(),
            children: graph.children(at).to_vec(),
            parents,
        })
        .collect();
    // Parents begin before their children, everything else goes the other way.
    let place = |hook: Hook, node: usize| match hook {
        Hook::PrepareBegin => count - 1 - position[node],
        later => later as usize * count + position[node],
    };
    let mut tasks = Vec::with_capacity(4 * count);
    for hook in Hook::FORWARD {
        for step in 0..count {
            let node = match hook {
                Hook::PrepareBegin => order[count - 1 - step],
                _ => order[step],
            };
            let own = &nodes[node];
            let after = match hook {
                Hook::PrepareBegin => own.parents.iter().map(|&p| place(hook, p)).collect(),
                Hook::PrepareFinish => [place(Hook::PrepareBegin, node)]
                    .into_iter()
                    .chain(own.children.iter().map(|&c| place(hook, c)))
                    .collect(),
                Hook::Main => vec![place(Hook::PrepareFinish, node)],
                Hook::Complete | Hook::Undo => [place(Hook::Main, node)]
                    .into_iter()
                    .chain(own.children.iter().map(|&c| place(hook, c)))
                    .collect(),
            };
            tasks.push(FlowTask {
                name: format!("{hook}:{}", own.key),
                node,
                hook,
                after,
            });
        }
    }
    Ok(FlowPlan {
        operation,
        goes_on: false,
        nodes,
        tasks,
    })
}
