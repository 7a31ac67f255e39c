//! Tables: a header, and columns as wide as what is in them.

use std::io;
use std::time::{Duration, Instant};

use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

use crate::print::Out;

/// Rows that are held to learn how wide the columns are. A list may have no end.
const HELD: usize = 100;

/// Rows are not held for longer than this.
const PATIENCE: Duration = Duration::from_secs(1);

/// A column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    title: &'static str,
    /// Numbers end below each other.
    is_right: bool,
}

/// A column of texts.
pub(crate) const fn text(title: &'static str) -> Column {
    Column {
        title,
        is_right: false,
    }
}

/// A column of numbers.
pub(crate) const fn number(title: &'static str) -> Column {
    Column {
        title,
        is_right: true,
    }
}

/// A table on standard output, or one JSON value a row. What is held is printed when it is dropped.
#[derive(Debug)]
pub(crate) struct Table {
    out: Out,
    columns: Vec<Column>,
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
    held_since: Instant,
    has_header: bool,
}

impl Table {
    pub(crate) fn new(out: Out, columns: &[Column]) -> Self {
        Self {
            out,
            columns: columns.into(),
            widths: vec![0; columns.len()],
            rows: Vec::new(),
            held_since: Instant::now(),
            // Results, and nothing beside them.
            has_header: out.quiet,
        }
    }

    /// Adds a row: JSON at once, text as soon as it is known how wide it is.
    pub(crate) fn row(
        &mut self,
        value: &Value,
        cells: impl FnOnce() -> Vec<String>,
    ) -> io::Result<()> {
        if self.out.json {
            return self.out.print(value, String::new);
        }
        if self.rows.is_empty() {
            self.held_since = Instant::now();
        }
        self.rows.push(cells());
        if self.rows.len() >= HELD || self.held_since.elapsed() > PATIENCE {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Prints the rows that are held.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(());
        }
        let header = (!std::mem::replace(&mut self.has_header, true))
            .then(|| self.columns.iter().map(|column| column.title.to_owned()));
        let header = header.map(Iterator::collect::<Vec<_>>);
        let mut lines = String::new();
        let rows: Vec<_> = header.into_iter().chain(rows).collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        for row in &rows {
            lines += &self.line(row);
            lines.push('\n');
        }
        self.out.write(lines.as_bytes())
    }

    fn line(&self, row: &[String]) -> String {
        let cells = self.columns.iter().zip(&self.widths).zip(row);
        let cells = cells.map(|((column, width), cell)| {
            let room = " ".repeat(width.saturating_sub(cell.width()));
            if column.is_right {
                room + cell
            } else {
                cell.clone() + &room
            }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        line.trim_end().to_owned()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // An error is on its way already, or the reader is gone.
        let _ = self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_content_and_numbers_end_below_each_other() {
        let out = Out {
            json: false,
            quiet: false,
            options: "",
        };
        let mut table = Table::new(out, &[text("NAME"), number("SIZE"), text("LABELS")]);
        table.widths = vec![6, 5, 6];
        let line = |cells: &[&str]| {
            let cells: Vec<_> = cells.iter().map(|cell| (*cell).to_owned()).collect();
            table.line(&cells)
        };
        assert_eq!(line(&["NAME", "SIZE", "LABELS"]), "NAME     SIZE  LABELS");
        assert_eq!(line(&["日本", "3 B", ""]), "日本      3 B");
        assert_eq!(line(&["é", "1.0 K", "a=b"]), "é       1.0 K  a=b");
    }
}
