//! Binding a process's memory to a NUMA node.

use std::io;

/// Nodes that a mask can name; no kernel has more (`MAX_NUMNODES`).
const NODES: usize = 1024;
const WORD: usize = u64::BITS as usize;

/// A NUMA node as set_mempolicy(2) takes it.
#[derive(Debug, Clone)]
pub(crate) struct NodeMask([u64; NODES / WORD]);

impl NodeMask {
    /// Of one node; `None` for a number that no kernel has.
    pub(crate) fn new(node: u32) -> Option<Self> {
        let node = node as usize;
        let mut words = [0; NODES / WORD];
        *words.get_mut(node / WORD)? |= 1 << (node % WORD);
        Some(Self(words))
    }

    /// Has the calling thread, and what it forks or execs, take memory from
    /// this node alone (`MPOL_BIND`); async-signal-safe.
    pub(crate) fn bind(&self) -> io::Result<()> {
        // One more than there are: the kernel reads one bit less than it is given.
        let bits = NODES + 1;
        // SAFETY: set_mempolicy(2) reads `NODES` bits from the mask, which has
        // as many, and touches no memory of the caller's else.
        let result = unsafe {
            libc::syscall(
                libc::SYS_set_mempolicy,
                libc::MPOL_BIND,
                self.0.as_ptr(),
                bits,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_is_bound_to_the_node_it_names() {
        let nodes = fs::read_to_string("/sys/devices/system/node/has_memory");
        if nodes.is_err() {
            // A kernel without NUMA knows no policy either.
            return;
        }
        let maps = thread::spawn(|| {
            NodeMask::new(0).unwrap().bind().unwrap();
            fs::read_to_string("/proc/thread-self/numa_maps").unwrap()
        });
        assert!(maps.join().unwrap().contains("bind:0"));
    }

    #[test]
    fn a_node_that_is_not_there_is_refused() {
        assert!(NodeMask::new(1023).unwrap().bind().is_err());
        assert!(NodeMask::new(1024).is_none());
    }
}
