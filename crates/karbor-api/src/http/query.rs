//! Query strings: pages, order and filters, the same for every list.

use std::{collections::BTreeSet, fmt::Write as _};

use karbor_db::{Direction, ListQuery};
use karbor_model::{ApiError, RequestContext};

use super::python;

/// Largest offset, as the original's database had it.
const MAX_OFFSET: u64 = 0x7fff_ffff;

/// A query string, read.
#[derive(Debug, Default)]
pub(crate) struct Query {
    /// Every pair as it was given, in order: next links repeat them.
    pairs: Vec<(String, String)>,
    pub(crate) limit: u64,
    pub(crate) marker: Option<String>,
    pub(crate) offset: u64,
    pub(crate) sort: Vec<(String, Direction)>,
    pub(crate) filters: Vec<(String, String)>,
    /// The list goes over every project: asked for, and by an administrator.
    pub(crate) all_tenants: bool,
}

impl Query {
    /// Reads the pairs and nothing more.
    pub(crate) fn pairs(query: Option<&str>) -> Result<Vec<(String, String)>, ApiError> {
        query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decode(key)?, decode(value)?))
            })
            .collect()
    }

    /// Reads the query of a list.
    pub(crate) fn list(
        query: Option<&str>,
        max_limit: u64,
        context: &RequestContext,
    ) -> Result<Self, ApiError> {
        let mut read = Self {
            pairs: Self::pairs(query)?,
            limit: max_limit,
            ..Self::default()
        };
        let (mut sort, mut sort_key, mut sort_dir) = (None, None, None);
        for (key, value) in read.pairs.clone() {
            match key.as_str() {
                "limit" => read.limit = limit(&value)?.min(max_limit),
                "marker" => read.marker = Some(value),
                "offset" => read.offset = offset(&value)?,
                "sort" => sort = Some(value),
                "sort_key" => sort_key = Some(value),
                "sort_dir" => sort_dir = Some(value),
                "all_tenants" => {
                    read.all_tenants = boolean("all_tenants", &value)? && context.is_admin;
                }
                _ => read.filters.push((key, value)),
            }
        }
        read.sort = order(sort, sort_key, sort_dir)?;
        Ok(read)
    }

    /// For the database: filters that the list knows, of the project or of all of them. A list literal
    /// means one of its values.
    ///
    /// Unknown filters are treated as the original did, because clients rely on it: ignored for a
    /// member (and for plans, triggers and scheduled operations), matching nothing for an administrator; `None` means just that.
    pub(crate) fn for_db(
        &self,
        context: &RequestContext,
        known: &[&str],
        ignore_unknown: bool,
    ) -> Option<ListQuery> {
        let mut filters = Vec::with_capacity(self.filters.len());
        let mut exact = BTreeSet::new();
        let mut project = (!self.all_tenants).then(|| context.project_id.clone());
        for (key, value) in &self.filters {
            let is_known = known.contains(&key.as_str());
            if key == "project_id" || is_known {
                let listed = python::literals(value);
                exact.extend(listed.is_some().then(|| key.clone()));
                let values = listed.unwrap_or_else(|| vec![value.clone()]);
                match (&project, &values[..]) {
                    // One of none.
                    (_, []) => return None,
                    (Some(own), _) if !is_known => {
                        if !values.contains(own) {
                            return None;
                        }
                    }
                    (None, [only]) if !is_known => project = Some(only.clone()),
                    _ => filters.extend(values.into_iter().map(|value| (key.clone(), value))),
                }
            } else if context.is_admin && !ignore_unknown {
                return None;
            }
        }
        Some(ListQuery {
            project,
            filters,
            exact,
            marker: self.marker.clone(),
            limit: Some(self.limit),
            offset: self.offset,
            sort: self.sort.clone(),
        })
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
    pub(crate) fn marker_id<T: std::str::FromStr>(&self) -> Result<Option<T>, ApiError> {
        let Some(marker) = &self.marker else {
            return Ok(None);
        };
        let id = marker.parse().map_err(|_| {
            let shown = python::repr_str(marker);
            ApiError::invalid_field("marker", marker, format!("{shown} is not a 'uuid'"))
        })?;
        Ok(Some(id))
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

    /// The query of the next page, which follows `marker`. The offset is not repeated: it was
    /// spent on the first page.
    pub(crate) fn next(&self, marker: &str) -> String {
        let kept = self
            .pairs
            .iter()
            .filter(|(key, _)| key != "marker" && key != "offset")
            .map(|(key, value)| (key.as_str(), value.as_str()));
        let mut out = String::new();
        for (key, value) in kept.chain([("marker", marker)]) {
            if !out.is_empty() {
                out.push('&');
            }
            encode(&mut out, key);
            out.push('=');
            encode(&mut out, value);
        }
        out
    }
}

fn limit(value: &str) -> Result<u64, ApiError> {
    match value.trim().parse::<i64>() {
        Err(_) => Err(ApiError::bad_request("limit param must be an integer")),
        Ok(..=0) => Err(ApiError::bad_request("limit param must be positive")),
        Ok(limit) => Ok(limit.unsigned_abs()),
    }
}

fn offset(value: &str) -> Result<u64, ApiError> {
    match value.trim().parse::<i64>() {
        Err(_) => Err(ApiError::bad_request("offset must be an integer.")),
        Ok(..0) => Err(ApiError::bad_request("offset must be >= 0")),
        Ok(offset) if offset.unsigned_abs() > MAX_OFFSET => Err(ApiError::bad_request(format!(
            "offset must be <= {MAX_OFFSET}"
        ))),
        Ok(offset) => Ok(offset.unsigned_abs()),
    }
}

/// The truth values that the original took.
fn boolean(field: &str, value: &str) -> Result<bool, ApiError> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "y" | "1" => Ok(true),
        "false" | "no" | "n" | "0" => Ok(false),
        _ => Err(ApiError::bad_request(format!(
            "Value {value} for {field} is not a boolean."
        ))),
    }
}

fn order(
    sort: Option<String>,
    sort_key: Option<String>,
    sort_dir: Option<String>,
) -> Result<Vec<(String, Direction)>, ApiError> {
    let Some(sort) = sort else {
        return match (sort_key, sort_dir) {
            (None, None) => Ok(Vec::new()),
            (key, dir) => {
                let key = key.unwrap_or_else(|| "created_at".to_owned());
                Ok(vec![(
                    key.trim().to_owned(),
                    direction(dir.as_deref().unwrap_or_default())?,
                )])
            }
        };
    };
    if sort_key.is_some() || sort_dir.is_some() {
        return Err(ApiError::bad_request(
            "The 'sort_key' and 'sort_dir' parameters are deprecated and cannot be used with the \
             'sort' parameter.",
        ));
    }
    sort.trim()
        .split(',')
        .map(|part| {
            let (key, dir) = part.split_once(':').unwrap_or((part, ""));
            Ok((key.trim().to_owned(), direction(dir)?))
        })
        .collect()
}

fn direction(text: &str) -> Result<Direction, ApiError> {
    match text.trim() {
        "" | "desc" => Ok(Direction::Descending),
        "asc" => Ok(Direction::Ascending),
        other => Err(ApiError::invalid_field(
            "sort",
            other,
            "The direction of a sort must be 'asc' or 'desc'.",
        )),
    }
}

/// Undoes percent-encoding; `+` is a space.
fn decode(text: &str) -> Result<String, ApiError> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = [bytes.next(), bytes.next()].map(|b| b.and_then(hex_digit));
                let [Some(high), Some(low)] = digits else {
                    return Err(bad_query());
                };
                out.push(high << 4 | low);
            }
            other => out.push(other),
        }
    }
    match String::from_utf8(out) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(bad_query()),
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|d| u8::try_from(d).ok())
}

fn bad_query() -> ApiError {
    ApiError::bad_request("Malformed query string: it must be percent-encoded UTF-8 text.")
}

/// `urllib.parse.quote_plus`, which the original's links went through.
fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            other => {
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, is_admin: bool) -> Result<Query, ApiError> {
        let context = RequestContext::for_project("u", "p", is_admin);
        Query::list(Some(query), 1000, &context)
    }

    #[test]
    fn the_next_link_repeats_the_query_as_the_original_encoded_it() {
        let query = read("limit=1&sort=name%3Aasc&marker=old&offset=3", true).unwrap();
        assert_eq!(query.next("new"), "limit=1&sort=name%3Aasc&marker=new");
        assert_eq!(query.sort, [("name".to_owned(), Direction::Ascending)]);
        assert_eq!((query.limit, query.offset), (1, 3));
    }

    #[test]
    fn bad_values_name_their_field() {
        for (query, expected) in [
            ("limit=0", "limit param must be positive"),
            ("limit=-1", "limit param must be positive"),
            ("limit=abc", "limit param must be an integer"),
            ("offset=x", "offset must be an integer."),
            ("offset=-1", "offset must be >= 0"),
            ("offset=2147483648", "offset must be <= 2147483647"),
            (
                "all_tenants=maybe",
                "Value maybe for all_tenants is not a boolean.",
            ),
            (
                "name=%zz",
                "Malformed query string: it must be percent-encoded UTF-8 text.",
            ),
            (
                "name=%ff",
                "Malformed query string: it must be percent-encoded UTF-8 text.",
            ),
            (
                "name=%00",
                "Malformed query string: it must be percent-encoded UTF-8 text.",
            ),
        ] {
            assert_eq!(read(query, true).unwrap_err().message, expected);
        }
        assert!(read("sort=name:sideways", true).is_err());
        assert!(read("sort=name&sort_key=id", true).is_err());
        assert_eq!(read("limit=5000", true).unwrap().limit, 1000);
    }

    #[test]
    fn only_an_administrator_lists_all_projects() {
        assert!(read("all_tenants=1", true).unwrap().all_tenants);
        assert!(!read("all_tenants=1", false).unwrap().all_tenants);
    }

    #[test]
    fn a_member_never_lists_another_project() {
        let member = RequestContext::for_project("u", "p", false);
        let query = read("project_id=q&all_tenants=1", false).unwrap();
        assert!(query.for_db(&member, &["status"], true).is_none());
        let query = read("bogus=1&status=x", false).unwrap();
        let listed = query.for_db(&member, &["status"], false).unwrap();
        assert_eq!(listed.project.as_deref(), Some("p"));
        assert_eq!(listed.filters, [("status".to_owned(), "x".to_owned())]);
    }
}
