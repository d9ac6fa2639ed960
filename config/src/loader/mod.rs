//! The loader: YAML files to objects, all or nothing.
//!
//! A file is parsed into trees (`tree`), each tree is decoded into an object (`decode`, `document`), and what is
//! wrong is told with its place (`error`). Either every document of every file is right, or nothing is loaded.
mod again;
mod decode;
mod document;
mod error;
mod files;
mod tree;

use std::{
    collections::{BTreeMap, btree_map},
    fmt,
    path::Path,
    sync::Arc,
};

use serde_saphyr::{MessageFormatter, UserMessageFormatter};

pub use self::{
    again::Reloader,
    error::{ConfigError, ConfigErrors},
    files::Input,
};
use self::{
    files::Text,
    tree::{Node, Place, Step},
};
use crate::{AgentConfigSpec, Kind, Object, ObjectKey};

/// Where an object was written. Displays as `FILE:LINE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file as it was named, or `<stdin>`.
    pub file: Arc<str>,
    /// The line where its document begins, from 1.
    pub line: u64,
}

/// An object and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// The object.
    pub object: Object,
    /// Where it was written.
    pub origin: Origin,
}

/// Everything that was loaded, in the order of paths, files and documents. No two objects have the same key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// The objects.
    pub objects: Vec<Located>,
}

impl Loaded {
    /// The one AgentConfig, if there is one.
    pub fn agent_config(&self) -> Option<&AgentConfigSpec> {
        self.objects.iter().find_map(|located| match &located.object {
            Object::AgentConfig(config) => Some(&config.spec),
            _ => None,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Loads every document behind `paths`: YAML files, directories of them (not recursive), or `-` for standard input.
///
/// # Errors
/// All that is wrong in all documents; then nothing is loaded.
pub fn load<P: AsRef<Path>>(paths: &[P]) -> Result<Loaded, ConfigErrors> {
    let mut errors = Vec::new();
    let mut inputs = Vec::new();
    for path in paths {
        match Input::open(path.as_ref()) {
            Ok(input) => inputs.push(input),
            Err(error) => errors.push(ConfigError::of_file("<stdin>", error.to_string())),
        }
    }
    load_into(&inputs, errors)
}

/// [`load`], where standard input has been read before.
///
/// # Errors
/// As [`load`].
pub fn load_inputs(inputs: &[Input]) -> Result<Loaded, ConfigErrors> {
    load_into(inputs, Vec::new())
}

fn load_into(inputs: &[Input], mut errors: Vec<ConfigError>) -> Result<Loaded, ConfigErrors> {
    let mut loading = Loading::default();
    for input in inputs {
        for text in files::read(input, &mut errors) {
            loading.file(&text);
            // File by file, whichever step found it, from top to bottom.
            loading.errors.sort_by_key(|error| (error.line, error.column));
            errors.append(&mut loading.errors);
        }
    }
    match ConfigErrors::new(errors) {
        None => Ok(Loaded { objects: loading.objects }),
        Some(errors) => Err(errors),
    }
}

#[derive(Default)]
struct Loading {
    objects: Vec<Located>,
    seen: BTreeMap<ObjectKey, Origin>,
    errors: Vec<ConfigError>,
}

impl Loading {
    fn file(&mut self, Text { file, text }: &Text) {
        let name: Arc<str> = Arc::from(file.as_str());
        let lines: Vec<_> = text.lines().collect();
        let mut reader = text.as_bytes();
        for document in serde_saphyr::read_with_options::<_, Node>(&mut reader, options()) {
            match document {
                Ok(root) => self.document(&name, &lines, &root),
                Err(error) => {
                    let error = error.without_snippet();
                    let message = UserMessageFormatter.format_message(error).into_owned();
                    self.errors.push(match error.location().map(Place::from) {
                        Some(place) if place.line > 0 => {
                            ConfigError::at(file, &lines, Place { length: 1, ..place }, None, message)
                        }
                        _ => ConfigError::of_file(file, message),
                    });
                }
            }
        }
    }

    fn document(&mut self, file: &Arc<str>, lines: &[&str], root: &Node) {
        let object = match document::object(root) {
            Ok(object) => object,
            Err(findings) => {
                let error = |finding: decode::Finding| {
                    ConfigError::at(file, lines, finding.place, Some(finding.field), finding.message)
                };
                return self.errors.extend(findings.into_iter().map(error));
            }
        };
        let origin = Origin { file: file.clone(), line: root.place.line };
        let path = ["metadata", "name"].map(|key| Step::Key(key.to_owned()));
        let mut refuse = |field: &str, path: &[Step], message: String| {
            let error = ConfigError::at(file, lines, root.locate(path), Some(field.to_owned()), message);
            self.errors.push(error);
        };
        match self.seen.entry(object.key()) {
            btree_map::Entry::Occupied(first) => {
                refuse("metadata.name", &path, format!("{} is already at {}", first.key(), first.get()));
            }
            btree_map::Entry::Vacant(vacant) => {
                vacant.insert(origin.clone());
                let another = (object.kind() == Kind::AgentConfig)
                    .then(|| self.objects.iter().find(|other| other.object.kind() == Kind::AgentConfig))
                    .flatten();
                if let Some(first) = another {
                    let place = [Step::Key("kind".to_owned())];
                    let message =
                        format!("there is an AgentConfig at {} already, and only one can hold", first.origin);
                    refuse("kind", &place, message);
                }
                self.objects.push(Located { object, origin });
            }
        }
    }
}

/// Limits for a text that came from somebody's hands: large configs pass, alias bombs do not.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        emit_comments: false,
        budget: serde_saphyr::budget! {
            max_events: 8_000_000,
            max_nodes: 4_000_000,
            max_documents: 200_000,
            max_depth: 64,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
        },
    }
}
