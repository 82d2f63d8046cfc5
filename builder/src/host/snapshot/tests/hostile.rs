use super::*;

#[test]
fn a_file_that_cannot_be_read_is_noted() {
    // Root reads any file, and no folder.
    for (path, _) in full() {
        let root = tree(&full());
        let file = root.path().join(path);
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        let host = look(&root);
        let expected: &[String] = match path {
            // Presence counts, or the right to write; and the second
            // configuration is not looked at while there is the first.
            "dev/net/tun"
            | "dev/kvm"
            | "boot/config-6.12.63"
            | "sys/fs/cgroup/user.slice/session/cgroup.subtree_control" => &[],
            _ => &[format!("/{path}")],
        };
        assert_eq!(unseen(&host), expected);
        if let [noted] = host.unseen.as_slice() {
            assert_eq!(noted.why, "Is a directory");
        }
    }
}

#[test]
fn a_file_that_is_absent_is_not_noted() {
    for (path, _) in full() {
        let root = tree(&full());
        fs::remove_file(root.path().join(path)).unwrap();
        let host = look(&root);
        assert_eq!(host.unseen, [], "{path}");
    }
}

/// No content of any file makes it panic, and what is noted is that file.
#[test]
fn any_file_may_hold_anything() {
    let long = vec![b'A'; 2 << 20];
    let lines = "9999999999999999999999: : - - - - 99999999999999999999 kB\n".repeat(100);
    let junk: Vec<u8> = (0..=255_u8).cycle().take(4096).collect();
    let wide = "\u{20ac}: \u{20ac} kB\nNode 0 \u{20ac}: 1 \u{20ac}\nkB: kB kB kB\n";
    for (path, content) in full() {
        let root = tree(&full());
        let mut contents: Vec<Vec<u8>> = vec![
            b"garbage".to_vec(),
            b"\0\0\0\0".to_vec(),
            b"\n".to_vec(),
            b"-".to_vec(),
            b":".to_vec(),
            b"18446744073709551615".to_vec(),
            b"18446744073709551616 kB".to_vec(),
            long.clone(),
            lines.as_bytes().to_vec(),
            junk.clone(),
            wide.as_bytes().to_vec(),
        ];
        contents.extend((0..16).map(|part| content[..content.len() * part / 16].to_vec()));
        for content in contents {
            put(root.path(), path, &content);
            for noted in unseen(&look(&root)) {
                assert_eq!(noted, format!("/{path}"));
            }
        }
    }
}

#[test]
fn what_makes_no_sense_is_noted() {
    for (path, content) in [
        ("proc/sys/kernel/pid_max", "many"),
        ("proc/sys/kernel/pid_max", ""),
        ("proc/sys/kernel/pid_max", "-1"),
        ("proc/sys/kernel/pid_max", "99999999999999999999"),
        ("proc/sys/kernel/pid_max", "\u{0}"),
        ("proc/sys/kernel/sched_autogroup_enabled", "2"),
        ("proc/sys/kernel/random/boot_id", "not a UUID"),
        ("proc/sys/net/ipv4/ip_local_port_range", "70000 80000"),
        ("proc/sys/fs/file-nr", "open 0 1"),
        ("proc/loadavg", "0.67 0.40 0.84 1\n"),
        ("proc/meminfo", "garbage"),
        (
            "proc/meminfo",
            "MemTotal: 1 kB\nMemAvailable: 18446744073709551615 kB\n",
        ),
        ("proc/meminfo", "MemTotal: 1\n"),
        ("proc/cpuinfo", "garbage"),
        ("proc/config.gz", "not gzip"),
        ("proc/net/tcp", "headline\ngarbage\n"),
        (
            "proc/net/tcp",
            "headline\n 0: 0100007F:ZZZZ 00000000:0000 0A\n",
        ),
        ("proc/self/cgroup", "garbage"),
        ("proc/self/mountinfo", "garbage\n"),
        ("proc/pressure/memory", "garbage"),
        ("sys/devices/system/cpu/online", "0-3,2-1"),
        ("sys/devices/system/cpu/online", "0-99999999999"),
        ("sys/devices/system/node/node0/meminfo", "garbage"),
        ("sys/devices/system/node/node0/cpulist", "garbage"),
        ("sys/kernel/mm/ksm/run", "on"),
        ("sys/kernel/mm/ksm/advisor_mode", "none scan-time"),
        (
            "sys/kernel/mm/transparent_hugepage/enabled",
            "always madvise never",
        ),
    ] {
        let root = tree(&full());
        put(root.path(), path, content.as_bytes());
        let host = look(&root);
        assert_eq!(unseen(&host), [format!("/{path}")], "{content}");
    }
}

#[test]
fn a_reason_shows_what_was_found_and_cuts_it_short() {
    let root = tree(&[("proc/sys/kernel/pid_max", "x".repeat(100) + "\u{1b}[2J")]);
    let expected = format!("\"{}\" … is not a number", "x".repeat(40));
    assert_eq!(look(&root).unseen[0].why, expected);
    let root = tree(&[("proc/sys/kernel/pid_max", "\u{1b}[2J")]);
    assert_eq!(look(&root).unseen[0].why, "\"\\u{1b}[2J\" is not a number");
}

#[test]
fn files_that_are_too_long_are_not_taken() {
    let root = tree(&full());
    let mut text = MEMINFO.as_bytes().to_vec();
    text.resize((1 << 20) + 1, b'\n');
    put(root.path(), "proc/meminfo", &text);
    let host = look(&root);
    assert_eq!(host.memory.total, None);
    assert_eq!(host.unseen[0].why, "longer than 1048576 bytes");
    text.truncate(1 << 20);
    put(root.path(), "proc/meminfo", &text);
    assert_eq!(seen(&root).memory.total, Some(536_870_912 << 10));
}

#[test]
fn a_processor_that_is_described_without_end_is_not_taken() {
    let root = tree(&full());
    let text = format!("vendor_id : Intel\n{}", "x : y\n".repeat(11_000));
    put(root.path(), "proc/cpuinfo", text.as_bytes());
    assert_eq!(look(&root).unseen[0].why, "longer than 65536 bytes");
}

#[test]
fn what_is_unseen_is_sorted_and_reported_once() {
    let files: Vec<_> = full()
        .into_iter()
        .map(|(path, _)| (path, "garbage"))
        .collect();
    let host = look(&tree(&files));
    assert!(host.unseen.len() > 40);
    assert!(host.unseen.is_sorted_by(|one, next| one < next));
}

#[test]
fn a_configuration_that_unpacks_without_end_is_not_taken() {
    let root = tree(&full());
    fs::remove_dir_all(root.path().join("boot")).unwrap();
    let bomb = gzip(&"CONFIG_KSM=y\n".repeat((4 << 20) / 13 + 1));
    assert!(bomb.len() < 1 << 20);
    put(root.path(), "proc/config.gz", &bomb);
    let host = look(&root);
    assert_eq!(host.kernel.config, None);
    assert_eq!(unseen(&host), ["/proc/config.gz"]);
}

#[test]
fn a_release_cannot_lead_elsewhere() {
    let root = tree(&[("etc/secret", "CONFIG_KSM=y\n"), ("boot/config-x/y", "")]);
    let release = Some("x/../../etc/secret".to_owned());
    let system = System {
        release,
        ..system()
    };
    let host = Host::below(root.path(), system, Vec::new(), || Qemu::Missing);
    assert_eq!(host.kernel.config, None);
}

#[test]
fn only_the_sockets_before_the_connected_ones_are_read() {
    let connected = "   3: 0100007F:9C40 0100007F:0016 01 0\n".repeat(500_000);
    assert!(connected.len() > 16 << 20);
    let root = tree(&[("proc/net/tcp", format!("{TCP}{connected}"))]);
    assert_eq!(seen(&root).network.listening, Some(2));
}

#[test]
fn processes_that_may_not_be_looked_at_are_noted_once() {
    let root = tree(&full());
    for process in ["5", "6", "7"] {
        fs::create_dir_all(root.path().join("proc").join(process).join("comm")).unwrap();
    }
    put(root.path(), "proc/8x/comm", b"libvirtd\n");
    put(root.path(), "proc/9/comm", b"virtqemud\n");
    put(root.path(), "proc/9/status", ROOT_S.as_bytes());
    let host = look(&root);
    assert_eq!(unseen(&host), ["/proc/5/comm"]);
    assert_eq!(host.daemons, set(&["ksmtuned", "virtqemud"]));
}

#[test]
fn processes_of_others_that_are_hidden_are_noted() {
    let root = tree(&full());
    fs::remove_dir_all(root.path().join("proc/1")).unwrap();
    let host = look(&root);
    assert_eq!(unseen(&host), ["/proc"]);
    assert!(host.unseen[0].why.contains("hidepid"));
}
