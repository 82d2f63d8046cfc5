//! `--kernel URL`: downloaded, checked, resumed, and kept.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use imgbuild::digest::Sha256;
use imgbuild_tests::http::{Answer, Request, Server};
use imgbuild_tests::tree::Tree;
use imgbuild_tests::{Finished, TestEnv, finish, run, start, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A kernel on a server that answers as a test wants.
struct Served {
    env: TestEnv,
    server: Server,
    sha256: String,
    size: usize,
}

impl Served {
    /// `answer` is given how many requests there were before, the request, and
    /// the kernel.
    fn by(answer: impl Fn(usize, &Request, &[u8]) -> Answer + Send + 'static) -> Self {
        let env = TestEnv::new();
        let kernel: Arc<[u8]> = fs::read(env.artifacts("tty-idle").join("vmlinux"))
            .unwrap()
            .into();
        let (sha256, size) = (Sha256::of_bytes(&kernel).to_string(), kernel.len());
        let before = std::cell::Cell::new(0);
        let server = Server::start(move |request| {
            answer(before.replace(before.get() + 1), request, &kernel)
        });
        Self {
            env,
            server,
            sha256,
            size,
        }
    }

    fn without_digest(&self, url: &str) -> Command {
        let mut command = self
            .env
            .imgbuild(["tty-burn", "--no-boot", "--json", "--kernel", url]);
        command.env("NO_PROXY", "127.0.0.1");
        self.env.own_cache(&mut command);
        command
    }

    fn command(&self) -> Command {
        let mut command = self.without_digest(&self.server.url("/vmlinux"));
        command.args(["--kernel-sha256", &self.sha256]);
        command
    }

    /// A file of the cache that belongs to the kernel.
    fn downloaded(&self, suffix: &str) -> PathBuf {
        self.env
            .cache()
            .join("downloads")
            .join(self.sha256.clone() + suffix)
    }

    /// The first byte that each request asked for.
    fn asked(&self) -> Vec<Option<usize>> {
        self.server
            .requests()
            .iter()
            .map(|request| request.first_byte)
            .collect()
    }

    fn assert_no_output(&self) {
        assert!(!self.env.path().join("out/tty-burn").exists());
    }
}

/// The source in the manifest that a successful build prints.
fn source(finished: Finished) -> Value {
    finished.succeeds().json_lines()[0]["manifest"]["kernel"]["source"].clone()
}

#[test]
fn a_kernel_is_downloaded_once_and_then_used_without_a_network() {
    let served = Served::by(|_, request, kernel| Answer::serve(kernel, request));
    let first = source(run(&mut served.command()));
    assert_eq!(first["kind"], "prebuilt-url");
    assert_eq!(first["url"], served.server.url("/vmlinux"));
    assert_eq!(first["sha256"], *served.sha256);
    assert_eq!(source(run(&mut served.command())), first);
    assert_eq!(served.asked(), [None]);

    let mut offline = served.command();
    drop(served.server);
    assert_eq!(source(run(offline.arg("--offline"))), first);
}

#[test]
fn offline_says_what_is_missing_and_where_it_belongs() {
    let served = Served::by(|_, request, kernel| Answer::serve(kernel, request));
    run(served.command().arg("--offline")).exits(1).says(&[
        "offline",
        &served.server.url("/vmlinux"),
        served.downloaded("").to_str().unwrap(),
    ]);
    assert!(served.asked().is_empty());
    served.assert_no_output();
}

#[test]
fn a_wrong_digest_is_reported_with_both_values_and_the_file_is_set_aside() {
    let served = Served::by(|_, request, _| Answer::serve(b"something else", request));
    let good = served.env.artifacts("tty-idle").join("vmlinux");
    run(&mut served.without_digest(good.to_str().unwrap())).succeeds();
    let out = Tree::of(&served.env.path().join("out"));

    let actual = Sha256::of_bytes("something else").to_string();
    let kept = served.env.cache().join(format!("downloads/{actual}.bad"));
    run(&mut served.command())
        .exits(1)
        .says(&[&served.sha256, &actual, kept.to_str().unwrap()]);
    assert_eq!(fs::read(kept).unwrap(), b"something else");
    assert!(!served.downloaded("").exists() && !served.downloaded(".part").exists());
    assert_eq!(Tree::of(&served.env.path().join("out")), out);
}

#[test]
fn an_address_without_a_digest_is_not_even_asked() {
    let served = Served::by(|_, request, kernel| Answer::serve(kernel, request));
    run(&mut served.without_digest(&served.server.url("/vmlinux")))
        .exits(2)
        .says(&[&served.server.url("/vmlinux"), "--kernel-sha256"]);
    assert!(served.asked().is_empty());
    served.assert_no_output();
}

#[test]
fn a_missing_file_is_not_asked_for_again() {
    let served = Served::by(|_, _, _| Answer::status("404 Not Found"));
    run(&mut served.command()).exits(1).says(&[
        &served.server.url("/vmlinux"),
        "404",
        "check the address",
    ]);
    assert_eq!(served.asked(), [None]);
    served.assert_no_output();
}

#[test]
fn a_busy_server_is_asked_again() {
    let served = Served::by(|before, request, kernel| match before {
        0 => Answer::status("503 Service Unavailable"),
        _ => Answer::serve(kernel, request),
    });
    let finished = run(&mut served.command()).says(&["503", "trying again"]);
    assert_eq!(source(finished)["sha256"], *served.sha256);
}

#[test]
fn a_broken_transfer_goes_on_where_it_stopped() {
    let served = Served::by(|before, request, kernel| match before {
        0 => Answer::file(kernel).cut_at(kernel.len() / 2),
        _ => Answer::serve(kernel, request),
    });
    assert_eq!(source(run(&mut served.command()))["sha256"], *served.sha256);
    assert_eq!(served.asked(), [None, Some(served.size / 2)]);
    assert!(!served.downloaded(".part").exists());
}

#[test]
fn a_server_that_never_sends_the_rest_is_given_up_and_what_came_is_kept() {
    let served = Served::by(|before, request, kernel| match before {
        0..=2 => Answer::serve(kernel, request).cut_at(1000),
        _ => Answer::serve(kernel, request),
    });
    run(&mut served.command())
        .exits(1)
        .says(&["gave up after 3 attempts", "3000 bytes are kept"]);
    served.assert_no_output();
    assert_eq!(source(run(&mut served.command()))["sha256"], *served.sha256);
    assert_eq!(served.asked(), [None, Some(1000), Some(2000), Some(3000)]);
}

#[test]
fn an_interrupted_download_goes_on_in_the_next_run() {
    let served = Served::by(|before, request, kernel| match before {
        0 => Answer::file(kernel).stall_at(5000),
        _ => Answer::serve(kernel, request),
    });
    let download = start(&mut served.command());
    wait_until("all that the server sends has come", || {
        fs::metadata(served.downloaded(".part")).is_ok_and(|part| part.len() == 5000)
    });
    kill_process(Pid::from_child(&download), Signal::INT).unwrap();
    finish(download)
        .exits(130)
        .says(&["interrupted while downloading"]);
    served.assert_no_output();

    assert_eq!(source(run(&mut served.command()))["sha256"], *served.sha256);
    assert_eq!(served.asked(), [None, Some(5000)]);
}

#[test]
fn a_part_that_is_longer_than_the_file_is_begun_anew() {
    let served = Served::by(|_, request, kernel| match request.first_byte {
        Some(first) if first >= kernel.len() => Answer::status("416 Range Not Satisfiable"),
        _ => Answer::serve(kernel, request),
    });
    fs::create_dir_all(served.env.cache().join("downloads")).unwrap();
    let longer = served.size + 1;
    fs::write(served.downloaded(".part"), vec![0; longer]).unwrap();
    fs::write(served.downloaded(".part.validator"), "\"one\"").unwrap();
    assert_eq!(source(run(&mut served.command()))["sha256"], *served.sha256);
    assert_eq!(served.asked(), [Some(longer), None]);
}

#[test]
fn a_redirect_is_followed_and_a_circle_of_them_is_not() {
    let served = Served::by(|_, request, kernel| match &*request.path {
        "/vmlinux" => Answer::redirect("/moved"),
        "/moved" => Answer::serve(kernel, request),
        _ => Answer::redirect("/circle"),
    });
    // The manifest names what was asked for.
    let source = source(run(&mut served.command()));
    assert_eq!(source["url"], served.server.url("/vmlinux"));
    let paths: Vec<_> = served
        .server
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect();
    assert_eq!(paths, ["/vmlinux", "/moved"]);

    let unseen = Sha256::of_bytes("unseen").to_string();
    let mut circle = served.without_digest(&served.server.url("/circle"));
    run(circle.args(["--kernel-sha256", &unseen]))
        .exits(1)
        .says(&["/circle", "redirect"]);
}

#[test]
fn nobody_listening_is_reported_with_the_address() {
    let served = Served::by(|_, request, kernel| Answer::serve(kernel, request));
    // tcpmux, which nobody serves.
    let mut command = served.without_digest("http://127.0.0.1:1/vmlinux");
    run(command.args(["--kernel-sha256", &served.sha256]))
        .exits(1)
        .says(&["http://127.0.0.1:1/vmlinux", "refused", "check the network"]);
    served.assert_no_output();
}

#[test]
fn a_download_that_is_no_kernel_is_refused() {
    let served = Served::by(|_, request, _| Answer::serve(b"not a kernel", request));
    let sha256 = Sha256::of_bytes("not a kernel").to_string();
    let mut command = served.without_digest(&served.server.url("/vmlinux"));
    run(command.args(["--kernel-sha256", &sha256]))
        .exits(1)
        .says(&["neither an ELF file nor a bzImage"]);
    served.assert_no_output();
}

#[test]
fn what_lets_the_user_in_is_in_no_output_and_no_message() {
    let served = Served::by(|_, request, kernel| match &*request.path {
        "/vmlinux?token=secret" => Answer::serve(kernel, request),
        _ => Answer::redirect("/circle?token=secret"),
    });
    let with_secrets = |path: &str| {
        let url = served.server.url(path);
        url.replace("http://", "http://me:secret@") + "?token=secret"
    };
    let kept_from =
        |said: &str| assert!(!said.contains("secret") && !said.contains("me:"), "{said}");
    let url = with_secrets("/vmlinux");
    let with_digest = |url: &str| {
        let mut command = served.without_digest(url);
        command.args(["--kernel-sha256", &served.sha256, "--verbose"]);
        command
    };
    let built = run(&mut with_digest(&url)).succeeds();
    kept_from(&built.stderr);
    kept_from(&built.stdout);
    let manifest = served.env.path().join("out/tty-burn/manifest.json");
    kept_from(&fs::read_to_string(manifest).unwrap());
    assert_eq!(source(built)["url"], served.server.url("/vmlinux"));
    let request = &served.server.requests()[0];
    // `me:secret` in base64.
    assert_eq!(request.authorization.as_deref(), Some("Basic bWU6c2VjcmV0"));

    let unseen = Sha256::of_bytes("unseen").to_string();
    let circle = with_secrets("/circle");
    let unknown = |flag: &str, url: &str| {
        let mut command = served.env.imgbuild(["kernel", "fetch", flag, url]);
        command
            .args(["--kernel-sha256", &unseen])
            .env("NO_PROXY", "127.0.0.1");
        served.env.own_cache(&mut command);
        command
    };
    let malformed = url.replace("127.0.0.1:", "127.0.0.1:9");
    for (mut command, code) in [
        (served.without_digest(&url), 2),
        (served.without_digest(&malformed), 2),
        (unknown("--kernel-source", &malformed), 2),
        (unknown("--kernel-source", &url.replace("http", "ftp")), 2),
        (unknown("--kernel-source", &circle), 1),
        (with_digest(&circle.replace("/circle", "/none")), 0),
    ] {
        let failed = run(&mut command).exits(code);
        kept_from(&failed.stderr);
        kept_from(&failed.stdout);
    }
    let mut help = served.env.imgbuild(["build", "--help"]);
    kept_from(&run(help.env("IMGBUILD_KERNEL", &url)).succeeds().stdout);
}
