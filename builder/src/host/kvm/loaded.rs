//! KVM's vendor modules and their parameters (kernel document
//! ABI/stable/sysfs-module).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::sample::unseen::Unseen;

/// Where modules are, below a root; built-in ones with parameters too.
const MODULES: &str = "sys/module";
/// What all vendors' modules rest on.
const SHARED: &str = "kvm";
/// Most of a parameter or of another small file that is read, in bytes; sysfs
/// has no more than a page.
const MOST: u64 = 4096;

/// The vendor modules below `root`, in order.
pub(crate) fn modules(root: &Path, unseen: &mut Vec<Unseen>) -> Vec<String> {
    let mut modules: Vec<String> = names(root, Path::new(MODULES), unseen)
        .into_iter()
        .filter(|name| name.starts_with("kvm_"))
        .collect();
    // Where both are built in, one of them does nothing.
    if ["kvm_amd", "kvm_intel"].map(|name| modules.contains(&name.into())) == [true; 2]
        && let Some(other) = other_vendors_module(root)
    {
        modules.retain(|name| name != other);
    }
    modules
}

/// The module that is not for this CPU. Of AMD's extensions are AMD and Hygon
/// (the first lines of `/proc/cpuinfo` say so); all others follow Intel.
fn other_vendors_module(root: &Path) -> Option<&'static str> {
    let start = start_of(&root.join("proc/cpuinfo")).ok()?;
    let start = String::from_utf8_lossy(&start);
    let vendor = start
        .lines()
        .find_map(|line| line.strip_prefix("vendor_id")?.split_once(':'))?
        .1
        .trim();
    Some(match vendor {
        "AuthenticAMD" | "HygonGenuine" => "kvm_intel",
        _ => "kvm_amd",
    })
}

/// The parameters of these modules below `root`, and of the one that they share.
pub(crate) fn parameters(
    root: &Path,
    modules: &[String],
    unseen: &mut Vec<Unseen>,
) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::new();
    let shared = root.join(MODULES).join(SHARED).is_dir().then_some(SHARED);
    for module in shared.into_iter().chain(modules.iter().map(String::as_str)) {
        let folder = Path::new(MODULES).join(module).join("parameters");
        for name in names(root, &folder, unseen) {
            let path = folder.join(&name);
            match parameter(&root.join(&path)) {
                Ok(value) => {
                    parameters.insert(name, value);
                }
                Err(why) => unseen.push(not_seen(&path, why)),
            }
        }
    }
    parameters
}

/// The names in a folder, in order; none where it is not there.
fn names(root: &Path, folder: &Path, unseen: &mut Vec<Unseen>) -> Vec<String> {
    let entries = match fs::read_dir(root.join(folder)) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                unseen.push(not_seen(folder, error.to_string()));
            }
            return Vec::new();
        }
    };
    let mut names = Vec::new();
    for entry in entries {
        match entry.map(|entry| entry.file_name().into_string()) {
            Ok(Ok(name)) => names.push(name),
            Ok(Err(name)) => unseen.push(not_seen(&folder.join(name), "not UTF-8".into())),
            Err(error) => unseen.push(not_seen(folder, error.to_string())),
        }
    }
    names.sort_unstable();
    names
}

/// The value of a parameter: one line of text. An empty one is a value too.
fn parameter(path: &Path) -> Result<String, String> {
    let bytes = start_of(path).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MOST {
        return Err(format!("longer than {MOST} bytes"));
    }
    let text = str::from_utf8(&bytes).map_err(|_| "not UTF-8".to_owned())?;
    let value = text.trim();
    if value.contains(char::is_control) {
        return Err(format!("{value:?} is not one line of text"));
    }
    Ok(value.to_owned())
}

/// The first bytes of a file, one more than [`MOST`] at most.
fn start_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    OpenOptions::new()
        .read(true)
        // A FIFO in its place must not block.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?
        .take(MOST + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A path, as of a live system.
fn not_seen(path: &Path, why: String) -> Unseen {
    let path: PathBuf = [OsStr::new("/"), path.as_os_str()].iter().collect();
    Unseen {
        what: path.to_string_lossy().into_owned(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    /// A root with these files.
    fn root(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, contents) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        root
    }

    /// The parameters below a root, and what could not be seen.
    fn read(root: &Path) -> (BTreeMap<String, String>, Vec<Unseen>) {
        let mut unseen = Vec::new();
        let modules = modules(root, &mut unseen);
        (parameters(root, &modules, &mut unseen), unseen)
    }

    /// The modules below a root with both vendors' and this `/proc/cpuinfo`.
    fn modules_of(cpuinfo: &str) -> Vec<String> {
        let root = root(&[
            ("sys/module/kvm_intel/parameters/nested", b"Y\n"),
            ("sys/module/kvm_amd/parameters/nested", b"1\n"),
            ("proc/cpuinfo", cpuinfo.as_bytes()),
        ]);
        modules(root.path(), &mut Vec::new())
    }

    #[test]
    fn vendor_modules_and_parameters_are_read() {
        let root = root(&[
            ("sys/module/kvm/parameters/halt_poll_ns", b"200000\n"),
            ("sys/module/kvm_intel/parameters/ept", b"Y\n"),
            ("sys/module/kvm_intel/parameters/vpid", b"N\n"),
            ("sys/module/kvmgt/parameters/x", b"1\n"),
            ("sys/module/kvm_odd/initstate", b"live\n"),
        ]);
        let mut unseen = Vec::new();
        let modules = modules(root.path(), &mut unseen);
        assert_eq!(modules, ["kvm_intel", "kvm_odd"]);
        let parameters = parameters(root.path(), &modules, &mut unseen);
        let expected = [("ept", "Y"), ("halt_poll_ns", "200000"), ("vpid", "N")];
        assert_eq!(
            parameters,
            expected
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into()
        );
        assert_eq!(unseen, []);
    }

    #[test]
    fn host_without_modules_has_none() {
        let root = root(&[]);
        assert_eq!(read(root.path()), (BTreeMap::new(), Vec::new()));
    }

    #[test]
    fn of_two_built_in_modules_the_cpus_own_counts() {
        let cpuinfo = |vendor| format!("processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: 6\n");
        assert_eq!(modules_of(&cpuinfo("GenuineIntel")), ["kvm_intel"]);
        assert_eq!(modules_of(&cpuinfo("AuthenticAMD")), ["kvm_amd"]);
        assert_eq!(modules_of("garbled"), ["kvm_amd", "kvm_intel"]);
    }

    #[test]
    fn odd_parameters_are_listed_as_unseen() {
        let huge = vec![b'1'; 1 << 20];
        let root = root(&[
            ("sys/module/kvm_amd/parameters/binary", b"\xff\xfe\0"),
            ("sys/module/kvm_amd/parameters/empty", b""),
            ("sys/module/kvm_amd/parameters/huge", &huge),
            ("sys/module/kvm_amd/parameters/lines", b"1\n2\n"),
            ("sys/module/kvm_amd/parameters/npt", b"1\n"),
        ]);
        let folder = root.path().join("sys/module/kvm_amd/parameters");
        fs::create_dir(folder.join("folder")).unwrap();
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, folder.join("pipe"), FileType::Fifo, mode, 0).unwrap();

        let (parameters, unseen) = read(root.path());
        let names: Vec<_> = parameters.iter().collect();
        let value = |text: &str| text.to_owned();
        assert_eq!(
            names,
            [
                (&value("empty"), &value("")),
                (&value("npt"), &value("1")),
                (&value("pipe"), &value(""))
            ]
        );
        let whats: Vec<_> = unseen.iter().map(|unseen| unseen.what.as_str()).collect();
        let path = |name| format!("/sys/module/kvm_amd/parameters/{name}");
        assert_eq!(
            whats,
            [path("binary"), path("folder"), path("huge"), path("lines")]
        );
    }

    #[test]
    fn module_folder_that_cannot_be_listed_is_unseen() {
        let root = root(&[("sys/module", b"a file")]);
        let (_, unseen) = read(root.path());
        assert_eq!(unseen.len(), 1);
        assert_eq!(unseen[0].what, "/sys/module");
    }
}
