//! What is wrong with the config, and where: for a person with a snippet and a caret, for a program as fields.
use std::fmt::{self, Display};

use serde::Serialize;

use super::tree::Place;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigError {
    /// The file as it was named, or `<stdin>`.
    pub file: String,
    /// From 1; absent where the file as a whole is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// From 1, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
    /// The path of the field, like `spec.timers.holdTimeSeconds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
    #[serde(skip)]
    snippet: Option<Box<Snippet>>,
}

/// Everything that is wrong with a config. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Snippet {
    line: String,
    /// How many characters stand before the caret, and how many carets there are.
    before: usize,
    carets: usize,
}

/// The longest line that a snippet shows.
const WIDTH: usize = 100;

impl ConfigError {
    /// About the file as a whole.
    pub(super) fn of_file(file: &str, message: impl Into<String>) -> ConfigError {
        let file = file.to_owned();
        ConfigError { file, line: None, column: None, field: None, message: message.into(), snippet: None }
    }

    /// About a place in `lines`, the file's content.
    pub(super) fn at(
        file: &str,
        lines: &[&str],
        place: Place,
        field: Option<String>,
        message: String,
    ) -> ConfigError {
        let line = usize::try_from(place.line).ok().and_then(|line| lines.get(line.checked_sub(1)?));
        ConfigError {
            file: file.to_owned(),
            line: Some(place.line),
            column: Some(place.column),
            field: field.filter(|field| !field.is_empty()),
            message,
            snippet: line.map(|line| Box::new(Snippet::new(line, place))),
        }
    }
}

impl Snippet {
    fn new(line: &str, place: Place) -> Snippet {
        let characters: Vec<char> = line.chars().collect();
        let column = usize::try_from(place.column).unwrap_or(1).saturating_sub(1).min(characters.len());
        let length = usize::try_from(place.length).unwrap_or(1);
        // A long line is shown from a bit before the caret.
        let start = if column < WIDTH { 0 } else { column - WIDTH / 4 };
        let end = (start + WIDTH).min(characters.len());
        let plain = |c: &char| if c.is_control() { ' ' } else { *c };
        let mut shown: String = characters[start..end].iter().map(plain).collect();
        if end < characters.len() {
            shown.push('…');
        }
        let lead = usize::from(start > 0);
        if lead > 0 {
            shown.insert(0, '…');
        }
        let carets = length.min(end.saturating_sub(column)).max(1);
        Snippet { line: shown, before: column - start + lead, carets }
    }
}

impl ConfigErrors {
    /// From at least one error.
    pub(super) fn new(errors: Vec<ConfigError>) -> Option<ConfigErrors> {
        if errors.is_empty() { None } else { Some(ConfigErrors { errors }) }
    }

    /// The errors, file by file from top to bottom.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.errors.iter()
    }

    /// The first error in one line, and how many more there are.
    pub fn summary(&self) -> String {
        let first = self.errors.first().map(ConfigError::headline).unwrap_or_default();
        match self.errors.len() {
            0 | 1 => first,
            more => format!("{first} (and {} more)", more - 1),
        }
    }
}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl ConfigError {
    /// `FILE:LINE:COLUMN: FIELD: MESSAGE`, without the snippet.
    pub fn headline(&self) -> String {
        let mut text = self.file.clone();
        for number in [self.line, self.column].into_iter().flatten() {
            text.push_str(&format!(":{number}"));
        }
        text.push_str(": ");
        if let Some(field) = &self.field {
            text.push_str(&format!("{field}: "));
        }
        text.push_str(&self.message);
        text
    }
}

impl Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline())?;
        let (Some(snippet), Some(line)) = (&self.snippet, self.line) else { return Ok(()) };
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        write!(f, "\n{margin} |\n{number} | {}\n{margin} | ", snippet.line)?;
        write!(f, "{}{}", " ".repeat(snippet.before), "^".repeat(snippet.carets))
    }
}

impl Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}
