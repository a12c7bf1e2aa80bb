//! What part of a list is asked for.

use std::collections::BTreeMap;

use karbor_db::Direction;
use karbor_model::RequestContext;

use crate::refusal::Refusal;

/// The part of a list that a client asks for, as the client wrote it. The manager decides how much of that the client gets.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// At most so many.
    pub(crate) limit: u64,
    /// Id of the last record of the page before.
    pub(crate) marker: Option<String>,
    /// Leaves out so many at the start.
    pub(crate) offset: u64,
    /// Keys to sort by.
    pub(crate) sort: Vec<(String, Direction)>,
    /// In the order in which they were given.
    pub(crate) filters: Vec<Filter>,
    /// Of every project.
    pub(crate) all_tenants: bool,
}

/// A condition on what is listed.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) name: String,
    /// The value as it was given.
    pub(crate) text: String,
    /// Where the value is a list: one of these.
    pub(crate) one_of: Option<Vec<String>>,
}

impl Page {
    /// Does the list go over every project? Administrators alone are given it.
    pub(crate) fn is_of_all_projects(&self, context: &RequestContext) -> bool {
        self.all_tenants && context.is_admin
    }

    /// Sort keys and directions, apart, as they travel over RPC: newest first if nothing was asked.
    pub(crate) fn sort_keys_and_dirs(&self) -> (Vec<String>, Vec<String>) {
        if self.sort.is_empty() {
            return (vec!["created_at".to_owned()], vec!["desc".to_owned()]);
        }
        self.given_sort()
    }

    /// The same, empty if nothing was asked: for what has no time.
    pub(crate) fn given_sort(&self) -> (Vec<String>, Vec<String>) {
        self.sort
            .iter()
            .map(|(key, direction)| {
                let direction = match direction {
                    Direction::Ascending => "asc",
                    Direction::Descending => "desc",
                };
                (key.clone(), direction.to_owned())
            })
            .unzip()
    }

    /// The marker as an id.
    pub(crate) fn marker_id<T: std::str::FromStr>(&self) -> Result<Option<T>, Refusal> {
        let Some(marker) = &self.marker else {
            return Ok(None);
        };
        let id = marker.parse().map_err(|_| Refusal::MarkerIsNoId {
            marker: marker.clone(),
        })?;
        Ok(Some(id))
    }

    /// The filters that a lister over RPC knows. Others are ignored, as the original ignored them.
    pub(crate) fn known_filters(&self, names: &[&str]) -> BTreeMap<String, String> {
        let given = self.filters.iter();
        given
            .filter(|filter| names.contains(&filter.name.as_str()))
            .map(|filter| (filter.name.clone(), filter.text.clone()))
            .collect()
    }

    /// How many to ask of a lister that knows no offset.
    pub(crate) fn limit_and_offset(&self) -> usize {
        usize::try_from(self.limit.saturating_add(self.offset)).unwrap_or(usize::MAX)
    }

    /// What is left of such a lister's answer.
    pub(crate) fn skip_offset<T>(&self, mut items: Vec<T>) -> Vec<T> {
        let offset = usize::try_from(self.offset).unwrap_or(usize::MAX);
        items.drain(..offset.min(items.len()));
        items
    }
}
