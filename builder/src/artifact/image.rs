//! Whether a root file system's tar holds a user land that a guest can run.

use std::io::{BufRead as _, BufReader, Read as _};

use tty_init::ssh_programs::{PROGRAMS, Server};

use crate::recipe::ExtraFile;
use crate::text::{printable, printable_bytes};
use crate::tree::Tree;
use crate::tree::node::Kind;

/// The program of an image's user land, and what guests are logged in to.
const SHELL: &str = "/bin/sh";

/// Most names that an error lists.
const LISTED: usize = 5;

/// What is read of a list of accounts, in bytes.
const ACCOUNTS_MAX: u64 = 1 << 20;

/// Finds out whether `root`, with the recipe's own files, holds `/bin/sh`, or the
/// program of the recipe's `command`; else tells what it holds.
pub(super) fn check(root: &Tree, command: &[String], files: &[ExtraFile]) -> Result<(), String> {
    let program = command.first().map(String::as_str);
    let mut programs = [Some(SHELL), program].into_iter().flatten();
    if programs.any(|path| runs(root, files, path)) {
        return Ok(());
    }
    let wanted = match program {
        None | Some(SHELL) => format!("no {SHELL} that can be run"),
        Some(program) => format!("neither {SHELL} nor {} that can be run", printable(program)),
    };
    Err(format!("it has {wanted}: {}", instead(root)))
}

/// The SSH server that a guest starts of `root` and the recipe's own files; else
/// tells what there is of that kind.
pub(super) fn ssh_server(root: &Tree, files: &[ExtraFile]) -> Result<&'static str, String> {
    let mut programs = PROGRAMS
        .iter()
        .map(|(path, _)| path.to_str().expect("it is ASCII"));
    if let Some(path) = programs.find(|path| runs(root, files, path)) {
        return Ok(path);
    }
    let is_akin = |path: &&[u8]| {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let is_program = path
            .split(|byte| *byte == b'/')
            .any(|part| matches!(part, b"bin" | b"sbin"));
        is_program && (name.starts_with(b"ssh") || name.starts_with(b"dropbear"))
    };
    let akin = root.entries().map(|(path, ..)| path).filter(is_akin);
    let akin: Vec<_> = akin.take(LISTED).map(printable_bytes).collect();
    let instead = match &akin[..] {
        [] => "and nothing like it".to_owned(),
        akin => format!("only {}", akin.join(", ")),
    };
    Err(format!(
        "it has no /usr/sbin/sshd or /usr/sbin/dropbear that can be run, {instead}: install \
         openssh-server or dropbear in the image, or build with --ssh-server imgbuild"
    ))
}

/// Refuses a root account that the SSH server at this path lets nobody log in to.
///
/// sshd without PAM does not let in to a locked one, whatever the key is: to it, one
/// whose password begins with `!`, in /etc/shadow, or in /etc/passwd where that does not
/// name the account (`allowed_user()` in OpenSSH's auth.c). Dropbear looks at the
/// password only of somebody who gives one.
pub(super) fn check_root_account(root: &Tree, server: &str) -> Result<(), String> {
    let mut programs = PROGRAMS.iter();
    let is_openssh = programs
        .any(|(path, kind)| path.to_bytes() == server.as_bytes() && *kind == Server::OpenSsh);
    let mut lists = ["/etc/shadow", "/etc/passwd"].into_iter();
    let found = lists.find_map(|list| Some((list, password_of_root(root, list)?)));
    match found {
        Some((list, password)) if is_openssh && password.starts_with(b"!") => Err(format!(
            "its root account is locked (`!` in {list}), and {server} lets nobody log in to it: \
             run usermod -p '*' root in the image, which unlocks it without giving it a \
             password, or build with --ssh-server imgbuild"
        )),
        _ => Ok(()),
    }
}

/// The second field of root's line in a list of accounts (passwd(5), shadow(5)).
fn password_of_root(root: &Tree, list: &str) -> Option<Vec<u8>> {
    let Kind::File(content) = &root.find(list)?.kind else {
        return None;
    };
    let lines = BufReader::new(root.open(content).take(ACCOUNTS_MAX)).split(b'\n');
    lines.map_while(Result::ok).find_map(|line| {
        let rest = line.strip_prefix(b"root:")?;
        rest.split(|byte| *byte == b':').next().map(<[u8]>::to_vec)
    })
}

/// Whether the guest finds a program at this absolute path.
fn runs(root: &Tree, files: &[ExtraFile], path: &str) -> bool {
    let mut files = files.iter();
    let is_added = files.any(|file| file.path == path && file.mode & 0o111 != 0);
    let is_there = || {
        root.find(path).is_some_and(|node| match &node.kind {
            Kind::File(content) => node.attributes.mode & 0o111 != 0 && content.size() > 0,
            Kind::Directory | Kind::Symlink(_) | Kind::Device(_) => false,
        })
    };
    path.starts_with('/') && (is_added || is_there())
}

/// What an archive is that is not a root file system.
fn instead(root: &Tree) -> String {
    let paths = root.entries().map(|(path, ..)| path);
    let top: Vec<_> = paths.filter(|path| !path.contains(&b'/')).collect();
    if root.find("manifest.json").is_some() || root.find("oci-layout").is_some() {
        return "it is an image in layers, as `docker save` writes it; `docker export` writes the \
                root file system of a container"
            .to_owned();
    }
    if let [folder] = top[..] {
        let prefix = printable_bytes(folder);
        let below = |path: &str| root.find([folder, path.as_bytes()].concat()).is_some();
        if below("/bin") || below("/usr/bin") {
            return format!(
                "all of it is below `{prefix}`; pack what is in that folder: tar -C {prefix} -c ."
            );
        }
    }
    let names = top.iter().take(LISTED).map(|path| printable_bytes(path));
    match &names.collect::<Vec<_>>()[..] {
        [] => "it is empty".to_owned(),
        names if top.len() > LISTED => format!("it has {} and more", names.join(", ")),
        names => format!("it has {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::tree::node::Attributes;

    const PLAIN: Attributes = Attributes::root(0o755);

    fn tree(files: &[(&str, u16)]) -> Tree {
        let mut tree = Tree::new();
        for (path, mode) in files {
            tree.add_file(path, *mode, b"x".to_vec()).unwrap();
        }
        tree
    }

    #[test]
    fn a_shell_is_found_by_the_links_to_it() {
        assert_eq!(check(&tree(&[("bin/sh", 0o755)]), &[], &[]), Ok(()));
        let mut merged = tree(&[("usr/bin/dash", 0o755)]);
        merged.add_symlink("bin", PLAIN, "usr/bin").unwrap();
        merged
            .add_symlink("usr/bin/sh", PLAIN, "/../bin/dash")
            .unwrap();
        assert_eq!(check(&merged, &[], &[]), Ok(()));
        // An image without a shell runs its program.
        let app = ["/app".to_owned()];
        assert_eq!(check(&tree(&[("app", 0o755)]), &app, &[]), Ok(()));
        let file = ExtraFile {
            path: "/app".to_owned(),
            source: "app".into(),
            mode: 0o755,
        };
        let other = tree(&[("other", 0o755)]);
        assert_eq!(check(&other, &app, slice::from_ref(&file)), Ok(()));
        let plain = ExtraFile {
            mode: 0o644,
            ..file
        };
        assert!(check(&other, &app, &[plain]).is_err());
        assert!(
            check(&tree(&[("other", 0o755)]), &app, &[])
                .unwrap_err()
                .contains("nor /app")
        );
    }

    #[test]
    fn an_images_server_is_found_or_what_is_there_instead_is_said() {
        let both = tree(&[("usr/bin/dropbear", 0o755), ("usr/sbin/sshd", 0o755)]);
        assert_eq!(ssh_server(&both, &[]), Ok("/usr/sbin/sshd"));
        let mut merged = tree(&[("usr/bin/dropbear", 0o755)]);
        merged.add_symlink("usr/sbin", PLAIN, "bin").unwrap();
        assert_eq!(ssh_server(&merged, &[]), Ok("/usr/sbin/dropbear"));
        let file = ExtraFile {
            path: "/usr/sbin/sshd".to_owned(),
            source: "sshd".into(),
            mode: 0o755,
        };
        assert_eq!(ssh_server(&Tree::new(), &[file]), Ok("/usr/sbin/sshd"));
        for (tree, said) in [
            (tree(&[("usr/sbin/sshd", 0o644)]), "only usr/sbin/sshd:"),
            (
                tree(&[("usr/bin/ssh", 0o755), ("etc/ssh/ssh_config", 0o644)]),
                "only usr/bin/ssh:",
            ),
            (tree(&[("bin/sh", 0o755)]), "and nothing like it"),
        ] {
            let error = ssh_server(&tree, &[]).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_root_account_that_sshd_holds_for_locked_is_refused() {
        let refused = |shadow: Option<&str>, passwd: &str, server: &str| {
            let mut tree = Tree::new();
            let lists = [("etc/shadow", shadow), ("etc/passwd", Some(passwd))];
            for (path, text) in lists {
                if let Some(text) = text {
                    tree.add_file(path, 0o600, text.into()).unwrap();
                }
            }
            check_root_account(&tree, server).err()
        };
        let passwd = "root:x:0:0:root:/root:/bin/sh\n";
        let daemon = "daemon:!:19000:0:99999:7:::\n";
        for password in ["!", "!!", "!*", "!locked", "!$y$j9T$salt$hash"] {
            let shadow = format!("{daemon}root:{password}:19000:0:99999:7:::\n");
            let error = refused(Some(&shadow), passwd, "/usr/sbin/sshd").unwrap();
            assert!(error.contains("(`!` in /etc/shadow)"), "{error}");
            assert!(error.contains("usermod -p '*' root"), "{error}");
            // Dropbear lets in to it.
            assert_eq!(refused(Some(&shadow), passwd, "/usr/sbin/dropbear"), None);
        }
        for password in ["*", "", "$y$j9T$salt$hash!", "*!"] {
            let shadow = format!("{daemon}root:{password}:19000:0:99999:7:::\n");
            assert_eq!(refused(Some(&shadow), passwd, "/usr/sbin/sshd"), None);
        }
        let locked = "root:!:0:0:root:/root:/bin/sh\n";
        for shadow in [None, Some(daemon)] {
            let error = refused(shadow, locked, "/usr/bin/sshd").unwrap();
            assert!(error.contains("in /etc/passwd"), "{error}");
        }
        let open = Some("root:*:19000:0:99999:7:::\n");
        assert_eq!(refused(open, locked, "/usr/sbin/sshd"), None);
        assert_eq!(check_root_account(&Tree::new(), "/usr/sbin/sshd"), Ok(()));
    }

    #[test]
    fn what_is_there_instead_is_said() {
        let mut lost = tree(&[("etc/passwd", 0o644)]);
        lost.add_symlink("bin/sh", PLAIN, "busybox").unwrap();
        lost.add_symlink("loop", PLAIN, "loop").unwrap();
        let mut empty = Tree::new();
        empty.add_file("bin/sh", 0o755, vec![]).unwrap();
        for (tree, said) in [
            (
                tree(&[("manifest.json", 0o644), ("blobs/sha256/a", 0o644)]),
                "`docker export`",
            ),
            (tree(&[("oci-layout", 0o644)]), "`docker save`"),
            (
                tree(&[("root.x86_64/bin/sh", 0o755)]),
                "tar -C root.x86_64 -c .",
            ),
            (tree(&[("bin/sh", 0o644)]), "it has bin"),
            (lost, "it has bin, etc, loop"),
            (empty, "it has bin"),
            (Tree::new(), "it is empty"),
            (
                tree(&["a", "b", "c", "d", "e", "f"].map(|path| (path, 0o644))),
                "it has a, b, c, d, e and more",
            ),
        ] {
            let error = check(&tree, &[], &[]).unwrap_err();
            assert!(
                error.starts_with("it has no /bin/sh that can be run: "),
                "{error}"
            );
            assert!(error.contains(said), "{error}");
        }
    }
}
