//! Lists of numbers, as the kernel and taskset(1) write them: `0-3,8,10-12`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// More CPUs or NUMA nodes than any kernel has (`NR_CPUS` is 8,192 at most); a
/// bound for ranges in what is read.
const MAX: u32 = 65_536;

/// The numbers that `text` names, in its order, each once; none for an empty
/// one. A range may have a step, such as `0-30:2`. `None` if it is not a list.
pub(crate) fn parse(text: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    let text = text.trim();
    if text.is_empty() {
        return Some(numbers);
    }
    let mut seen = BTreeSet::new();
    for part in text.split(',') {
        let (range, step) = part.split_once(':').unwrap_or((part, "1"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last, step) = (number(first)?, number(last)?, number(step)?);
        let is_range = range.contains('-');
        if first > last || step == 0 || (!is_range && part.contains(':')) {
            return None;
        }
        for number in (first..=last).step_by(step as usize) {
            if seen.insert(number) {
                numbers.push(number);
            }
        }
    }
    Some(numbers)
}

/// Digits alone: `parse` would take a plus sign.
fn number(digits: &str) -> Option<u32> {
    let is_digits = digits.bytes().all(|digit| digit.is_ascii_digit());
    let number = digits.parse().ok().filter(|_| is_digits)?;
    (number < MAX).then_some(number)
}

/// Ascending `numbers` as a list; `none` if there are none.
pub(crate) fn text(numbers: impl IntoIterator<Item = u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let mut text = String::new();
    for (first, last) in ranges {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = if first == last {
            write!(text, "{comma}{first}")
        } else {
            write!(text, "{comma}{first}-{last}")
        };
    }
    if text.is_empty() {
        text.push_str("none");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_taskset_reads_them() {
        for (list, numbers) in [
            ("0-3,8,10-12\n", vec![0, 1, 2, 3, 8, 10, 11, 12]),
            ("7", vec![7]),
            ("3,1,2", vec![3, 1, 2]),
            ("1,0-2,1", vec![1, 0, 2]),
            ("0-7:3", vec![0, 3, 6]),
            ("", vec![]),
            ("\n", vec![]),
        ] {
            assert_eq!(parse(list), Some(numbers), "{list:?}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in [
            ",",
            "0,",
            "-",
            "3-1",
            "-1",
            "1-",
            "a",
            "+1",
            "0x1",
            "1-2-3",
            "1:2",
            "0-4:0",
            "0-4:",
            "0 1",
            "65536",
            "0-65536",
            "0-4294967295",
            "99999999999999999999",
            "0\0",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn numbers_become_ranges() {
        for (numbers, list) in [
            (vec![], "none"),
            (vec![4], "4"),
            (vec![0, 1, 2, 5, 7, 8], "0-2,5,7-8"),
        ] {
            assert_eq!(text(numbers), list);
        }
    }
}
