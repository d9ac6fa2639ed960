//! Loading again what has been loaded before: only files that have changed are read.
//!
//! What is right in every file is put together from what is known of each. As soon as anything is wrong, everything is
//! loaded from the beginning: so all errors come from one place, and none of them is about what a file said earlier.
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Loaded, Loading,
    error::{ConfigError, ConfigErrors},
    files::{self, Input},
    load_inputs,
};
use crate::{Kind, Object, ObjectKey};

/// The files of some inputs, and what each said when all of them were right. `S` tells two states of a file apart.
#[derive(Clone, Debug)]
pub struct Reloader<S> {
    inputs: Vec<Input>,
    files: BTreeMap<PathBuf, File<S>>,
    /// What standard input said; it says nothing else later.
    stdin: Vec<Object>,
}

#[derive(Clone, Debug)]
struct File<S> {
    /// `None` where it is to be read again.
    stamp: Option<S>,
    objects: Arc<[Object]>,
}

impl<S: Clone + PartialEq> Reloader<S> {
    /// Loads everything. `stamps` are those of the files behind `inputs`, taken before.
    ///
    /// # Errors
    /// As [`load_inputs`].
    pub fn open(
        inputs: Vec<Input>,
        stamps: &BTreeMap<PathBuf, Option<S>>,
    ) -> Result<(Reloader<S>, Loaded), ConfigErrors> {
        let mut reloader = Reloader { inputs, files: BTreeMap::new(), stdin: Vec::new() };
        let loaded = reloader.load_all(stamps)?;
        Ok((reloader, loaded))
    }

    /// Where the files are.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// All objects.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.files.values().flat_map(|file| file.objects.iter()).chain(&self.stdin)
    }

    /// Loads what has changed; `stamps` are those of all files now. True where an object is another, new, or gone.
    ///
    /// # Errors
    /// All that is wrong in all files; then everything stays as it was.
    pub fn reload(&mut self, stamps: &BTreeMap<PathBuf, Option<S>>) -> Result<bool, ConfigErrors> {
        let mut read = BTreeMap::new();
        for (path, stamp) in stamps {
            let known = self.files.get(path);
            if known.is_some_and(|known| known.stamp.is_some() && known.stamp == *stamp) {
                continue;
            }
            match parse(path) {
                Ok(objects) => read.insert(path.clone(), File { stamp: stamp.clone(), objects }),
                Err(()) => return self.reload_all(stamps),
            };
        }
        let stays = |path: &PathBuf| stamps.contains_key(path) && !read.contains_key(path);
        let kept = self.files.iter().filter(|(path, _)| stays(path)).map(|(_, file)| file);
        if !agree(kept.chain(read.values()).flat_map(|file| file.objects.iter()).chain(&self.stdin)) {
            return self.reload_all(stamps);
        }
        let gone =
            self.files.iter().any(|(path, file)| !stamps.contains_key(path) && !file.objects.is_empty());
        let changed = gone || read.iter().any(|(path, file)| *self.said(path) != *file.objects);
        self.files.retain(|path, _| stamps.contains_key(path));
        self.files.extend(read);
        Ok(changed)
    }

    /// Takes only these files of the inputs, which were put whole in their place; the others count as they were. `None`,
    /// and nothing taken, where something is wrong or an object would be gone: it may be on its way to another file.
    /// Else as [`reload`](Self::reload), which reads these files once more.
    pub fn take(&mut self, placed: &BTreeSet<PathBuf>) -> Option<bool> {
        let mut read = BTreeMap::new();
        for path in placed {
            read.insert(path.clone(), File { stamp: None, objects: parse(path).ok()? });
        }
        let now: BTreeSet<ObjectKey> = keys(read.values().flat_map(|file| file.objects.iter())).collect();
        if placed.iter().flat_map(|path| keys(self.said(path))).any(|key| !now.contains(&key)) {
            return None;
        }
        let kept = self.files.iter().filter(|(path, _)| !read.contains_key(*path)).map(|(_, file)| file);
        if !agree(kept.chain(read.values()).flat_map(|file| file.objects.iter()).chain(&self.stdin)) {
            return None;
        }
        let changed = read.iter().any(|(path, file)| *self.said(path) != *file.objects);
        self.files.extend(read);
        Some(changed)
    }

    fn said(&self, path: &Path) -> &[Object] {
        self.files.get(path).map_or(&[], |file| &file.objects)
    }

    fn reload_all(&mut self, stamps: &BTreeMap<PathBuf, Option<S>>) -> Result<bool, ConfigErrors> {
        self.load_all(stamps).map(|_| true)
    }

    fn load_all(&mut self, stamps: &BTreeMap<PathBuf, Option<S>>) -> Result<Loaded, ConfigErrors> {
        let loaded = load_inputs(&self.inputs)?;
        let mut said: BTreeMap<&str, Vec<Object>> = BTreeMap::new();
        for located in &loaded.objects {
            said.entry(&located.origin.file).or_default().push(located.object.clone());
        }
        self.stdin = said.remove(files::STDIN.1).unwrap_or_default();
        // A file that came after the stamps were taken is found by the next reload.
        let file = |(path, stamp): (&PathBuf, &Option<S>)| {
            let objects = said.remove(&*path.display().to_string()).unwrap_or_default().into();
            (path.clone(), File { stamp: stamp.clone(), objects })
        };
        self.files = stamps.iter().map(file).collect();
        Ok(loaded)
    }
}

/// What one file says, if nothing is wrong within it.
fn parse(path: &Path) -> Result<Arc<[Object]>, ()> {
    let mut errors: Vec<ConfigError> = Vec::new();
    let text = files::read_file(path, &mut errors).ok_or(())?;
    let mut loading = Loading::default();
    loading.file(&text);
    let objects = loading.objects.into_iter().map(|located| located.object).collect();
    if loading.errors.is_empty() { Ok(objects) } else { Err(()) }
}

fn keys<'a>(objects: impl IntoIterator<Item = &'a Object>) -> impl Iterator<Item = ObjectKey> {
    objects.into_iter().map(Object::key)
}

/// Whether no name is there twice, and no second AgentConfig: what no file breaks alone.
fn agree<'a>(objects: impl Iterator<Item = &'a Object>) -> bool {
    let mut seen = BTreeSet::new();
    let mut configs = 0;
    objects.into_iter().all(|object| {
        configs += usize::from(object.kind() == Kind::AgentConfig);
        configs <= 1 && seen.insert(object.key())
    })
}
