//! KVM's vendor modules and their parameters (kernel document
//! ABI/stable/sysfs-module).

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use crate::sample::source::{LONG, Source};
use crate::sample::unseen::Unseen;

/// Where modules are, below a root; built-in ones with parameters too.
const MODULES: &str = "sys/module";
/// What all vendors' modules rest on.
const SHARED: &str = "kvm";

/// The vendor modules below `root`, in order.
pub(crate) fn modules(root: &Path, unseen: &mut Vec<Unseen>) -> Vec<String> {
    let mut source = Source::new(root, unseen);
    let mut modules = source.names(MODULES);
    modules.retain(|name| name.starts_with("kvm_"));
    // Where both are built in, one of them does nothing.
    if ["kvm_amd", "kvm_intel"].map(|name| modules.contains(&name.into())) == [true; 2]
        && let Some(other) = other_vendors_module(&mut source)
    {
        modules.retain(|name| name != other);
    }
    modules
}

/// The module that is not for this CPU. Of AMD's extensions are AMD and Hygon
/// (the first lines of `/proc/cpuinfo` say so); all others follow Intel.
fn other_vendors_module(source: &mut Source) -> Option<&'static str> {
    let mut vendor = None;
    let _ = source.lines("proc/cpuinfo", LONG, |line| {
        let found = line
            .strip_prefix("vendor_id")
            .and_then(|rest| rest.split_once(':'));
        vendor = found.map(|(_, vendor)| vendor.trim().to_owned());
        found.map_or(ControlFlow::Continue(()), |_| ControlFlow::Break(()))
    });
    Some(match vendor?.as_str() {
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
    let mut source = Source::new(root, unseen);
    let mut parameters = BTreeMap::new();
    let shared = root.join(MODULES).join(SHARED).is_dir().then_some(SHARED);
    for module in shared.into_iter().chain(modules.iter().map(String::as_str)) {
        let folder = Path::new(MODULES).join(module).join("parameters");
        for name in source.names(&folder) {
            // An empty one is a value too.
            let value = source.parsed(folder.join(&name), "one line of text", |text| {
                (!text.contains(char::is_control)).then(|| text.to_owned())
            });
            parameters.extend(value.map(|value| (name, value)));
        }
    }
    parameters
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::plain::tests::fifo;

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
        let huge = vec![b'1'; 2 << 20];
        let root = root(&[
            ("sys/module/kvm_amd/parameters/binary", b"\xff\xfe\0"),
            ("sys/module/kvm_amd/parameters/empty", b""),
            ("sys/module/kvm_amd/parameters/huge", &huge),
            ("sys/module/kvm_amd/parameters/lines", b"1\n2\n"),
            ("sys/module/kvm_amd/parameters/npt", b"1\n"),
        ]);
        let folder = root.path().join("sys/module/kvm_amd/parameters");
        fs::create_dir(folder.join("folder")).unwrap();
        fifo(&folder.join("pipe"));

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
        let odd = ["binary", "folder", "huge", "lines"];
        assert_eq!(whats, odd.map(path));
    }

    #[test]
    fn what_is_no_folder_of_modules_has_none() {
        let root = root(&[("sys/module", b"a file")]);
        assert_eq!(read(root.path()), (BTreeMap::new(), Vec::new()));
    }
}
