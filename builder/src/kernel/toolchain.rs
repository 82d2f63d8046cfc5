//! The programs that turn source into a kernel.

use std::env;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::make;
use crate::interrupt::Interrupt;
use crate::process::{self, ProcessError};

/// What a kernel build calls, apart from what every Debian system has.
pub(crate) const TOOLS: [&str; 8] = [
    "make", "gcc", "ld", "objcopy", "strip", "flex", "bison", "bc",
];

/// Which compiler and linker; the first line that each prints of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// `gcc --version`.
    pub compiler: String,
    /// `ld --version`.
    pub linker: String,
}

impl Toolchain {
    /// Asks the ones that a build would use.
    pub fn detect(interrupt: &Interrupt) -> Result<Self, ProcessError> {
        let ask = |program| {
            let mut command = make::clean(program);
            command.arg("--version");
            let text = process::output(command, interrupt)?;
            Ok(text.lines().next().unwrap_or_default().to_owned())
        };
        Ok(Self {
            compiler: ask("gcc")?,
            linker: ask("ld")?,
        })
    }
}

/// The Debian packages of the tools that are not here, each once.
pub(crate) fn missing_packages() -> Vec<&'static str> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = env::split_paths(&path).collect();
    missing_in(&folders)
}

fn missing_in(folders: &[impl AsRef<Path>]) -> Vec<&'static str> {
    let mut packages: Vec<_> = TOOLS
        .into_iter()
        .filter(|tool| {
            !folders
                .iter()
                .any(|folder| folder.as_ref().join(tool).is_file())
        })
        .map(process::debian_package)
        .collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn names_each_missing_package_once() {
        let folder = tempfile::tempdir().unwrap();
        for tool in ["make", "gcc", "flex", "bison"] {
            fs::write(folder.path().join(tool), "").unwrap();
        }
        assert_eq!(missing_in(&[folder.path()]), ["bc", "binutils"]);
    }

    #[test]
    fn asks_the_compiler_here() {
        let toolchain = Toolchain::detect(&Interrupt::never().unwrap()).unwrap();
        assert!(toolchain.compiler.starts_with("gcc"), "{toolchain:?}");
        assert!(toolchain.linker.contains("ld"), "{toolchain:?}");
    }
}
