//! The control interface of a fleet: every answer against its schema.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use imgbuild_tests::fleet::{Fleet, signal};
use imgbuild_tests::{TestEnv, finish, run, start, wait_until};
use jsonschema::{Validator, validator_for};
use rustix::process::Signal;
use serde_json::{Value, json};

/// An answer's status and body.
fn call(env: &TestEnv, method: &str, path: &str, body: &str) -> (u16, String) {
    let socket = env.path().join("run/imgbuild/tty-idle/control");
    let mut stream = UnixStream::connect(socket).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

/// A validator of one of the schema's types.
fn validator(schema: &Value, name: &str) -> Validator {
    let wanted = json!({ "$ref": format!("#/$defs/{name}"), "$defs": schema["$defs"] });
    validator_for(&wanted).unwrap()
}

/// Asserts that a document is as the schema says, and gives it.
fn valid(schema: &Value, name: &str, text: &str) -> Value {
    let document: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text:?}"));
    let wrong: Vec<_> = validator(schema, name)
        .iter_errors(&document)
        .map(|error| error.to_string())
        .collect();
    assert!(wrong.is_empty(), "{name}: {wrong:?} in {text}");
    document
}

/// Has something done to a guest, and gives the answer.
fn act(env: &TestEnv, schema: &Value, verb: &str, guest: &str) -> Value {
    let body = json!({"guests": {"these": [guest]}}).to_string();
    let (status, text) = call(env, "POST", &format!("/v1/{verb}"), &body);
    assert_eq!(status, 200);
    valid(schema, "ActAnswer", &text)
}

#[test]
fn the_schema_is_a_schema_of_every_document() {
    let env = TestEnv::new();
    let schema: Value =
        serde_json::from_str(&run(&mut env.imgbuild(["api-schema"])).succeeds().stdout).unwrap();
    for path in schema["paths"].as_object().unwrap().values() {
        for reference in path.as_object().unwrap().values() {
            let name = reference["$ref"].as_str().unwrap();
            validator(&schema, name.strip_prefix("#/$defs/").unwrap());
        }
    }
    let strange = json!({"guests": "some"});
    assert!(!validator(&schema, "ActRequest").is_valid(&strange));
    let fine = json!({"guests": {"these": ["g00000"]}});
    assert!(validator(&schema, "ActRequest").is_valid(&fine));
}

#[test]
fn every_answer_is_as_the_schema_says() {
    let env = TestEnv::new();
    let _fleet = Fleet::ready(&env, "tty-idle", 2, &[]);
    let (status, schema) = call(&env, "GET", "/v1/schema", "");
    assert_eq!(status, 200);
    let schema: Value = serde_json::from_str(&schema).unwrap();

    let (status, text) = call(&env, "GET", "/v1/fleet", "");
    assert_eq!(status, 200);
    let fleet = valid(&schema, "Fleet", &text);
    assert_eq!(fleet["stage"], "up");
    assert_eq!(fleet["counts"], json!({"ready": 2}));
    let shown = run(&mut env.imgbuild(["ps", "--json"])).succeeds();
    assert_eq!(
        valid(&schema, "Fleet", &shown.stdout)["guests"]
            .as_array()
            .unwrap()
            .len(),
        2
    );

    let (status, text) = call(&env, "GET", "/v1/guests/g00001", "");
    assert_eq!(status, 200);
    assert_eq!(valid(&schema, "Guest", &text)["state"], "ready");

    let ask = r#"{"guests":"all","command":"status --json"}"#;
    let (status, text) = call(&env, "POST", "/v1/ask", ask);
    assert_eq!(status, 200);
    let mut answered: Vec<_> = text
        .lines()
        .map(|line| valid(&schema, "Answer", line))
        .inspect(|answer| assert_eq!(answer["code"], 0, "{answer}"))
        .map(|answer| answer["id"].as_str().unwrap().to_owned())
        .collect();
    answered.sort_unstable();
    assert_eq!(answered, ["g00000", "g00001"]);

    refusals_are_errors(&env, &schema);

    // Events of a guest that is killed and comes back, as they happen.
    let listening = start(env.command("curl").args([
        "-sN",
        "--unix-socket",
        "run/imgbuild/tty-idle/control",
        "http://fleet/v1/events",
    ]));
    let killed = act(&env, &schema, "kill", "g00000");
    assert_eq!(killed["done"], json!(["g00000"]));
    wait_until("the guest is back", || {
        let (_, text) = call(&env, "GET", "/v1/guests/g00000", "");
        let guest = valid(&schema, "Guest", &text);
        guest["state"] == "ready" && guest["restarts"] == 1
    });
    let (status, text) = call(&env, "GET", "/metrics", "");
    assert_eq!(status, 200);
    assert!(
        text.contains("imgbuild_restarts_total{fleet=\"tty-idle\"} 1\n"),
        "{text}"
    );

    act(&env, &schema, "stop", "g00001");
    run(&mut env.imgbuild(["ps", "--state", "exited"]))
        .succeeds()
        .shows(&["g00001 exited"]);

    lines_that_a_guest_does_not_read_are_reported(&env, &schema);

    run(&mut env.imgbuild(["stop", "--all", "--grace", "0s"])).succeeds();
    let events = finish(listening);
    for line in events.stdout.lines() {
        valid(&schema, "Event", line);
    }
    env.assert_no_process_left();
    env.assert_no_fleet_left();
    run(&mut env.imgbuild(["ps"]))
        .exits(1)
        .says(&["there is no fleet"]);
}

/// Stops the VMM of g00000 for good.
fn lines_that_a_guest_does_not_read_are_reported(env: &TestEnv, schema: &Value) {
    let path = "/v1/guests/g00000/console";
    let (status, text) = call(env, "POST", path, "heartbeat\nstatus\n");
    assert_eq!(status, 200, "{text}");
    assert_eq!(
        valid(schema, "Typed", &text),
        json!({"taken": 2, "refused": 0})
    );
    let (_, text) = call(env, "GET", "/v1/guests/g00000", "");
    let pid = valid(schema, "Guest", &text)["pid"].as_u64().unwrap();
    signal(u32::try_from(pid).unwrap(), Signal::STOP);
    let lines = format!("{}\n", "x".repeat(999)).repeat(900);
    let (status, text) = call(env, "POST", path, &lines);
    assert_eq!(status, 200, "{text}");
    let typed = valid(schema, "Typed", &text);
    let number = |name: &str| typed[name].as_u64().unwrap();
    assert!(number("taken") > 0 && number("refused") > 0, "{typed}");
    assert_eq!(number("taken") + number("refused"), 900);
    let (status, text) = call(env, "POST", path, &lines);
    assert_eq!(status, 503, "{text}");
    let error = valid(schema, "Error", &text);
    let said = error["error"].as_str().unwrap();
    assert!(said.contains("g00000 has not read"), "{said}");
}

fn refusals_are_errors(env: &TestEnv, schema: &Value) {
    for (method, path, body, code) in [
        ("GET", "/v1/guests/g00009", "", 404),
        ("GET", "/v2/fleet", "", 404),
        ("PUT", "/v1/fleet", "", 405),
        ("POST", "/v1/stop", "{", 400),
    ] {
        let (status, text) = call(env, method, path, body);
        assert_eq!(status, code, "{method} {path}");
        valid(schema, "Error", &text);
    }
}

#[test]
fn selectors_and_fleets_that_are_not_there_are_usage_errors() {
    let env = TestEnv::new();
    for arguments in [
        &["stop"][..],
        &["stop", "g7"],
        &["kill", "all"],
        &["restart", "--all", "g00001"],
        &["scale", "100001"],
        &["wait"],
        &["console"],
        &["ps", "--state", "sleeping"],
        &["rm", "../x"],
    ] {
        run(&mut env.imgbuild(arguments)).exits(2);
    }
    for arguments in [
        &["ps"][..],
        &["stop", "--all"],
        &["wait", "--ready"],
        &["rm", "gone"],
    ] {
        run(&mut env.imgbuild(arguments))
            .exits(1)
            .says(&["no fleet"]);
    }
}
