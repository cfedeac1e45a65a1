//! `ratite template` and `run --from`: machines that are booted once, frozen, and restored.

use std::fs;
use std::path::PathBuf;

use ratite::Picture;
use ratite::guest;
use ratite_tests::linux_guest;
use rustix::process::Signal;
use serde_json::Value;
use serde_json::json;

use crate::harness::Outcome;
use crate::harness::Ratite;
use crate::harness::wait_for_fact;
use crate::reach::Place;

/// A limit that is only reached by a hang.
const LIMIT: [&str; 2] = ["--timeout", "1m"];

impl Place {
    /// `ratite template create NAME OPTIONS -- COMMAND`.
    fn start_create(&self, name: &str, options: &[&str], command: &[String]) -> Ratite {
        let command = command.iter().map(String::as_str);
        let words = ["template", "create", name].into_iter().chain(options.iter().copied());
        self.start(&words.chain(["--"]).chain(command).collect::<Vec<_>>())
    }

    pub(crate) fn create(&self, name: &str, options: &[&str], command: &[String]) -> Outcome {
        self.start_create(name, options, command).finish()
    }

    /// A template of ratite's own guest at its prompt.
    #[track_caller]
    pub(crate) fn template(&self, name: &str) {
        self.create(name, &["--quiet", "--until", guest::PROMPT], &self.guest()).assert_code(0);
    }

    /// The files and folders of the cache.
    pub(crate) fn cache(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path().join("templates")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// What is in the cache but for locks, by its names.
    #[track_caller]
    pub(crate) fn assert_cached(&self, expected: &[&str]) {
        let cached = || {
            let names = self.cache().into_iter().map(|path| path.file_name().unwrap().to_owned());
            let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
            names.retain(|name| !name.ends_with(".lock"));
            names.sort();
            names
        };
        let is_there = wait_for_fact(|| (cached() == expected).then_some(()));
        assert!(is_there.is_some(), "{:?} instead of {expected:?}", cached());
    }

    /// Waits until the machine of this name has its state and runs: what is typed before is lost.
    #[track_caller]
    fn wait_until_runs(&self, name: &str) {
        let runs = || {
            let listed = self.ratite(&["ls", "--json"]).stdout();
            let mut machines = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            machines.any(|facts| facts["name"] == name && facts["state"] == "running").then_some(())
        };
        assert!((0..12).any(|_| wait_for_fact(runs).is_some()), "{name} does not run");
    }

    /// Types `line` on the console of the machine of this name.
    fn type_line(&self, name: &str, line: &str) {
        self.start_with_stdin(&format!("{line}\r"), &["console", name]).assert_code(0);
    }
}

#[test]
fn a_template_is_made_and_listed_and_machines_of_it_run_until_it_is_removed() {
    let place = Place::new();
    let none = place.ratite(&["template", "ls"]);

    let made = place.create("guest", &["--until", guest::PROMPT], &place.guest());
    let listed = place.ratite(&["template", "ls"]);
    let mut machine = place.start(&["template", "spawn", "guest", "--name", "one", "--timeout", "1m"]);
    place.wait_until_runs("one");
    place.type_line("one", "echo restored");
    machine.wait_for("echo restored\r\nrestored\r\n");
    place.type_line("one", "off");
    let ended = machine.finish();
    let removed = place.ratite(&["template", "rm", "guest"]);

    none.assert_code(0);
    assert_eq!((none.stdout().as_str(), none.stderr.contains("there are no templates")), ("", true));
    made.assert_code(0);
    assert_eq!(made.stdout(), format!("{}\r\n{}", guest::READY, guest::PROMPT));
    assert_eq!(
        made.stderr,
        "note: the template `guest` is made; `ratite template spawn guest` runs a machine of it\n"
    );
    listed.assert_code(0);
    let lines: Vec<String> = listed.stdout().lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with("NAME   MADE") && lines[0].ends_with("STATE"), "{lines:?}");
    assert!(lines[1].starts_with("guest  ") && lines[1].ends_with("  ok"), "{lines:?}");
    assert!(lines[1].contains("s ago  ") && lines[1].contains("iB  "), "{lines:?}");
    ended.assert_code(0);
    assert!(!ended.stdout().contains(guest::READY), "it has booted: {}", ended.stdout());
    removed.assert_code(0);
    assert_eq!((removed.stdout().as_str(), removed.stderr.as_str()), ("", ""));
    place.assert_cached(&[]);
}

#[test]
fn a_run_from_a_template_ends_as_any_run() {
    let place = Place::new();
    place.template("guest");
    let log = place.path().join("log");
    let qmp = place.path().join("qmp");
    let options = ["--log", log.to_str().unwrap(), "--qmp", qmp.to_str().unwrap()];

    let found = ["run", "--from", "guest", "--name", "one", "--expect", "found me", "--timeout", "1m"];
    let machine = place.start(&[&found[..], &options].concat());
    place.wait_until_runs("one");
    place.ratite(&["cmd", qmp.to_str().unwrap(), "query-status"]).assert_code(0);
    place.type_line("one", "echo found me");
    let found = machine.finish();
    let too_late = place.ratite(&["run", "--from", "guest", "--expect", "never", "--timeout", "5s"]);
    let mut interrupted = place.start(&["run", "--from", "guest", "--json"]);
    interrupted.wait_for("launched");
    interrupted.signal(Signal::INT);
    let second = [
        "run",
        "--from",
        "guest",
        "--name",
        "two",
        "--json",
        "--expect-regex",
        "(?s)(.*)> ",
        "--timeout",
        "1m",
    ];
    let second = place.start(&second);
    place.wait_until_runs("two");
    place.type_line("two", "echo again");
    let second = second.finish();

    found.assert_code(0);
    assert_eq!(fs::read_to_string(log).unwrap(), found.stdout());
    assert!(!qmp.exists());
    too_late.assert_code(4);
    // Where it stands is known, though nothing has come since.
    too_late.assert_says(&["error: `never` did not appear on the console within 5s\n", "    | >\n"]);
    assert_eq!(too_late.stdout(), "");
    interrupted.finish().assert_code(130);
    second.assert_code(0);
    let records = second.stdout();
    let mut records = records.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let matched = records.find(|record| record["event"] == "matched").unwrap();
    // Not the prompt that stands there, but what came since.
    assert_eq!(matched["text"], "echo again\r\nagain\r\n> ");
}

#[test]
fn a_machine_of_a_template_has_its_last_picture_and_its_folder_kept() {
    let place = Place::new();
    let mut command = place.guest();
    command.retain(|word| word != "-nodefaults");
    place.create("screen", &["--quiet", "--screen", "--until", guest::PROMPT], &command).assert_code(0);
    let picture = place.path().join("last.png");
    let folder = place.path().to_str().unwrap();

    let options = ["--screenshot-on-exit", picture.to_str().unwrap(), "--keep", "--base-folder", folder];
    let machine =
        place.start(&[&["run", "--from", "screen", "--name", "one"], &options[..], &LIMIT].concat());
    place.wait_until_runs("one");
    place.type_line("one", "off");
    let ended = machine.finish();

    ended.assert_code(0);
    assert!(Picture::from_png(&fs::read(picture).unwrap()).unwrap().width() > 0);
    let (_, kept) = ended.stderr.split_once("note: the work folder is kept: ").unwrap();
    let kept = PathBuf::from(kept.trim_end());
    assert!(kept.starts_with(folder));
    assert!(fs::read_to_string(kept.join("console.log")).unwrap().contains("off"));
}

#[test]
fn what_happens_is_told_to_programs_too() {
    let place = Place::new();

    let made = place.create("guest", &["--json", "--until", guest::PROMPT], &place.guest());
    let listed = place.ratite(&["template", "ls", "--json"]);

    made.assert_code(0);
    let records: Vec<Value> = made.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<_> = records.iter().map(|record| record["event"].as_str().unwrap()).collect();
    assert_eq!((events[0], &events[events.len() - 2..]), ("launched", &["frozen", "ended"][..]));
    let frozen = &records[records.len() - 2];
    let folder = place.path().join("templates/guest");
    assert_eq!(
        (&frozen["template"], &frozen["ram"], &frozen["because"], &frozen["folder"]),
        (&json!("guest"), &json!("mapped"), &Value::Null, &json!(folder.to_str().unwrap()))
    );
    let entry: Value = serde_json::from_str(&listed.stdout()).unwrap();
    let mut fields: Vec<_> = entry.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["damage", "made", "name", "path", "qemu", "size", "used"]);
    assert_eq!((&entry["damage"], &entry["path"]), (&Value::Null, &frozen["folder"]));
    assert!(entry["size"].as_u64().unwrap() > 0 && entry["made"].as_u64() <= entry["used"].as_u64());
}

#[test]
fn a_machine_whose_memory_cannot_be_mapped_is_a_template_and_that_is_told() {
    let place = Place::new();
    let own = ["-object", "memory-backend-ram,id=m,size=4M", "-machine", "memory-backend=m"];
    let command = [place.guest(), own.map(str::to_owned).to_vec()].concat();

    let made = place.create("own", &["--until", guest::PROMPT], &command);

    made.assert_code(0);
    made.assert_says(&[
        "note: each of its machines reads all of its memory first: its arguments put its RAM",
    ]);
    let ended = place.ratite(&["template", "spawn", "own", "--timeout", "5s"]);
    ended.assert_code(4);
    ended.assert_says(&["error: the machine did not end within 5s\n"]);
}

#[test]
fn a_machine_that_ends_otherwise_leaves_no_template() {
    let place = Place::new();
    let until = ["--until", "never"];

    let failed = place.create("x", &[&until[..], &["--fail-on", "ready"]].concat(), &place.guest());
    let late = place.create("x", &[&until[..], &["--timeout", "5s"]].concat(), &place.guest());
    let mut interrupted = place.start_create("x", &until, &place.guest());
    interrupted.wait_for(guest::READY);
    interrupted.signal(Signal::INT);
    let interrupted = interrupted.finish();

    failed.assert_code(1);
    failed.assert_says(&["error: `ready` appeared on the console"]);
    late.assert_code(4);
    late.assert_says(&["error: `never` did not appear on the console within 5s"]);
    interrupted.assert_code(130);
    place.assert_cached(&[]);
    place.template("x");
    place.assert_cached(&["x"]);
}

/// What the log says of a template's making, step by step.
const STEPS: [&str; 6] = [
    "a machine stands still to be frozen",
    "the state of a machine is saved",
    "a machine's disks are a template's",
    "a template is written down",
    "a machine is frozen",
    "a template is on the disk",
];

/// `ratite template create x`, which is sent `signal` as soon as its log says `step`.
fn signalled_at(place: &Place, step: &str, signal: Signal) -> Outcome {
    let command = place.guest();
    let command = command.iter().map(String::as_str);
    let words = ["template", "create", "x", "--until", guest::PROMPT, "--"];
    let cache = format!("RATITE_CACHE={}", place.path().display());
    let starter = ["env", "--default-signal=HUP,INT,TERM", "RATITE_LOG=ratite=debug", &cache];
    let mut create = Ratite::start_by(&starter, &words.into_iter().chain(command).collect::<Vec<_>>());
    create.wait_for(guest::PROMPT);
    create.wait_for_talk(step);
    create.signal(signal);
    create.finish()
}

/// Checks that there is no template, or a whole one, from which a machine can be had; and removes it then.
#[track_caller]
fn assert_whole_or_not_there(place: &Place) {
    let listed = place.ratite(&["template", "ls", "--json"]).stdout();
    for entry in listed.lines() {
        let entry: Value = serde_json::from_str(entry).unwrap();
        assert_eq!((&entry["name"], &entry["damage"]), (&json!("x"), &Value::Null));
        let mut machine = place.start(&["template", "spawn", "x", "--json"]);
        machine.wait_for("launched");
        machine.signal(Signal::INT);
        machine.finish().assert_code(130);
        place.ratite(&["template", "rm", "x"]).assert_code(0);
    }
}

#[test]
fn killed_at_any_step_it_leaves_no_half_template_and_no_process() {
    let place = Place::new();
    let words = ["--until", "never"];
    let mut waiting = place.start_create("x", &words, &place.guest());
    waiting.wait_for(guest::READY);
    waiting.signal(Signal::KILL);
    waiting.finish();
    place.assert_cached(&[]);

    for step in STEPS {
        // That nothing of it runs any more is proved at its end.
        signalled_at(&place, step, Signal::KILL);
        assert_whole_or_not_there(&place);
        place.assert_cached(&[]);
    }
}

#[test]
fn interrupted_at_any_step_it_leaves_no_half_template_and_no_process() {
    let place = Place::new();

    for step in STEPS {
        let ended = signalled_at(&place, step, Signal::INT);

        // It may have been done before it heard of it.
        assert!([0, 130].contains(&ended.code), "{}: {}", ended.code, ended.stderr);
        assert_whole_or_not_there(&place);
        place.assert_cached(&[]);
    }
}

#[test]
fn a_linux_guest_goes_on_where_it_was_in_each_of_its_machines() {
    let place = Place::new();
    let linux = linux_guest::linux_guest();
    let (kernel, initrd) = (linux.kernel.to_str().unwrap(), linux.initrd.to_str().unwrap());
    let hardware = ["--kernel", kernel, "--initrd", initrd, "--append", linux_guest::kernel_arguments()];
    let options = [&hardware[..], &["--memory", "128M", "--accel", "tcg", "--name", "first"]].concat();
    let until = ["--until", "by hand 42", "--fail-on-linux"];
    let command = ["-nodefaults", "-no-reboot"].map(str::to_owned);

    let mut first = place.start_create("shell", &[&options[..], &until].concat(), &command);
    first.wait_for(linux_guest::PROMPT);
    place.type_line("first", "echo it was here >/tmp/file; echo by hand $((6 * 7))");
    let made = first.finish();
    let spawned = ["one", "two"].map(|name| {
        let words = ["template", "spawn", "shell", "--name", name];
        (name, place.start(&[&words[..], &LIMIT].concat()))
    });

    made.assert_code(0);
    for (name, mut machine) in spawned {
        place.wait_until_runs(name);
        place.type_line(name, &format!("cat /tmp/file; echo {name} >>/tmp/file; cat /tmp/file"));
        machine.wait_for(&format!("it was here\r\nit was here\r\n{name}\r\n"));
        place.type_line(name, "poweroff -f");
        machine.finish().assert_code(0);
    }
    place.ratite(&["template", "rm", "shell"]).assert_code(0);
}
