//! A kernel source of two files, which the real make and gcc build in a moment.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{TestEnv, workspace};

/// The source, its fragments and its recipe in a test's folder, and a cache of
/// the test's own.
#[derive(Debug)]
pub struct SmallKernel<'a> {
    env: &'a TestEnv,
    folder: PathBuf,
}

impl<'a> SmallKernel<'a> {
    /// Lays it out; the test may change its files.
    #[must_use]
    pub fn new(env: &'a TestEnv) -> Self {
        let folder = env.path().join("small-kernel");
        copy(&workspace().join("tests/fixtures/small-kernel"), &folder);
        Self { env, folder }
    }

    /// A file of the source, or the source itself for an empty name.
    #[must_use]
    pub fn source(&self, name: &str) -> PathBuf {
        self.folder.join("source").join(name)
    }

    /// A file beside its fragment.
    #[must_use]
    pub fn config(&self, name: &str) -> PathBuf {
        self.folder.join("config").join(name)
    }

    /// The recipe that asks for it.
    #[must_use]
    pub fn recipe(&self) -> PathBuf {
        self.folder.join("recipe.toml")
    }

    /// `imgbuild kernel VERB` of the source in the test's folder.
    #[must_use]
    pub fn verb(&self, verb: &str) -> Command {
        let mut command = self.verb_without_source(verb);
        command.arg("--kernel-source").arg(self.source(""));
        command
    }

    /// The same without naming a source.
    #[must_use]
    pub fn verb_without_source(&self, verb: &str) -> Command {
        let mut command = self.env.imgbuild(["kernel", verb, "--recipe"]);
        command
            .arg(self.recipe())
            .arg("--kernel-config")
            .arg(self.config(""))
            .env("PATH", self.env.path_with_stand_ins());
        self.env.own_cache(&mut command);
        command
    }

    /// Kernels in the test's cache.
    #[must_use]
    pub fn kept(&self) -> Vec<PathBuf> {
        folders(&self.env.cache().join("kernel"))
    }

    /// Folders of builds that did not end.
    #[must_use]
    pub fn unfinished(&self) -> Vec<PathBuf> {
        folders(&self.env.cache().join("build"))
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the folder is ours");
    for entry in fs::read_dir(from).expect("the fixture is there") {
        let entry = entry.expect("the fixture can be listed");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("the folder is ours");
        }
    }
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    fs::read_dir(parent)
        .map(|entries| {
            entries
                .map(|entry| entry.expect("the folder can be listed").path())
                .filter(|path| path.is_dir())
                .collect()
        })
        .unwrap_or_default()
}
