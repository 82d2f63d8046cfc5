/*
 * Fewer pages touched: the sections of the kernel image follow each other at page boundaries.
 *
 * arch/x86/kernel/vmlinux.lds.S pads text, entry text, read-only data and .bss to 2 MiB each, so that they can be
 * mapped by large pages. The padding is in the ELF's segments, QEMU writes it to guest memory, and the kernel clears
 * what is in .bss and poisons what it frees: about 6 MiB touched for nothing. This file is included ahead of that
 * script (make CPPFLAGS_vmlinux.lds=...) and redefines the two alignments it uses; no source file is changed. The
 * price is 4 KiB mappings of the kernel's text.
 */
#include <asm/asm-offsets.h>
#include <asm/thread_info.h>
#include <asm/page_types.h>
#include <asm/pgtable_64_types.h>
#undef HPAGE_SIZE
#define HPAGE_SIZE 4096
#undef PMD_SIZE
#define PMD_SIZE 4096
