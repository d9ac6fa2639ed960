//! Tables, and the machine-readable forms of the same values.
use std::io::{self, ErrorKind, Write};

use anyhow::Context;
use serde::Serialize;

use super::Output;

/// A value that can be shown as a table.
pub(super) trait Rows {
    /// The column titles.
    fn titles(wide: bool) -> Vec<&'static str>;
    /// The cells of this row, one for each title.
    fn cells(&self, wide: bool) -> Vec<String>;
}

/// Prints `rows` in the form that was asked for.
pub(super) fn print_rows<T: Rows + Serialize>(rows: &[T], output: Output, none: &str) -> anyhow::Result<()> {
    let wide = output == Output::Wide;
    match output {
        Output::Table | Output::Wide if rows.is_empty() => print(&format!("{none}\n")),
        Output::Table | Output::Wide => {
            let cells: Vec<Vec<String>> = rows.iter().map(|row| row.cells(wide)).collect();
            print(&table(&T::titles(wide), &cells))
        }
        Output::Json | Output::Yaml => print_value(&rows, output),
    }
}

/// Prints a value as JSON, or as YAML where that was asked for.
pub(super) fn print_value<T: Serialize>(value: &T, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Yaml => print(&serde_saphyr::to_string(value)?),
        Output::Table | Output::Wide | Output::Json => {
            print(&format!("{}\n", serde_json::to_string_pretty(value)?))
        }
    }
}

/// Writes to standard output. A reader that has seen enough and left, as `head` does, is no error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output"),
    }
}

/// Columns as wide as their widest cell, two spaces apart; the last one is not padded.
fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let titles: Vec<String> = titles.iter().map(|title| (*title).to_owned()).collect();
    let mut widths: Vec<usize> = titles.iter().map(|title| title.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What an empty cell shows.
pub(super) fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

/// A duration as people say it: the two largest units.
pub(super) fn ago(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{:02}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes:02}m"),
        (days, hours, _) => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_spaces() {
        let rows = vec![vec!["tor-a".to_owned(), "1".to_owned()], vec!["b".to_owned(), String::new()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME   N\ntor-a  1\nb\n");
    }

    #[test]
    fn durations_show_their_two_largest_units() {
        let said: Vec<String> = [5, 65, 3_600, 90_000].into_iter().map(ago).collect();
        assert_eq!(said, ["5s", "1m05s", "1h00m", "1d01h"]);
    }
}
