//! `ratite qom`, with a real QEMU.

use std::path::PathBuf;
use std::time::Duration;

use ratite::ExtraMonitor;
use ratite::MachineConfig;
use ratite::blocking::Machine;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::Outcome;
use crate::harness::Ratite;
use crate::harness::ratite;

/// A machine with a monitor for `ratite qom`, and a few objects.
struct Stage {
    machine: Machine,
    folder: TempDir,
}

impl Stage {
    fn set() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = MachineConfig::new("qemu-system-x86_64")
            .accelerator("tcg")
            .args(["-nodefaults", "-S", "-machine", "pc"])
            .args(["-device", "virtio-balloon,id=balloon0", "-object", "throttle-group,id=group0"])
            .args(["-chardev", "null,id=null", "-device", "isa-serial,id=port0,chardev=null"])
            .extra_monitor(ExtraMonitor::Qmp(folder.path().join("qmp")));
        Self { machine: Machine::launch(&config).unwrap(), folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("qmp")
    }

    /// `ratite qom VERB SOCKET REST…`.
    fn qom(&self, verb: &str, rest: &[&str]) -> Outcome {
        ratite(&[&["qom", verb, self.socket().to_str().unwrap()], rest].concat())
    }

    #[track_caller]
    fn check(&self, verb: &str, rest: &[&str], stdout: &str) {
        let told = self.qom(verb, rest);
        told.assert_code(0);
        assert_eq!(told.stdout(), stdout);
    }

    #[track_caller]
    fn check_refused(&self, verb: &str, rest: &[&str], code: i32, words: &[&str]) {
        let refused = self.qom(verb, rest);
        refused.assert_code(code);
        refused.assert_says(words);
        assert_eq!(refused.stdout(), "");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.machine.shutdown(Duration::from_secs(30)).unwrap();
    }
}

#[test]
fn a_property_is_found_however_it_is_written() {
    let stage = Stage::set();

    stage.check("get", &["/objects/group0.type"], "throttle-group\n");
    stage.check("get", &["/objects/group0", "type"], "throttle-group\n");
    stage.check("get", &["group0.type"], "throttle-group\n");
    stage.check("get", &["group0.x-iops-total", "--json"], "0\n");
    // A name with a dot in it is no property.
    stage.check("get", &["/machine/i440fx/pci.0.type"], "PCI\n");
    assert!(stage.qom("get", &["/machine/i440fx/pci.0"]).stdout().starts_with("type: PCI (string)\n"));
    assert!(stage.qom("get", &["/machine.rtc-time"]).stdout().contains("\ntm_year: "));
}

#[test]
fn an_object_is_told_with_all_that_can_be_read() {
    let stage = Stage::set();

    let told = stage.qom("get", &["balloon0"]);

    told.assert_code(0);
    let stdout = told.stdout();
    for line in [
        "realized: true (bool)",
        "type: virtio-balloon-pci (string)",
        "guest-stats-polling-interval: 0 (int)",
    ] {
        assert!(stdout.lines().any(|it| it == line), "no `{line}` in: {stdout}");
    }
    let cpu = stage.qom("get", &["/machine/unattached/device[0]"]);
    cpu.assert_code(0);
    assert!(
        cpu.stdout().lines().any(|line| line.contains(": <") && line.contains("> (")),
        "{}",
        cpu.stdout()
    );
    let json: serde_json::Value =
        serde_json::from_slice(&stage.qom("get", &["group0", "--json"]).stdout).unwrap();
    assert_eq!(json[0], serde_json::json!({ "name": "type", "type": "string", "value": "throttle-group" }));
}

#[test]
fn what_is_set_has_the_propertys_type() {
    let stage = Stage::set();
    let check_set = |words: &[&str], place: &str, value: &str| {
        stage.check("set", words, "");
        stage.check("get", &[place], value);
    };

    check_set(&["/machine.graphics", "off"], "/machine.graphics", "false\n");
    check_set(
        &["balloon0.guest-stats-polling-interval", "2"],
        "balloon0.guest-stats-polling-interval",
        "2\n",
    );
    check_set(
        &["balloon0", "guest-stats-polling-interval", "0x10"],
        "balloon0.guest-stats-polling-interval",
        "16\n",
    );
    check_set(&["/machine.firmware", "5"], "/machine.firmware", "5\n");
    check_set(&["/machine.vmport", "off"], "/machine.vmport", "off\n");
    stage.check("set", &["group0.limits", "{\"iops-total\": 500}"], "");
    assert!(stage.qom("get", &["group0.limits"]).stdout().contains("\niops-total: 500\n"));
}

#[test]
fn a_value_of_another_type_is_refused_before_it_is_sent() {
    let stage = Stage::set();

    stage.check_refused(
        "set",
        &["/machine.graphics", "maybe"],
        2,
        &[
            "`maybe` is no value for `/machine.graphics`, which is of type bool, now `true`",
            "hint: it takes true or false, on or off, yes or no",
        ],
    );
    stage.check_refused(
        "set",
        &["balloon0", "guest-stats-polling-interval", "two"],
        2,
        &["which is of type int, now `0`", "hint: it takes a whole number"],
    );
    stage.check("get", &["/machine.graphics"], "true\n");
}

#[test]
fn what_qemu_refuses_is_told_with_the_type_and_its_words() {
    let stage = Stage::set();

    stage.check_refused(
        "set",
        &["/machine.type", "x"],
        1,
        &[
            "could not set `/machine.type`, which is of type string, now `pc-i440fx-",
            "is not writable (GenericError)",
        ],
    );
    stage.check_refused(
        "set",
        &["/machine.vmport", "sideways"],
        1,
        &["of type OnOffAuto, now `", "caused by: QEMU refused"],
    );
}

#[test]
fn what_is_misspelt_is_told_with_what_may_be_meant() {
    let stage = Stage::set();

    stage.check_refused(
        "get",
        &["/machine.tpye"],
        1,
        &["`/machine` has no property `tpye`", "did you mean `type`?"],
    );
    stage.check_refused(
        "get",
        &["/machine/periferal"],
        1,
        &["DeviceNotFound", "did you mean `/machine/peripheral`?"],
    );
    stage.check_refused("get", &["/machnie.type"], 1, &["did you mean `/machine`?"]);
    stage.check_refused("get", &["/machine/graphics"], 1, &["did you mean `/machine.graphics`?"]);
    stage.check_refused("list", &["nothing"], 1, &["no object is at `nothing`", "hint: `ratite qom tree`"]);
    stage.check_refused("tree", &["/nothing"], 1, &["`ratite qom list` of `/` lists what is there"]);
    stage.check_refused(
        "set",
        &["/machine", "true"],
        2,
        &["`/machine` is an object: which of its properties is meant?"],
    );
}

#[test]
fn lists_and_trees_show_what_is_there() {
    let stage = Stage::set();

    let list = stage.qom("list", &["/machine"]).stdout();
    for line in ["peripheral/ ", "@memory-backend ", "graphics "] {
        assert!(list.lines().any(|it| it.starts_with(line)), "no `{line}` in: {list}");
    }
    let json: Vec<serde_json::Value> =
        serde_json::from_slice(&stage.qom("list", &["group0", "--json"]).stdout).unwrap();
    assert!(json.contains(&serde_json::json!({ "name": "type", "type": "string" })), "{json:?}");

    let tree = stage.qom("tree", &["/machine", "--depth", "1"]).stdout();
    assert!(
        tree.starts_with("/machine (pc-i440fx-") && tree.contains("\n/machine/peripheral (container)\n"),
        "{tree}"
    );
    assert!(!tree.contains("balloon0"));
    let deep = stage.qom("tree", &[]);
    deep.assert_code(0);
    assert!(
        deep.stdout().contains("\n/machine/peripheral/balloon0 (virtio-balloon-pci)\n"),
        "{}",
        deep.stdout()
    );
    let values = stage.qom("tree", &["group0", "-v"]).stdout();
    assert!(values.starts_with("group0 (throttle-group)\n  type: throttle-group (string)\n"), "{values}");
    assert!(values.contains("\n  x-iops-total: 0 (int)\n") && values.ends_with("\n\n"), "{values}");
}

#[test]
fn a_change_is_seen_and_what_is_waited_for_ends_it() {
    let stage = Stage::set();
    let socket = stage.socket();
    let place = "balloon0.guest-stats-polling-interval";
    let watch = ["qom", "watch", socket.to_str().unwrap(), place, "--interval", "10ms", "--until", "7"];
    let mut watch = Ratite::start(&watch);
    watch.wait_for("0\n");

    for value in [5, 7] {
        let arguments = serde_json::json!({ "path": "balloon0", "property": "guest-stats-polling-interval", "value": value });
        stage.machine.cmd("qom-set", arguments).unwrap();
        watch.wait_for(&format!("{value}\n"));
    }

    let ended = watch.finish();
    ended.assert_code(0);
    assert_eq!(ended.stdout(), "0\n5\n7\n");
}

#[test]
fn a_watch_ends_in_time_with_a_signal_and_with_qemu() {
    let stage = Stage::set();
    let place = "balloon0.guest-stats-polling-interval";
    let late = stage.qom("watch", &[place, "--interval", "10ms", "--until", "7", "--timeout", "200ms"]);
    late.assert_code(4);
    late.assert_says(&["did not become `7` within 200ms"]);
    stage.check_refused("watch", &[place, "--until", "seven"], 2, &["can never be `seven`"]);

    let socket = stage.socket();
    let words = ["qom", "watch", socket.to_str().unwrap(), place, "--interval", "10ms"];
    let mut watch = Ratite::start(&words);
    watch.wait_for("0\n");
    watch.signal(Signal::INT);
    watch.finish().assert_code(130);

    let mut watch = Ratite::start(&words);
    watch.wait_for("0\n");
    stage.machine.kill().unwrap();
    let ended = watch.finish();
    ended.assert_code(1);
    ended.assert_says(&["could not read `balloon0.guest-stats-polling-interval`"]);
}

#[test]
fn a_monitor_that_is_taken_is_told_in_time() {
    let stage = Stage::set();
    let _taken = std::os::unix::net::UnixStream::connect(stage.socket()).unwrap();

    stage.check_refused("get", &["/machine", "--timeout", "200ms"], 4, &["within 200ms"]);
}
