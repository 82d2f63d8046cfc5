//! A table as CSV (RFC 4180), whose content is text alone.

use csv::{Terminator, Writer, WriterBuilder};

/// A table that grows by a row at a time.
pub(super) struct Sheet(Writer<Vec<u8>>);

impl Sheet {
    pub(super) fn new(head: &[&str]) -> Self {
        let mut builder = WriterBuilder::new();
        let builder = builder.terminator(Terminator::Any(b'\n'));
        let mut sheet = Self(builder.from_writer(Vec::new()));
        sheet.row(head);
        sheet
    }

    pub(super) fn row(&mut self, cells: &[&str]) {
        let written = self.0.write_record(cells);
        written.expect("every row has as many cells, and memory takes them");
    }

    pub(super) fn text(self) -> String {
        let bytes = self.0.into_inner().expect("memory takes all");
        String::from_utf8(bytes).expect("it was made of text")
    }
}
