//! Writes JSON objects (RFC 8259) of known form in a few hundred bytes of code: a
//! general serializer would be a tenth of the guest's PID 1.

use core::fmt::{self, Write};

/// An object that is being written.
pub struct Object<'w> {
    out: &'w mut dyn Write,
    separator: char,
}

impl Object<'_> {
    /// Writes an object whose members `members` writes.
    pub fn write(
        out: &mut dyn Write,
        members: &dyn Fn(&mut Object<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let mut object = Object {
            out,
            separator: '{',
        };
        members(&mut object)?;
        // One without members has not begun yet.
        if object.separator == '{' {
            object.out.write_char('{')?;
        }
        object.out.write_char('}')
    }

    fn name(&mut self, name: &str) -> fmt::Result {
        self.out.write_char(self.separator)?;
        self.separator = ',';
        write!(self.out, "\"{name}\":")
    }

    /// Writes a member that is text.
    pub fn text(&mut self, name: &str, text: &str) -> fmt::Result {
        self.name(name)?;
        self.out.write_char('"')?;
        for character in text.chars() {
            match character {
                '"' => self.out.write_str("\\\"")?,
                '\\' => self.out.write_str("\\\\")?,
                '\n' => self.out.write_str("\\n")?,
                '\0'..='\u{1f}' => write!(self.out, "\\u{:04x}", u32::from(character))?,
                _ => self.out.write_char(character)?,
            }
        }
        self.out.write_char('"')
    }

    /// Writes a member that is a number.
    pub fn number(&mut self, name: &str, number: u64) -> fmt::Result {
        self.name(name)?;
        write!(self.out, "{number}")
    }

    /// Writes a member that is true.
    pub fn flag(&mut self, name: &str) -> fmt::Result {
        self.name(name)?;
        self.out.write_str("true")
    }

    /// Writes a member that is an object.
    pub fn object(
        &mut self,
        name: &str,
        members: &dyn Fn(&mut Object<'_>) -> fmt::Result,
    ) -> fmt::Result {
        self.name(name)?;
        Object::write(self.out, members)
    }
}

/// The longest prefix whose JSON form takes no more than `room` bytes.
pub(crate) fn prefix_that_fits(text: &str, mut room: usize) -> &str {
    for (at, character) in text.char_indices() {
        let width = match character {
            '"' | '\\' | '\n' => 2,
            '\0'..='\u{1f}' => "\\u0000".len(),
            _ => character.len_utf8(),
        };
        match room.checked_sub(width) {
            Some(rest) => room = rest,
            None => return text.get(..at).unwrap_or_default(),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    #[test]
    fn any_text_is_read_back_by_another_reader() {
        let all: String = ('\0'..='\u{ff}').collect();
        let text = all + "\u{2028}\u{fffd}\u{1f980}";
        let mut json = String::new();
        Object::write(&mut json, &|object| {
            object.text("text", &text)?;
            object.number("number", u64::MAX)?;
            object.flag("flag")?;
            object.object("empty", &|_| Ok(()))?;
            object.object("inner", &|inner| inner.number("n", 0))
        })
        .unwrap();
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            read,
            serde_json::json!({
                "text": text, "number": u64::MAX, "flag": true, "empty": {}, "inner": {"n": 0}
            })
        );
        assert_eq!(json.matches('\n').count(), 0, "one line");
    }
}
