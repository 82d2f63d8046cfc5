//! Which files of a kernel source an x86-64 guest kernel can need.
//!
//! The tarball is 1.5 GB in 86,000 files, and writing them takes longer than
//! decompressing them. Files that no x86-64 configuration reads are left out.

use std::path::Path;

use Verdict::{Build, Keep, Skip};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Keep,
    /// Only what describes the build, which Kconfig and kbuild read whatever is
    /// switched on.
    Build,
    Skip,
}

/// The first prefix that fits decides; what none fits is kept.
const RULES: [(&str, Verdict); 19] = [
    ("arch/x86/", Keep),
    // Kconfig reads the files of other architectures too, under `if ARM`.
    ("arch/", Build),
    ("Documentation/", Build),
    // Register descriptions of hardware that no guest has: a third of the tarball.
    ("drivers/accel/habanalabs/", Build),
    ("drivers/gpu/drm/amd/", Build),
    ("samples/", Build),
    ("tools/Makefile", Keep),
    ("tools/arch/x86/", Keep),
    ("tools/arch/", Skip),
    ("tools/bpf/resolve_btfids/", Keep),
    ("tools/build/", Keep),
    ("tools/include/", Keep),
    ("tools/lib/", Keep),
    ("tools/objtool/", Keep),
    ("tools/scripts/", Keep),
    ("tools/", Skip),
    (".", Skip),
    ("CREDITS", Skip),
    ("MAINTAINERS", Skip),
];

/// Whether the file at `path`, relative to the tree, is to be unpacked.
pub(super) fn is_needed(path: &Path) -> bool {
    let verdict = RULES
        .iter()
        .find(|(prefix, _)| fits(path, prefix))
        .map_or(Keep, |(_, verdict)| *verdict);
    match verdict {
        Keep => true,
        Skip => false,
        Build => describes_build(path),
    }
}

fn fits(path: &Path, prefix: &str) -> bool {
    path.to_str().is_some_and(|path| path.starts_with(prefix))
}

fn describes_build(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| {
        ["Kconfig", "Makefile", "Kbuild"]
            .iter()
            .any(|known| name.starts_with(known))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_x86_builds_and_drops_the_rest() {
        let cases = [
            ("Makefile", true),
            ("arch/Kconfig", true),
            ("arch/x86/entry/entry_64.S", true),
            ("arch/arm64/crypto/Kconfig", true),
            ("arch/arm/boot/dts/a.dts", false),
            ("drivers/virtio/virtio_mmio.c", true),
            ("drivers/gpu/drm/Kconfig", true),
            ("drivers/gpu/drm/amd/amdgpu/Kconfig", true),
            ("drivers/gpu/drm/amd/amdgpu/amdgpu.h", false),
            ("Documentation/Kconfig", true),
            ("Documentation/index.rst", false),
            ("samples/Kconfig", true),
            ("samples/bpf/one.c", false),
            ("tools/Makefile", true),
            ("tools/objtool/check.c", true),
            ("tools/include/linux/list.h", true),
            ("tools/testing/selftests/Makefile", false),
            ("tools/perf/perf.c", false),
            ("MAINTAINERS", false),
            (".gitignore", false),
            ("include/linux/list.h", true),
            ("scripts/kconfig/conf.c", true),
        ];
        for (path, needed) in cases {
            assert_eq!(is_needed(Path::new(path)), needed, "{path}");
        }
    }
}
