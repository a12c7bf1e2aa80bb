//! Filters, sorts and pages of short lists that live in memory: providers and protectable instances.

use std::collections::BTreeMap;

use karbor_model::ApiError;

/// `items` that fit every filter, in the order of the sort keys. `field` reads a field by its name.
/// Filters on what is no field are left aside, as the original did; a sort key that is no field is
/// the caller's mistake.
///
/// # Errors
/// A 400 that names the sort key.
pub(crate) fn list_by_name<T>(
    mut items: Vec<T>,
    sort_keys: &[String],
    sort_dirs: &[String],
    filters: &BTreeMap<String, String>,
    field: impl Fn(&T, &str) -> Option<String>,
) -> Result<Vec<T>, ApiError> {
    items.retain(|item| {
        filters
            .iter()
            .all(|(key, wanted)| field(item, key).is_none_or(|value| value == *wanted))
    });
    // `created_at` is what clients send when nobody asked for an order; these lists keep their own.
    for (at, key) in sort_keys
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, key)| *key != "created_at")
    {
        if let Some(item) = items.first() {
            field(item, key).ok_or_else(|| {
                ApiError::invalid_input(format!("Sort key supplied is invalid: {key}"))
            })?;
        }
        let ascending = sort_dirs
            .get(at)
            .is_some_and(|direction| direction == "asc");
        items.sort_by(|a, b| {
            let order = field(a, key).cmp(&field(b, key));
            if ascending { order } else { order.reverse() }
        });
    }
    Ok(items)
}

/// At most `limit` of `items`, from after the one whose id is `marker`.
///
/// # Errors
/// A 400 that names the marker when nothing has that id.
pub(crate) fn page<T>(
    mut items: Vec<T>,
    marker: Option<&str>,
    limit: Option<usize>,
    id: impl Fn(&T) -> String,
) -> Result<Vec<T>, ApiError> {
    if let Some(marker) = marker {
        let at = items.iter().position(|item| id(item) == marker);
        let at =
            at.ok_or_else(|| ApiError::invalid_input(format!("marker [{marker}] not found")))?;
        items.drain(..=at);
    }
    items.truncate(limit.unwrap_or(usize::MAX));
    Ok(items)
}
