//! What a build costs: initramfs, a warm run, the kernel.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use imgbuild::assets;
use imgbuild::initramfs::pack;
use imgbuild::recipe::built_in;
use imgbuild::tree::Tree;

use super::{Budget, Row, Samples};
use crate::{TestEnv, run};

/// Runs for each mean.
const RUNS: usize = 20;

/// Packing the initramfs of tty-burn, and its size.
#[must_use]
pub fn initramfs() -> Vec<Row> {
    let env = TestEnv::new();
    let root = env.path().join("root");
    for folder in ["dev", "disk", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(folder)).expect("the folder is ours");
    }
    fs::write(root.join("init"), assets::INIT).expect("the folder is ours");
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    let mut sizes = [0.0; 2];
    for _ in 0..RUNS {
        let began = Instant::now();
        let mut packed = Vec::new();
        let mut tree = Tree::new();
        tree.add_base(assets::INIT.to_vec(), &[]).expect("it fits");
        pack(&tree, 0, &mut packed).expect("memory takes it");
        ours.push(milliseconds(began.elapsed()));
        sizes[0] = kib(packed.len());

        let began = Instant::now();
        let output = Command::new("sh")
            .args(["-c", "find . | cpio --quiet -o -H newc | gzip -9"])
            .current_dir(&root)
            .output()
            .expect("sh runs");
        assert!(output.status.success());
        others.push(milliseconds(began.elapsed()));
        sizes[1] = kib(output.stdout.len());
    }
    let other_is = "find | cpio | gzip -9";
    vec![
        Row {
            what: "packing the initramfs",
            unit: "ms",
            ours: Samples::of(&ours),
            other: Samples::of(&others),
            other_is,
            budget: Some(Budget::AtMost(10.0)),
        },
        Row {
            what: "initramfs of tty-burn",
            unit: "KiB",
            ours: Samples::of(&sizes[..1]),
            other: Samples::of(&sizes[1..]),
            other_is,
            budget: Some(Budget::AtMost(72.0)),
        },
    ]
}

/// `tty-burn` when the kernel is in the cache, against the same by hand.
#[must_use]
pub fn warm() -> Vec<Row> {
    let env = TestEnv::new();
    let out = env.artifacts("tty-burn");
    let script = "set -e; rm -rf hand; mkdir -p hand/overlays
cp \"$OUT\"/vmlinux \"$OUT\"/kernel.config hand
(cd \"$ROOT\" && find . | cpio --quiet -o -H newc | gzip -9) >hand/initramfs.cpio.gz
truncate -s 1G hand/raw
mke2fs -q -F -t ext4 -O ^has_journal hand/raw
qemu-img convert -O qcow2 hand/raw hand/base.qcow2
rm hand/raw
qemu-img create -q -f qcow2 -F qcow2 -b ../base.qcow2 hand/overlays/00000.qcow2
cd hand; sha256sum vmlinux kernel.config *.gz *.qcow2 overlays/* >SHA256SUMS";
    let root = env.path().join("root");
    fs::create_dir_all(&root).expect("the folder is ours");
    fs::write(root.join("init"), assets::INIT).expect("the folder is ours");
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for _ in 0..RUNS / 2 {
        let began = Instant::now();
        run(env.imgbuild(["tty-burn", "--no-boot", "--out"]).arg(&out)).succeeds();
        ours.push(began.elapsed().as_secs_f64());
        let began = Instant::now();
        run(env
            .command("sh")
            .args(["-c", script])
            .env("OUT", &out)
            .env("ROOT", &root))
        .succeeds();
        others.push(began.elapsed().as_secs_f64());
    }
    vec![Row {
        what: "tty-burn --no-boot, warm",
        unit: "s",
        ours: Samples::of(&ours),
        other: Samples::of(&others),
        other_is: "the same files by cp, cpio, mke2fs, qemu-img, sha256sum",
        budget: Some(Budget::AtMost(0.5)),
    }]
}

/// CPU time of a kernel build from source, against the same symbols untrimmed.
#[must_use]
pub fn kernel() -> Vec<Row> {
    let whole = build_cpu(None);
    let env = TestEnv::new();
    let untrimmed = env.path().join("kernel-config");
    copy_without(
        &crate::workspace().join("kernel-config"),
        &untrimmed,
        &["trim", "density"],
    );
    vec![Row {
        what: "kernel from source",
        unit: "CPU s",
        ours: Samples::of(&[whole]),
        other: Samples::of(&[build_cpu(Some(&untrimmed))]),
        other_is: "the same fragments without trim and density",
        budget: Some(Budget::AtMost(240.0)),
    }]
}

/// CPU seconds of one build with an empty cache but for the unpacked source.
fn build_cpu(kernel_config: Option<&Path>) -> f64 {
    let env = TestEnv::new();
    let cache = env.path().join("cache");
    let imgbuild = |verb: &str| {
        let mut command = env.imgbuild(["kernel", verb, "--recipe"]);
        command.env("XDG_CACHE_HOME", &cache);
        match kernel_config {
            None => command.arg("tty-burn"),
            Some(folder) => command
                .arg(folder.join("recipe.toml"))
                .arg("--kernel-config")
                .arg(folder),
        };
        command
    };
    // Unpacks the source, which is not what is measured.
    run(&mut imgbuild("config")).succeeds();
    let before = children_cpu();
    run(&mut imgbuild("build")).succeeds();
    children_cpu().saturating_sub(before).as_secs_f64()
}

/// User and system time of all children that ended (getrusage(2)).
pub(super) fn children_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("/proc is mounted");
    let (_, fields) = stat.rsplit_once(") ").expect("proc_pid_stat(5)");
    let ticks: u64 = fields
        .split(' ')
        .skip(13)
        .take(2)
        .map(|field| field.parse::<u64>().expect("ticks"))
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Copies the kernel configuration but for some fragments, with a recipe that
/// names the rest.
fn copy_without(from: &Path, to: &Path, left_out: &[&str]) {
    fs::create_dir(to).expect("the folder is ours");
    for entry in fs::read_dir(from).expect("the checkout").flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).expect("room for it");
    }
    let recipe = built_in::recipe("tty-burn").expect("it is built in");
    let fragments: Vec<_> = recipe
        .kernel
        .fragments
        .into_iter()
        .filter(|name| !left_out.contains(&name.as_str()))
        .collect();
    fs::write(
        to.join("recipe.toml"),
        format!(
            "name = \"untrimmed\"\n[guest]\nmemory = \"64M\"\n\
             [disk]\nsize = \"1G\"\nlabel = \"x\"\n[kernel]\nfragments = {fragments:?}\n"
        ),
    )
    .expect("room for it");
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn kib(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes).expect("a small file")) / 1024.0
}
