//! The file: a header, an object a line, and a SHA-256 over all of that. One that was cut, damaged or written for
//! another node is refused, and said so.
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::Path,
    sync::Arc,
    time::SystemTime,
};

use jiff::Timestamp;
use plainroute_config::{Kind, Object};
use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    index::{Held, LastGood},
    source::kubernetes::Marks,
    state_file,
};

/// The file's name in `stateDir`.
pub const FILE: &str = "last-good";

/// The form of the file that this version writes and reads.
const FORMAT: u32 = 1;

/// More than any object of a cluster.
const LONGEST: u64 = 16 * 1024 * 1024;

/// What is kept.
pub type Kept = LastGood;

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("line {line}: {why}")]
    Damaged {
        /// Where.
        line: usize,
        /// What is wrong there.
        why: String,
    },
    /// It is about another node.
    #[error("it was written for node {0}")]
    OtherNode(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Header {
    format: u32,
    node: String,
    written: Timestamp,
    kinds: Vec<String>,
    /// The latest state of the API server that was seen, by kind.
    marks: BTreeMap<String, u64>,
    objects: usize,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<&'a Held>,
    kind: Kind,
    object: &'a Object,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadLine<'a> {
    #[serde(default)]
    held: Option<Held>,
    kind: String,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trailer {
    sha256: String,
}

/// Digests what goes through it.
struct Digesting<W> {
    inner: W,
    digest: digest::Context,
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes the file in place of the one before, as a whole.
pub(super) fn write(
    state_dir: &Path,
    node: &str,
    kept: &Kept,
    marks: &Marks,
    confirmed: Timestamp,
) -> io::Result<()> {
    let header = Header {
        format: FORMAT,
        node: node.to_owned(),
        written: confirmed,
        kinds: kept.kinds.iter().map(ToString::to_string).collect(),
        marks: marks.iter().map(|(kind, mark)| (kind.to_string(), *mark)).collect(),
        objects: kept.objects.len(),
    };
    state_file::replace_with(&state_dir.join(FILE), 0o666, |file| {
        let digest = digest::Context::new(&digest::SHA256);
        let mut out = Digesting { inner: BufWriter::new(&*file), digest };
        write_line(&mut out, &header)?;
        for object in &kept.objects {
            let held = kept.held.get(&object.key());
            write_line(&mut out, &Line { held, kind: object.kind(), object })?;
        }
        let Digesting { mut inner, digest } = out;
        write_line(&mut inner, &Trailer { sha256: hex(digest.finish().as_ref()) })?;
        inner.flush()?;
        drop(inner);
        file.set_modified(SystemTime::from(confirmed))?;
        file.sync_all()
    })
}

/// Says that what the file says is still so.
pub(super) fn renew(state_dir: &Path, confirmed: Timestamp) -> io::Result<()> {
    match File::options().append(true).open(state_dir.join(FILE)) {
        Ok(file) => file.set_modified(SystemTime::from(confirmed)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads the file, if there is one.
pub fn load(state_dir: &Path, node: &str) -> Result<Option<(Kept, Marks)>, LoadError> {
    let file = match File::open(state_dir.join(FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let modified = file.metadata()?.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
    let mut lines = Lines { file: BufReader::new(file), number: 0, text: String::new() };
    let mut digest = digest::Context::new(&digest::SHA256);

    let first = lines.next()?;
    digest.update(first.as_bytes());
    let header: Header = serde_json::from_str(first).map_err(|error| lines.damaged(error))?;
    if header.format != FORMAT {
        return Err(lines.damaged(format!("format {} is not known", header.format)));
    }
    if header.node != node {
        return Err(LoadError::OtherNode(header.node));
    }
    let mut kept = Kept { confirmed: header.written, ..Kept::default() };
    kept.confirmed = modified.map_or(header.written, |modified| modified.max(header.written));
    for _ in 0..header.objects {
        let text = lines.next()?;
        digest.update(text.as_bytes());
        let (held, object) = object(text).map_err(|why| lines.damaged(why))?;
        kept.held.extend(held.map(|held| (object.key(), held)));
        kept.objects.push(Arc::new(object));
    }
    let trailer = lines.next()?;
    let Trailer { sha256 } = serde_json::from_str(trailer).map_err(|error| lines.damaged(error))?;
    if sha256 != hex(digest.finish().as_ref()) {
        return Err(lines.damaged("the SHA-256 of the lines before is another"));
    }
    kept.kinds = header.kinds.iter().filter_map(|name| Kind::from_name(name)).collect();
    let mark = |(name, mark): (&String, &u64)| Some((Kind::from_name(name)?, *mark));
    let marks = header.marks.iter().filter_map(mark).collect();
    Ok(Some((kept, marks)))
}

fn object(text: &str) -> Result<(Option<Held>, Object), String> {
    let line: ReadLine<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let kind = Kind::from_name(&line.kind).ok_or_else(|| format!("there is no kind {}", line.kind))?;
    let object = Object::from_json(kind, line.object.get()).map_err(|error| error.to_string())?;
    Ok((line.held, object))
}

/// The lines of the file, each with its line break, none of them endless.
struct Lines {
    file: BufReader<File>,
    number: usize,
    text: String,
}

impl Lines {
    fn next(&mut self) -> Result<&str, LoadError> {
        self.text.clear();
        self.number += 1;
        let mut line = io::Read::take(&mut self.file, LONGEST);
        match line.read_line(&mut self.text) {
            Ok(_) if self.text.ends_with('\n') => Ok(&self.text),
            Ok(_) => Err(self.damaged("the file ends here")),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(self.damaged("not UTF-8")),
            Err(error) => Err(error.into()),
        }
    }

    fn damaged(&self, why: impl ToString) -> LoadError {
        LoadError::Damaged { line: self.number, why: why.to_string() }
    }
}

fn write_line(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
