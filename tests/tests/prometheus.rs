//! A fleet's metrics, as Prometheus takes them: `promtool` checks them, Debian's
//! `prometheus` scrapes them, and the dashboard's queries are answered from that.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use imgbuild_tests::fleet::Fleet;
use imgbuild_tests::probes::{in_kernel, is_root_of_all};
use imgbuild_tests::{TestEnv, finish, run, start, wait_until, workspace};
use serde_json::Value;

/// A program of the unpacked package.
fn program(name: &str) -> PathBuf {
    let program = workspace().join(".tools/prometheus/usr/bin").join(name);
    let why = "run `./bootstrap test`, which unpacks it";
    assert!(program.exists(), "{} is missing: {why}", program.display());
    program
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Prometheus, which scrapes a port every second.
struct Prometheus<'a> {
    env: &'a TestEnv,
    server: Child,
    port: u16,
}

impl<'a> Prometheus<'a> {
    fn scraping(env: &'a TestEnv, metrics: u16) -> Self {
        let config = env.path().join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 1s }}\nscrape_configs:\n  - job_name: imgbuild\n    \
             static_configs:\n      - targets: [\"127.0.0.1:{metrics}\"]\n"
        );
        fs::write(&config, text).unwrap();
        let mut check = env.command(program("promtool"));
        run(check.args(["check", "config"]).arg(&config)).succeeds();
        let port = free_port();
        let mut server = env.command(program("prometheus"));
        server
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                env.path().join("tsdb").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=error")
            .stdout(Stdio::null());
        let server = server.spawn().unwrap();
        Self { env, server, port }
    }

    /// What the interface for programs answers; nothing while it does not listen yet.
    fn get(&self, path: &str, query: &str) -> Option<Value> {
        let mut curl = self.env.command("curl");
        curl.args([
            "-sG",
            &format!("http://127.0.0.1:{}/api/v1/{path}", self.port),
        ]);
        curl.args(["--data-urlencode", &format!("query={query}")]);
        let answer: Value = serde_json::from_str(&run(&mut curl).stdout).ok()?;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        Some(answer["data"].clone())
    }

    /// The values of a query.
    fn values(&self, query: &str) -> Vec<f64> {
        let data = self.get("query", query).unwrap_or_default();
        let results = data["result"].as_array().cloned().unwrap_or_default();
        let value = |result: &Value| result["value"][1].as_str()?.parse().ok();
        results.iter().filter_map(value).collect()
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn scrape(env: &TestEnv, port: u16) -> String {
    let url = format!("http://127.0.0.1:{port}/metrics");
    run(env.command("curl").args(["-sf", &url]))
        .succeeds()
        .stdout
}

/// The dashboard's queries, with its variables as Grafana fills them in.
fn queries(fleet: &str) -> Vec<String> {
    let text = fs::read_to_string(workspace().join("docs/grafana.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries = targets.map(|target| target["expr"].as_str().unwrap());
    queries
        .map(|query| {
            query
                .replace("$fleet", fleet)
                .replace("$__rate_interval", "20s")
        })
        .collect()
}

/// What a text calls a metric of ours.
fn names(text: &str) -> BTreeSet<String> {
    let words =
        text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    words
        .filter(|word| word.starts_with("imgbuild_"))
        .map(|word| {
            let parts = ["_bucket", "_sum", "_count"];
            let part = parts.into_iter().find_map(|part| word.strip_suffix(part));
            part.unwrap_or(word).to_owned()
        })
        .collect()
}

#[test]
fn prometheus_scrapes_a_fleet_and_the_dashboard_is_answered() {
    let env = TestEnv::new();
    let metrics = free_port();
    let address = format!("127.0.0.1:{metrics}");
    let fleet = Fleet::ready(&env, "scraped", 3, &["--metrics", &address]);
    run(&mut fleet.imgbuild(["ssh", "0", "--", "burn", "50"])).succeeds();

    let text = scrape(&env, metrics);
    let mut check = env.command(program("promtool"));
    let mut check = start(check.args(["check", "metrics"]).stdin(Stdio::piped()));
    std::io::Write::write_all(check.stdin.as_mut().unwrap(), text.as_bytes()).unwrap();
    drop(check.stdin.take());
    let checked = finish(check).succeeds();
    assert_eq!((&*checked.stdout, &*checked.stderr), ("", ""), "{text}");

    // What is told is described, and what is described is told.
    let documented = fs::read_to_string(workspace().join("docs/metrics.md")).unwrap();
    let mut expected = names(&documented);
    // KSM is watched, and BPF to be had, where it runs and by whom it may be loaded.
    let mut told = names(&text);
    let is_root = is_root_of_all("measure run-queue waits by BPF");
    for (name, is_told) in [
        ("imgbuild_run_queue_wait_seconds", is_root),
        ("imgbuild_ksm_settled", false),
    ] {
        if !is_told {
            expected.remove(name);
            told.remove(name);
        }
    }
    assert_eq!(told, expected);

    let prometheus = Prometheus::scraping(&env, metrics);
    let up = r#"count_over_time(up{job="imgbuild"}[1m]) > 5 and up == 1"#;
    wait_until("prometheus has scraped some times", || {
        sleep(Duration::from_millis(500));
        prometheus.values(up).len() == 1
    });

    // Each of the dashboard's queries parses, as a rule, and has an answer.
    let queries = queries("scraped");
    let rules = queries.iter().enumerate().map(|(number, query)| {
        let query = query.replace('\'', "''");
        format!("      - record: query:{number}\n        expr: '{query}'\n")
    });
    let rules: String = rules.collect();
    let file = env.path().join("rules.yml");
    let head = "groups:\n  - name: dashboard\n    rules:\n";
    fs::write(&file, head.to_owned() + &rules).unwrap();
    run(env
        .command(program("promtool"))
        .args(["check", "rules"])
        .arg(&file))
    .succeeds();
    for query in &queries {
        if query.contains("run_queue") && !is_root {
            continue;
        }
        wait_until(&format!("{query} is answered"), || {
            let values = prometheus.values(query);
            !values.is_empty()
                && values
                    .iter()
                    .all(|value| value.is_finite() && *value >= 0.0)
        });
    }
    wait_until("the burn is seen", || {
        let rate = prometheus.values("rate(imgbuild_burn_rounds_total[20s]) > 0");
        rate.len() == 1
    });

    // The same numbers as `ps`.
    assert_eq!(
        prometheus.values(r#"imgbuild_guests{state="ready"}"#),
        [3.0]
    );
    let memory = run(&mut fleet.imgbuild(["ps", "--memory", "--json"])).succeeds();
    let memory: Value = serde_json::from_str(&memory.stdout).unwrap();
    let [bytes] = prometheus.values("sum(imgbuild_memory_bytes)")[..] else {
        panic!("{memory:?}");
    };
    let difference = (bytes - memory["bytes"].as_f64().unwrap()).abs() / bytes;
    assert!(difference < 0.03, "{bytes} {memory:?}");
    drop(prometheus);

    // What measured run-queue waits ends with the fleet.
    fleet.end();
    if is_root {
        wait_until("the kernel has cleared the program away", || {
            in_kernel(&env) == (0, 0)
        });
    }
}
