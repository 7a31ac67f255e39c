//! Tables: a header, and columns as wide as what is in them.

use std::io;
use std::time::{Duration, Instant};

use anstyle::Style;
use serde_json::Value;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::print::Out;
use crate::stdio;
use crate::text::painted;

/// Rows that are held to learn how wide the columns are. A list may have no end.
const HELD: usize = 100;

/// Rows are not held for longer than this.
const PATIENCE: Duration = Duration::from_secs(1);

/// Cells that an address keeps on a terminal that is too narrow for the table.
const MIN_ADDRESS: usize = 24;

/// Cells that the words of a last column keep on such a terminal.
const MIN_WORDS: usize = 12;

/// Cells that a wrapped text keeps on such a terminal.
const MIN_WRAPPED: usize = 24;

/// Space between two columns.
const GAP: &str = "  ";

/// A column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    title: &'static str,
    kind: Kind,
}

/// Content of a column, which decides how it is aligned and shortened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    /// Numbers end below each other.
    Number,
    /// Loses its middle on a narrow terminal: both ends of an address tell it apart.
    Address,
    /// Loses its end on a narrow terminal.
    Words,
    /// Continues on further lines on a narrow terminal. Only as the last column.
    Wrapped,
}

/// A column of short texts, which are never shortened.
pub(crate) const fn text(title: &'static str) -> Column {
    let kind = Kind::Text;
    Column { title, kind }
}

/// A column of numbers.
pub(crate) const fn number(title: &'static str) -> Column {
    let kind = Kind::Number;
    Column { title, kind }
}

/// A column of addresses.
pub(crate) const fn address(title: &'static str) -> Column {
    let kind = Kind::Address;
    Column { title, kind }
}

/// A column of texts of any length.
pub(crate) const fn words(title: &'static str) -> Column {
    let kind = Kind::Words;
    Column { title, kind }
}

/// A last column of texts that are read whole.
pub(crate) const fn wrapped(title: &'static str) -> Column {
    let kind = Kind::Wrapped;
    Column { title, kind }
}

/// A table on standard output, or one JSON value a row. What is held is printed when it is dropped.
#[derive(Debug)]
pub(crate) struct Table {
    out: Out,
    columns: Vec<Column>,
    widths: Vec<usize>,
    rows: Vec<Row>,
    held_since: Instant,
    has_header: bool,
    /// Cells of a line of the terminal; none where the output is none.
    room: Option<usize>,
    is_coloured: bool,
}

/// A row, and how it is shown where colours are.
#[derive(Debug)]
struct Row {
    style: Style,
    cells: Vec<String>,
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
            room: stdio::columns(),
            is_coloured: stdio::stdout_is_coloured(),
        }
    }

    /// Adds a row: JSON at once, text as soon as it is known how wide it is.
    pub(crate) fn row(
        &mut self,
        value: &Value,
        cells: impl FnOnce() -> Vec<String>,
    ) -> io::Result<()> {
        self.styled_row(value, Style::new(), cells)
    }

    /// Adds a row that has a style of its own.
    pub(crate) fn styled_row(
        &mut self,
        value: &Value,
        style: Style,
        cells: impl FnOnce() -> Vec<String>,
    ) -> io::Result<()> {
        if self.out.json {
            return self.out.result(value, String::new);
        }
        if self.rows.is_empty() {
            self.held_since = Instant::now();
        }
        let cells = cells();
        self.rows.push(Row { style, cells });
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
        let header = header.map(|titles| Row {
            style: Style::new().bold(),
            cells: titles.collect(),
        });
        let mut lines = String::new();
        let rows: Vec<_> = header.into_iter().chain(rows).collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(&row.cells) {
                *width = (*width).max(cell.width());
            }
        }
        let widths = fitted(&self.columns, &self.widths, self.room);
        for row in &rows {
            for line in lines_of(&self.columns, &widths, &row.cells) {
                lines += &painted(self.is_coloured, row.style, &line);
                lines.push('\n');
            }
        }
        self.out.write(lines.as_bytes())
    }
}

/// Returns the lines of a row: one, and more where a text is wrapped.
fn lines_of(columns: &[Column], widths: &[usize], row: &[String]) -> Vec<String> {
    let is_wrapped = columns
        .last()
        .is_some_and(|last| last.kind == Kind::Wrapped);
    let (true, Some((text, cells))) = (is_wrapped, row.split_last()) else {
        return vec![line(columns, widths, row)];
    };
    let width = widths.last().copied().unwrap_or_default();
    let pieces = wrap(text, width).into_iter().enumerate();
    let lines = pieces.map(|(at, piece)| {
        let mut row = if at == 0 {
            cells.to_vec()
        } else {
            vec![String::new(); cells.len()]
        };
        row.push(piece);
        line(columns, widths, &row)
    });
    lines.collect()
}

/// Breaks a text into lines of at most `width` cells, between words where that is possible. A word
/// that is wider than a line, such as a key, is broken after a `/`, or anywhere.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_inclusive([' ', '/']) {
        if !line.is_empty() && line.width() + word.trim_end().width() > width {
            lines.push(std::mem::take(&mut line));
        }
        for c in word.chars() {
            let wide = c.width().unwrap_or_default();
            if !line.is_empty() && c != ' ' && line.width() + wide > width {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    lines.push(line);
    lines
        .iter()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

/// Returns one line of a table.
fn line(columns: &[Column], widths: &[usize], row: &[String]) -> String {
    let cells = columns.iter().zip(widths).zip(row);
    let cells = cells.map(|((column, &width), cell)| {
        let cell = match column.kind {
            Kind::Address => without_middle(cell, width),
            Kind::Words => without_end(cell, width),
            Kind::Text | Kind::Number | Kind::Wrapped => cell.clone(),
        };
        let room = " ".repeat(width.saturating_sub(cell.width()));
        if column.kind == Kind::Number {
            room + &cell
        } else {
            cell + &room
        }
    });
    let line = cells.collect::<Vec<_>>().join(GAP);
    line.trim_end().to_owned()
}

/// Returns the widths of the columns on a line of `room` cells: columns of words give way first,
/// then those of wrapped texts, then those of addresses, none below its minimum.
fn fitted(columns: &[Column], widths: &[usize], room: Option<usize>) -> Vec<usize> {
    let mut widths = widths.to_vec();
    let Some(room) = room else {
        return widths;
    };
    for (kind, least) in [
        (Kind::Words, MIN_WORDS),
        (Kind::Wrapped, MIN_WRAPPED),
        (Kind::Address, MIN_ADDRESS),
    ] {
        for (column, at) in columns.iter().zip(0..) {
            let gaps = GAP.len() * widths.len().saturating_sub(1);
            let over = (widths.iter().sum::<usize>() + gaps).saturating_sub(room);
            if column.kind == kind && widths[at] > least {
                widths[at] = widths[at].saturating_sub(over).max(least);
            }
        }
    }
    widths
}

/// Returns a text of at most `width` cells, in which an ellipsis stands for the middle.
fn without_middle(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    // The end tells versions apart.
    let end = room.div_ceil(2);
    let mut tail: Vec<_> = prefix(text.chars().rev(), end).collect();
    tail.reverse();
    let head: String = prefix(text.chars(), room - end).collect();
    format!("{head}…{}", tail.iter().collect::<String>())
}

/// Returns a text of at most `width` cells, in which an ellipsis stands for the end.
fn without_end(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let head: String = prefix(text.chars(), width.saturating_sub(1)).collect();
    head + "…"
}

/// Returns the first characters, as many as have room in `width` cells.
fn prefix(chars: impl Iterator<Item = char>, width: usize) -> impl Iterator<Item = char> {
    chars.scan(0, move |used, c| {
        *used += c.width().unwrap_or_default();
        (*used <= width).then_some(c)
    })
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

    const COLUMNS: [Column; 3] = [address("NAME"), number("SIZE"), words("LABELS")];

    fn cells(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_content_and_numbers_end_below_each_other() {
        let line = |row: &[&str]| line(&COLUMNS, &[6, 5, 6], &cells(row));
        assert_eq!(line(&["NAME", "SIZE", "LABELS"]), "NAME     SIZE  LABELS");
        assert_eq!(line(&["日本", "3 B", ""]), "日本      3 B");
        assert_eq!(line(&["é", "1.0 K", "a=b"]), "é       1.0 K  a=b");
    }

    #[test]
    fn a_narrow_terminal_shortens_labels_and_then_addresses() {
        let widths = [40, 8, 20];
        let fitted = |room| fitted(&COLUMNS, &widths, room);
        assert_eq!(fitted(None), widths);
        assert_eq!(fitted(Some(200)), widths);
        assert_eq!(fitted(Some(70)), [40, 8, 18]);
        assert_eq!(fitted(Some(60)), [36, 8, 12]);
        assert_eq!(fitted(Some(20)), [24, 8, 12]);
    }

    #[test]
    fn a_long_text_is_wrapped_below_itself_and_loses_nothing() {
        let columns = [text("KIND"), address("NAME"), wrapped("FINDING")];
        let finding = "its file was saved as support/chat-20261031-3/history@12; run `persist \
                       repair` to adopt it; file support/chat-20261031-3/history/9999999987.gz";
        let row = cells(&["misplaced", "support/chat-20261031-3/history@12", finding]);
        let wide = [9, 34, finding.width()];
        for (room, most) in [(80, 6), (200, 1)] {
            let widths = fitted(&columns, &wide, Some(room));
            let lines = lines_of(&columns, &widths, &row);
            assert!(lines.len() <= most, "{room}: {lines:#?}");
            assert!(lines.iter().all(|line| line.width() <= room), "{lines:#?}");
            let start = lines[0].find("its file").expect("the first word");
            let whole: String = lines
                .iter()
                .flat_map(|line| line.chars().skip(line[..start].chars().count()))
                .collect();
            let dense = |text: &str| text.replace(' ', "");
            assert_eq!(dense(&whole), dense(finding));
        }
        // A key without a space, and letters of two cells.
        for width in 2..20 {
            let lines = wrap("日本語/メモリ/0000000001-ABCDEFGHIJ and more", width);
            assert!(
                lines.iter().all(|line| line.width() <= width),
                "{width}: {lines:?}"
            );
        }
    }

    #[test]
    fn a_shortened_text_keeps_what_tells_it_apart() {
        let address = "agent/chat-20261031-3/history@12";
        assert_eq!(without_middle(address, 40), address);
        assert_eq!(without_middle(address, 20), "agent/cha…history@12");
        assert_eq!(without_end("turn=1 by=hand", 8), "turn=1 …");
        for width in 1..12 {
            let wide = "日本語/メモリ@3";
            assert!(without_middle(wide, width).width() <= width, "{width}");
            assert!(without_end(wide, width).width() <= width, "{width}");
        }
    }
}
