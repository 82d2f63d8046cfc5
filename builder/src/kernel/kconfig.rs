//! The symbols that a kernel source defines for x86.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::{fs, io};

/// All symbols defined in `Kconfig` and the files it sources.
pub(super) fn symbols(tree: &Path) -> io::Result<BTreeSet<String>> {
    let mut symbols = BTreeSet::new();
    let mut seen = BTreeSet::from(["Kconfig".to_owned()]);
    let mut files = VecDeque::from(["Kconfig".to_owned()]);
    while let Some(file) = files.pop_front() {
        let text = fs::read(tree.join(&file))
            .map_err(|error| io::Error::new(error.kind(), format!("{file}: {error}")))?;
        for line in String::from_utf8_lossy(&text).lines() {
            match directive(line) {
                Some(Directive::Symbol(name)) => {
                    symbols.insert(name.to_owned());
                }
                Some(Directive::Source(path)) if seen.insert(path.clone()) => {
                    files.push_back(path);
                }
                _ => {}
            }
        }
    }
    Ok(symbols)
}

/// The symbol that was probably meant by `name`.
pub(super) fn nearest<'a>(name: &str, symbols: &'a BTreeSet<String>) -> Option<&'a str> {
    symbols
        .iter()
        .map(|symbol| (strsim::damerau_levenshtein(name, symbol), symbol))
        .min()
        .filter(|(distance, _)| *distance <= 1 + name.len() / 5)
        .map(|(_, symbol)| symbol.as_str())
}

enum Directive<'a> {
    Symbol(&'a str),
    Source(String),
}

fn directive(line: &str) -> Option<Directive<'_>> {
    let (keyword, rest) = line.trim_start().split_once([' ', '\t'])?;
    let rest = rest.trim();
    match keyword {
        "config" | "menuconfig" => Some(Directive::Symbol(rest.split_whitespace().next()?)),
        "source" => {
            // Without quotes it is a sentence of a help text.
            let path = rest.strip_prefix('"')?.strip_suffix('"')?;
            Some(Directive::Source(path.replace("$(SRCARCH)", "x86")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn follows_what_x86_sources_and_nothing_else() {
        let tree = tree(&[
            (
                "Kconfig",
                "source \"arch/$(SRCARCH)/Kconfig\"\nconfig TOP\n\tbool\n",
            ),
            (
                "arch/x86/Kconfig",
                "menuconfig X86 # yes\n  source \"Kconfig\"\n    source or object\n",
            ),
            ("arch/arm/Kconfig", "config ARM\n"),
        ]);
        let symbols: Vec<_> = symbols(tree.path()).unwrap().into_iter().collect();
        assert_eq!(symbols, ["TOP", "X86"]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let tree = tree(&[("Kconfig", "source \"lib/Kconfig\"\n")]);
        let error = symbols(tree.path()).unwrap_err();
        assert!(error.to_string().starts_with("lib/Kconfig: "), "{error}");
    }

    #[test]
    fn suggests_a_near_name_but_no_far_one() {
        let symbols = ["VIRTIO_MMIO", "VIRTIO_BLK"].map(str::to_owned).into();
        assert_eq!(nearest("VIRTIO_MIMO", &symbols), Some("VIRTIO_MMIO"));
        assert_eq!(nearest("SOUND", &symbols), None);
    }
}
