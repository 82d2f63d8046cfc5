//! The Debian packages of the programs that imgbuild runs by name.

/// Programs and the packages that hold them, where the names differ.
const PACKAGES: [(&str, &str); 13] = [
    ("apt-cache", "apt"),
    ("apt-get", "apt"),
    ("cat", "coreutils"),
    ("dpkg-deb", "dpkg"),
    ("ld", "binutils"),
    ("mke2fs", "e2fsprogs"),
    ("modprobe", "kmod"),
    ("objcopy", "binutils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("sleep", "coreutils"),
    ("ssh", "openssh-client"),
    ("strip", "binutils"),
    ("tune2fs", "e2fsprogs"),
];

/// The Debian package that holds `program`.
pub(crate) fn debian_package(program: &str) -> &str {
    PACKAGES
        .iter()
        .find(|(tool, _)| *tool == program)
        .map_or(program, |(_, package)| package)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::{env, fs};

    use super::*;
    use crate::process::find;

    /// How this crate's source runs a program by its name.
    const CALLS: [&str; 3] = ["Command::new(\"", "clean(\"", "run(\""];

    /// The programs that the source below `folder` runs by name, tests left out.
    fn named_in(folder: &Path, programs: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            if name == "tests" {
                continue;
            }
            if path.is_dir() {
                named_in(&path, programs);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let code: String = code.split_whitespace().collect();
            for call in CALLS {
                let names = code.split(call).skip(1);
                let names = names.filter_map(|rest| rest.split('"').next());
                programs.extend(names.filter(|name| !name.contains('/')).map(str::to_owned));
            }
        }
    }

    /// Where Debian's packages put a program.
    fn installed(program: &str) -> Option<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        let others = ["/sbin", "/bin", "/usr/sbin", "/usr/bin"].map(PathBuf::from);
        let folders = others.into_iter().chain(env::split_paths(&path));
        find(program, &env::join_paths(folders).unwrap())
    }

    /// The packages that `path` belongs to, as dpkg(1) has it; `None` where no
    /// package has it, or there is no dpkg.
    fn owners(path: &Path) -> Option<String> {
        let output = Command::new("dpkg").arg("--search").arg(path).output();
        let text = String::from_utf8(output.ok()?.stdout).unwrap();
        let (packages, _) = text
            .lines()
            .find(|line| !line.starts_with("diversion"))?
            .rsplit_once(": ")?;
        Some(packages.to_owned())
    }

    #[test]
    fn each_program_that_is_run_has_its_package_named() {
        let mut programs = BTreeSet::new();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        named_in(&source, &mut programs);
        programs.extend(crate::kernel::TOOLS.map(str::to_owned));
        programs.extend(["mke2fs", "qemu-system-x86_64", "tune2fs"].map(str::to_owned));
        for program in ["cat", "make", "gcc", "modprobe", "ssh"] {
            assert!(programs.contains(program), "{program}: {programs:?}");
        }
        let mut asked = 0;
        for program in &programs {
            let Some(path) = installed(program) else {
                continue;
            };
            // Merged /usr: dpkg knows a file by the name in its package alone.
            let other = Path::new("/usr").join(path.strip_prefix("/").unwrap());
            let Some(owners) = owners(&path).or_else(|| owners(&other)) else {
                continue;
            };
            let package = debian_package(program);
            assert!(
                owners.split(", ").any(|owner| owner == package),
                "{program} is in {owners}, not in {package}"
            );
            asked += 1;
        }
        if asked == 0 {
            eprintln!("SKIPPED: dpkg knows none of {programs:?}");
        }
    }
}
