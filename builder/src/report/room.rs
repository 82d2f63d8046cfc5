//! How many guests a host has room for, resource by resource, as a table.

use std::fmt::Write as _;

use super::wrapped;
use crate::host::ceiling::{Ceiling, Resource, in_words};
use crate::host::concern::text::size;
use crate::host::want::{Basis, Want};
use crate::units::{counted, grouped};
use crate::vmm::Sharing;

/// Columns of a resource's name, of what it is, and of a number.
const NAME: usize = 16;
const WHAT: usize = 30;
const NUMBER: usize = 11;

/// How many guests one resource allows, in one column.
type Column = fn(&Resource, Sharing) -> u64;

/// The table, which begins with the resource that decides, and what its columns
/// mean.
pub(super) fn table(ceiling: &Ceiling, want: &Want) -> String {
    let sharing = want.machine.sharing;
    let other = match sharing {
        Sharing::None => Sharing::Guest,
        Sharing::Guest | Sharing::All => Sharing::None,
    };
    let most = u64::from(want.most());
    // What never ends before the numbers of guests do says nothing.
    let counts = |resource: &&Resource| {
        let columns = [resource.none, resource.guest, resource.fixed];
        columns.iter().any(|guests| *guests < most)
    };
    let resources: Vec<_> = ceiling.resources.iter().filter(counts).collect();
    let now: Column = |resource, sharing| match sharing {
        Sharing::None => resource.none,
        Sharing::Guest | Sharing::All => resource.guest,
    };
    let fixed: Column = |resource, _| resource.fixed;
    let with_other: Column = |resource, sharing| match sharing {
        Sharing::None => resource.guest,
        Sharing::Guest | Sharing::All => resource.none,
    };
    let mut legend = format!("NOW: with --sharing {}", sharing.name());
    let mut columns = vec![("NOW", now)];
    // A column that repeats the first says nothing either.
    let differs = |column: Column| {
        let differs = |one: &&Resource| column(one, sharing) != now(one, sharing);
        resources.iter().any(differs)
    };
    if differs(fixed) {
        columns.push(("AFTER FIX", fixed));
        legend.push_str("; AFTER FIX: once `imgbuild check --fix` has changed host settings");
    }
    if differs(with_other) {
        let name = match other {
            Sharing::None => "UNSHARED",
            Sharing::Guest | Sharing::All => "SHARED",
        };
        columns.push((name, with_other));
        let _ = write!(legend, "; {name}: with --sharing {}", other.name());
    }
    let mut text = "Guests that each resource has room for; the first row decides:\n".to_owned();
    let row = |text: &mut String, name: &str, what: &str, numbers: Vec<String>| {
        let _ = write!(text, "{name:<NAME$}{what:<WHAT$}");
        for number in numbers {
            let _ = write!(text, "{number:>NUMBER$}");
        }
        text.push('\n');
    };
    let names = columns.iter().map(|(name, _)| (*name).to_owned());
    row(&mut text, "RESOURCE", "", names.collect());
    for resource in resources {
        let numbers = columns
            .iter()
            .map(|(_, column)| grouped(column(resource, sharing).min(most)));
        row(
            &mut text,
            resource.id,
            in_words(resource.id),
            numbers.collect(),
        );
    }
    let _ = writeln!(text, "{}", wrapped(&legend, 0));
    let _ = writeln!(text, "{}", wrapped(&cost(want), 0));
    text
}

/// What one guest takes, by which the rows were counted.
fn cost(want: &Want) -> String {
    let cost = &want.cost;
    let how = match cost.basis {
        Basis::Measured => "as measured here",
        Basis::Assumed => "which is assumed: `imgbuild check --canary` measures it",
    };
    let merged = match (want.machine.sharing, cost.memory_merged) {
        (Sharing::Guest | Sharing::All, Some(merged)) => format!(" ({} once merged)", size(merged)),
        _ => String::new(),
    };
    format!(
        "Each guest takes {} of memory{merged}, {} and {}, {how}.",
        size(cost.memory),
        counted(cost.threads, "thread"),
        counted(cost.files, "open file")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ceiling::Count;
    use crate::host::want::{Cost, GuestUsers};
    use crate::units::ByteSize;
    use crate::vmm::{Accel, Machine, Net};

    fn want(sharing: Sharing) -> Want {
        Want {
            guests: None,
            first: 0,
            machine: Machine {
                accel: Accel::Tcg,
                sharing,
                net: Net::User,
                memory: ByteSize::new(64 << 20).unwrap(),
            },
            users: GuestUsers::Apart,
            cost: Cost {
                basis: Basis::Assumed,
                memory: 29 << 20,
                memory_merged: Some(23 << 20),
                memory_once: 26 << 20,
                threads: 5,
                kernel_threads: 0,
                files: 19,
                disk: 20 << 10,
            },
        }
    }

    fn ceiling(rows: &[(&'static str, [u64; 3])]) -> Ceiling {
        let least = Count {
            guests: 714,
            first: Some("memory"),
        };
        let resource = |(id, [none, guest, fixed]): &(&'static str, [u64; 3])| Resource {
            id,
            none: *none,
            guest: *guest,
            fixed: *fixed,
        };
        Ceiling {
            basis: Basis::Assumed,
            resources: rows.iter().map(resource).collect(),
            none: least,
            guest: least,
            fixed: least,
        }
    }

    #[test]
    fn a_table_says_what_each_of_its_numbers_is() {
        let rows = [
            ("memory", [714, 902, 902]),
            ("pid-max", [7_772, 7_772, 100_000]),
            ("file-max", [100_000, 100_000, 100_000]),
        ];
        assert_eq!(
            table(&ceiling(&rows), &want(Sharing::Guest)),
            "Guests that each resource has room for; the first row decides:\n\
             RESOURCE                                              NOW  AFTER FIX   UNSHARED\n\
             memory          memory left for guests                902        902        714\n\
             pid-max         process ids on this host            7,772    100,000      7,772\n\
             NOW: with --sharing guest; AFTER FIX: once `imgbuild check --fix` has changed\n\
             host settings; UNSHARED: with --sharing none\n\
             Each guest takes 29.0 MiB of memory (23.0 MiB once merged), 5 threads and 19\n\
             open files, which is assumed: `imgbuild check --canary` measures it.\n"
        );
    }

    #[test]
    fn columns_that_repeat_the_first_are_left_out() {
        let said = table(&ceiling(&[("memory", [714; 3])]), &want(Sharing::None));
        assert!(
            !said.contains("AFTER FIX") && !said.contains("SHARED:"),
            "{said}"
        );
        assert!(said.contains("NOW: with --sharing none\n"), "{said}");
    }
}
