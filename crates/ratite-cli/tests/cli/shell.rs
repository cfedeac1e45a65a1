//! `ratite shell`, read from a pipe.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::process::Signal;
use serde_json::Deserializer;
use serde_json::Value;
use serde_json::json;

use crate::harness::Outcome;
use crate::harness::Ratite;
use crate::harness::ratite;
use crate::harness::ratite_fed;
use crate::qemu::Qemu;

fn shell(input: &str, qemu: &Qemu) -> Outcome {
    ratite_fed(input, &["shell", &qemu.one()])
}

fn lines(outcome: &Outcome) -> Vec<Value> {
    let stdout = outcome.stdout();
    stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{stdout}"))).collect()
}

#[test]
fn each_reply_is_one_line_of_json_and_nothing_else_is_on_stdout() {
    let qemu = Qemu::start();

    let done =
        shell("# what is it?\n\nquery-name # its name\nstop\nquery-status\n{\"execute\": \"cont\"}\n", &qemu);

    done.assert_code(0);
    let replies = lines(&done);
    assert_eq!(replies.len(), 4, "{replies:?}");
    assert_eq!(replies[2]["return"]["status"], "paused");
    assert_eq!(done.stderr, "");
}

#[test]
fn it_ends_at_the_first_line_that_fails_and_names_it() {
    let qemu = Qemu::start();

    let refused = shell("stop\ndevice_del id=nothing\nquery-status\n", &qemu);
    refused.assert_code(1);
    refused.assert_says(&["could not do line 2, `device_del id=nothing`", "Device 'nothing' not found"]);
    assert_eq!(
        lines(&refused)[1..],
        [json!({"error": {"class": "DeviceNotFound", "desc": "Device 'nothing' not found"}})]
    );

    let mistaken = shell("stop\n\nqury-status\nstop\n", &qemu);
    mistaken.assert_code(1);
    mistaken.assert_says(&["could not do line 3, `qury-status`", "did you mean `query-status`?"]);
    assert_eq!(lines(&mistaken).len(), 1);
}

#[test]
fn it_goes_on_if_it_is_told_to_and_fails_at_its_end() {
    let qemu = Qemu::start();
    let input = "stop\nqury\ndevice_del id=x\nquery-status\n";

    let done = ratite_fed(input, &["shell", "--keep-going", &qemu.one()]);

    done.assert_code(1);
    done.assert_says(&["line 2, `qury`", "line 3, `device_del id=x`", "error: 2 lines could not be done"]);
    assert_eq!(lines(&done)[2]["return"]["status"], "paused");
}

#[test]
fn events_are_shown_when_they_are_asked_for_in_their_place() {
    let qemu = Qemu::start();

    let quiet = shell("stop\ncont\n", &qemu);
    let told = ratite_fed("stop\ncont\n", &["shell", "--events", &qemu.one()]);

    assert_eq!(lines(&quiet), [json!({"return": {}}), json!({"return": {}})]);
    let told = lines(&told);
    let names: Vec<_> = told.iter().map(|line| line["event"].as_str().unwrap_or("reply")).collect();
    assert_eq!(names, ["STOP", "reply", "RESUME", "reply"]);
}

#[test]
fn a_transaction_is_done_as_a_whole_or_not_at_all() {
    let qemu = Qemu::start();
    let bitmap = |name| format!("block-dirty-bitmap-add node=d name={name}\n");
    let add = "blockdev-add driver=null-co node-name=d size=1048576\n";
    let query = "query-named-block-nodes\n";
    let names = |reply: &Value| reply["return"][0]["dirty-bitmaps"].as_array().map_or(0, Vec::len);

    let input = [add, "transaction(\n", &bitmap("a"), "# two\n", &bitmap("b"), ")\n", query].concat();
    let done = shell(&input, &qemu);
    done.assert_code(0);
    assert_eq!(names(&lines(&done)[2]), 2, "{}", done.stdout());

    let abort =
        format!("transaction(\n{}abort\n)\ntransaction( {} )\n{query}", bitmap("c"), bitmap("d").trim());
    let aborted = ratite_fed(&abort, &["shell", "--keep-going", &qemu.one()]);
    aborted.assert_code(1);
    let replies = lines(&aborted);
    assert!(replies[0]["error"]["desc"].as_str().unwrap().contains("abort"), "{replies:?}");
    assert_eq!((&replies[1], names(&replies[2])), (&json!({"return": {}}), 3));
}

#[test]
fn a_transaction_that_is_not_complete_is_not_sent() {
    let qemu = Qemu::start();

    let open = shell("transaction(\nabort\n", &qemu);
    open.assert_code(1);
    open.assert_says(&["the transaction has no `)`"]);
    let wrong = shell("transaction(\nabrt\n)\n", &qemu);
    wrong.assert_code(1);
    wrong.assert_says(&["line 2, `abrt`", "`abrt` cannot be a part of a transaction; did you mean `abort`?"]);
    assert_eq!(wrong.stdout(), "");
}

#[test]
fn quit_ends_it_well_and_what_comes_behind_fails() {
    let mut qemu = Qemu::start();
    let done = shell("quit\n", &qemu);
    done.assert_code(0);
    assert_eq!((lines(&done), done.stderr.as_str()), (vec![json!({"return": {}})], ""));
    qemu.wait();

    let mut qemu = Qemu::start();
    let more = shell("quit\nquery-status\n", &qemu);
    more.assert_code(1);
    more.assert_says(&["line 2", "the peer closed the connection"]);
    qemu.wait();
}

#[test]
fn a_machine_that_dies_is_told_plainly() {
    let mut qemu = Qemu::start();
    let (stdin, mut feed) = std::io::pipe().unwrap();
    let mut shell = Ratite::start_from(stdin, &["shell", &qemu.one()]);
    feed.write_all(b"query-name\n").unwrap();
    shell.wait_for("{\"return\": {}}");

    qemu.kill();

    let outcome = shell.finish();
    outcome.assert_code(1);
    outcome.assert_says(&[
        "error: could not wait for more lines\n  caused by: the peer closed the connection\n",
    ]);
    drop(feed);
}

#[test]
fn a_signal_ends_it_while_it_waits_for_lines() {
    let qemu = Qemu::start();
    let (stdin, mut feed) = std::io::pipe().unwrap();
    let mut shell = Ratite::start_from(stdin, &["shell", &qemu.one()]);
    feed.write_all(b"query-name\n").unwrap();
    shell.wait_for("{\"return\": {}}");

    shell.signal(Signal::INT);

    shell.finish().assert_code(130);
    drop(feed);
}

#[test]
fn hmp_is_spoken_with_a_machine_without_cpus() {
    let qemu = Qemu::start_with(&["-machine", "none"]);
    let shell = |input: &str| ratite_fed(input, &["shell", "-H", &qemu.one()]);

    let told = shell("\ncpu\ninfo status\n# nothing\ninfo name\n");
    told.assert_code(0);
    assert_eq!(
        told.stdout(),
        "no CPU is chosen, and QEMU takes its first; `cpu N` chooses\nVM status: running\n"
    );
    let refused = shell("cpu 0\n");
    refused.assert_code(1);
    assert!(refused.stdout().starts_with("GenericError: "), "{}", refused.stdout());
    shell("quit\n").assert_code(0);
}

#[test]
fn a_chosen_cpu_is_kept() {
    let qemu = Qemu::start_with(&["-smp", "2", "-m", "16"]);

    let told = ratite_fed("cpu 1\ncpu\ninfo cpus\n", &["shell", "-H", &qemu.one()]);

    told.assert_code(0);
    assert!(told.stdout().starts_with("CPU 1 is chosen\n"), "{}", told.stdout());
    assert!(told.stdout().contains("* CPU #1"), "{}", told.stdout());
}

#[test]
fn a_qemu_of_its_own_ends_with_it() {
    let qemu = ["shell", "--", "qemu-system-x86_64", "-accel", "tcg", "-machine", "none"];

    let left = ratite_fed("query-status\nexit\nquery-name\n", &qemu);
    left.assert_code(0);
    assert_eq!(lines(&left).len(), 1);
    let quit = ratite_fed("quit\n", &qemu);
    quit.assert_code(0);
    assert_eq!((lines(&quit), quit.stderr.as_str()), (vec![json!({"return": {}})], ""));

    let missing = ratite(&["shell", "--", "qemu-system-none"]);
    missing.assert_code(3);
    missing.assert_says(&["could not start the binary `qemu-system-none`"]);
}

#[test]
fn the_transcript_has_every_message_and_the_socket_stays() {
    let qemu = Qemu::start();
    let log = qemu.file("log");

    ratite_fed("query-name\n", &["shell", "-l", &log, &qemu.one()]).assert_code(0);
    ratite_fed("stop\n", &["shell", "-l", &log, &qemu.one()]).assert_code(0);

    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.splitn(3, ' ').collect()).collect();
    assert!(
        lines.iter().all(|line| line[0].ends_with('Z') && serde_json::from_str::<Value>(line[2]).is_ok())
    );
    assert!(lines[0][1] == "<-" && lines[0][2].starts_with("{\"QMP\""), "{text}");
    assert!(lines.iter().any(|line| line[1] == "->" && line[2].contains("\"query-name\"")), "{text}");
    assert!(lines.iter().any(|line| line[1] == "<-" && line[2].contains("\"STOP\"")), "{text}");
    shell("query-name\n", &qemu).assert_code(0);
}

#[test]
fn the_address_may_be_in_the_environment() {
    let qemu = Qemu::start();
    let address = format!("QMP_SOCKET={}", qemu.one());

    let found = Ratite::start_by(&["env", &address], &["shell"]).finish();
    found.assert_code(0);
    let none = Ratite::start_by(&["env", "-u", "QMP_SOCKET"], &["shell"]).finish();
    none.assert_code(2);
    none.assert_says(&["no machine is given", "QMP_SOCKET"]);
    let wrong = ratite(&["shell", "localhost:99999"]);
    wrong.assert_code(2);
    wrong.assert_says(&["the port is a decimal number from 0 to 65535"]);
    ratite(&["shell", "./nowhere.sock"]).assert_code(1);
}

#[test]
fn verbose_shows_what_is_sent_on_stderr() {
    let qemu = Qemu::start();

    let done = ratite_fed("qom-get path=/machine property=type\n", &["shell", "-v", "-p", &qemu.one()]);

    done.assert_code(0);
    done.assert_says(&["\"execute\": \"qom-get\"", "\"property\": \"type\""]);
    assert!(done.stdout().starts_with("{\n    \"return\": \"pc-i440fx"), "{}", done.stdout());
}

/// In one piece: who has read a whole message may be gone before its line end.
fn send(socket: &mut UnixStream, message: &Value) {
    socket.write_all(format!("{message}\n").as_bytes()).unwrap();
}

/// A guest agent that answers `guest-info` and `guest-ping`, and nothing before it is asked.
fn agent(listener: &UnixListener) {
    let (mut socket, _) = listener.accept().unwrap();
    let requests = Deserializer::from_reader(socket.try_clone().unwrap()).into_iter::<Value>();
    for request in requests {
        let request = request.unwrap();
        let answer = match request["execute"].as_str().unwrap() {
            "guest-info" => json!({"supported_commands": [{"name": "guest-ping"}, {"name": "guest-info"}]}),
            _ => json!({}),
        };
        send(&mut socket, &json!({"return": answer, "id": request["id"]}));
    }
}

#[test]
fn a_guest_agent_is_spoken_with_without_negotiation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent");
    let listener = UnixListener::bind(&path).unwrap();
    let address = path.to_str().unwrap();
    let shell = |input: &str| {
        thread::scope(|scope| {
            scope.spawn(|| agent(&listener));
            ratite_fed(input, &["shell", "-N", address])
        })
    };

    let done = shell("guest-ping\n");
    done.assert_code(0);
    assert_eq!(lines(&done), [json!({"return": {}})]);
    let mistaken = shell("guest-pong\n");
    mistaken.assert_code(1);
    mistaken.assert_says(&["there is no command `guest-pong` here; did you mean `guest-ping`?"]);
}

/// A peer that speaks QMP, and refuses to tell its schema.
fn secretive(listener: &UnixListener) {
    let (mut socket, _) = listener.accept().unwrap();
    let requests = Deserializer::from_reader(socket.try_clone().unwrap()).into_iter::<Value>();
    send(&mut socket, &json!({"QMP": {"version": {}, "capabilities": []}}));
    for request in requests {
        let request = request.unwrap();
        let error = json!({"class": "CommandNotFound", "desc": "not told"});
        let answer = match request["execute"].as_str().unwrap() {
            "query-qmp-schema" => json!({"error": error, "id": request["id"]}),
            _ => json!({"return": request["arguments"], "id": request["id"]}),
        };
        send(&mut socket, &answer);
    }
}

#[test]
fn a_peer_that_tells_nothing_of_its_commands_is_spoken_with_unchecked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peer");
    let listener = UnixListener::bind(&path).unwrap();

    let done = thread::scope(|scope| {
        scope.spawn(|| secretive(&listener));
        ratite_fed("x a.b.c=1 a.d=true e=null f='5'\n", &["shell", path.to_str().unwrap()])
    });

    done.assert_code(0);
    assert_eq!(lines(&done), [json!({"return": {"a": {"b": {"c": 1}, "d": true}, "e": null, "f": "5"}})]);
}
