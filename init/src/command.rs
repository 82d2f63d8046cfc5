//! Commands to a guest, one a line: `[@TAG ]WORD [ARGUMENT]`.
