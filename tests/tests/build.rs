//! `imgbuild list` and `imgbuild build`: recipes by name and by path.

use std::fs;
use std::path::Path;

use imgbuild_tests::{TestEnv, run, workspace};
use serde_json::Value;

fn recipe_of(out: &Path) -> Value {
    let manifest = fs::read(out.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    manifest["recipe"].clone()
}

#[test]
fn list_shows_every_recipe_of_the_checkout() {
    let env = TestEnv::new();
    let mut names: Vec<String> = fs::read_dir(workspace().join("images"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort_unstable();

    let text = run(&mut env.imgbuild(["list"])).succeeds().stdout;
    let listed: Vec<&str> = text
        .lines()
        .map(|line| line.split_once(' ').unwrap().0)
        .collect();
    assert_eq!(listed, names);

    let text = run(&mut env.imgbuild(["list", "--json"])).succeeds().stdout;
    let recipes: Vec<Value> = serde_json::from_str(&text).unwrap();
    let listed: Vec<&str> = recipes
        .iter()
        .map(|recipe| recipe["name"].as_str().unwrap())
        .collect();
    assert_eq!(listed, names);
}

#[test]
fn a_built_in_recipe_is_built_into_a_folder_of_its_name() {
    let env = TestEnv::new();
    run(&mut env.imgbuild(["build", "tty-idle", "--no-boot"])).succeeds();
    let recipe = recipe_of(&env.path().join("out/tty-idle"));
    assert_eq!(recipe["name"], "tty-idle");
    assert_eq!(recipe["burn"]["duty"], 0);
}

#[test]
fn tty_burn_is_the_build_of_its_recipe() {
    let env = TestEnv::new();
    let sums = [&["tty-burn"][..], &["build", "tty-burn"]].map(|verb| {
        let mut command = env.imgbuild(verb);
        run(command.args(["--no-boot", "--out", "out"])).succeeds();
        fs::read_to_string(env.path().join("out/SHA256SUMS")).unwrap()
    });
    assert_eq!(sums[0], sums[1]);
}

#[test]
fn a_recipe_file_is_built_from_anywhere() {
    let env = TestEnv::new();
    let folder = env.path().join("recipes");
    fs::create_dir(&folder).unwrap();
    let text = fs::read_to_string(workspace().join("images/tty-burn.toml")).unwrap();
    let text = text.replace("name = \"tty-burn\"", "name = \"mine\"")
        + "\n[[files]]\npath = \"/etc/motd\"\nsource = \"motd\"\n";
    fs::write(folder.join("mine.toml"), text).unwrap();
    fs::write(folder.join("motd"), "hello\n").unwrap();

    run(&mut env.imgbuild(["build", "recipes/mine.toml", "--no-boot"])).succeeds();
    run(env
        .imgbuild(["build", "./mine.toml", "--no-boot"])
        .current_dir(&folder))
    .succeeds();
    let sums = ["out/mine", "recipes/out/mine"].map(|out| {
        assert_eq!(recipe_of(&env.path().join(out))["name"], "mine");
        fs::read_to_string(env.path().join(out).join("SHA256SUMS")).unwrap()
    });
    assert_eq!(sums[0], sums[1]);
}

#[test]
fn an_unknown_name_is_answered_with_the_known_ones() {
    let env = TestEnv::new();
    for verb in [
        &["build", "tty-bern"][..],
        &["kernel", "build", "--recipe", "tty-bern"],
    ] {
        run(&mut env.imgbuild(verb))
            .exits(2)
            .says(&["tty-bern", "tty-burn", "tty-idle"]);
    }
    run(&mut env.imgbuild(["build", "./none.toml"]))
        .exits(2)
        .says(&["./none.toml", "No such file", "imgbuild list"]);
    assert!(!env.path().join("out").exists());
}

#[test]
fn options_are_checked_before_anything_is_written() {
    let env = TestEnv::new();
    for (arguments, said) in [
        (&["--overlays=-1"][..], "overlays"),
        (&["--overlays", "100001"], "100000"),
        (&["--disk-size", "big"], "disk-size"),
        (&["--disk-size", "1M"], "must be 16M to 2T"),
        (&["--disk-size", "3T"], "must be 16M to 2T"),
        (&["--disk-size", "16777217"], "blocks of 4 KiB"),
        (&["--jobs", "0"], "jobs"),
        (&["--kernel-sha256", "abc"], "kernel-sha256"),
        (
            &["--kernel", "a", "--kernel-source", "b"],
            "--kernel-source",
        ),
        (&["--log-format", "xml"], "xml"),
        (&["--quiet", "--verbose"], "--verbose"),
    ] {
        run(env.imgbuild(["tty-burn", "--no-boot"]).args(arguments))
            .exits(2)
            .says(&[said]);
    }
    run(env
        .imgbuild(["tty-burn", "--no-boot"])
        .env("SOURCE_DATE_EPOCH", "yesterday"))
    .exits(2)
    .says(&["SOURCE_DATE_EPOCH", "yesterday", "1970"]);
    assert!(!env.path().join("out").exists());
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_recipe() {
    let env = TestEnv::new();
    let size = |command: &mut std::process::Command| {
        let report = run(command).succeeds().json_lines().remove(0);
        report["manifest"]["options"]["disk_size"].clone()
    };
    let build = || env.imgbuild(["tty-burn", "--no-boot", "--json"]);
    assert_eq!(size(&mut build()), "1G");
    assert_eq!(size(build().env("IMGBUILD_DISK_SIZE", "32M")), "32M");
    assert_eq!(
        size(
            build()
                .env("IMGBUILD_DISK_SIZE", "32M")
                .args(["--disk-size", "64M"])
        ),
        "64M"
    );
}
