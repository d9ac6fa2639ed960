//! What was measured: rows of samples by contestant, told as text and as a page of Markdown.
use std::fmt::Write;

use crate::stats::{median, range};

/// How our own contestant is called.
pub(crate) const OURS: &str = "Plainroute";
/// How the least possible work is called.
pub(crate) const FLOOR: &str = "floor";

/// What stands where a contestant gave no figure, although it was asked for one.
const UNFINISHED: &str = "did not finish";

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Milliseconds,
    Microseconds,
    Seconds,
    Octets,
    Count,
}

impl Unit {
    /// A figure with three digits that mean something.
    pub(crate) fn show(self, figure: f64) -> String {
        match self {
            Unit::Milliseconds if figure >= 10_000.0 => format!("{} s", digits(figure / 1000.0)),
            Unit::Milliseconds => format!("{} ms", digits(figure)),
            Unit::Microseconds => format!("{} us", digits(figure)),
            Unit::Seconds => format!("{} s", digits(figure)),
            Unit::Octets => format!("{} MB", digits(figure / 1e6)),
            Unit::Count => digits(figure),
        }
    }
}

fn digits(figure: f64) -> String {
    match figure {
        _ if figure >= 99.5 => format!("{figure:.0}"),
        _ if figure >= 9.95 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

/// What a row is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// There is none.
    None,
    /// At most this.
    AtMost(f64),
    /// At most so many times the floor of the same run.
    TimesFloor(f64),
}

/// One row.
pub(crate) struct Row {
    pub(crate) letter: char,
    pub(crate) title: String,
    unit: Unit,
    goal: Goal,
    /// By contestant, in the order in which they came.
    samples: Vec<(String, Vec<f64>)>,
}

/// All rows, in the order in which they came.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    /// What a reader must know, such as why somebody is missing.
    notes: Vec<String>,
    /// Who did not finish where: letter, title, contestant; once for each time.
    unfinished: Vec<(char, String, String)>,
}

impl Report {
    /// The row of a title, which is made where it is not there yet.
    pub(crate) fn row(&mut self, letter: char, title: &str, unit: Unit, goal: Goal) -> &mut Row {
        let place = self.rows.iter().position(|row| row.letter == letter && row.title == title);
        let place = place.unwrap_or_else(|| {
            self.rows.push(Row { letter, title: title.to_owned(), unit, goal, samples: Vec::new() });
            self.rows.len() - 1
        });
        &mut self.rows[place]
    }

    /// Adds a note, unless it is there already.
    pub(crate) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Keeps that a contestant did not finish.
    pub(crate) fn unfinished(&mut self, letter: char, title: &str, name: &str) {
        self.unfinished.push((letter, title.to_owned(), name.to_owned()));
    }

    /// How often that happened.
    pub(crate) fn failures(&self, letter: char, title: &str, name: &str) -> usize {
        let known = (letter, title.to_owned(), name.to_owned());
        self.unfinished.iter().filter(|unfinished| **unfinished == known).count()
    }

    /// The cell of a contestant, or that it did not finish.
    fn cell(&self, row: &Row, name: &str) -> String {
        let here = |(letter, title, of): &(char, String, String)| {
            *letter == row.letter && row.title.contains(title.as_str()) && of == name
        };
        match row.cell(name) {
            cell if row.of(name).is_none() && self.unfinished.iter().any(here) => {
                if name == OURS {
                    cell
                } else {
                    UNFINISHED.to_owned()
                }
            }
            cell => cell,
        }
    }

    /// The rows, by letter.
    pub(crate) fn rows(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(|row| row.letter);
        rows
    }

    /// The tables of docs/benchmarks.md: for each letter one, a column for each contestant.
    pub(crate) fn markdown(&self) -> String {
        let rows = self.rows();
        let mut names: Vec<&str> = vec![OURS, FLOOR];
        let sampled = rows.iter().flat_map(|row| &row.samples).map(|(name, _)| name);
        for name in sampled.chain(self.unfinished.iter().map(|(_, _, name)| name)) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        let mut text = format!("| row | goal | {} |\n", names.join(" | "));
        text += &format!("|---|---|{}\n", "---|".repeat(names.len()));
        for row in &rows {
            let cells: Vec<String> = names.iter().map(|name| self.cell(row, name)).collect();
            let _ =
                writeln!(text, "| ({}) {} | {} | {} |", row.letter, row.title, row.goal(), cells.join(" | "));
        }
        for note in &self.notes {
            let _ = write!(text, "\n- {note}");
        }
        text
    }

    /// The rows as lines of text.
    pub(crate) fn text(&self) -> String {
        let mut rows = String::new();
        for row in self.rows() {
            rows += &row.text();
            let mut told = std::collections::BTreeSet::new();
            for (_, _, name) in &self.unfinished {
                if row.of(name).is_none()
                    && name != OURS
                    && self.cell(row, name) == UNFINISHED
                    && told.insert(name)
                {
                    let _ = writeln!(rows, "      {name:<16} {UNFINISHED}");
                }
            }
        }
        self.notes.iter().fold(rows, |text, note| format!("{text}note: {note}\n"))
    }

    /// How many goals were met, of how many.
    pub(crate) fn met(&self) -> (usize, usize) {
        let verdicts: Vec<bool> = self.rows.iter().filter_map(Row::verdict).collect();
        (verdicts.iter().filter(|met| **met).count(), verdicts.len())
    }
}

impl Row {
    pub(crate) fn sample(&mut self, contestant: &str, figure: f64) {
        match self.samples.iter_mut().find(|(name, _)| name == contestant) {
            Some((_, samples)) => samples.push(figure),
            None => self.samples.push((contestant.to_owned(), vec![figure])),
        }
    }

    fn of(&self, contestant: &str) -> Option<&[f64]> {
        self.samples.iter().find(|(name, _)| name == contestant).map(|(_, samples)| &samples[..])
    }

    fn median(&self, contestant: &str) -> Option<f64> {
        median(self.of(contestant)?)
    }

    /// What our figure is held against, in the row's unit.
    fn limit(&self) -> Option<f64> {
        match self.goal {
            Goal::None => None,
            Goal::AtMost(limit) => Some(limit),
            Goal::TimesFloor(times) => Some(self.median(FLOOR)? * times),
        }
    }

    /// Whether the goal was met; none without a goal or without a figure of ours.
    pub(crate) fn verdict(&self) -> Option<bool> {
        Some(self.median(OURS)? <= self.limit()?)
    }

    fn goal(&self) -> String {
        let verdict = match self.verdict() {
            Some(true) => ": met",
            Some(false) => ": **missed**",
            None => "",
        };
        match self.goal {
            Goal::None => String::new(),
            Goal::AtMost(limit) => format!("{}{verdict}", self.unit.show(limit)),
            Goal::TimesFloor(times) => format!("{times} x floor{verdict}"),
        }
    }

    /// The median, and how many times ours it is.
    fn cell(&self, contestant: &str) -> String {
        let Some(figure) = self.median(contestant) else {
            return if contestant == OURS { "not measured".to_owned() } else { String::new() };
        };
        let shown = self.unit.show(figure);
        match self.median(OURS) {
            Some(ours) if contestant != OURS && ours > 0.0 => {
                format!("{shown} ({} x)", digits(figure / ours))
            }
            _ => shown,
        }
    }

    /// The row as lines of text.
    fn text(&self) -> String {
        let goal = self.goal().replace('*', "");
        let goal = if goal.is_empty() { String::new() } else { format!(" [goal {goal}]") };
        let mut text = format!("({}) {}{goal}\n", self.letter, self.title);
        if self.of(OURS).is_none() {
            let _ = writeln!(text, "      {OURS:<16} not measured");
        }
        for (name, samples) in &self.samples {
            let (low, high) = range(samples).unwrap_or_default();
            let cell = self.cell(name);
            let (low, high) = (self.unit.show(low), self.unit.show(high));
            let _ = writeln!(text, "      {name:<16} {cell:<24} {low} .. {high}, {} rounds", samples.len());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        let row = report.row('b', "second", Unit::Octets, Goal::None);
        row.sample("BIRD 2", 3e6);
        let row = report.row('a', "first", Unit::Milliseconds, Goal::AtMost(10.0));
        for figure in [9.0, 30.0, 8.0] {
            row.sample(OURS, figure);
        }
        row.sample("BIRD 2", 90.0);
        report.note("said once".to_owned());
        report.note("said once".to_owned());
        report
    }

    #[test]
    fn the_median_decides_and_a_missing_figure_is_said() {
        let report = report();
        let rows = report.rows();
        assert_eq!(rows.iter().map(|row| row.letter).collect::<String>(), "ab");
        assert_eq!((rows[0].verdict(), rows[1].verdict()), (Some(true), None));
        assert_eq!(report.met(), (1, 1));
        let text = report.markdown();
        assert!(text.contains("| (a) first | 10.0 ms: met | 9.00 ms |  | 90.0 ms (10.0 x) |"), "{text}");
        assert!(text.contains("| (b) second |  | not measured |  | 3.00 MB |"), "{text}");
        assert_eq!(text.matches("said once").count(), 1);
    }

    #[test]
    fn who_does_not_finish_is_said_so_where_it_has_no_figure() {
        let mut report = report();
        report.unfinished('a', "first", "FRR 10");
        report.unfinished('a', "first", "FRR 10");
        report.unfinished('a', "first", "BIRD 2");
        assert_eq!(
            (report.failures('a', "first", "FRR 10"), report.failures('b', "first", "FRR 10")),
            (2, 0)
        );
        let table = report.markdown();
        assert!(table.contains("| 90.0 ms (10.0 x) | did not finish |"), "{table}");
        assert!(table.contains("| (b) second |  | not measured |  | 3.00 MB |  |"), "{table}");
        assert_eq!(report.text().matches("did not finish").count(), 1, "{}", report.text());
    }

    #[test]
    fn a_goal_that_is_missed_is_said_to_be_missed() {
        let mut report = Report::default();
        let row = report.row('b', "latency", Unit::Milliseconds, Goal::TimesFloor(1.2));
        row.sample(OURS, 0.25);
        assert_eq!(row.verdict(), None, "without a floor there is no verdict");
        row.sample(FLOOR, 0.2);
        assert_eq!(row.verdict(), Some(false));
        assert!(row.text().contains("missed"), "{}", row.text());
        row.sample(FLOOR, 0.22);
        row.sample(FLOOR, 0.22);
        assert_eq!(row.verdict(), Some(true));
    }

    #[test]
    fn figures_have_three_digits() {
        let shown = [0.123, 1.0, 12.34, 123.4, 12_345.0].map(|figure| Unit::Milliseconds.show(figure));
        assert_eq!(shown, ["0.12 ms", "1.00 ms", "12.3 ms", "123 ms", "12.3 s"]);
        assert_eq!(Unit::Octets.show(1.2e8), "120 MB");
    }
}
