use std::io;
use std::os::fd::AsRawFd as _;
use std::panic::AssertUnwindSafe;
use std::time::Instant;
use std::{fs, iter, thread};

use super::group::GRACE;
use super::*;

fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn quiet() -> Interrupt {
    Interrupt::never().unwrap()
}

/// Whether the process ends within a second: a signal takes effect only when its
/// target runs next.
fn ends(pid: &str) -> bool {
    let path = format!("/proc/{}/stat", pid.trim());
    (0..100).any(|_| {
        thread::sleep(Duration::from_millis(10));
        fs::read_to_string(&path).map_or(true, |stat| stat.contains(") Z"))
    })
}

#[test]
fn passes_on_lines_of_both_streams_and_an_unended_last_one() {
    let mut lines = Vec::new();
    run(
        sh("echo one; echo two >&2; printf three"),
        &quiet(),
        |stream, line| {
            lines.push((stream, line.to_owned()));
        },
    )
    .unwrap();
    lines.sort_by(|a, b| a.1.cmp(&b.1));
    assert_eq!(
        lines,
        [
            (Stream::Stdout, "one".to_owned()),
            (Stream::Stdout, "three".to_owned()),
            (Stream::Stderr, "two".to_owned()),
        ]
    );
}

#[test]
fn hands_on_every_line_of_a_long_output() {
    let mut lines = 0;
    run(sh("seq 100000"), &quiet(), |_, _| lines += 1).unwrap();
    assert_eq!(lines, 100_000);
}

#[test]
fn cuts_an_endless_line_short() {
    let text = output(
        sh("head -c 200000 /dev/zero | tr '\\0' x; echo; echo end"),
        &quiet(),
    )
    .unwrap();
    assert_eq!(
        text.lines().map(str::len).collect::<Vec<_>>(),
        [crate::lines::LINE_MAX, 3]
    );
}

#[test]
fn a_missing_tool_names_its_package() {
    let error = run(Command::new("no-such-tool"), &quiet(), |_, _| {}).unwrap_err();
    assert!(
        error.to_string().contains("apt install no-such-tool"),
        "{error}"
    );
}

#[test]
fn a_missing_folder_is_not_taken_for_a_missing_tool() {
    let mut command = sh("true");
    command.current_dir("/no/such/folder");
    let error = run(command, &quiet(), |_, _| {}).unwrap_err();
    assert!(matches!(error, ProcessError::Start { .. }), "{error}");
}

#[test]
fn a_failure_shows_the_last_lines() {
    let error = run(sh("seq 100; exit 7"), &quiet(), |_, _| {}).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("exit status: 7") && text.contains("\n71\n") && text.ends_with("\n100"),
        "{text}"
    );
    assert!(!text.contains("\n70\n"), "{text}");
}

#[test]
fn an_interrupt_ends_the_whole_group() {
    let interrupt = quiet();
    let mut pid = String::new();
    let started = Instant::now();
    let raiser = interrupt.clone();
    let error = run(sh("sleep 100 & echo $!; wait"), &interrupt, |_, line| {
        line.clone_into(&mut pid);
        raiser.raise();
    })
    .unwrap_err();
    assert!(matches!(error, ProcessError::Interrupted { .. }), "{error}");
    assert!(started.elapsed() < GRACE && ends(&pid));
}

#[test]
fn a_tool_deaf_to_sigterm_is_killed() {
    let interrupt = quiet();
    let raiser = interrupt.clone();
    let started = Instant::now();
    let script = "trap '' TERM; echo ready; while :; do sleep 100; done";
    let error = run(sh(script), &interrupt, |_, _| raiser.raise()).unwrap_err();
    assert!(matches!(error, ProcessError::Interrupted { .. }), "{error}");
    assert!(started.elapsed() >= GRACE && started.elapsed() < 3 * GRACE);
}

#[test]
fn a_panic_in_the_callback_leaves_nothing_behind() {
    let mut pid = String::new();
    let caught = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let _ = run(sh("sleep 100 & echo $!; wait"), &quiet(), |_, line| {
            line.clone_into(&mut pid);
            panic!("a callback's own fault");
        });
    }));
    assert!(caught.is_err() && !pid.is_empty());
    assert!(ends(&pid));
}

#[test]
fn what_a_tool_leaves_in_its_group_dies_with_it() {
    let pid = output(sh("sleep 100 & echo $!"), &quiet()).unwrap();
    assert!(ends(&pid));
}

#[test]
fn a_capture_keeps_bytes_as_they_are_and_any_status() {
    let captured = capture(sh("printf 'a\\r\\n\\000 '; echo b >&2; exit 3"), &quiet()).unwrap();
    assert_eq!(captured.status.code(), Some(3));
    assert_eq!(captured.stdout, b"a\r\n\0 ");
    assert_eq!(captured.stderr, b"b\n");
    assert!(!captured.cut);
}

#[test]
fn a_capture_is_cut_at_its_limit() {
    let captured = capture(sh("head -c 3000000 /dev/zero; echo end >&2"), &quiet()).unwrap();
    assert_eq!(captured.stdout.len(), OUTPUT_LIMIT);
    assert_eq!(captured.stderr, b"end\n");
    assert!(captured.cut);
}

#[test]
fn a_tool_that_hangs_is_killed_at_its_deadline_with_all_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    let script = format!(
        "trap '' TERM; sleep 100 & echo $! > {0}; echo $$ >> {0}; while :; do sleep 100; done",
        pids.display()
    );
    let limit = Duration::from_secs(1);
    let error = capture_within(sh(&script), limit, &quiet()).unwrap_err();
    let ProcessError::TooSlow {
        program,
        limit: had,
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((program.as_str(), *had), ("sh", limit));
    let started = fs::read_to_string(&pids).unwrap();
    assert_eq!(started.lines().count(), 2);
    assert!(started.lines().all(ends), "{started}");
}

/// Runs what is given the words of a command: a loop of the shell at the lowest
/// priority there is, beside one on the same CPU that leaves it about a thousandth
/// of that.
pub(crate) fn starved<T>(run: impl FnOnce([&str; 9]) -> T) -> T {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let cpu = (0..rustix::thread::CpuSet::MAX_CPU)
        .find(|cpu| allowed.is_set(*cpu))
        .unwrap()
        .to_string();
    let burn = "while :; do :; done";
    let mut burner = Command::new("taskset")
        .args(["-c", &cpu, "sh", "-c", burn])
        .spawn()
        .unwrap();
    let result = run([
        "taskset", "-c", &cpu, "chrt", "--idle", "0", "sh", "-c", burn,
    ]);
    burner.kill().unwrap();
    burner.wait().unwrap();
    result
}

#[test]
fn a_tool_that_others_keep_from_the_cpu_is_not_taken_for_one_that_hangs() {
    let limit = Duration::from_millis(300);
    let result = starved(|words| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        capture_within(command, limit, &quiet())
    });
    let error = result.unwrap_err();
    let ProcessError::Starved { wall, had, .. } = &error else {
        panic!("{error}");
    };
    assert!(*had < limit && *wall > 5 * limit, "{error}");
    assert!(error.to_string().contains("too busy"), "{error}");
}

/// Why a tool does not come to its end that gets a CPU: while others leave it none
/// it is started again, since that says nothing about the tool.
pub(crate) fn error_of<T>(start: impl FnMut() -> Result<T, ProcessError>) -> ProcessError {
    let errors = iter::repeat_with(start).map(|result| result.err().expect("it has no end"));
    let mut told = errors.filter(|error| !matches!(error, ProcessError::Starved { .. }));
    told.next().unwrap()
}

#[test]
fn a_tool_that_burns_the_cpu_and_one_that_a_script_started_have_their_limit_too() {
    for script in ["while :; do :; done", "sh -c 'while :; do :; done'; true"] {
        let limit = Duration::from_millis(100);
        let error = error_of(|| capture_within(sh(script), limit, &quiet()));
        assert!(matches!(error, ProcessError::TooSlow { .. }), "{error}");
    }
}

#[test]
fn a_tool_that_goes_on_talking_has_its_limit_from_line_to_line() {
    let mut lines = Vec::new();
    let script = "for i in 1 2 3 4; do sleep 0.2; echo $i; done; sleep 100";
    let limit = Duration::from_millis(500);
    let error = run_while_heard(sh(script), limit, &quiet(), |_, line| {
        lines.push(line.to_owned());
    })
    .unwrap_err();
    assert!(matches!(error, ProcessError::TooSlow { .. }), "{error}");
    assert_eq!(lines, ["1", "2", "3", "4"]);
}

#[test]
fn a_tool_that_ends_before_its_deadline_is_captured() {
    let captured = capture_within(sh("echo a; exit 3"), Duration::from_secs(60), &quiet()).unwrap();
    assert_eq!(captured.status.code(), Some(3));
    assert_eq!(captured.stdout, b"a\n");
}

#[test]
fn a_tool_with_a_deadline_ends_on_an_interrupt_too() {
    let interrupt = quiet();
    interrupt.raise();
    let mut command = Command::new("sleep");
    command.arg("100");
    let error = capture_within(command, Duration::from_secs(90), &interrupt).unwrap_err();
    assert!(matches!(error, ProcessError::Interrupted { .. }), "{error}");
}

#[test]
fn what_the_starter_inherited_is_closed() {
    // A duplicate that is not marked to be closed.
    let leaked = rustix::io::dup(io::stderr()).unwrap();
    let look = |close: bool| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("test -e /dev/fd/{}", leaked.as_raw_fd())]);
        if close {
            close_inherited(&mut command);
        }
        command.status().unwrap().success()
    };
    assert!(look(false));
    assert!(!look(true));
}
