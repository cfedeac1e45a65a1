//! Templates that cannot be had, or made, or removed: each with its reason, its exit code, and what helps.

use std::fs;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ratite::guest;
use rustix::process::Signal;

use crate::reach::Place;

#[test]
fn what_would_make_it_another_machine_is_refused() {
    let place = Place::new();
    let settled = [
        &["--memory", "8M"][..],
        &["--cpus", "2"],
        &["--machine", "q35"],
        &["--accel", "tcg"],
        &["--kernel", "bzImage"],
        &["--screen"],
        &["--console", "none"],
        &["--wrapper", "nice"],
        &["--name", "x", "--agent"],
        &["--", "-m", "8"],
    ];

    for options in settled {
        let refused = place.ratite(&[&["run", "--from", "guest"], options].concat());

        refused.assert_code(2);
        refused.assert_says(&[
            "error: with `--from` there cannot be ",
            ": the machine is what it was when it was frozen\n",
            "hint: `ratite template create` makes a template of another machine\n",
        ]);
    }
    place.ratite(&["template", "spawn", "guest", "--memory", "8M"]).assert_code(2);
    place.ratite(&["template", "create", "x", "--", "qemu-system-x86_64"]).assert_code(2);
}

#[test]
fn a_template_that_is_not_there_is_told_with_those_that_are() {
    let place = Place::new();
    let nothing = place.ratite(&["run", "--from", "guest"]);
    place.template("guest");
    place.template("other");

    let near = place.ratite(&["template", "spawn", "gest"]);
    let far = place.ratite(&["run", "--from", "window"]);
    let removed = place.ratite(&["template", "rm", "nothing", "other", "quest", "none"]);
    let odd = place.ratite(&["template", "rm", "../guest"]);

    for (outcome, hint) in [
        (nothing, "hint: there are no templates; `ratite template create NAME` makes one\n"),
        (near, "hint: there are `guest`, `other`: is `guest` the one?\n"),
        (far, "hint: there are `guest`, `other`\n"),
    ] {
        outcome.assert_code(3);
        outcome.assert_says(&[
            "error: could not make a machine of the template",
            "there is no template in",
            hint,
        ]);
    }
    removed.assert_code(1);
    removed.assert_says(&["error: there is no template in", "/nothing`\n", "note: there is no template in"]);
    odd.assert_code(2);
    odd.assert_says(&["cannot name a template", "hint: a name is of letters, digits"]);
    place.assert_cached(&["guest"]);
}

#[test]
fn a_template_that_is_in_use_stays() {
    let place = Place::new();
    place.template("guest");
    let mut machine = place.start(&["template", "spawn", "guest", "--json", "--timeout", "1m"]);
    machine.wait_for("launched");

    let refused = place.ratite(&["template", "rm", "guest"]);
    let taken = place.create("guest", &["--until", guest::PROMPT], &place.guest());
    machine.signal(Signal::INT);
    machine.finish().assert_code(130);
    let removed = place.ratite(&["template", "rm", "guest"]);

    refused.assert_code(1);
    refused.assert_says(&["error: the template \"guest\" is in use\n", "hint: programs hold it", "lsof"]);
    taken.assert_code(1);
    taken
        .assert_says(&["error: there is a template \"guest\" already\n", "hint: `ratite template rm guest`"]);
    removed.assert_code(0);
    place.assert_cached(&[]);
}

#[test]
fn a_template_that_somebody_else_is_making_is_waited_for() {
    let place = Place::new();
    let words = ["template", "create", "guest", "--until", "never", "--"];
    let command = place.guest();
    let words: Vec<&str> = words.into_iter().chain(command.iter().map(String::as_str)).collect();
    let mut first = place.start(&words);
    first.wait_for(guest::READY);

    let late = place.create("guest", &["--until", guest::PROMPT, "--timeout", "300ms"], &command);
    let second =
        place.start(&[&["template", "create", "guest", "--until", "> ", "--quiet"], &words[5..]].concat());
    first.signal(Signal::INT);

    first.finish().assert_code(130);
    second.finish().assert_code(0);
    late.assert_code(4);
    late.assert_says(&["error: the machine was not launched within 300ms"]);
    place.assert_cached(&["guest"]);
}

/// What is done to a template's folder.
type Harm = fn(&Path);

#[test]
fn a_template_that_is_not_as_it_was_is_refused_and_can_be_removed() {
    let place = Place::new();
    let damage: [(&str, Harm); 4] = [
        ("has changed since the template was made", |template| {
            let ram = OpenOptions::new().write(true).open(template.join("ram")).unwrap();
            ram.write_all_at(b"x", 5).unwrap();
        }),
        ("has 7 bytes, and had", |template| {
            let state = OpenOptions::new().write(true).open(template.join("state")).unwrap();
            state.set_len(7).unwrap();
        }),
        ("which the template needs, is gone", |template| fs::remove_file(template.join("state")).unwrap()),
        ("cannot be read", |template| fs::write(template.join("template.json"), "{").unwrap()),
    ];

    for (told, harm) in damage {
        place.template("guest");
        harm(&place.path().join("templates/guest"));
        let listed = place.ratite(&["template", "ls"]);
        let refused = place.ratite(&["run", "--from", "guest"]);
        let removed = place.ratite(&["template", "rm", "guest"]);

        assert!(listed.stdout().contains(told), "{}", listed.stdout());
        refused.assert_code(3);
        refused.assert_says(&[
            "error: could not make a machine of the template \"guest\"\n",
            told,
            "hint: `ratite template rm guest` removes it, and `ratite template create guest …` makes it anew\n",
        ]);
        removed.assert_code(0);
        place.assert_cached(&[]);
    }
}

#[test]
fn what_is_left_of_a_removed_template_is_in_nobodys_way() {
    let place = Place::new();
    place.template("guest");
    fs::remove_file(place.path().join("templates/guest/template.json")).unwrap();

    let listed = place.ratite(&["template", "ls"]);
    place.template("guest");

    assert!(listed.stdout().contains("there is no template in"), "{}", listed.stdout());
    let ended = place.ratite(&["run", "--from", "guest", "--timeout", "5s"]);
    ended.assert_code(4);
    ended.assert_says(&["error: the machine did not end within 5s\n"]);
}

#[test]
fn a_template_of_another_qemu_is_refused() {
    let place = Place::new();
    let qemu = place.path().join("qemu");
    let install = |words: &str| {
        fs::write(&qemu, format!("#!/bin/sh\n{words}exec qemu-system-x86_64 \"$@\"\n")).unwrap();
        fs::set_permissions(&qemu, Permissions::from_mode(0o755)).unwrap();
    };
    install("");
    let mut command = place.guest();
    command[0] = qemu.to_str().unwrap().to_owned();
    place.create("guest", &["--quiet", "--until", guest::PROMPT], &command).assert_code(0);

    install("# newer\n");
    let refused = place.ratite(&["run", "--from", "guest"]);

    refused.assert_code(3);
    refused.assert_says(&["the template was made by QEMU 7.", "/qemu` is another one", "makes it anew"]);
}

#[test]
fn a_machine_that_cannot_be_frozen_is_told_with_its_device() {
    let place = Place::new();
    let disk = place.path().join("blank");
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let drive = format!("file={},if=none,id=n,format=raw", disk.display());
    let nvme = ["-drive", &drive, "-device", "nvme,drive=n,serial=1"].map(str::to_owned);

    let refused =
        place.create("guest", &["--until", guest::PROMPT], &[place.guest(), nvme.to_vec()].concat());

    refused.assert_code(1);
    refused.assert_says(&[
        "error: could not make a template of the machine\n",
        "  caused by: the machine cannot be frozen: non-migratable device: ",
        "nvme\n",
    ]);
    place.assert_cached(&[]);
}

#[test]
fn without_a_console_nothing_is_looked_for() {
    let place = Place::new();
    let refused = place.create("mute", &["--until", "x", "--console", "none"], &place.guest());
    place.create("mute", &["--now", "--console", "none"], &place.guest()).assert_code(0);

    let spawned = place.ratite(&["run", "--from", "mute", "--expect", "x"]);

    refused.assert_code(2);
    refused.assert_says(&["`--until` needs it"]);
    spawned.assert_code(2);
    spawned.assert_says(&["error: the template `mute` has no console to read\n", "`--expect` needs one"]);
}
