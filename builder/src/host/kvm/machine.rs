//! A virtual machine with one virtual CPU, in 64-bit ring 0 from its first
//! instruction (kernel document virt/kvm/api).

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, kvm_regs, kvm_segment, kvm_sregs, kvm_userspace_memory_region,
    kvm_xcr, kvm_xcrs,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vmm_sys_util::errno;

use super::code::{EFER_LMA, EFER_LME, Feature};
use super::image::Image;
use super::layout;

/// A system call that failed.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {error}")]
pub(crate) struct CallError {
    pub(crate) call: &'static str,
    pub(crate) error: errno::Error,
}

fn named<T>(call: &'static str, result: errno::Result<T>) -> Result<T, CallError> {
    result.map_err(|error| CallError { call, error })
}

/// Bits of CR0: protected mode, FPU as of today, write protection, paging.
pub(crate) const CR0: u64 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31;
/// Bits of CR4: page tables of 8-byte entries, SSE and its exceptions.
pub(crate) const CR4: u64 = 1 << 5 | 1 << 9 | 1 << 10;
/// Bit of CR4: XSAVE, XRSTOR and XCR0 may be used.
pub(crate) const CR4_OSXSAVE: u64 = 1 << 18;
/// State that XSAVE and XRSTOR handle: x87 and SSE.
pub(crate) const XCR0: u64 = 3;

/// `KVM_SET_TSS_ADDR`: three pages below 4 GiB that nothing else uses, as QEMU
/// has them. Intel CPUs of the first generation need them.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// `/dev/kvm`, and what its CPUs have.
#[derive(Debug)]
pub(crate) struct Hypervisor {
    kvm: Kvm,
    cpuid: CpuId,
}

impl Hypervisor {
    pub(crate) fn open() -> Result<Self, CallError> {
        let kvm = named("open of /dev/kvm", Kvm::new())?;
        let cpuid = named(
            "KVM_GET_SUPPORTED_CPUID",
            kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES),
        )?;
        Ok(Self { kvm, cpuid })
    }

    pub(crate) fn api(&self) -> i32 {
        self.kvm.get_api_version()
    }

    /// Whether its CPUs have this.
    pub(crate) fn has(&self, feature: Feature) -> bool {
        self.cpuid
            .as_slice()
            .iter()
            .any(|leaf| leaf.function == 1 && feature.in_leaf_1(leaf.ecx))
    }

    /// An empty machine.
    pub(crate) fn create_vm(&self) -> Result<VmFd, CallError> {
        named("KVM_CREATE_VM", uninterrupted(|| self.kvm.create_vm()))
    }

    /// A machine about to run `program`, whose CPU has `feature` switched on.
    pub(crate) fn machine(&self, program: &[u8], feature: Feature) -> Result<Machine, CallError> {
        let vm = self.create_vm()?;
        named("KVM_SET_TSS_ADDR", vm.set_tss_address(TSS_ADDRESS))?;
        let mut memory = Image::new(program);
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: layout::SIZE,
            userspace_addr: memory.as_mut_ptr().expose_provenance() as u64,
        };
        // SAFETY: the region is the image's memory, which nobody else touches and
        // which is freed after the machine that uses it.
        named("KVM_SET_USER_MEMORY_REGION", unsafe {
            vm.set_user_memory_region(region)
        })?;
        let vcpu = named("KVM_CREATE_VCPU", vm.create_vcpu(0))?;
        named("KVM_SET_CPUID2", vcpu.set_cpuid2(&self.cpuid))?;
        let mut sregs = named("KVM_GET_SREGS", vcpu.get_sregs())?;
        long_mode(&mut sregs);
        if feature == Feature::Xsave {
            sregs.cr4 |= CR4_OSXSAVE;
        }
        named("KVM_SET_SREGS", vcpu.set_sregs(&sregs))?;
        if feature == Feature::Xsave {
            named("KVM_SET_XCRS", vcpu.set_xcrs(&xcrs()))?;
        }
        let mut machine = Machine {
            vcpu,
            _vm: vm,
            _memory: memory,
        };
        machine.restart(0)?;
        Ok(machine)
    }
}

/// Tries again after a signal: the kernel registers a new machine with the
/// process's memory only while no signal is pending.
fn uninterrupted<T>(call: impl Fn() -> errno::Result<T>) -> errno::Result<T> {
    loop {
        match call() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result,
        }
    }
}

/// 64-bit code in ring 0, on the first page tables. What is not named here
/// stays as it is after a reset.
fn long_mode(sregs: &mut kvm_sregs) {
    let data = kvm_segment {
        limit: u32::MAX,
        selector: layout::DATA_SELECTOR,
        type_: 3,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    sregs.cs = kvm_segment {
        selector: layout::CODE_SELECTOR,
        type_: 11,
        db: 0,
        l: 1,
        ..data
    };
    for segment in [
        &mut sregs.ds,
        &mut sregs.es,
        &mut sregs.fs,
        &mut sregs.gs,
        &mut sregs.ss,
    ] {
        *segment = data;
    }
    sregs.gdt.base = layout::GDT;
    sregs.gdt.limit = layout::GDT_SIZE - 1;
    sregs.idt.base = layout::IDT;
    sregs.idt.limit = layout::IDT_SIZE - 1;
    sregs.cr0 = CR0;
    sregs.cr3 = layout::FIRST_TABLES;
    sregs.cr4 = CR4;
    sregs.efer = EFER_LME | EFER_LMA;
}

/// XCR0, and no other extended control register.
fn xcrs() -> kvm_xcrs {
    let mut xcrs = kvm_xcrs {
        nr_xcrs: 1,
        ..kvm_xcrs::default()
    };
    xcrs.xcrs[0] = kvm_xcr {
        xcr: 0,
        reserved: 0,
        value: XCR0,
    };
    xcrs
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exit {
    /// A byte was written to a port.
    Out {
        port: u16,
        value: u8,
    },
    InternalError {
        suberror: u32,
    },
    Shutdown,
    /// Another exit, by name, or what the system call said.
    Other(String),
}

/// A virtual machine with one CPU. Fields are dropped in this order: memory
/// goes last.
#[derive(Debug)]
pub(crate) struct Machine {
    vcpu: VcpuFd,
    _vm: VmFd,
    _memory: Image,
}

impl Machine {
    /// Puts the CPU before its program's first instruction, with `rcx` there.
    pub(crate) fn restart(&mut self, rcx: u64) -> Result<(), CallError> {
        let registers = kvm_regs {
            rip: layout::PROGRAM,
            rsp: layout::STACK_TOP,
            rcx,
            // Bit 1 is always set; interrupts are off.
            rflags: 2,
            ..kvm_regs::default()
        };
        named("KVM_SET_REGS", self.vcpu.set_regs(&registers))
    }

    /// Runs the CPU until it exits, which it may never do.
    pub(crate) fn run(&mut self) -> Exit {
        loop {
            return match self.vcpu.run() {
                Err(error) if error.errno() == libc::EINTR => continue,
                Err(error) => Exit::Other(format!("KVM_RUN: {error}")),
                Ok(VcpuExit::IoOut(port, &[value])) => Exit::Out { port, value },
                Ok(VcpuExit::Shutdown) => Exit::Shutdown,
                Ok(VcpuExit::InternalError) => Exit::InternalError {
                    suberror: self.suberror(),
                },
                Ok(exit) => Exit::Other(name(&exit)),
            };
        }
    }

    fn suberror(&mut self) -> u32 {
        let run = self.vcpu.get_kvm_run();
        // SAFETY: the exit was an internal error, for which the kernel fills in
        // this member; any bits are a valid value of it.
        unsafe { run.__bindgen_anon_1.internal.suberror }
    }
}

/// An exit's name for people.
fn name(exit: &VcpuExit<'_>) -> String {
    match exit {
        VcpuExit::Hlt => "KVM_EXIT_HLT".into(),
        VcpuExit::FailEntry(reason, _) => {
            format!("KVM_EXIT_FAIL_ENTRY, hardware reason {reason:#x}")
        }
        VcpuExit::MmioRead(address, _) | VcpuExit::MmioWrite(address, _) => {
            format!("KVM_EXIT_MMIO at {address:#x}")
        }
        other => format!("{other:?}"),
    }
}
