//! Values between columns and records, in the forms that the original used.

use std::{fmt, marker::PhantomData, str::FromStr};

use chrono::{DateTime, NaiveDate, NaiveDateTime, Timelike, Utc};
use sea_orm::{DbBackend, QueryResult, TryGetable};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, Visitor},
};

use crate::DbError;

/// `2026-11-22 10:20:28.123456`
pub(crate) fn time_text(at: NaiveDateTime) -> String {
    at.format("%Y-%m-%d %H:%M:%S%.6f").to_string()
}

/// Reads [`time_text`], with any number of digits in the fraction, or none.
pub(crate) fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    let number = |range: std::ops::Range<usize>| -> Option<u32> { text.get(range)?.parse().ok() };
    let date = NaiveDate::from_ymd_opt(
        i32::try_from(number(0..4)?).ok()?,
        number(5..7)?,
        number(8..10)?,
    )?;
    let time = date.and_hms_opt(number(11..13)?, number(14..16)?, number(17..19)?)?;
    let Some(fraction) = text.get(19..).filter(|rest| !rest.is_empty()) else {
        return Some(time.and_utc());
    };
    let digits = fraction.strip_prefix('.')?;
    if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let scale = 10_u32.pow(u32::try_from(9 - digits.len()).ok()?);
    let nanos = digits.parse::<u32>().ok()? * scale;
    Some(time.with_nanosecond(nanos)?.and_utc())
}

/// What a text in the database stands for.
pub(crate) trait FromText: Sized {
    fn from_text(text: &str) -> Result<Self, String>;
}

impl FromText for DateTime<Utc> {
    fn from_text(text: &str) -> Result<Self, String> {
        parse_time(text).ok_or_else(|| format!("'{text}' is not a time"))
    }
}

/// Read from a JSON string without a copy of it in between.
pub(crate) struct Read<T>(pub(crate) T);

impl<'de, T: FromText> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<T>(PhantomData<T>);

        impl<T: FromText> Visitor<'_> for Text<T> {
            type Value = Read<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                T::from_text(text).map(Read).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text(PhantomData))
    }
}

/// What can be read of `rows`. One that nobody should have written is logged and left out: it must
/// not hold back the others.
pub(crate) fn readable<T>(
    rows: &[QueryResult],
    read: impl Fn(&QueryResult) -> Result<T, DbError>,
) -> Vec<T> {
    rows.iter()
        .filter_map(|row| {
            read(row)
                .inspect_err(
                    |error| tracing::error!(%error, "a row is left out: mend or delete it"),
                )
                .ok()
        })
        .collect()
}

/// One row of a result, read by position; errors name the table and what was read.
pub(crate) struct Row<'a> {
    row: &'a QueryResult,
    backend: DbBackend,
    columns: &'static [&'static str],
    table: &'static str,
}

impl<'a> Row<'a> {
    pub(crate) fn new(
        row: &'a QueryResult,
        backend: DbBackend,
        table: &'static str,
        columns: &'static [&'static str],
    ) -> Self {
        Self {
            row,
            backend,
            columns,
            table,
        }
    }

    /// A row that nobody should have written.
    fn wrong(&self, at: usize, why: impl fmt::Display) -> DbError {
        let column = self.columns.get(at).copied().unwrap_or("?");
        let id: String = self.row.try_get_by_index(0).unwrap_or_default();
        DbError::Internal(format!(
            "row '{id}' of {} has a bad {column}: {why}",
            self.table
        ))
    }

    pub(crate) fn get<T: TryGetable>(&self, at: usize) -> Result<T, DbError> {
        self.row
            .try_get_by_index(at)
            .map_err(|error| self.wrong(at, error))
    }

    /// A text; the original's NULL is empty.
    pub(crate) fn text(&self, at: usize) -> Result<String, DbError> {
        Ok(self.get::<Option<String>>(at)?.unwrap_or_default())
    }

    /// An id, or whatever else is parsed from a text.
    pub(crate) fn parse<T: FromStr<Err: fmt::Display>>(&self, at: usize) -> Result<T, DbError> {
        self.text(at)?
            .parse()
            .map_err(|error| self.wrong(at, error))
    }

    pub(crate) fn parse_opt<T: FromStr<Err: fmt::Display>>(
        &self,
        at: usize,
    ) -> Result<Option<T>, DbError> {
        self.get::<Option<String>>(at)?
            .map(|text| text.parse().map_err(|error| self.wrong(at, error)))
            .transpose()
    }

    /// Integers have four bytes in the original's tables, on databases that care.
    pub(crate) fn int(&self, at: usize) -> Result<i64, DbError> {
        match self.backend {
            DbBackend::Sqlite => self.get::<i64>(at),
            _ => self.get::<i32>(at).map(i64::from),
        }
    }

    pub(crate) fn flag(&self, at: usize) -> Result<bool, DbError> {
        Ok(self.get::<Option<bool>>(at)?.unwrap_or_default())
    }

    pub(crate) fn time_opt(&self, at: usize) -> Result<Option<DateTime<Utc>>, DbError> {
        if self.backend != DbBackend::Sqlite {
            let time = self.get::<Option<NaiveDateTime>>(at)?;
            return Ok(time.map(|time| time.and_utc()));
        }
        self.get::<Option<String>>(at)?
            .map(|text| parse_time(&text).ok_or_else(|| self.wrong(at, "not a time")))
            .transpose()
    }

    /// A time; where the original left it out, the beginning of time.
    pub(crate) fn time(&self, at: usize) -> Result<DateTime<Utc>, DbError> {
        Ok(self.time_opt(at)?.unwrap_or_default())
    }

    pub(crate) fn json_opt<T: DeserializeOwned>(&self, at: usize) -> Result<Option<T>, DbError> {
        self.get::<Option<String>>(at)?
            .filter(|text| !text.is_empty())
            .map(|text| serde_json::from_str(&text).map_err(|error| self.wrong(at, error)))
            .transpose()
    }

    pub(crate) fn json<T: DeserializeOwned + Default>(&self, at: usize) -> Result<T, DbError> {
        Ok(self.json_opt(at)?.unwrap_or_default())
    }
}

/// JSON as Python's `json.dumps` writes it: a space after `:` and `,`, and nothing but ASCII, so
/// that the original's three-byte utf8 columns can hold it.
pub(crate) fn json_text(value: &impl Serialize) -> Result<String, DbError> {
    let mut bytes = Vec::with_capacity(64);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Python);
    value
        .serialize(&mut serializer)
        .map_err(|error| DbError::Internal(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| DbError::Internal(error.to_string()))
}

struct Python;

impl serde_json::ser::Formatter for Python {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
    ) -> std::io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> std::io::Result<()> {
        if fragment.is_ascii() {
            return writer.write_all(fragment.as_bytes());
        }
        let mut units = [0; 2];
        for character in fragment.chars() {
            if character.is_ascii() {
                writer.write_all(&[character as u8])?;
                continue;
            }
            for unit in character.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_keep_microseconds_and_always_show_them() {
        for text in ["2026-11-22 10:20:28.123456", "2026-11-22 10:20:28.000000"] {
            let time = parse_time(text).unwrap();
            assert_eq!(time_text(time.naive_utc()), text);
        }
        let short = parse_time("2026-11-22 10:20:28.5").unwrap();
        assert_eq!(short.timestamp_subsec_millis(), 500);
        assert!(parse_time("2026-11-22 10:20:28").is_some());
        for bad in [
            "",
            "x",
            "2026-13-01 00:00:00",
            "2026-11-22 10:20:28.",
            "2026-11-22 10:20:28Z",
        ] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let value = json!({"a": {"b": ["x", 1, true, null]}, "ü\"": "😀"});
        let text = json_text(&value).unwrap();
        assert_eq!(
            text,
            r#"{"a": {"b": ["x", 1, true, null]}, "\u00fc\"": "\ud83d\ude00"}"#
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }
}
