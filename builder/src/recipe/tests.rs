use super::*;

const GOOD: &str = r#"
name = "mine"

[guest]
memory = "64MiB"

[burn]
duty = 50
threads = 2

[disk]
size = "1GiB"
label = "mine"

[kernel]
fragments = ["base"]
command_line = "loglevel=7"

[rootfs]
source = "root.tar"
place = "disk"
command = ["/sbin/init", "-v"]

[[files]]
path = "/etc/motd"
source = "motd"
"#;

fn parse(text: &str) -> Result<Recipe, String> {
    Recipe::parse(Path::new("mine.toml"), text).map_err(|error| error.to_string())
}

#[test]
fn a_good_recipe_is_resolved() {
    let recipe = parse(GOOD).unwrap();
    assert_eq!(recipe.memory.bytes(), 64 << 20);
    assert_eq!(
        recipe.burn,
        Burn {
            duty: Duty::try_from(50).unwrap(),
            threads: 2
        }
    );
    assert_eq!(recipe.files[0].mode, 0o644);
    assert_eq!(recipe.boot_timeout_seconds, 60);
    assert_eq!(
        recipe.command_line(),
        "console=ttyS0 quiet reboot=t panic=-1 tsc=reliable no_timer_check \
         initramfs_async=0 dhash_entries=256 ihash_entries=256 thash_entries=64 \
         qemu_fw_cfg.ioport=12@0x510 loglevel=7 tty.threads=2 tty.root=disk"
    );
}

#[test]
fn the_command_line_chooses_a_root_file_system() {
    let mut recipe = parse(GOOD).unwrap();
    let tar = PathBuf::from("/tmp/other.tar");
    recipe
        .choose_rootfs(Some(tar.clone()), Some(Place::Initramfs))
        .unwrap();
    let rootfs = recipe.rootfs.as_ref().unwrap();
    assert_eq!(rootfs.source.as_ref(), Some(&tar));
    assert!(!recipe.root_on_disk());

    let mut without = parse(&GOOD.replace("source = \"root.tar\"", "")).unwrap();
    let error = without.choose_rootfs(None, None).unwrap_err().to_string();
    assert!(error.contains("debootstrap") && error.contains("docker export"));
    recipe.rootfs = None;
    recipe.choose_rootfs(None, None).unwrap();
    let error = recipe.choose_rootfs(Some(tar), None).unwrap_err();
    assert!(error.to_string().contains("[rootfs]"), "{error}");
}

#[test]
fn recipe_and_command_line_choose_the_ssh_server() {
    let mut recipe = parse(GOOD).unwrap();
    assert_eq!(recipe.ssh.server, SshServer::Imgbuild);
    // What says nothing of it stays as it was.
    assert!(!serde_json::to_string(&recipe).unwrap().contains("ssh"));
    let image = parse(&(GOOD.to_owned() + "[ssh]\nserver = \"image\"\n")).unwrap();
    assert!(
        image
            .command_line()
            .ends_with(" tty.root=disk tty.ssh=image")
    );
    recipe.choose_ssh_server(None).unwrap();
    assert!(!recipe.command_line().contains("tty.ssh"));
    recipe.choose_ssh_server(Some(SshServer::Image)).unwrap();
    assert_eq!(recipe, image);
    recipe.rootfs = None;
    let error = recipe.choose_ssh_server(None).unwrap_err().to_string();
    assert!(error.contains("--ssh-server image") && error.contains("[rootfs]"));
    let bare = GOOD.replace(
        "[rootfs]\nsource = \"root.tar\"\nplace = \"disk\"\n",
        "[ssh]\nserver = \"image\"\n",
    );
    let bare = bare.replace("command = [\"/sbin/init\", \"-v\"]\n", "");
    let error = parse(&bare).unwrap_err();
    assert!(error.contains("ssh.server = \"image\"") && error.contains("[rootfs]"));
}

#[test]
fn each_wrong_field_is_named_with_value_and_rule() {
    for (from, to, key, rule) in [
        (
            r#"name = "mine""#,
            r#"name = "Mine""#,
            "name = \"Mine\"",
            "a-z",
        ),
        (
            r#"name = "mine""#,
            r#"name = "../x""#,
            "name = \"../x\"",
            "a-z",
        ),
        (r#"name = "mine""#, "name = 7", "invalid type", "name = 7"),
        ("64MiB", "16MiB", "guest.memory = \"16MiB\"", "32"),
        ("64MiB", "lots", "guest.memory = \"lots\"", ""),
        ("64MiB", "65000K", "guest.memory = \"65000K\"", "whole MiB"),
        ("duty = 50", "duty = 101", "burn.duty = 101", "0 to 100"),
        ("duty = 50", "duty = -1", "burn.duty = -1", "0 to 100"),
        ("threads = 2", "threads = 0", "burn.threads = 0", "1 to 64"),
        ("1GiB", "1MiB", "disk.size = \"1MiB\"", "16"),
        ("1GiB", "1073741825", "disk.size = \"1073741825\"", "4 KiB"),
        (
            "label = \"mine\"",
            "label = \"seventeen letters\"",
            "disk.label",
            "16",
        ),
        (
            "[\"base\"]",
            "[\"../base\"]",
            "kernel.fragments = \"../base\"",
            "kernel-config",
        ),
        ("[\"base\"]", "[]", "kernel.fragments", "at least one"),
        ("loglevel=7", "a\\nb", "kernel.command_line", "printable"),
        (
            "/etc/motd",
            "etc/motd",
            "files.path = \"etc/motd\"",
            "absolute",
        ),
        (
            "source = \"motd\"",
            "source = \"motd\"\nmode = \"0999\"",
            "files.mode = \"0999\"",
            "octal",
        ),
        (
            "memory = \"64MiB\"",
            "memory = \"64MiB\"\nboot_timeout = \"0s\"",
            "guest.boot_timeout = \"0s\"",
            "1s",
        ),
        (
            "threads = 2",
            "threads = 2\nfrequency = 3",
            "unknown field `frequency`",
            "line",
        ),
        (
            "\"disk\"",
            "\"cdrom\"",
            "rootfs.place = \"cdrom\"",
            "initramfs",
        ),
        (
            "\"/sbin/init\"",
            "\"sbin/init\"",
            "rootfs.command = [\"sbin/init\"",
            "absolute",
        ),
        ("\"-v\"", "\"a\\u0000\"", "rootfs.command", "NUL"),
        (
            "[[files]]",
            "[ssh]\nserver = \"dropbear\"\n[[files]]",
            "ssh.server = \"dropbear\"",
            "\"imgbuild\" or \"image\"",
        ),
        (
            "\"-v\"",
            "\"\", \"\", \"\", \"\", \"\", \"\", \"\", \"\"",
            "rootfs.command",
            "8 words",
        ),
    ] {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD, "{from}");
        let message = parse(&text).expect_err(to);
        assert!(message.contains("mine.toml"), "{message}");
        assert!(message.contains(key), "{key} is not in: {message}");
        assert!(message.contains(rule), "{rule} is not in: {message}");
    }
}

#[test]
fn every_broken_rule_is_reported_at_once() {
    let text = GOOD
        .replace("duty = 50", "duty = 500")
        .replace("64MiB", "1MiB");
    let message = parse(&text).unwrap_err();
    assert!(
        message.contains("burn.duty") && message.contains("guest.memory"),
        "{message}"
    );
}

#[test]
fn truncated_and_hostile_files_are_refused() {
    for end in 0..GOOD.len() - 1 {
        // What is cut off may have been optional; it must only not panic.
        let _ = parse(&GOOD[..end]);
    }
    parse("").unwrap_err();
    parse("\0\u{1}").unwrap_err();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big.toml");
    std::fs::write(&path, vec![b'#'; 1 << 20]).unwrap();
    assert!(matches!(
        Recipe::load(&path),
        Err(RecipeError::TooLarge { .. })
    ));
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(matches!(
        Recipe::load(&path),
        Err(RecipeError::Unreadable { .. })
    ));
}
