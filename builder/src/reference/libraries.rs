//! The shared libraries that a program of unpacked packages loads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::packages::PackagesError;
use crate::interrupt::Interrupt;
use crate::process;

/// Where Debian's packages have them; before and since all is below /usr.
const FOLDERS: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
/// The program that loads them, by its name there.
pub(super) const LOADER: &str = "ld-linux-x86-64.so.2";

/// The libraries of the program at `program` below `root`, by the names that it loads
/// them by; the loader is one of them.
pub(super) fn of(
    root: &Path,
    program: &str,
    interrupt: &Interrupt,
) -> Result<BTreeMap<String, PathBuf>, PackagesError> {
    let loader = file(root, LOADER)?;
    let mut command = Command::new(&loader);
    // Relative ones cannot hold a colon, which parts them.
    command
        .current_dir(root)
        .args(["--inhibit-cache", "--library-path", &FOLDERS.join(":")])
        .args(["--list", program]);
    let list = process::output(command, interrupt)?;
    let mut libraries = BTreeMap::from([(LOADER.to_owned(), loader)]);
    for name in names(&list) {
        libraries.insert(name.to_owned(), file(root, name)?);
    }
    Ok(libraries)
}

/// The names in the list that the loader prints; what it has no file for, and what is
/// not below its folders, is looked for there and not found.
fn names(list: &str) -> impl Iterator<Item = &str> {
    let names = list.lines().filter_map(|line| line.split_once(" => "));
    names
        .map(|(name, _)| name.trim())
        .filter(|name| !name.is_empty() && !name.contains('/'))
}

fn file(root: &Path, name: &str) -> Result<PathBuf, PackagesError> {
    let mut places = FOLDERS.iter().map(|folder| root.join(folder).join(name));
    places
        .find(|place| place.is_file())
        .ok_or_else(|| PackagesError::NoFile(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_known_by_name() {
        let list = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibz.so.1 => lib/x86_64-linux-gnu/libz.so.1 (0x00007fc3)\n\
                    \tlibgone.so.2 => not found\n\
                    \t/lib64/ld-linux-x86-64.so.2 => /x/ld-linux-x86-64.so.2 (0x00007fc4)\n\
                    \t../../etc/passwd => x\nnonsense\n => \n";
        let names: Vec<_> = names(list).collect();
        assert_eq!(names, ["libz.so.1", "libgone.so.2"]);
    }

    #[test]
    fn a_library_that_no_package_brought_is_named() {
        let root = tempfile::tempdir().unwrap();
        let error = of(root.path(), "x", &Interrupt::never().unwrap()).unwrap_err();
        assert!(error.to_string().contains(LOADER), "{error}");
    }
}
