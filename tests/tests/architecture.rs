//! The house stays as `docs/architecture.md` draws it: imports run downwards, no
//! files import each other in a circle, and no file says too much.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;
use syn::{Attribute, ItemMod, ItemUse, UseName, UseRename, UseTree};

/// The rooms of the crate, the lowest floor first: a room imports from its own floor
/// and from those below.
const FLOORS: [&[&str]; 16] = [
    &[
        "any_path",
        "digest",
        "directories",
        "durable",
        "host_id",
        "interrupt",
        "lines",
        "lock",
        "notes",
        "outlet",
        "plain",
        "private",
        "process",
        "progress",
        "random",
        "sample",
        "sealed",
        "staging",
        "text",
        "system",
        "units",
    ],
    &["assets", "download", "tree"],
    &["disk", "initramfs", "kernel", "recipe"],
    &["vmm"],
    &["host"],
    &["artifact", "guest", "net", "placement"],
    &["template"],
    &["store"],
    &["control"],
    &["bundle", "fleet", "runqlat"],
    &["trial"],
    &["reference"],
    &["launch"],
    &["density", "page", "report", "top"],
    // `words` is compiled for tests alone.
    &["cli", "words"],
    // Only declares the rooms.
    &["lib", "main"],
];
/// Most lines of a file without its tests.
const LONGEST: usize = 450;

/// A file of the crate.
struct Source {
    /// Its module, by names.
    module: Vec<String>,
    /// Lines before its tests.
    lines: usize,
    /// What it imports of the crate, from the crate's root on.
    imports: Vec<Vec<String>>,
}

/// Collects the imports of a file, but for those of its tests.
struct Imports {
    module: Vec<String>,
    found: Vec<Vec<String>>,
}

impl Imports {
    fn note(&mut self, path: &[String]) {
        let mut base = match path[0].as_str() {
            "crate" => Vec::new(),
            "super" | "self" => self.module.clone(),
            _ => return,
        };
        let mut rest = path;
        while let Some(first) = rest.first() {
            match first.as_str() {
                "crate" | "self" => {}
                "super" => drop(base.pop()),
                _ => break,
            }
            rest = &rest[1..];
        }
        base.extend(rest.iter().cloned());
        self.found.push(base);
    }

    fn walk(&mut self, tree: &UseTree, path: &mut Vec<String>) {
        match tree {
            UseTree::Path(inner) => {
                path.push(inner.ident.to_string());
                self.walk(&inner.tree, path);
                path.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.walk(tree, path)),
            UseTree::Name(_) | UseTree::Rename(_) | UseTree::Glob(_) if path.is_empty() => {}
            UseTree::Name(UseName { ident }) | UseTree::Rename(UseRename { ident, .. }) => {
                path.push(ident.to_string());
                self.note(path);
                path.pop();
            }
            UseTree::Glob(_) => self.note(path),
        }
    }
}

/// Whether what has these attributes is compiled for tests alone.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .meta
                .require_list()
                .is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_for_tests(&module.attrs) {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.walk(&item.tree, &mut Vec::new());
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path
            .segments
            .iter()
            .map(|part| part.ident.to_string())
            .collect();
        if names.len() > 1 {
            self.note(&names);
        }
        syn::visit::visit_path(self, path);
    }
}

/// All files of the crate but those of tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../builder/src");
    let mut sources = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).expect("the crate is beside this one") {
            let entry = entry.expect("a folder can be listed");
            let path = folder.join(entry.file_name());
            let is_test = path
                .iter()
                .any(|name| name == "tests" || name == "tests.rs");
            if is_test {
                continue;
            }
            if entry.file_type().expect("a file has a type").is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(source(&root, &path));
            }
        }
    }
    assert!(
        sources.len() > 200,
        "{} files of the crate found",
        sources.len()
    );
    sources
}

fn source(root: &Path, path: &Path) -> Source {
    let text = fs::read_to_string(root.join(path)).expect("a source can be read");
    let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let module = path.with_extension("");
    let module: Vec<_> = module
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let lines = text
        .lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .count();
    let mut imports = Imports {
        module: module.clone(),
        found: Vec::new(),
    };
    if !is_for_tests(&file.attrs) {
        imports.visit_file(&file);
    }
    Source {
        module,
        lines,
        imports: imports.found,
    }
}

/// The files that each file imports, by their modules.
fn edges(sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let modules: BTreeSet<_> = sources
        .iter()
        .map(|source| source.module.join("::"))
        .collect();
    let file_of = |path: &[String]| {
        (1..=path.len())
            .rev()
            .map(|length| path[..length].join("::"))
            .find(|module| modules.contains(module))
    };
    sources
        .iter()
        .map(|source| {
            let own = source.module.join("::");
            let imports = source.imports.iter().filter_map(|path| file_of(path));
            (own.clone(), imports.filter(|other| *other != own).collect())
        })
        .collect()
}

fn floor(module: &str) -> usize {
    let room = module.split("::").next().expect("a module has a name");
    FLOORS
        .iter()
        .position(|rooms| rooms.contains(&room))
        .unwrap_or_else(|| panic!("{room} is on no floor: give it one in FLOORS"))
}

#[test]
fn imports_run_downwards() {
    let mut upward = Vec::new();
    for (module, imports) in edges(&sources()) {
        for import in imports {
            if floor(&import) > floor(&module) {
                upward.push(format!("{module} imports {import}, which is above it"));
            }
        }
    }
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let edges = edges(&sources());
    // Who cannot be reached from itself is in no circle.
    let reachable = |from: &str| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<_> = edges[from].iter().collect();
        while let Some(module) = next.pop() {
            if seen.insert(module.clone()) {
                next.extend(&edges[module]);
            }
        }
        seen
    };
    let circle: Vec<_> = edges
        .keys()
        .filter(|module| reachable(module).contains(*module))
        .cloned()
        .collect();
    assert!(circle.is_empty(), "in a circle: {}", circle.join(", "));
}

#[test]
fn no_file_says_too_much() {
    let long: Vec<_> = sources()
        .iter()
        .filter(|source| source.lines > LONGEST)
        .map(|source| format!("{}: {} lines", source.module.join("::"), source.lines))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}
