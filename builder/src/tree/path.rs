//! Paths inside a tree: relative to the guest's root, and never above it.

use super::error::Problem;

/// Longest path or link target, in bytes: the kernel's `PATH_MAX` less its NUL.
/// It skips longer archive entries without a word.
pub(crate) const MAX_PATH: usize = 4095;

/// Longest name between two slashes, in bytes: `NAME_MAX`.
const MAX_NAME: usize = 255;

/// What ends a cpio archive; no entry can be called so.
const TRAILER: &[u8] = b"TRAILER!!!";

/// The names that a path goes through. Leading slashes, doubled ones and `.`
/// mean nothing; none are left for the root itself.
pub(crate) fn components(path: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    if path.len() > MAX_PATH {
        return Err(Problem::PathTooLong);
    }
    if path.contains(&0) {
        return Err(Problem::Nul);
    }
    let names: Vec<_> = parts(path).collect();
    if names.contains(&&b".."[..]) {
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
pub(crate) fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
}

/// Checks the target of a link. Any number of `..` may be in it: the kernel stops
/// at the root (path_resolution(7)).
pub(crate) fn check_target(target: &[u8]) -> Result<(), Problem> {
    if target.is_empty() {
        return Err(Problem::NoTarget);
    }
    if target.len() > MAX_PATH {
        return Err(Problem::PathTooLong);
    }
    if target.contains(&0) {
        return Err(Problem::Nul);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_from_the_root() {
        for path in ["a/b", "/a/b", "./a/b", "//a/./b/", "a//b"] {
            assert_eq!(components(path.as_bytes()).unwrap(), [b"a", b"b"], "{path}");
        }
        for root in ["", "/", ".", "./"] {
            assert!(components(root.as_bytes()).unwrap().is_empty());
        }
        assert_eq!(components(b"etc/TRAILER!!!").unwrap().len(), 2);
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
            assert_eq!(components(path.as_bytes()), Err(problem));
        }
    }

    #[test]
    fn links_lead_anywhere_but_to_nothing() {
        for target in [
            "busybox",
            "/bin/busybox",
            "../../../../etc/pki",
            "/..",
            "\u{fc}",
        ] {
            assert_eq!(check_target(target.as_bytes()), Ok(()), "{target}");
        }
        assert_eq!(check_target(b""), Err(Problem::NoTarget));
        assert_eq!(check_target(b"a\0b"), Err(Problem::Nul));
        assert_eq!(check_target(&[b'n'; 4096]), Err(Problem::PathTooLong));
    }
}
