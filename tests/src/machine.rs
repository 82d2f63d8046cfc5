//! A machine that QEMU emulates, with a distribution's kernel and a root file
//! system of this machine's programs: for what this machine's own kernel has not,
//! or should not be put through. Guests of imgbuild in it are guests in a guest.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::root::Root;
use crate::stand_in::{QEMU, find};
use crate::{TestEnv, binary, workspace};

/// What the scripts, the tests and imgbuild call there.
const PROGRAMS: [&str; 9] = [
    "/bin/busybox",
    "/usr/bin/sh",
    "/usr/bin/head",
    "/usr/bin/tail",
    "/usr/bin/sleep",
    "/usr/bin/setpriv",
    "/usr/bin/qemu-img",
    "/usr/bin/qemu-system-x86_64",
    // QEMU loads it once it is asked for TCG.
    "/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so",
];
const FIRMWARE: [&str; 2] = ["usr/share/qemu/qboot.rom", "usr/share/qemu/pvh.bin"];

/// What begins every first process: `step` runs a command and says how it ended.
const PROLOGUE: &str = r#"#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/tmp RUST_BACKTRACE=0
export XDG_STATE_HOME=/root/state XDG_RUNTIME_DIR=/run
busybox mount -t devtmpfs devtmpfs /dev
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
busybox mount -t tmpfs tmpfs /tmp
busybox mkdir /dev/shm
busybox mount -t tmpfs tmpfs /dev/shm
busybox hostname machine
busybox ln -s /proc/self/fd /dev/fd
busybox ifconfig lo 127.0.0.1 up

step() {
    name=$1
    shift
    "$@"
    echo "step $name: $?"
}

# Loads KVM, and gives it to its group as udev does.
kvm_module() {
    busybox modprobe kvm_amd && busybox chown 0:kvm /dev/kvm && busybox chmod 0660 /dev/kvm
}

# Says how a command ended, and what it wrote to stdout, in one line.
report() {
    name=$1
    shift
    "$@" >/tmp/report
    echo "step $name: $?"
    echo "report $name: $(busybox tr -d '\n' </tmp/report)"
}

"#;
/// What ends one that steps are read of; the last of them tells that it got there.
const EPILOGUE: &str = "\nstep over true\nbusybox reboot -f\n";

/// How the machine is emulated.
#[derive(Debug, Clone, Copy)]
pub struct Emulated {
    /// Where its kernel comes from.
    pub release: Release,
    /// QEMU's accelerator, with options.
    pub accel: &'static str,
    /// Model of its CPUs, with options.
    pub cpu: &'static str,
    /// Number of them.
    pub cpus: u8,
    /// What its kernel is told besides.
    pub append: &'static str,
}

/// Modules that real KVM takes there; of AMD's, since QEMU emulates no VMX.
const MODULES: [&str; 3] = [
    "virt/lib/irqbypass",
    "arch/x86/kvm/kvm",
    "arch/x86/kvm/kvm-amd",
];
/// What else users of KVM call there.
const MORE_PROGRAMS: [&str; 4] = [
    "/usr/bin/ssh",
    "/usr/sbin/mke2fs",
    "/usr/sbin/tune2fs",
    "/usr/sbin/debugfs",
];

/// The packages that `./bootstrap` unpacks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// The kernel of the release that this machine has.
    Own,
    /// The kernel of its backports, Linux 6.4 or later, and the QEMU of them: the
    /// release's own emulates that kernel wrong.
    Backports,
}

impl Release {
    /// A machine with real KVM in it: AMD's SVM with nested paging.
    ///
    /// It has one CPU. QEMU 7.2 to 10 keeps the vector of an interrupt that VMRUN
    /// injected as the CPU's pending exception. Where another CPU's interrupt makes
    /// it leave its loop then, the guest gets that interrupt once more, with
    /// interrupts off or not, and may spin for ever.
    #[must_use]
    pub fn with_kvm(self) -> Emulated {
        Emulated {
            release: self,
            accel: "tcg",
            cpu: "max,la57=off",
            cpus: 1,
            append: "tsc=reliable",
        }
    }

    /// Where its packages are unpacked.
    fn folder(self) -> PathBuf {
        workspace().join(match self {
            Self::Own => ".tools/linux-image",
            Self::Backports => ".tools/sharing",
        })
    }

    /// QEMU to emulate it.
    fn qemu(self) -> Command {
        let firmware = "/usr/share/qemu";
        match self {
            Self::Own => Command::new(find(QEMU)),
            Self::Backports => {
                let mut command = Command::new(self.folder().join("usr/bin").join(QEMU));
                command.args(["-L", firmware]);
                command
            }
        }
    }

    /// Its kernel.
    #[must_use]
    pub fn image(self) -> PathBuf {
        self.folder()
            .join(format!("boot/vmlinuz-{}", self.kernel()))
    }

    /// Adds modules of its kernel, and what modprobe(8) is to know of them.
    pub fn add_modules(self, root: &Root, modules: &[&str]) {
        let version = self.kernel();
        for module in modules {
            let path = format!("lib/modules/{version}/kernel/{module}.ko");
            let plain = self.folder().join(&path);
            if !plain.exists() {
                let unpacked = Command::new("xz")
                    .args(["--decompress", "--keep"])
                    .arg(plain.with_extension("ko.xz"))
                    .status();
                let unpacked = unpacked.expect("xz runs: apt install xz-utils");
                assert!(unpacked.success(), "{}: {unpacked}", plain.display());
            }
            root.copy(&plain, &path);
        }
        let made = Command::new("busybox")
            .arg("depmod")
            .arg("-b")
            .arg(root.place(""))
            .arg(version)
            .status();
        let made = made.expect("busybox runs: apt install busybox-static");
        assert!(made.success(), "{made}");
    }

    /// The version of its kernel.
    fn kernel(self) -> String {
        let entries = fs::read_dir(self.folder().join("boot"));
        let names = entries.into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let mut versions = names.filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned()));
        versions.next().unwrap_or_else(|| {
            panic!(
                "no kernel in {}: `./bootstrap soak`, `./bootstrap kvm` and `./bootstrap kvm \
                 --sharing` unpack them",
                self.folder().display()
            )
        })
    }
}

/// One in the making.
#[derive(Debug)]
pub struct Machine {
    emulated: Emulated,
    root: Root,
    folder: PathBuf,
}

impl Machine {
    /// One with imgbuild and what it calls, put together in a folder that is not
    /// there yet.
    #[must_use]
    pub fn new(folder: &Path, emulated: Emulated) -> Self {
        let root = Root::new(folder.to_path_buf());
        for program in PROGRAMS {
            root.program(program);
        }
        for file in FIRMWARE {
            root.copy(&Path::new("/").join(file), file);
        }
        let machine = Self {
            emulated,
            root,
            folder: folder.to_path_buf(),
        };
        machine.add_stripped(binary(), "usr/bin/imgbuild");
        machine
    }

    /// One whose kernel has KVM, to be loaded by `kvm_module`, and with what the
    /// commands of users call there; a guest's kernel is `/test/vmlinux`.
    #[must_use]
    pub fn with_kvm(env: &TestEnv, release: Release) -> Self {
        let machine = Self::new(&env.path().join("root"), release.with_kvm());
        for program in MORE_PROGRAMS {
            machine.root.program(program);
        }
        machine.add_modules(&MODULES);
        let vmlinux = env.artifacts("tty-burn").join("vmlinux");
        machine.root.copy(&vmlinux, "test/vmlinux");
        machine.root.file("etc/group", "root:x:0:\nkvm:x:104:\n");
        machine.root.file(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n",
        );
        let config = format!("boot/config-{}", release.kernel());
        machine.root.copy(&release.folder().join(&config), &config);
        let modprobe = machine.root.place("usr/sbin/modprobe");
        std::os::unix::fs::symlink("/bin/busybox", modprobe).expect("the folder is ours");
        machine
    }

    /// Its root file system.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Adds a program without what a debugger wants, which is most of it.
    pub fn add_stripped(&self, program: &Path, path: &str) {
        self.root.copy(program, path);
        let place = self.root.place(path);
        let stripped = Command::new("strip").arg(&place).status();
        let stripped = stripped.expect("strip runs: apt install binutils");
        assert!(stripped.success(), "{stripped}");
        self.root.libraries(path);
    }

    /// Adds modules of its kernel, and what modprobe(8) is to know of them.
    pub fn add_modules(&self, modules: &[&str]) {
        self.emulated.release.add_modules(&self.root, modules);
    }

    /// QEMU's command line, with a first process that runs `script`.
    #[must_use]
    pub fn boots(&self, script: &str) -> Command {
        self.root.script("init", &format!("{PROLOGUE}{script}"));
        // Guests' users are to reach QEMU.
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&self.folder, open).expect("the folder is ours");
        let emulated = &self.emulated;
        let mut command = emulated.release.qemu();
        command
            .args(["-machine", "q35,mem-merge=off", "-accel", emulated.accel])
            .args([
                "-cpu",
                emulated.cpu,
                "-smp",
                &emulated.cpus.to_string(),
                "-m",
                "3G",
            ])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .arg("-append")
            .arg(format!("console=ttyS0 quiet panic=-1 {}", emulated.append))
            .arg("-kernel")
            .arg(emulated.release.image())
            .arg("-initrd")
            .arg(self.root.archive());
        command
    }

    /// Boots it, runs a script's steps, and returns what its console carried.
    /// It has `patience`, which only keeps a hang from lasting for ever.
    #[must_use]
    pub fn run(&self, script: &str, patience: &str) -> Console {
        let script = format!("exec </dev/null >/dev/ttyS0 2>&1\n{script}{EPILOGUE}");
        let qemu = self.boots(&script);
        let output = Command::new("timeout")
            .arg(patience)
            .arg(qemu.get_program())
            .args(qemu.get_args())
            .args(["-serial", "stdio"])
            .output()
            .expect("timeout runs");
        Console {
            text: String::from_utf8_lossy(&output.stdout).into_owned(),
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// What the console of a machine carried.
#[derive(Debug)]
pub struct Console {
    /// All of it.
    pub text: String,
    /// What QEMU said itself.
    said: String,
}

impl Console {
    /// How a step ended; `None` if it was not reached.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<i32> {
        self.behind(&format!("step {name}: "))?.parse().ok()
    }

    /// What a step reported.
    #[must_use]
    pub fn report(&self, name: &str) -> Option<&str> {
        self.behind(&format!("report {name}: "))
    }

    /// The rest of the line that begins so.
    fn behind(&self, beginning: &str) -> Option<&str> {
        let mut lines = self.text.lines();
        lines.find_map(|line| line.strip_prefix(beginning).map(str::trim_end))
    }

    /// Requires each step to have ended so; else all of the console is shown, and
    /// whose fault it is.
    ///
    /// # Panics
    ///
    /// If a step ended otherwise.
    pub fn assert_steps(&self, steps: &[(&str, i32)]) {
        let other = steps
            .iter()
            .filter(|(name, code)| self.step(name) != Some(*code));
        let other: Vec<_> = other
            .map(|(name, code)| format!("{name}: {:?} instead of {code}", self.step(name)))
            .collect();
        assert!(
            other.is_empty(),
            "{}{}{}\n{}",
            self.text,
            self.said,
            other.join("\n"),
            self.fault()
        );
    }

    /// Whose fault it is that a step is missing. imgbuild's guests are processes
    /// there: nothing that they do panics the kernel around them.
    fn fault(&self) -> &'static str {
        let dies = [
            "Kernel panic - not syncing",
            "Oops: ",
            "BUG: ",
            "general protection fault",
            "watchdog: ",
        ];
        if dies.iter().any(|words| self.text.contains(words)) {
            "THE EMULATOR'S FAULT: the machine's own kernel died, which imgbuild's guests cannot \
             bring about; run it again on a quiet host"
        } else if self.step("over").is_none() {
            "the machine did not get to its end: it hung, or was too slow for its time"
        } else {
            "the machine is sound, so the fault is imgbuild's or the test's"
        }
    }
}
