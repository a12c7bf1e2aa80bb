//! The language of query strings: pages, order and filters, the same for every list.

use std::fmt::Write as _;

use karbor_db::Direction;
use karbor_model::ApiError;

use super::python_texts;
use crate::page::{Filter, Page};

/// Largest offset, as the original's database had it.
const MAX_OFFSET: u64 = 0x7fff_ffff;

/// The query string of a list, read.
#[derive(Debug, Default)]
pub(crate) struct Query {
    /// Every pair as it was given, in order: next links repeat them.
    pairs: Vec<(String, String)>,
    pub(crate) page: Page,
}

/// The pairs of any query string, and nothing more.
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

impl Query {
    /// Reads the query string of a list, which has no more than `max_limit` items at once.
    pub(crate) fn read(query: Option<&str>, max_limit: u64) -> Result<Self, ApiError> {
        let pairs = pairs(query)?;
        let mut page = Page {
            limit: max_limit,
            ..Page::default()
        };
        let (mut sort, mut sort_key, mut sort_dir) = (None, None, None);
        for (key, value) in pairs.clone() {
            match key.as_str() {
                "limit" => page.limit = limit(&value)?.min(max_limit),
                "marker" => page.marker = Some(value),
                "offset" => page.offset = offset(&value)?,
                "sort" => sort = Some(value),
                "sort_key" => sort_key = Some(value),
                "sort_dir" => sort_dir = Some(value),
                "all_tenants" => page.all_tenants = boolean("all_tenants", &value)?,
                _ => page.filters.push(Filter {
                    name: key,
                    one_of: python_texts::literals(&value),
                    text: value,
                }),
            }
        }
        page.sort = order(sort, sort_key, sort_dir)?;
        Ok(Self { pairs, page })
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

    fn read(query: &str) -> Result<Query, ApiError> {
        Query::read(Some(query), 1000)
    }

    #[test]
    fn the_next_link_repeats_the_query_as_the_original_encoded_it() {
        let query = read("limit=1&sort=name%3Aasc&marker=old&offset=3").unwrap();
        assert_eq!(query.next("new"), "limit=1&sort=name%3Aasc&marker=new");
        assert_eq!(query.page.sort, [("name".to_owned(), Direction::Ascending)]);
        assert_eq!((query.page.limit, query.page.offset), (1, 3));
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
            assert_eq!(read(query).unwrap_err().message, expected);
        }
        assert!(read("sort=name:sideways").is_err());
        assert!(read("sort=name&sort_key=id").is_err());
        assert_eq!(read("limit=5000").unwrap().page.limit, 1000);
    }
}
