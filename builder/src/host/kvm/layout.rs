//! What lies where in a guest's memory at its first instruction: 64-bit ring 0,
//! paging on.
//!
//! The first 2 MiB of virtual addresses have page tables of 4 KiB pages.
//! Memory is mapped where it is; what lies above it is not mapped, except for
//! one page in each of two sets of tables. Formats: Intel SDM, volume 3,
//! chapters 4 (paging), 5 (descriptors) and 7 (IDT).

/// What memory and registers hold where nothing else would put it.
pub(crate) const PATTERN: u64 = 0x5ca1_ab1e;

/// Size of a page, in bytes.
pub(crate) const PAGE: usize = 4096;
pub(crate) const PAGE_SIZE: u64 = PAGE as u64;
/// Size of the guest's memory, in bytes.
pub(crate) const SIZE: u64 = PROGRAM + PAGE_SIZE;

pub(crate) const GDT: u64 = 0x1000;
/// Its descriptors: none, 64-bit code, data. Both have ring 0, base 0, 4 GiB.
pub(crate) const DESCRIPTORS: [u64; GDT_SIZE as usize / 8] =
    [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
/// Size of the GDT, in bytes.
pub(crate) const GDT_SIZE: u16 = 3 * 8;
/// Selector of the code segment.
pub(crate) const CODE_SELECTOR: u16 = 8;
/// Selector of the data segment.
pub(crate) const DATA_SELECTOR: u16 = 16;

/// Interrupt descriptor table: the vectors of exceptions.
pub(crate) const IDT: u64 = 0x2000;
/// Size of the IDT, in bytes.
pub(crate) const IDT_SIZE: u16 = 32 * 16;
/// Size of a gate, in bytes.
pub(crate) const GATE_SIZE: u64 = 16;
/// The vector of INT3. No other has a gate: any other exception is a triple
/// fault, and so an exit.
pub(crate) const BREAKPOINT: u64 = 3;

/// The page tables that the guest starts with, the four levels side by side.
pub(crate) const FIRST_TABLES: u64 = 0x3000;
/// The page tables that it can switch to.
pub(crate) const SECOND_TABLES: u64 = 0x7000;
/// A page above all memory, that only the first tables map, to the empty page.
pub(crate) const FIRST_WINDOW: u64 = 0x10_0000;
/// Where the first tables have the entry for it.
pub(crate) const FIRST_WINDOW_ENTRY: u64 = entry_address(FIRST_TABLES, FIRST_WINDOW);
/// A page above all memory, that only the second tables map, to the pattern.
pub(crate) const SECOND_WINDOW: u64 = 0x10_1000;
/// Bits of an entry of a page table.
pub(crate) const PRESENT_WRITABLE: u64 = 3;

/// A page that holds zeros.
pub(crate) const EMPTY_PAGE: u64 = 0xb000;
/// A page that begins with [`PATTERN`].
pub(crate) const PATTERN_PAGE: u64 = 0xc000;
/// The end of the stack's two pages.
pub(crate) const STACK_TOP: u64 = 0xf000;
pub(crate) const HANDLER: u64 = 0xf000;
/// The program, on the last page.
pub(crate) const PROGRAM: u64 = 0x1_0000;

/// Where the tables at `root` have the entry for `address`: in their last
/// level, as all is within the first 2 MiB.
pub(crate) const fn entry_address(root: u64, address: u64) -> u64 {
    root + 3 * PAGE_SIZE + address / PAGE_SIZE * 8
}
