//! The programs that the probe's virtual CPU runs.
//!
//! Each program checks its own effect, and writes [`RIGHT`] or [`WRONG`] to
//! [`PORT`]. The assembler makes their bytes, which are copied into a guest and
//! never run on the host. The instructions are described in Intel SDM, volume 2.

use std::arch::asm;

use super::layout::{self, PATTERN};

/// The port that programs write to.
pub(crate) const PORT: u16 = 0xf4;
/// An instruction did what the manual says.
pub(crate) const RIGHT: u8 = 0x10;
pub(crate) const WRONG: u8 = 0x11;

/// Bits of the extended feature enable register, MSR `0xc000_0080`.
pub(crate) const EFER_LME: u64 = 1 << 8;
/// See [`EFER_LME`].
pub(crate) const EFER_LMA: u64 = 1 << 10;

/// A program for one instruction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// What a CPU must have for it.
    pub(crate) feature: Feature,
    pub(crate) code: fn() -> &'static [u8],
}

/// What CPUID says of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    /// Every 64-bit CPU has it.
    Baseline,
    /// `CMPXCHG16B`: leaf 1, ECX bit 13.
    Cx16,
    /// `XSAVE` and `XRSTOR`: leaf 1, ECX bit 26.
    Xsave,
}

impl Feature {
    /// Whether CPUID has it, by ECX of leaf 1.
    pub(crate) fn in_leaf_1(self, ecx: u32) -> bool {
        let bit = match self {
            Self::Baseline => return true,
            Self::Cx16 => 13,
            Self::Xsave => 26,
        };
        ecx & 1 << bit != 0
    }
}

/// A program for each instruction that an early kernel needs.
pub(crate) const PROGRAMS: [Program; 10] = [
    Program {
        name: "CPUID",
        feature: Feature::Baseline,
        code: cpuid,
    },
    Program {
        name: "RDMSR",
        feature: Feature::Baseline,
        code: rdmsr,
    },
    Program {
        name: "WRMSR",
        feature: Feature::Baseline,
        code: wrmsr,
    },
    Program {
        name: "MOV CR3",
        feature: Feature::Baseline,
        code: mov_cr3,
    },
    Program {
        name: "INVLPG",
        feature: Feature::Baseline,
        code: invlpg,
    },
    Program {
        name: "INT3",
        feature: Feature::Baseline,
        code: int3,
    },
    Program {
        name: "IRETQ",
        feature: Feature::Baseline,
        code: iretq,
    },
    Program {
        name: "CMPXCHG16B",
        feature: Feature::Cx16,
        code: cmpxchg16b,
    },
    Program {
        name: "XSAVE",
        feature: Feature::Xsave,
        code: xsave,
    },
    Program {
        name: "XRSTOR",
        feature: Feature::Xsave,
        code: xrstor,
    },
];

/// The machine code of the given lines.
macro_rules! assemble {
    ($($line:literal),+ $(, { $($name:ident = $value:expr),+ })? $(,)?) => {{
        let (start, end): (*const u8, *const u8);
        // SAFETY: all that is run is two instructions that take the addresses of
        // labels; the lines between these go into read-only data.
        unsafe {
            std::arch::asm!(
                ".pushsection .rodata.imgbuild_guest, \"a\", @progbits",
                "20:",
                $($line,)+
                "21:",
                ".popsection",
                "lea {start}, [rip + 20b]",
                "lea {end}, [rip + 21b]",
                start = out(reg) start,
                end = out(reg) end,
                $($($name = const $value,)+)?
                options(nomem, nostack, preserves_flags),
            );
        }
        let length = end.addr() - start.addr();
        // SAFETY: these bytes are read-only data of this program.
        unsafe { std::slice::from_raw_parts(start, length) }
    }};
}
#[cfg(test)]
pub(crate) use assemble;

/// The machine code of a program that leaves for `29` where its effect is not
/// what the manual says.
macro_rules! checked {
    ($($line:literal),+ $(, { $($name:ident = $value:expr),+ $(,)? })?) => {
        assemble!(
            $($line,)+
            "mov al, {right}",
            "out {port}, al",
            "hlt",
            "29:",
            "mov al, {wrong}",
            "out {port}, al",
            "hlt",
            { right = RIGHT, wrong = WRONG, port = PORT $($(, $name = $value)+)? }
        )
    };
}

/// Instructions in a turn of [`counting_loop`].
pub(crate) const LOOP_INSTRUCTIONS: u64 = 2;

/// Counts RCX down to 0.
pub(crate) fn counting_loop() -> &'static [u8] {
    assemble!(
        "22:",
        "dec rcx",
        "jnz 22b",
        "mov al, {right}",
        "out {port}, al",
        "hlt",
        { right = RIGHT, port = PORT }
    )
}

/// The turns of [`counting_loop`], here.
pub(crate) fn count(turns: u64) {
    // SAFETY: it touches one register, and ends: a program's own loop counter
    // is not 0 at its start.
    unsafe {
        asm!(
            "22:",
            "dec {turns}",
            "jnz 22b",
            turns = inout(reg) turns.max(1) => _,
            options(nomem, nostack),
        );
    }
}

/// Writes to the port for ever.
pub(crate) fn exit_loop() -> &'static [u8] {
    assemble!(
        "mov al, {right}",
        "22:",
        "out {port}, al",
        "jmp 22b",
        { right = RIGHT, port = PORT }
    )
}

/// The exception handler of [`int3`]: shows that it ran, and returns.
pub(crate) fn breakpoint_handler() -> &'static [u8] {
    assemble!("mov ebx, {pattern}", "iretq", { pattern = PATTERN })
}

/// Leaf 0x8000_0001, EDX bit 29 is long mode, in which it runs.
fn cpuid() -> &'static [u8] {
    checked!(
        "mov eax, 0x80000001",
        "xor edx, edx",
        "cpuid",
        "bt edx, 29",
        "jnc 29f"
    )
}

/// EFER says that long mode is active.
fn rdmsr() -> &'static [u8] {
    checked!(
        "mov ecx, 0xc0000080",
        "xor eax, eax",
        "rdmsr",
        "and eax, {long_mode}",
        "cmp eax, {long_mode}",
        "jne 29f",
        { long_mode = EFER_LME | EFER_LMA }
    )
}

/// A segment base set by its MSR, IA32_GS_BASE, is where GS points to.
fn wrmsr() -> &'static [u8] {
    checked!(
        "mov ecx, 0xc0000101",
        "mov eax, {page}",
        "xor edx, edx",
        "wrmsr",
        "mov ebx, gs:[0]",
        "cmp ebx, {pattern}",
        "jne 29f",
        { page = layout::PATTERN_PAGE, pattern = PATTERN }
    )
}

/// A read through what only the second page tables map.
fn mov_cr3() -> &'static [u8] {
    checked!(
        "mov eax, {tables}",
        "mov cr3, rax",
        "mov ebx, [{window}]",
        "cmp ebx, {pattern}",
        "jne 29f",
        { tables = layout::SECOND_TABLES, window = layout::SECOND_WINDOW, pattern = PATTERN }
    )
}

/// A page that was read is mapped elsewhere, and read again.
fn invlpg() -> &'static [u8] {
    checked!(
        "mov ebx, [{window}]",
        "test ebx, ebx",
        "jnz 29f",
        "mov eax, {entry}",
        "mov [{entry_address}], rax",
        "invlpg [{window}]",
        "mov ebx, [{window}]",
        "cmp ebx, {pattern}",
        "jne 29f",
        {
            window = layout::FIRST_WINDOW,
            entry = layout::PATTERN_PAGE | layout::PRESENT_WRITABLE,
            entry_address = layout::FIRST_WINDOW_ENTRY,
            pattern = PATTERN
        }
    )
}

/// Goes through the IDT to [`breakpoint_handler`], and comes back.
fn int3() -> &'static [u8] {
    checked!(
        "xor ebx, ebx",
        "mov rbp, rsp",
        "int3",
        "cmp ebx, {pattern}",
        "jne 29f",
        "cmp rsp, rbp",
        "jne 29f",
        { pattern = PATTERN }
    )
}

/// Returns to the next line through a frame made by hand: SS, RSP, RFLAGS, CS,
/// RIP.
fn iretq() -> &'static [u8] {
    checked!(
        "mov rbp, rsp",
        "push {data}",
        "push rbp",
        "pushfq",
        "push {code}",
        "lea rax, [rip + 23f]",
        "push rax",
        "iretq",
        "jmp 29f",
        "23:",
        "cmp rsp, rbp",
        "jne 29f",
        { data = layout::DATA_SELECTOR, code = layout::CODE_SELECTOR }
    )
}

/// 16 bytes that are as expected are exchanged; then they are not as expected,
/// and are given back.
fn cmpxchg16b() -> &'static [u8] {
    checked!(
        "mov edi, {page}",
        "xor eax, eax",
        "xor edx, edx",
        "mov ebx, {pattern}",
        "lea ecx, [rbx + 1]",
        "lock cmpxchg16b [rdi]",
        "jnz 29f",
        "cmp [rdi], rbx",
        "jne 29f",
        "cmp [rdi + 8], rcx",
        "jne 29f",
        "lock cmpxchg16b [rdi]",
        "jz 29f",
        "cmp rax, rbx",
        "jne 29f",
        "cmp rdx, rcx",
        "jne 29f",
        { page = layout::EMPTY_PAGE, pattern = PATTERN }
    )
}

/// XMM0 arrives at its place in the XSAVE area, offset 160, and the header at
/// offset 512 says that SSE state is in it (Intel SDM, volume 1, chapter 13).
fn xsave() -> &'static [u8] {
    checked!(
        "mov edi, {page}",
        "mov ebx, {pattern}",
        "mov [rdi + 2048], rbx",
        "movdqu xmm0, [rdi + 2048]",
        "mov eax, 3",
        "xor edx, edx",
        "xsave64 [rdi]",
        "cmp [rdi + 160], rbx",
        "jne 29f",
        "bt dword ptr [rdi + 512], 1",
        "jnc 29f",
        { page = layout::EMPTY_PAGE, pattern = PATTERN }
    )
}

/// XMM0 comes from the XSAVE area. MXCSR at offset 24 holds its reset value; 0
/// would unmask exceptions.
fn xrstor() -> &'static [u8] {
    checked!(
        "mov edi, {page}",
        "mov ebx, {pattern}",
        "mov dword ptr [rdi + 24], 0x1f80",
        "mov [rdi + 160], rbx",
        "mov dword ptr [rdi + 512], 2",
        "mov eax, 3",
        "xor edx, edx",
        "xrstor64 [rdi]",
        "movdqu [rdi + 2048], xmm0",
        "cmp [rdi + 2048], rbx",
        "jne 29f",
        { page = layout::EMPTY_PAGE, pattern = PATTERN }
    )
}

#[cfg(test)]
mod tests {
    use std::arch::x86_64::__cpuid;

    use super::*;

    #[test]
    fn features_are_detected_as_the_standard_library_does() {
        let ecx = __cpuid(1).ecx;
        let cx16 = is_x86_feature_detected!("cmpxchg16b");
        assert_eq!(Feature::Cx16.in_leaf_1(ecx), cx16);
        assert_eq!(
            Feature::Xsave.in_leaf_1(ecx),
            is_x86_feature_detected!("xsave")
        );
        assert!(!Feature::Cx16.in_leaf_1(0) && !Feature::Xsave.in_leaf_1(0));
        assert!(Feature::Baseline.in_leaf_1(0));
    }
}
