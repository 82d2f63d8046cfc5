//! A guest's memory at its first instruction, as its bytes: the [`layout`]
//! filled in.
//!
//! [`layout`]: super::layout

use super::code;
use super::layout::{
    BREAKPOINT, CODE_SELECTOR, DESCRIPTORS, EMPTY_PAGE, FIRST_TABLES, FIRST_WINDOW_ENTRY,
    GATE_SIZE, GDT, HANDLER, IDT, PAGE, PAGE_SIZE, PATTERN, PATTERN_PAGE, PRESENT_WRITABLE,
    PROGRAM, SECOND_TABLES, SECOND_WINDOW, SIZE, entry_address,
};

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
        image.put(PATTERN_PAGE, PATTERN);
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
