//! Which files a path stands for, and their text.
use std::{
    fs,
    io::{self, Read},
    path::{self, Path, PathBuf},
    str,
};

use super::{error::ConfigError, tree::Place};

/// More than any config needs; less than would hurt a node.
const LARGEST: u64 = 32 * 1024 * 1024;

/// Standard input, as a path and in messages.
pub(super) const STDIN: (&str, &str) = ("-", "<stdin>");

/// Where configuration comes from.
#[derive(Clone, Debug)]
pub enum Input {
    /// A YAML file, or a directory of them.
    Path(PathBuf),
    /// What was read from standard input. It can be read once only, so whoever loads again keeps it.
    Stdin(Vec<u8>),
}

impl Input {
    /// The input that `path` names; `-` is standard input, which is read to its end here.
    pub fn open(path: &Path) -> io::Result<Input> {
        if path.as_os_str() != STDIN.0 {
            return Ok(Input::Path(path.to_owned()));
        }
        let mut bytes = Vec::new();
        io::stdin().lock().take(LARGEST + 1).read_to_end(&mut bytes)?;
        Ok(Input::Stdin(bytes))
    }

    /// The files that are read: the path itself, or those of the directory in the order of their names.
    pub fn files(&self) -> io::Result<Vec<PathBuf>> {
        let path = match self {
            Input::Path(path) if fs::metadata(path)?.is_dir() => path,
            Input::Path(path) => return Ok(vec![path.clone()]),
            Input::Stdin(_) => return Ok(Vec::new()),
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(path)? {
            let file = entry?.path();
            // Hidden entries are editors' swap files and the `..data` links of a ConfigMap mount. A dangling link is
            // taken along, so that reading it says so.
            if is_yaml(&file) && !file.is_dir() {
                files.push(file);
            }
        }
        if files.is_empty() {
            return Err(io::Error::other("the directory has no *.yaml or *.yml file"));
        }
        files.sort();
        Ok(files)
    }

    /// What [`files`](Self::files) calls the file that stands at `place`, an absolute path, if it would name it.
    pub fn file_at(&self, place: &Path) -> Option<PathBuf> {
        let Input::Path(path) = self else { return None };
        let absolute = path::absolute(path).ok()?;
        if absolute == place {
            return (!path.is_dir()).then(|| path.clone());
        }
        let file = path.join(place.file_name()?);
        (place.parent() == Some(&absolute) && is_yaml(&file) && !file.is_dir()).then_some(file)
    }
}

/// A file's name and text.
pub(super) struct Text {
    pub(super) file: String,
    pub(super) text: String,
}

/// The texts behind an input, those of a directory in the order of their names.
pub(super) fn read(input: &Input, errors: &mut Vec<ConfigError>) -> Vec<Text> {
    let path = match input {
        Input::Path(path) => path,
        Input::Stdin(bytes) => {
            return text(STDIN.1, bytes.clone()).map_err(|error| errors.push(error)).into_iter().collect();
        }
    };
    match input.files() {
        Ok(files) => files.iter().filter_map(|file| read_file(file, errors)).collect(),
        Err(error) => {
            errors.push(ConfigError::of_file(&path.display().to_string(), error.to_string()));
            Vec::new()
        }
    }
}

/// Whether a file of that name counts in a directory.
fn is_yaml(file: &Path) -> bool {
    let hidden = file.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

pub(super) fn read_file(path: &Path, errors: &mut Vec<ConfigError>) -> Option<Text> {
    let file = path.display().to_string();
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| ConfigError::of_file(&file, error.to_string()));
    bytes.and_then(|bytes| text(&file, bytes)).map_err(|error| errors.push(error)).ok()
}

fn text(file: &str, bytes: Vec<u8>) -> Result<Text, ConfigError> {
    if bytes.len() as u64 > LARGEST {
        let most = LARGEST / 1024 / 1024;
        return Err(ConfigError::of_file(file, format!("is larger than {most} MiB, the most that is read")));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Text { file: file.to_owned(), text }),
        Err(error) => {
            let (bytes, at) = (error.as_bytes(), error.utf8_error().valid_up_to());
            let before = str::from_utf8(&bytes[..at]).unwrap_or_default();
            let line = before.matches('\n').count() as u64 + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u64 + 1;
            let message = format!("byte 0x{:02x} is not UTF-8", bytes[at]);
            let shown = String::from_utf8_lossy(bytes);
            let lines: Vec<_> = shown.lines().collect();
            Err(ConfigError::at(file, &lines, Place { line, column, length: 1 }, None, message))
        }
    }
}
