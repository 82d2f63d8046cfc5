//! A guest's memory at its first instruction: 64-bit ring 0, paging on.
//!
//! The first 2 MiB of virtual addresses have page tables of 4 KiB pages.
//! Memory is mapped where it is; what lies above it is not mapped, except for
//! one page in each of two sets of tables. Formats: Intel SDM, volume 3,
//! chapters 4 (paging), 5 (descriptors) and 7 (IDT).

use super::code;

/// Size of a page, in bytes.
const PAGE: usize = 4096;
const PAGE_SIZE: u64 = PAGE as u64;
/// Size of the guest's memory, in bytes.
pub(crate) const SIZE: u64 = PROGRAM + PAGE_SIZE;

pub(crate) const GDT: u64 = 0x1000;
/// Its descriptors: none, 64-bit code, data. Both have ring 0, base 0, 4 GiB.
const DESCRIPTORS: [u64; GDT_SIZE as usize / 8] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
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
const GATE_SIZE: u64 = 16;
/// The vector of INT3. No other has a gate: any other exception is a triple
/// fault, and so an exit.
const BREAKPOINT: u64 = 3;

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
/// A page that begins with [`code::PATTERN`].
pub(crate) const PATTERN_PAGE: u64 = 0xc000;
/// The end of the stack's two pages.
pub(crate) const STACK_TOP: u64 = 0xf000;
const HANDLER: u64 = 0xf000;
/// The program, on the last page.
pub(crate) const PROGRAM: u64 = 0x1_0000;

/// A page of a guest's memory.
#[derive(Debug, Clone, Copy)]
#[repr(align(4096))]
pub(crate) struct Page([u8; PAGE]);

#[derive(Debug)]
pub(crate) struct Image(Vec<Page>);

impl Image {
    /// Memory with `program` in it.
    pub(crate) fn new(program: &[u8]) -> Self {
        let pages = usize::try_from(SIZE / PAGE_SIZE).expect("a small number");
        let mut image = Self(vec![Page([0; PAGE]); pages]);
        for (place, descriptor) in (GDT..).step_by(8).zip(DESCRIPTORS) {
            image.put(place, descriptor);
        }
        image.put_gate();
        image.put_tables(FIRST_TABLES);
        image.put(FIRST_WINDOW_ENTRY, EMPTY_PAGE | PRESENT_WRITABLE);
        image.put_tables(SECOND_TABLES);
        image.put(
            entry_address(SECOND_TABLES, SECOND_WINDOW),
            PATTERN_PAGE | PRESENT_WRITABLE,
        );
        image.put(PATTERN_PAGE, code::PATTERN);
        image.put_bytes(HANDLER, code::breakpoint_handler());
        image.put_bytes(PROGRAM, program);
        image
    }

    /// Where it is in this process.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut Page {
        self.0.as_mut_ptr()
    }

    /// Writes bytes, which must lie in one page.
    pub(crate) fn put_bytes(&mut self, address: u64, bytes: &[u8]) {
        let address = usize::try_from(address).expect("an address within the image");
        let (page, offset) = (address / PAGE, address % PAGE);
        self.0[page].0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> impl Iterator<Item = u8> {
        self.0.iter().flat_map(|page| page.0)
    }

    fn put(&mut self, address: u64, value: u64) {
        self.put_bytes(address, &value.to_le_bytes());
    }

    /// An interrupt gate (type 14, present) to the handler, whose address is
    /// spread over it.
    fn put_gate(&mut self) {
        let gate = IDT + BREAKPOINT * GATE_SIZE;
        let low = HANDLER & 0xffff | u64::from(CODE_SELECTOR) << 16 | 0x8e << 40;
        self.put(gate, low | (HANDLER >> 16 & 0xffff) << 48);
        self.put(gate + 8, HANDLER >> 32);
    }

    /// Four levels at `root`, which map all memory where it is.
    fn put_tables(&mut self, root: u64) {
        for level in [root, root + PAGE_SIZE, root + 2 * PAGE_SIZE] {
            self.put(level, (level + PAGE_SIZE) | PRESENT_WRITABLE);
        }
        for page in (0..SIZE).step_by(PAGE) {
            self.put(entry_address(root, page), page | PRESENT_WRITABLE);
        }
    }
}

/// Where the tables at `root` have the entry for `address`: in their last
/// level, as all is within the first 2 MiB.
const fn entry_address(root: u64, address: u64) -> u64 {
    root + 3 * PAGE_SIZE + address / PAGE_SIZE * 8
}
