//! `ratite agent`, with QEMU's real guest agent on this system.

use std::fs;
use std::os::unix::net::UnixListener;

use ratite_tests::guest_agent::GuestAgent;
use rustix::process::Signal;

use crate::harness::Outcome;
use crate::harness::Ratite;
use crate::harness::ratite;

/// `ratite agent VERB SOCKET REST…` with a real agent.
fn agent(verb: &str, rest: &[&str]) -> Outcome {
    let real = GuestAgent::start();
    let socket = real.socket();
    ratite(&[&["agent", verb, socket.to_str().unwrap()], rest].concat())
}

/// The same with the content of a file on stdin.
fn agent_with_stdin(file: &str, verb: &str, rest: &[&str]) -> Outcome {
    let real = GuestAgent::start();
    let socket = real.socket();
    let from_file = format!("exec \"$@\" < {file}");
    let words = [&["agent", verb, socket.to_str().unwrap()], rest].concat();
    Ratite::start_by(&["sh", "-c", &from_file, "sh"], &words).finish()
}

#[test]
fn an_agent_that_answers_is_there() {
    let pinged = agent("ping", &[]);

    pinged.assert_code(0);
    assert_eq!((pinged.stdout().as_str(), pinged.stderr.as_str()), ("", ""));
}

#[test]
fn info_tells_what_is_enabled() {
    let text = agent("info", &[]).stdout();
    assert!(text.starts_with("version   "), "{text}");
    assert!(
        text.contains("\nenabled   guest-exec\n") && text.contains("\ndisabled  guest-shutdown\n"),
        "{text}"
    );

    let json = agent("info", &["--json"]);
    json.assert_code(0);
    let info: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(info["supported_commands"].as_array().unwrap().len() > 10, "{info}");
}

#[test]
fn interfaces_are_listed() {
    let listed = agent("interfaces", &[]);

    listed.assert_code(0);
    assert!(listed.stdout().lines().any(|line| line.starts_with("lo ")), "{}", listed.stdout());
}

#[test]
fn a_program_writes_here_and_its_code_is_told() {
    let well = agent("exec", &["--", "sh", "-c", "printf 'o\\000ut'; printf err >&2"]);
    well.assert_code(0);
    assert_eq!((well.stdout.as_slice(), well.stderr.as_str()), (&b"o\0ut"[..], "err"));

    let ill = agent("exec", &["--", "sh", "-c", "echo out; exit 3"]);
    ill.assert_code(1);
    assert_eq!(
        (ill.stdout().as_str(), ill.stderr.as_str()),
        ("out\n", "error: `sh` exited with code 3 in the guest\n")
    );

    let killed = agent("exec", &["--", "sh", "-c", "kill -9 $$"]);
    killed.assert_code(1);
    killed.assert_says(&["`sh` was ended by signal 9 in the guest"]);
}

#[test]
fn with_status_the_code_is_the_programs() {
    let ill = agent("exec", &["--status", "--", "sh", "-c", "exit 42"]);
    ill.assert_code(42);
    assert_eq!(ill.stderr, "");

    agent("exec", &["--status", "--", "sh", "-c", "kill -9 $$"]).assert_code(137);
    agent("exec", &["--status", "--", "true"]).assert_code(0);
}

#[test]
fn a_program_has_stdin_variables_and_json() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("in");
    fs::write(&file, b"a\0\xffb").unwrap();

    let cat = agent_with_stdin(file.to_str().unwrap(), "exec", &["--stdin", "--", "cat"]);
    cat.assert_code(0);
    assert_eq!(cat.stdout, b"a\0\xffb");

    let told = agent("exec", &["--json", "--env", "A=b c", "--", "sh", "-c", "echo \"$A\"; exit 3"]);
    told.assert_code(1);
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&told["code"], &told["stdout"]), (&3.into(), &"b c\n".into()));
}

#[test]
fn a_program_that_runs_on_is_given_up_at_its_limit() {
    let slow = agent("exec", &["--limit", "100ms", "--", "sleep", "0.7"]);

    slow.assert_code(4);
    slow.assert_says(&["`sleep` still runs after 100ms, as process "]);
}

#[test]
fn a_signal_leaves_the_program_running_and_says_so() {
    let real = GuestAgent::start();
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("begun");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    let script = format!("echo > {}; sleep 0.7", pipe.display());
    let exec = Ratite::start(&["agent", "exec", real.socket().to_str().unwrap(), "--", "sh", "-c", &script]);
    // Opening it waits for the program to write.
    fs::read(&pipe).unwrap();

    exec.signal(Signal::INT);

    let ended = exec.finish();
    ended.assert_code(130);
    ended.assert_says(&["the program runs on in the guest"]);
}

#[test]
fn files_go_both_ways_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (there, here) = (folder.path().join("there"), folder.path().join("here"));
    let (there, here) = (there.to_str().unwrap(), here.to_str().unwrap());
    let bytes: Vec<u8> = (0..600_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(here, &bytes).unwrap();

    agent_with_stdin(here, "write", &[there]).assert_code(0);
    assert_eq!(fs::read(there).unwrap(), bytes);
    let cat = agent("cat", &[there]);
    cat.assert_code(0);
    assert_eq!(cat.stdout, bytes);

    fs::write(here, "more").unwrap();
    agent_with_stdin(here, "write", &["--append", there]).assert_code(0);
    assert_eq!(fs::read(there).unwrap().len(), bytes.len() + 4);
}

#[test]
fn a_reader_that_goes_ends_cat() {
    let real = GuestAgent::start();
    let mut cat = Ratite::start(&["agent", "cat", real.socket().to_str().unwrap(), "/dev/zero"]);
    cat.wait_for("\0\0\0");

    cat.close_stdout();

    let ended = cat.finish();
    ended.assert_code(141);
    // The agent is free for the next one, and has no file open.
    ratite(&["agent", "ping", real.socket().to_str().unwrap()]).assert_code(0);
    let fds = fs::read_dir(format!("/proc/{}/fd", real.pid())).unwrap();
    let open = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    assert!(!open.into_iter().any(|file| file == std::path::Path::new("/dev/zero")));
}

#[test]
fn what_the_guest_refuses_is_told_in_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    let missing = agent("cat", &[nowhere.to_str().unwrap()]);
    missing.assert_code(1);
    missing.assert_says(&["error: could not open `/", "` in the guest\n", "No such file or directory"]);

    let disabled = agent("shutdown", &["reboot"]);
    disabled.assert_code(1);
    disabled.assert_says(&[
        "could not shut the guest down",
        "has `guest-shutdown` disabled",
        "hint: `ratite agent info`",
    ]);

    agent("fsfreeze", &["freeze"]).assert_code(1);
    agent("fstrim", &[]).assert_code(1);
    agent("suspend", &["disk"]).assert_code(1);
    assert_eq!(agent("fsfreeze", &["status"]).stdout(), "thawed\n");
    assert_eq!(agent("fsfreeze", &["status", "--json"]).stdout(), "{\"status\":\"thawed\"}\n");
}

#[test]
fn an_agent_that_is_not_there_is_told_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("silent");
    let path = path.to_str().unwrap();
    let missing = ratite(&["agent", "ping", path]);
    missing.assert_code(1);
    missing.assert_says(&["could not connect to unix:", "No such file or directory"]);

    let _silent = UnixListener::bind(path).unwrap();
    for verb in [&["ping"][..], &["info"], &["interfaces"]] {
        let silent = ratite(&[&["agent", verb[0], path, "--timeout", "200ms"][..], &verb[1..]].concat());

        silent.assert_code(4);
        silent.assert_says(&[
            "no guest agent answered within 200ms: in the guest, qemu-guest-agent has to run",
            "hint: ",
        ]);
    }
}

#[test]
fn a_wrong_word_is_refused() {
    ratite(&["agent", "ping", "web:x"]).assert_code(2);
    ratite(&["agent", "exec", "./x"]).assert_code(2);
    ratite(&["agent", "exec", "./x", "--env", "A", "--", "true"]).assert_code(2);
    ratite(&["agent", "fsfreeze", "./x", "melt"]).assert_code(2);
    ratite(&["agent"]).assert_code(2);
}
