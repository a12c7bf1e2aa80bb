//! Printing answers: tables, JSON, bare values.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use indicatif::HumanBytes;
use karbor_model::{one_line, visible};
use serde_json::Value;

use crate::{Format, Globals, error::CliError, session::Session};

/// A column of a listing, or a line of a record.
pub(crate) struct Column {
    title: &'static str,
    cell: fn(&Value) -> String,
}

pub(crate) const fn column(title: &'static str, cell: fn(&Value) -> String) -> Column {
    Column { title, cell }
}

/// How to print.
pub(crate) struct View {
    format: Format,
    wanted: Vec<String>,
    fit: bool,
}

impl View {
    pub(crate) fn new(globals: &Globals, fit: bool) -> Self {
        Self {
            format: globals.format,
            wanted: globals.columns.clone(),
            fit,
        }
    }

    /// Is a person reading?
    pub(crate) fn for_people(&self) -> bool {
        self.format == Format::Table
    }

    /// The columns asked for with --column, or all.
    fn chosen<'c>(&self, columns: &'c [Column]) -> Result<Vec<&'c Column>, CliError> {
        if self.wanted.is_empty() {
            return Ok(columns.iter().collect());
        }
        let same = |title: &str, wanted: &str| {
            title
                .replace(['_', '-'], " ")
                .eq_ignore_ascii_case(&wanted.replace(['_', '-'], " "))
        };
        self.wanted
            .iter()
            .map(|wanted| {
                columns
                    .iter()
                    .find(|column| same(column.title, wanted))
                    .ok_or_else(|| {
                        let titles: Vec<_> = columns.iter().map(|column| column.title).collect();
                        CliError::usage(format!("there is no column '{wanted}'"))
                            .hint(format!("the columns are: {}", titles.join(", ")))
                    })
            })
            .collect()
    }
}

impl Session {
    /// Prints a listing.
    pub(crate) fn list(&mut self, columns: &[Column], rows: &[Value]) -> Result<(), CliError> {
        if self.view.format == Format::Json {
            return self.json(&Value::Array(rows.to_vec()));
        }
        let chosen = self.view.chosen(columns)?;
        let cells = rows
            .iter()
            .map(|row| chosen.iter().map(|column| (column.cell)(row)).collect());
        if self.view.format == Format::Value {
            for line in cells.collect::<Vec<Vec<String>>>() {
                writeln!(self.io.out, "{}", fields(&line))?;
            }
            return Ok(());
        }
        let cells: Vec<Vec<String>> = cells.collect();
        if cells.is_empty() {
            return self.note("nothing to show");
        }
        let titles = chosen.iter().map(|column| column.title).collect();
        self.table(Some(titles), cells)
    }

    /// Prints what is in a record as rows; in JSON the record itself.
    pub(crate) fn rows_of(
        &mut self,
        record: &Value,
        columns: &[Column],
        rows: &[Value],
    ) -> Result<(), CliError> {
        match self.view.format {
            Format::Json => self.json(record),
            Format::Table | Format::Value => self.list(columns, rows),
        }
    }

    /// Prints one record, a line for each column.
    pub(crate) fn show(&mut self, columns: &[Column], record: &Value) -> Result<(), CliError> {
        if self.view.format == Format::Json {
            return self.json(record);
        }
        let chosen = self.view.chosen(columns)?;
        if self.view.format == Format::Value {
            for column in chosen {
                writeln!(self.io.out, "{}", one_line(&(column.cell)(record)))?;
            }
            return Ok(());
        }
        let rows = chosen
            .iter()
            .map(|column| vec![column.title.to_owned(), (column.cell)(record)])
            .collect();
        self.table(None, rows)
    }

    /// Prints a table after the answer, for people only.
    pub(crate) fn more(
        &mut self,
        caption: &str,
        titles: Vec<&str>,
        rows: Vec<Vec<String>>,
    ) -> Result<(), CliError> {
        if rows.is_empty() || !self.view.for_people() || !self.view.wanted.is_empty() {
            return Ok(());
        }
        writeln!(self.io.out, "\n{caption}")?;
        self.table(Some(titles), rows)
    }

    fn table(&mut self, titles: Option<Vec<&str>>, rows: Vec<Vec<String>>) -> Result<(), CliError> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if let Some(titles) = titles {
            table.set_header(titles);
        }
        for row in rows {
            table.add_row(cells(&row));
        }
        if self.view.fit {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            keep_ids_whole(&mut table);
        } else {
            table.force_no_tty();
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        writeln!(self.io.out, "{}", table.trim_fmt())?;
        Ok(())
    }

    fn json(&mut self, value: &Value) -> Result<(), CliError> {
        // serde_json escapes control characters itself.
        writeln!(self.io.out, "{value:#}")?;
        Ok(())
    }
}

/// An id that is broken over two lines cannot be copied.
fn keep_ids_whole(table: &mut Table) {
    let widths = table.column_max_content_widths();
    for (column, width) in table.column_iter_mut().zip(widths) {
        if width <= 38 {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width + 2)));
        }
    }
}

/// As [`one_line`], of values that tabs separate.
fn fields(values: &[String]) -> String {
    let values: Vec<_> = values.iter().map(|value| one_line(value)).collect();
    values.join("\t")
}

/// A row as it is shown. Only the first cell begins a row: another one may have lines.
fn cells(row: &[String]) -> impl Iterator<Item = String> {
    row.iter().enumerate().map(|(at, cell)| match at {
        0 => one_line(cell).into_owned(),
        _ => visible(cell).into_owned(),
    })
}

/// A field as text: nothing for null, bare for strings, JSON for the rest.
pub(crate) fn text(record: &Value, field: &str) -> String {
    plain(&record[field])
}

/// A value as text: nothing for null, bare for strings, JSON for the rest.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A field as it is in the API, empty text if it is no text.
pub(crate) fn string<'v>(record: &'v Value, field: &str) -> &'v str {
    record[field].as_str().unwrap_or_default()
}

/// A time without its fraction of a second.
pub(crate) fn time(record: &Value, field: &str) -> String {
    let text = string(record, field);
    let bare = text.trim_end_matches('Z').trim_end_matches("+00:00");
    match chrono::NaiveDateTime::parse_from_str(bare, "%Y-%m-%dT%H:%M:%S%.f") {
        Ok(time) => time.format("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => text.to_owned(),
    }
}

/// `1.20 MiB`; nothing for what is not known.
pub(crate) fn bytes(value: &Value) -> String {
    value
        .as_u64()
        .map_or_else(String::new, |bytes| HumanBytes(bytes).to_string())
}

/// JSON that may have come as text.
pub(crate) fn unpacked(value: &Value) -> Value {
    match value {
        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_makes_neither_a_row_nor_a_value() {
        let row = ["a\nb", "line\nline", "\u{1b}[2J"].map(str::to_owned);
        assert_eq!(fields(&row), "a\\nb\tline\\nline\t\\u{1b}[2J");
        let shown: Vec<_> = cells(&row).collect();
        assert_eq!(shown, ["a\\nb", "line\nline", "\\u{1b}[2J"]);
    }

    #[test]
    fn times_lose_their_fractions_only() {
        let record = json!({"at": "2026-11-22T10:20:39.379530", "z": "2026-11-22T10:20:39Z",
                "utc": "2026-11-22T10:20:39+00:00", "odd": "soon"});
        assert_eq!(time(&record, "at"), "2026-11-22 10:20:39");
        assert_eq!(time(&record, "z"), "2026-11-22 10:20:39");
        assert_eq!(time(&record, "utc"), "2026-11-22 10:20:39");
        assert_eq!(time(&record, "odd"), "soon");
        assert_eq!(time(&record, "none"), "");
    }
}
