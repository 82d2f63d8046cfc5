//! Reads words and numbers in lines of the kernel's text files. Missing or garbled
//! ones read as empty, or 0.

/// The word with this index, from 0, among words with blanks between.
pub fn word(text: &str, index: usize) -> &str {
    let is_blank = |&byte: &u8| byte.is_ascii_whitespace();
    let mut words = text
        .as_bytes()
        .split(is_blank)
        .filter(|word| !word.is_empty());
    let word = words.nth(index).unwrap_or_default();
    core::str::from_utf8(word).unwrap_or_default()
}

/// The number that the word with this index is.
pub fn number(text: &str, index: usize) -> u64 {
    digits(word(text, index)).unwrap_or_default()
}

/// What follows `NAME:` on the line that starts so, blanks before it aside.
pub fn after<'a>(text: &'a str, name: &str) -> &'a str {
    text.split('\n')
        .find_map(|line| {
            line.trim_ascii_start()
                .strip_prefix(name)?
                .strip_prefix(':')
        })
        .unwrap_or_default()
}

/// A number written in decimal digits alone; the standard parsers also take a
/// sign.
pub fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_are_found_or_empty() {
        assert_eq!(word(" a\tbc  d\n", 1), "bc");
        assert_eq!(word("a", 1), "");
        assert_eq!(number("x 12 -3 +4 99999999999999999999", 1), 12);
        for garbled in 2..6 {
            assert_eq!(number("x 12 -3 +4 99999999999999999999", garbled), 0);
        }
        assert_eq!(digits(""), None);
    }

    #[test]
    fn a_line_is_found_by_its_whole_name() {
        let text = "MemFree: 1 kB\nMem: 2 kB\n  eth0:3 4\n";
        assert_eq!(after(text, "Mem"), " 2 kB");
        assert_eq!(after(text, "eth0"), "3 4");
        assert_eq!(after(text, "eth"), "");
    }
}
