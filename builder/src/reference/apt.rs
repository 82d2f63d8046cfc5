//! What apt-cache(8) says of packages; pure.

use crate::digest::Sha256;

/// A package in one version, as a repository has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub name: String,
    pub version: String,
    /// Digest of its file.
    pub sha256: Sha256,
    /// Names of the packages that it needs; of alternatives, the first.
    pub needs: Vec<String>,
}

impl Record {
    /// The name of its file in the cache.
    pub(super) fn file(&self) -> String {
        format!("{}_{}_{}.deb", self.name, self.version, self.sha256)
    }

    /// What apt-get(8) is to fetch.
    pub(super) fn choice(&self) -> String {
        format!("{}={}", self.name, self.version)
    }
}

/// The records in the output of `apt-cache show`, the first of each package; what is
/// not as Debian's policy has it is left out, and so is a version that no repository
/// has, such as one that was installed by hand.
pub(super) fn records(output: &str) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    for record in output.split("\n\n").filter_map(record) {
        if records.iter().all(|other| other.name != record.name) {
            records.push(record);
        }
    }
    records
}

fn record(paragraph: &str) -> Option<Record> {
    let field = |name: &str| {
        paragraph
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find_map(|(field, value)| (field == name).then_some(value.trim()))
    };
    let name = field("Package").filter(|name| is_name(name))?;
    let version = field("Version").filter(|version| is_version(version))?;
    let needs = [field("Pre-Depends"), field("Depends")];
    Some(Record {
        name: name.to_owned(),
        version: version.to_owned(),
        sha256: field("SHA256")?.parse().ok()?,
        needs: needs.into_iter().flatten().flat_map(needed).collect(),
    })
}

/// The names in a list such as `libc6 (>= 2.34), a | b`.
fn needed(list: &str) -> impl Iterator<Item = String> {
    list.split(',').filter_map(|needed| {
        let first = needed.split('|').next()?.trim();
        let end = first.find([' ', '(', '[', ':']).unwrap_or(first.len());
        let name = &first[..end];
        is_name(name).then(|| name.to_owned())
    })
}

/// Debian's policy 5.6.1; nothing of it is an option, a path or a pattern.
fn is_name(name: &str) -> bool {
    let is_of_a_name = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.')
    };
    (2..=100).contains(&name.len())
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name.bytes().all(is_of_a_name)
}

/// Debian's policy 5.6.12.
fn is_version(version: &str) -> bool {
    let is_of_a_version =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-' | b'~' | b':');
    (1..=80).contains(&version.len())
        && version.as_bytes()[0].is_ascii_digit()
        && version.bytes().all(is_of_a_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn paragraph(name: &str, version: &str, more: &str) -> String {
        format!("Package: {name}\nVersion: {version}\n{more}SHA256: {ABC}\n\n")
    }

    #[test]
    fn a_package_is_known_by_its_file_and_what_it_needs() {
        let output = paragraph(
            "dropbear-bin",
            "2022.83-1+deb12u3",
            "Pre-Depends: dpkg (>= 1)\n\
             Depends: libc6 (>= 2.34), libcrypt1:any | other, zlib1g (>= 1:1.1.4)\n\
             Description: Depends\n Depends: nothing\n",
        );
        let records = records(&output);
        assert_eq!(records[0].needs, ["dpkg", "libc6", "libcrypt1", "zlib1g"]);
        assert_eq!(records[0].choice(), "dropbear-bin=2022.83-1+deb12u3");
        let file = format!("dropbear-bin_2022.83-1+deb12u3_{ABC}.deb");
        assert_eq!(records[0].file(), file);
    }

    #[test]
    fn of_several_versions_the_first_is_taken() {
        let output = paragraph("libc6", "1:2.36", "") + &paragraph("libc6", "2.31", "");
        let records = records(&output);
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].version, "1:2.36");
    }

    #[test]
    fn names_and_versions_that_are_options_or_paths_are_not_taken() {
        for (name, version) in [
            ("-oDir=/", "1"),
            ("../../etc", "1"),
            ("a/b", "1"),
            ("Upper", "1"),
            ("a b", "1"),
            ("", "1"),
            ("x", "1"),
            ("name", "../1"),
            ("name", "-1"),
            ("name", "1 2"),
            ("name", ""),
            ("name\u{1b}[2J", "1"),
        ] {
            let output = paragraph(name, version, "");
            assert_eq!(records(&output), [], "{name} {version}");
        }
        let output = paragraph("name", "1", "Depends: --option, ../x, good, , |\n");
        assert_eq!(records(&output)[0].needs, ["good"]);
    }

    #[test]
    fn what_no_repository_has_or_is_cut_is_not_taken() {
        let cut = format!("Package: name\nVersion: 1\nSHA256: {}\n", &ABC[..63]);
        for output in ["", "\n\n\n", "Package: name\nVersion: 1\n", &cut, "::\0"] {
            assert_eq!(records(output), [], "{output}");
        }
    }
}
