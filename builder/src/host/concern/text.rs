//! Writes figures for people.

use crate::host::want::Want;

pub(crate) use crate::units::{counted, grouped as count};

/// A size in its largest binary unit, to a tenth.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = UNITS.iter().find(|(_, shift)| bytes >> shift > 0);
    match unit {
        Some((name, shift)) => {
            let tenths = (u128::from(bytes) * 10) >> shift;
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => counted(bytes, "byte"),
    }
}

/// For what something is needed that follows a guest's number, such as `1,000
/// guests`.
pub(crate) fn numbered(want: &Want) -> String {
    if want.first == 0 {
        return counted(want.wanted(), "guest");
    }
    let last = count(want.numbers() - 1);
    format!("the guests' numbers from 0 to {last}")
}

/// A need, such as `at least 3,020 for 1,000 guests`.
pub(crate) fn at_least(want: &Want, needed: u64) -> String {
    let guests = counted(want.wanted(), "guest");
    format!("at least {} for {guests}", count(needed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (32_768, "32,768"),
            (4_194_304, "4,194,304"),
        ] {
            assert_eq!(count(number), text);
        }
        assert_eq!(counted(1, "guest"), "1 guest");
        assert_eq!(counted(1200, "guest"), "1,200 guests");
    }

    #[test]
    fn sizes_take_their_largest_unit() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1536 << 10, "1.5 MiB"),
            (24 << 30, "24.0 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(size(bytes).replace(',', ""), text);
        }
    }
}
