//! Options like --dry-run become parameters of the resource types that have them: what a type takes
//! is in its provider's schemas, so nothing here knows a plugin. A dry run is refused when a
//! resource that holds data does not know it: it would be restored in earnest.

use std::collections::{BTreeMap, BTreeSet};

use karbor_model::ResourceGraph;
use serde_json::{Map, Value};

use crate::error::CliError;

/// Adds each wish to the parameters of the types that take it.
pub(super) fn grant(
    parameters: &mut Value,
    wishes: &BTreeMap<&str, Value>,
    graph: &ResourceGraph,
    schemas: &Value,
) -> Result<(), CliError> {
    let types: BTreeSet<&str> = kinds(graph, |_| true);
    let takes = |kind: &str, wish: &str| schemas[kind]["properties"].get(wish).is_some();
    for (wish, value) in wishes {
        let fit: Vec<_> = types.iter().filter(|kind| takes(kind, wish)).collect();
        let option = match *wish {
            "level" => "data".to_owned(),
            wish => wish.replace('_', "-"),
        };
        if fit.is_empty() {
            return Err(
                CliError::usage(format!("nothing in this checkpoint takes --{option}")).hint(
                    format!(
                        "it holds {}; `karbor provider show` lists what each type takes",
                        types.iter().copied().collect::<Vec<_>>().join(", ")
                    ),
                ),
            );
        }
        if *wish == "dry_run" {
            // A resource without dependents is one that holds data.
            let leaves = kinds(graph, |at| graph.children(at).is_empty());
            if let Some(kind) = leaves.into_iter().find(|kind| !takes(kind, wish)) {
                return Err(CliError::usage(format!(
                    "{kind} knows no dry run: it would be restored in earnest"
                )));
            }
        }
        for kind in fit {
            let own = parameters.as_object_mut().map(|all| {
                all.entry(*kind)
                    .or_insert_with(|| Value::Object(Map::new()))
            });
            if let Some(Value::Object(own)) = own {
                own.insert((*wish).to_owned(), value.clone());
            }
        }
    }
    Ok(())
}

/// Types of the resources at the places that `wanted` says.
fn kinds(graph: &ResourceGraph, wanted: impl Fn(usize) -> bool) -> BTreeSet<&str> {
    let nodes = graph.nodes().iter().enumerate();
    nodes
        .filter(|(at, _)| wanted(*at))
        .map(|(_, resource)| resource.resource_type.as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use karbor_model::Resource;
    use serde_json::json;

    use super::*;

    fn shop() -> (ResourceGraph, Value) {
        let mut graph = ResourceGraph::new();
        let top = graph.add(Resource::new("App", "1", "shop"));
        for (kind, id) in [("Dir", "2"), ("Db", "3")] {
            let component = graph.add(Resource::new(kind, id, id));
            graph.depend(top, component);
        }
        let schemas = json!({
            "App": {},
            "Dir": {"properties": {"dry_run": {}, "overwrite": {}, "restore_to": {}}},
            "Db": {"properties": {"dry_run": {}, "database": {}}},
        });
        (graph, schemas)
    }

    #[test]
    fn each_type_gets_what_it_takes() {
        let (graph, schemas) = shop();
        let wishes = BTreeMap::from([("dry_run", json!(true)), ("database", json!("copy"))]);
        let mut parameters = json!({"Dir": {"overwrite": "never"}});
        grant(&mut parameters, &wishes, &graph, &schemas).unwrap();
        assert_eq!(
            parameters,
            json!({
                "Dir": {"overwrite": "never", "dry_run": true},
                "Db": {"dry_run": true, "database": "copy"},
            })
        );
    }

    #[test]
    fn a_wish_that_nothing_takes_is_refused() {
        let (graph, schemas) = shop();
        let wishes = BTreeMap::from([("nonsense", json!("x"))]);
        let error = grant(&mut json!({}), &wishes, &graph, &schemas).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("nothing in this checkpoint takes --nonsense")
        );
    }

    #[test]
    fn a_dry_run_never_restores_in_earnest() {
        let (graph, mut schemas) = shop();
        schemas["Db"] = json!({});
        let wishes = BTreeMap::from([("dry_run", json!(true))]);
        let error = grant(&mut json!({}), &wishes, &graph, &schemas).unwrap_err();
        assert!(error.to_string().contains("Db knows no dry run"));
    }
}
