//! The file source: YAML files and directories, watched.
