//! Which CPU each guest runs on.

use std::collections::BTreeMap;

use super::error::CpuError;
use super::list;
use super::spec::Pin;
use super::topology::{Cpu, Topology};

/// A text that names no way to pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither `spread` nor `compact` nor a list of CPUs such as 0-3,8,10-12")]
pub(crate) struct ParsePinError(String);

/// Reads `spread`, `compact`, or a list as taskset(1) takes it.
pub(crate) fn parse(text: &str) -> Result<Pin, ParsePinError> {
    match text {
        "spread" => Ok(Pin::Spread),
        "compact" => Ok(Pin::Compact),
        _ => list::parse(text)
            .filter(|cpus| !cpus.is_empty())
            .map(Pin::List)
            .ok_or_else(|| ParsePinError(text.to_owned())),
    }
}

/// The CPUs that guests get in turn, never empty; those of `node` alone if
/// given.
pub(crate) fn order(
    topology: &Topology,
    pin: &Pin,
    node: Option<u32>,
) -> Result<Vec<u32>, CpuError> {
    let mut cpus = topology.usable(node)?;
    match pin {
        Pin::List(wanted) => {
            for cpu in wanted {
                check(topology, *cpu, node)?;
            }
            return Ok(wanted.clone());
        }
        Pin::Spread => {
            let seats = seats(&cpus);
            cpus.sort_by_key(|cpu| {
                let seat = &seats[&cpu.id];
                (seat.sibling, seat.core, cpu.node, cpu.id)
            });
        }
        Pin::Compact => cpus.sort_by_key(|cpu| (cpu.node, cpu.core, cpu.id)),
    }
    Ok(cpus.iter().map(|cpu| cpu.id).collect())
}

/// The CPU of a guest, of `order`'s, which is not empty.
pub(crate) fn cpu_for(order: &[u32], guest: u32) -> u32 {
    order[guest as usize % order.len()]
}

/// Where a CPU is among those that may be used.
struct Seat {
    /// How many of its core come before it.
    sibling: usize,
    /// How many cores of its NUMA node come before its core.
    core: usize,
}

/// The seats of `cpus`, which ascend.
fn seats(cpus: &[Cpu]) -> BTreeMap<u32, Seat> {
    let mut siblings: BTreeMap<u32, usize> = BTreeMap::new();
    let mut cores: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let seat = |cpu: &Cpu| {
        let siblings = siblings.entry(cpu.core).or_default();
        let sibling = *siblings;
        *siblings += 1;
        let cores = cores.entry(cpu.node).or_default();
        let core = cores.iter().position(|core| *core == cpu.core);
        let core = core.unwrap_or_else(|| {
            cores.push(cpu.core);
            cores.len() - 1
        });
        (cpu.id, Seat { sibling, core })
    };
    cpus.iter().map(seat).collect()
}

/// That a CPU may be used.
fn check(topology: &Topology, cpu: u32, node: Option<u32>) -> Result<(), CpuError> {
    let list = |of: &dyn Fn(&Cpu) -> bool| {
        let cpus = topology.cpus.iter().filter(|cpu| of(cpu));
        list::text(cpus.map(|cpu| cpu.id))
    };
    let Some(found) = topology.cpus.iter().find(|known| known.id == cpu) else {
        let online = list(&|_| true);
        return Err(CpuError::NoCpu { cpu, online });
    };
    if !found.allowed {
        let allowed = list(&|cpu| cpu.allowed);
        return Err(CpuError::NotAllowed { cpu, allowed });
    }
    match node {
        Some(node) if found.node != node => Err(CpuError::NotOnNode {
            cpu,
            node,
            cpus: list(&|cpu| cpu.node == node),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::topology::tests::{host, two_sockets};
    use super::*;

    #[test]
    fn spread_takes_nodes_in_turn_and_siblings_last() {
        let order = order(&two_sockets(), &Pin::Spread, None).unwrap();
        assert_eq!(order, [0, 2, 1, 3, 4, 6, 5, 7]);
        assert_eq!(
            [0, 7, 8, 17].map(|guest| cpu_for(&order, guest)),
            [0, 7, 0, 2]
        );
    }

    #[test]
    fn compact_fills_a_core_and_a_node_before_the_next() {
        let order = order(&two_sockets(), &Pin::Compact, None).unwrap();
        assert_eq!(order, [0, 4, 1, 5, 2, 6, 3, 7]);
    }

    #[test]
    fn a_node_has_its_own_cpus_alone() {
        let topology = two_sockets();
        assert_eq!(
            order(&topology, &Pin::Spread, Some(1)).unwrap(),
            [2, 3, 6, 7]
        );
        assert_eq!(
            order(&topology, &Pin::Compact, Some(0)).unwrap(),
            [0, 4, 1, 5]
        );
    }

    #[test]
    fn one_socket_with_a_core_half_allowed_spreads_over_what_is_left() {
        // Two cores of two threads, of which CPU 2 belongs to others.
        let files = [
            ("cpu/online", "0-3"),
            ("cpu/cpu0/topology/thread_siblings_list", "0-1"),
            ("cpu/cpu1/topology/thread_siblings_list", "0-1"),
            ("cpu/cpu2/topology/thread_siblings_list", "2-3"),
            ("cpu/cpu3/topology/thread_siblings_list", "2-3"),
        ];
        let topology = host(&files, |cpu| cpu != 2).unwrap();
        assert_eq!(order(&topology, &Pin::Spread, None).unwrap(), [0, 3, 1]);
        assert_eq!(order(&topology, &Pin::Compact, None).unwrap(), [0, 1, 3]);
    }

    #[test]
    fn a_list_is_taken_as_it_stands() {
        let pin = parse("6,2-3").unwrap();
        assert_eq!(order(&two_sockets(), &pin, None).unwrap(), [6, 2, 3]);
        assert_eq!(order(&two_sockets(), &pin, Some(1)).unwrap(), [6, 2, 3]);
    }

    #[test]
    fn a_cpu_that_cannot_be_used_is_named() {
        let mut topology = two_sockets();
        topology.cpus[3].allowed = false;
        for (list, node, message) in [
            (
                "0,8",
                None,
                "there is no CPU 8 online; those online are 0-7",
            ),
            (
                "3",
                None,
                "CPU 3 is not allowed to this process, by its affinity or its cpuset; those \
                 allowed are 0-2,4-7",
            ),
            (
                "2,4",
                Some(1),
                "CPU 4 is not on NUMA node 1, whose CPUs are 2-3,6-7",
            ),
        ] {
            let error = order(&topology, &parse(list).unwrap(), node).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn what_names_no_way_to_pin_is_refused() {
        for text in ["", " ", "Spread", "spread,1", "1-", "all"] {
            assert_eq!(parse(text), Err(ParsePinError(text.to_owned())));
        }
        assert_eq!(parse("compact"), Ok(Pin::Compact));
    }
}
