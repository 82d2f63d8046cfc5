//! The output folder that a throw-away guest runs from.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::artifact::{MANIFEST, Manifest};
use crate::cli::build::{Build, ordinary_out, word};
use crate::cli::inputs::find_recipe;
use crate::cli::{Context, Failure};
use crate::recipe::{Recipe, built_in, is_name};

/// Why there is no output folder to run from.
#[derive(Debug, thiserror::Error)]
enum OutError {
    /// What was named is nothing that can be run.
    #[error(
        "{} is neither an output folder nor a recipe file: `{}` builds one there, and `imgbuild \
         list` lists the built-in recipes",
        what.display(),
        build_into(what)
    )]
    Nothing { what: PathBuf },
    /// The recipe was not built, and cannot be without an archive.
    #[error(
        "{recipe} was not built into {} yet, and needs the tar of a root file system: `{build}` \
         builds it, and then `imgbuild run {}` runs it; `debootstrap --variant=minbase bookworm \
         DIR` and `tar -C DIR -cf root.tar .` make a tar, and so does `docker export CONTAINER > \
         root.tar`",
        out.display(),
        word(&out.to_string_lossy())
    )]
    NoArchive {
        recipe: String,
        /// The command that builds it.
        build: String,
        out: PathBuf,
    },
}

impl OutError {
    fn refuse(self) -> Failure {
        Failure::usage(self.to_string())
    }
}

/// The output folder that this names, built if it is a recipe that was not built yet.
pub(super) fn find_out(what: &Path, context: &Context) -> Result<PathBuf, Failure> {
    if what.join(MANIFEST).is_file() {
        return Ok(what.to_path_buf());
    }
    if is_nothing(what) {
        let what = what.to_path_buf();
        return Err(OutError::Nothing { what }.refuse());
    }
    let (recipe, _) = find_recipe(what)?;
    let out = ordinary_out(&recipe);
    if !out.join(MANIFEST).is_file() {
        let arguments = Build::without_boot(what, &out)?;
        if arguments.lacks_archive(&recipe) {
            let build = build_from(what, &recipe);
            let recipe = recipe.name;
            return Err(OutError::NoArchive { recipe, build, out }.refuse());
        }
        arguments.quietly(context)?;
    } else if !is_of(&out, &recipe) {
        tracing::warn!(
            "{} was built from another version of the recipe, and is used as it is; `{}` builds it \
             again",
            out.display(),
            build_from(what, &recipe)
        );
    }
    Ok(out)
}

/// Whether this, which is not an output folder, does not look like a recipe either.
fn is_nothing(what: &Path) -> bool {
    let is_recipe = what.to_str().is_some_and(is_name) || what.extension() == Some("toml".as_ref());
    !is_recipe && (what.is_dir() || !what.exists())
}

/// The command that builds something into this folder: the built-in recipe that it
/// is named like, if there is one.
fn build_into(out: &Path) -> String {
    let folder = word(&out.to_string_lossy());
    let name = out.file_name().and_then(OsStr::to_str);
    let Some(recipe) = name.and_then(|name| built_in::recipe(name).ok()) else {
        return format!("imgbuild build RECIPE --out {folder}");
    };
    let mut command = build_from(Path::new(&recipe.name), &recipe);
    if out != ordinary_out(&recipe) {
        command.push_str(" --out ");
        command.push_str(&folder);
    }
    command
}

/// The command that builds a recipe, which is named so.
fn build_from(named: &Path, recipe: &Recipe) -> String {
    let archive = if recipe.lacks_archive() {
        " --rootfs PATH"
    } else {
        ""
    };
    format!("imgbuild build {}{archive}", word(&named.to_string_lossy()))
}

/// Whether an output is of this recipe.
fn is_of(out: &Path, recipe: &Recipe) -> bool {
    match Manifest::load_with_text(out) {
        Ok((manifest, _)) => is_built_as(recipe, &manifest.recipe),
        // What is wrong with it is said when guests are launched.
        Err(_) => true,
    }
}

/// Whether a recipe was built as it is now, as far as no flag of `build` changes it.
fn is_built_as(recipe: &Recipe, built: &Recipe) -> bool {
    let mut recipe = recipe.without_paths();
    recipe.memory = built.memory;
    recipe.ssh = built.ssh;
    if let (Some(rootfs), Some(built)) = (&mut recipe.rootfs, &built.rootfs) {
        rootfs.source.clone_from(&built.source);
        rootfs.place = built.place;
    }
    recipe == *built
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Place, SshServer, guest_memory};

    #[test]
    fn what_a_flag_of_build_changed_is_no_other_version() {
        let recipe = built_in::recipe("debian-shell").unwrap();
        let mut built = recipe.clone();
        built.memory = guest_memory("512M").unwrap();
        let tar = PathBuf::from("/tmp/root.tar");
        built.choose_rootfs(Some(tar), Some(Place::Disk)).unwrap();
        built.choose_ssh_server(Some(SshServer::Image)).unwrap();
        assert!(is_built_as(&recipe, &built.without_paths()));
        built.burn.threads += 1;
        assert!(!is_built_as(&recipe, &built.without_paths()));
    }

    #[test]
    fn a_folder_that_is_named_like_a_recipe_hides_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(is_nothing(folder.path()));
        assert!(is_nothing(&folder.path().join("tty-idle")));
        assert!(!is_nothing(&folder.path().join("mine.toml")));
        // Of this crate's folder, where tests run.
        assert!(Path::new("src").is_dir() && !is_nothing(Path::new("src")));
    }

    #[test]
    fn the_command_that_builds_into_a_folder_works_as_it_stands() {
        for (folder, command) in [
            ("out/tty-idle", "tty-idle"),
            ("out/debian-shell/", "debian-shell --rootfs PATH"),
            ("/srv/tty-idle", "tty-idle --out /srv/tty-idle"),
            ("out/tty-idle.old", "RECIPE --out out/tty-idle.old"),
            ("out/my guest", "RECIPE --out 'out/my guest'"),
        ] {
            let command = format!("imgbuild build {command}");
            assert_eq!(build_into(Path::new(folder)), command);
        }
    }
}
