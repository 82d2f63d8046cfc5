//! The memory functions that compiled Rust calls; without a libc they must be here.
//!
//! They are naked, because a compiler would turn a plain loop into a call of the
//! very function that contains it. Arguments come in rdi, rsi and rdx, the result
//! leaves in rax, and the direction flag is clear (x86-64 System V ABI).

use core::arch::naked_asm;

// SAFETY: C's memcpy, and no other in this binary.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memcpy(_to: *mut u8, _from: *const u8, _count: usize) -> *mut u8 {
    naked_asm!("mov rax, rdi", "mov rcx, rdx", "rep movsb", "ret")
}

// SAFETY: C's memmove, and no other in this binary.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memmove(_to: *mut u8, _from: *const u8, _count: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "mov rcx, rdx",
        "mov r8, rdi",
        "sub r8, rsi",
        "cmp r8, rdx",
        "jae 2f",
        // The target starts inside the source: copy from the end.
        "lea rdi, [rdi + rdx - 1]",
        "lea rsi, [rsi + rdx - 1]",
        "std",
        "rep movsb",
        "cld",
        "ret",
        "2:",
        "rep movsb",
        "ret",
    )
}

// SAFETY: C's memset, and no other in this binary.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memset(_to: *mut u8, _byte: i32, _count: usize) -> *mut u8 {
    naked_asm!(
        "mov r8, rdi",
        "mov eax, esi",
        "mov rcx, rdx",
        "rep stosb",
        "mov rax, r8",
        "ret",
    )
}

// SAFETY: C's memcmp, and no other in this binary.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memcmp(_a: *const u8, _b: *const u8, _count: usize) -> i32 {
    naked_asm!(
        // cmpsb takes [rdi] from [rsi].
        "xchg rdi, rsi",
        "mov rcx, rdx",
        // Leaves "equal" in the flags for a count of zero.
        "xor eax, eax",
        "repe cmpsb",
        "je 2f",
        "sbb eax, eax",
        "or eax, 1",
        "2:",
        "ret",
    )
}

// SAFETY: C's bcmp, and no other in this binary.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn bcmp(_a: *const u8, _b: *const u8, _count: usize) -> i32 {
    naked_asm!("jmp {memcmp}", memcmp = sym memcmp)
}

// SAFETY: C's strlen, and no other in this binary.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn strlen(_text: *const u8) -> usize {
    naked_asm!(
        "xor eax, eax",
        "mov rcx, -1",
        "repne scasb",
        "not rcx",
        "lea rax, [rcx - 1]",
        "ret",
    )
}
