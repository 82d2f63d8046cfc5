//! Paths inside a tree: relative to the guest's root, and never above it.

use super::error::Problem;
use crate::text::printable;

/// Longest path or link target, in bytes: the kernel's `PATH_MAX` less its NUL.
/// It skips longer archive entries without a word.
pub(crate) const MAX_PATH: usize = 4095;

/// Longest name between two slashes, in bytes: `NAME_MAX`.
const MAX_NAME: usize = 255;

/// What ends a cpio archive; no entry can be called so.
const TRAILER: &str = "TRAILER!!!";

/// The names that a path goes through. Leading slashes, doubled ones and `.`
/// mean nothing; none are left for the root itself.
pub(crate) fn components(path: &str) -> Result<Vec<&str>, Problem> {
    if path.len() > MAX_PATH {
        return Err(Problem::PathTooLong);
    }
    if path.contains('\0') {
        return Err(Problem::Nul);
    }
    let names: Vec<_> = parts(path).collect();
    if names.contains(&"..") {
        return Err(Problem::PathClimbs);
    }
    if names.iter().any(|name| name.len() > MAX_NAME) {
        return Err(Problem::NameTooLong);
    }
    if names == [TRAILER] {
        return Err(Problem::Trailer);
    }
    Ok(names)
}

/// The names of a path or link target, with `..` left in.
pub(crate) fn parts(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|part| !matches!(*part, "" | "."))
}

/// Checks the target of a link at `path`: no `..` in it may lead above the root,
/// though the guest's kernel would stop it there.
pub(crate) fn check_target(path: &str, target: &str) -> Result<(), Problem> {
    if target.is_empty() {
        return Err(Problem::NoTarget);
    }
    if target.len() > MAX_PATH {
        return Err(Problem::PathTooLong);
    }
    if target.contains('\0') {
        return Err(Problem::Nul);
    }
    let mut depth = if target.starts_with('/') {
        0
    } else {
        parts(path).count() - 1
    };
    for part in parts(target) {
        depth = match part {
            ".." => depth.checked_sub(1).ok_or_else(|| Problem::LinkClimbs {
                target: printable(target),
            })?,
            _ => depth + 1,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_from_the_root() {
        for path in ["a/b", "/a/b", "./a/b", "//a/./b/", "a//b"] {
            assert_eq!(components(path).unwrap(), ["a", "b"], "{path}");
        }
        for root in ["", "/", ".", "./"] {
            assert_eq!(components(root).unwrap(), [""; 0]);
        }
        assert_eq!(components("etc/TRAILER!!!").unwrap().len(), 2);
    }

    #[test]
    fn paths_that_the_kernel_would_skip_or_leave_by_are_refused() {
        let long_name = "n".repeat(256);
        let long_path = "n/".repeat(2048);
        for (path, problem) in [
            ("../a", Problem::PathClimbs),
            ("a/../../b", Problem::PathClimbs),
            ("a/..", Problem::PathClimbs),
            (&long_name, Problem::NameTooLong),
            (&long_path, Problem::PathTooLong),
            ("a\0b", Problem::Nul),
            ("./TRAILER!!!", Problem::Trailer),
        ] {
            assert_eq!(components(path), Err(problem));
        }
    }

    #[test]
    fn links_stay_below_the_root() {
        for (path, target) in [
            ("bin/sh", "busybox"),
            ("bin/sh", "/bin/busybox"),
            ("bin/sh", "../usr/bin/dash"),
            ("a", "/b/../c"),
            ("usr/lib/x", "../../y"),
        ] {
            assert_eq!(check_target(path, target), Ok(()), "{path} -> {target}");
        }
        for (path, target) in [
            ("a", ".."),
            ("a", "../etc/passwd"),
            ("bin/sh", "../../x"),
            ("bin/sh", "/.."),
            ("bin/sh", "../a/../../b"),
        ] {
            let target = target.to_owned();
            let problem = Problem::LinkClimbs {
                target: target.clone(),
            };
            assert_eq!(check_target(path, &target), Err(problem));
        }
        assert_eq!(check_target("a", ""), Err(Problem::NoTarget));
    }
}
