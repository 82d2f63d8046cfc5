//! Hosts whose files tell where their CPUs are.

use super::*;

/// A host of these files below `/sys/devices/system`.
pub(crate) fn host(
    files: &[(&str, &str)],
    allowed: impl Fn(u32) -> bool,
) -> Result<Topology, CpuError> {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = root.path().join("sys/devices/system").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    Topology::below(root.path(), allowed)
}

const SIBLINGS: &str = "topology/thread_siblings_list";

/// Two sockets, each a NUMA node, of two cores with two threads; siblings
/// are four apart, as firmware likes to number them.
pub(crate) fn two_sockets() -> Topology {
    let siblings: Vec<(String, String)> = (0..8)
        .map(|cpu| {
            let core = cpu % 4;
            (
                format!("cpu/cpu{cpu}/{SIBLINGS}"),
                format!("{core},{}\n", core + 4),
            )
        })
        .collect();
    let mut files = vec![
        ("cpu/online", "0-7\n"),
        ("node/online", "0-1\n"),
        ("node/has_memory", "0-1\n"),
        ("node/node0/cpulist", "0-1,4-5\n"),
        ("node/node1/cpulist", "2-3,6-7\n"),
    ];
    files.extend(
        siblings
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str())),
    );
    host(&files, |_| true).unwrap()
}

#[test]
fn siblings_and_nodes_are_reported() {
    let topology = two_sockets();
    assert_eq!(
        topology.cpus[6],
        Cpu {
            id: 6,
            core: 2,
            node: 1,
            allowed: true
        }
    );
    assert_eq!(
        (topology.nodes, topology.nodes_with_memory),
        (vec![0, 1], vec![0, 1])
    );
}

#[test]
fn a_host_that_tells_only_what_is_online_has_one_node_and_no_siblings() {
    let topology = host(&[("cpu/online", "0,2-3\n")], |cpu| cpu != 2).unwrap();
    let cpus = [(0, true), (2, false), (3, true)];
    let cpus = cpus.map(|(id, allowed)| Cpu {
        id,
        core: id,
        node: 0,
        allowed,
    });
    assert_eq!(topology.cpus, cpus);
    let usable = topology.usable(Some(0)).unwrap();
    assert_eq!(usable.iter().map(|cpu| cpu.id).collect::<Vec<_>>(), [0, 3]);
}

#[test]
fn nodes_that_cannot_be_used_are_refused_with_those_that_can() {
    // Node 1 has memory alone, node 2 a CPU alone; 4 is offline; node 5 has
    // one that is not allowed.
    let topology = host(
        &[
            ("cpu/online", "0-3,6\n"),
            ("node/online", "0-2,5\n"),
            ("node/has_memory", "0-1,5\n"),
            ("node/node0/cpulist", "0-2\n"),
            ("node/node1/cpulist", "\n"),
            ("node/node2/cpulist", "3\n"),
            ("node/node5/cpulist", "4,6\n"),
        ],
        |cpu| cpu != 6,
    )
    .unwrap();
    let message = |node| topology.usable(Some(node)).unwrap_err().to_string();
    assert_eq!(message(3), "there is no NUMA node 3; this host has 0-2,5");
    assert_eq!(
        message(1),
        "NUMA node 1 has no CPU that is online and allowed to this process; nodes that have \
         one: 0,2"
    );
    assert_eq!(
        message(2),
        "NUMA node 2 has no memory; nodes that have: 0-1,5"
    );
    assert!(matches!(
        topology.usable(Some(5)),
        Err(CpuError::NodeWithoutCpu { .. })
    ));
    assert_eq!(topology.usable(Some(0)).unwrap().len(), 3);
    assert_eq!(topology.usable(None).unwrap().len(), 4);
}

#[test]
fn files_that_make_no_sense_are_named() {
    for files in [
        &[][..],
        &[("cpu/online", "0-")],
        &[("cpu/online", "0-9999999")],
        &[
            ("cpu/online", "0-1"),
            ("cpu/cpu1/topology/thread_siblings_list", "1,"),
        ],
        &[("cpu/online", "0-1"), ("node/online", "0-")],
        &[
            ("cpu/online", "0-1"),
            ("node/online", "0"),
            ("node/node0/cpulist", "0-x"),
        ],
        &[("cpu/online", "0-1"), ("node/has_memory", "?")],
    ] {
        let error = host(files, |_| true).unwrap_err();
        assert!(matches!(error, CpuError::Unreadable { .. }), "{error}");
        let named = files.last().map_or("cpu/online", |(name, _)| name);
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[test]
fn this_host_has_a_cpu_that_may_be_used() {
    assert!(!Topology::read().unwrap().usable(None).unwrap().is_empty());
}
