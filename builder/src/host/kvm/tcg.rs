//! Runs the probe's programs under QEMU's TCG, which must report them as right even
//! on hosts whose KVM cannot run them. A multiboot kernel sets up the same memory
//! and CPU state as the probe does by ioctl.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

use super::code::{EFER_LME, PORT, PROGRAMS, RIGHT, WRONG, assemble, counting_loop};
use super::image::Image;
use super::layout;
use super::machine::{CR0, CR4, CR4_OSXSAVE, XCR0};
use crate::vmm::qemu::Program;

/// Where QEMU loads the file: above the guest's memory.
const LOAD: u64 = 0x10_0000;
/// Where the file has the guest's memory.
const MEMORY: u64 = LOAD + 0x1000;
/// Guest memory that nothing else uses, for what switches paging on.
const ENTRY: u64 = 0;
/// Operands of LGDT and LIDT.
const GDTR: u64 = 0x800;
/// See [`GDTR`].
const IDTR: u64 = 0x808;

/// The kernel's first code, in 32-bit protected mode: copies the memory to 0,
/// and goes on there.
fn copy() -> &'static [u8] {
    assemble!(
        ".code32",
        "cli",
        "cld",
        "mov esi, {memory}",
        "xor edi, edi",
        "mov ecx, {size}",
        "rep movsb",
        "mov eax, {entry}",
        "jmp eax",
        ".code64",
        { memory = MEMORY, size = layout::SIZE, entry = ENTRY }
    )
}

/// From there to the program: control registers, EFER, segments, stack.
fn enter() -> &'static [u8] {
    assemble!(
        ".code32",
        "lgdt [{gdtr}]",
        "lidt [{idtr}]",
        "mov eax, {cr4}",
        "mov cr4, eax",
        "xor ecx, ecx",
        "xor edx, edx",
        "mov eax, {xcr0}",
        "xsetbv",
        "mov eax, {tables}",
        "mov cr3, eax",
        "mov ecx, 0xc0000080",
        "xor edx, edx",
        "mov eax, {efer}",
        "wrmsr",
        "mov esp, {stack}",
        "mov eax, {cr0}",
        "mov cr0, eax",
        "mov eax, {data}",
        "mov ss, eax",
        "mov ds, eax",
        "mov es, eax",
        "push {code}",
        "push {program}",
        "mov ecx, 1000",
        // RETF
        ".byte 0xcb",
        ".code64",
        {
            gdtr = GDTR,
            idtr = IDTR,
            cr4 = CR4 | CR4_OSXSAVE,
            xcr0 = XCR0,
            tables = layout::FIRST_TABLES,
            efer = EFER_LME,
            stack = layout::STACK_TOP,
            cr0 = CR0,
            data = layout::DATA_SELECTOR,
            code = layout::CODE_SELECTOR,
            program = layout::PROGRAM
        }
    )
}

/// A multiboot kernel that runs the program (Multiboot specification 0.6.96,
/// with the address fields).
fn kernel(program: &[u8]) -> Vec<u8> {
    let mut memory = Image::new(program);
    memory.put_bytes(ENTRY, enter());
    for (register, base, size) in [
        (GDTR, layout::GDT, layout::GDT_SIZE),
        (IDTR, layout::IDT, layout::IDT_SIZE),
    ] {
        memory.put_bytes(register, &(base << 16 | u64::from(size - 1)).to_le_bytes());
    }

    let (magic, flags) = (0x1bad_b002_u32, 1_u32 << 16);
    let [load, memory_at] = [LOAD, MEMORY].map(|address| u32::try_from(address).unwrap());
    let (header, load_end, bss_end) = (load, 0, 0);
    let entry = load + 32;
    let checksum = magic.wrapping_add(flags).wrapping_neg();
    let mut file: Vec<u8> = [
        magic, flags, checksum, header, load, load_end, bss_end, entry,
    ]
    .into_iter()
    .flat_map(u32::to_le_bytes)
    .collect();
    file.extend_from_slice(copy());
    file.resize((memory_at - load) as usize, 0);
    file.extend(memory.bytes());
    file
}

/// What the program writes to the port; `None` after a triple fault.
fn written(program: &[u8]) -> Option<u8> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&kernel(program)).unwrap();
    let program = Program::installed().expect("bootstrap installs QEMU");
    let mut qemu = Command::new(program.path())
        .args(["-accel", "tcg", "-M", "pc", "-cpu", "max", "-m", "16M"])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .arg("-device")
        .arg(format!("isa-debug-exit,iobase={PORT:#x},iosize=1"))
        .arg("-kernel")
        .arg(file.path())
        .spawn()
        .expect("bootstrap installs QEMU");
    let end = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = qemu.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            qemu.kill().unwrap();
            qemu.wait().unwrap();
            panic!("the program wrote nothing within a minute");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    // isa-debug-exit: twice the value, plus 1.
    let code = u8::try_from(status.code().expect("QEMU ends by itself")).unwrap();
    (code % 2 == 1).then_some(code / 2)
}

#[test]
fn every_program_is_right_on_a_cpu_that_runs_it() {
    for program in PROGRAMS {
        assert_eq!(written((program.code)()), Some(RIGHT), "{}", program.name);
    }
    assert_eq!(written(counting_loop()), Some(RIGHT), "the counting loop");
}

/// Replaces the instruction by as many NOPs.
fn without(program: &[u8], instruction: &[u8]) -> Vec<u8> {
    let place = program
        .windows(instruction.len())
        .position(|bytes| bytes == instruction)
        .expect("the program has its instruction");
    let mut program = program.to_vec();
    program[place..place + instruction.len()].fill(0x90);
    program
}

#[test]
fn no_program_is_right_without_its_instruction() {
    let instructions: [&[u8]; PROGRAMS.len()] = [
        assemble!("cpuid"),
        assemble!("rdmsr"),
        assemble!("wrmsr"),
        assemble!("mov cr3, rax"),
        assemble!("invlpg [{window}]", { window = layout::FIRST_WINDOW }),
        assemble!("int3"),
        assemble!("iretq"),
        assemble!("lock cmpxchg16b [rdi]"),
        assemble!("xsave64 [rdi]"),
        assemble!("xrstor64 [rdi]"),
    ];
    for (program, instruction) in PROGRAMS.iter().zip(instructions) {
        let written = written(&without((program.code)(), instruction));
        // What reads through a mapping that is not there faults instead.
        assert!(
            matches!(written, Some(WRONG) | None),
            "{}: {written:?}",
            program.name
        );
    }
}
