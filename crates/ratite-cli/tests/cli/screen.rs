//! `ratite screenshot` and `ratite keys`, on a QEMU that another `ratite` runs.

use std::fs;
use std::path::Path;

use ratite::Picture;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::Ratite;
use crate::harness::ratite;
use crate::harness::start_run;

/// A machine that shows something, and tells which keys are pressed.
struct Shown {
    run: Ratite,
    folder: TempDir,
}

impl Shown {
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ratite-tests/guest/screen.bin");
        let drive = format!("file={},format=raw,if=floppy,readonly=on", guest.display());
        let words = ["qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-m", "4", "-drive", &drive];
        let command: Vec<String> = words.iter().chain(arguments).map(|&word| word.to_owned()).collect();
        let socket = folder.path().join("qmp.sock");
        let mut run = start_run(&["--qmp", socket.to_str().unwrap(), "--timeout", "60s"], &command);
        run.wait_for("ready");
        Self { run, folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn socket(&self) -> String {
        self.path("qmp.sock")
    }

    fn end(self) {
        self.run.signal(Signal::TERM);
        self.run.finish().assert_code(143);
    }
}

#[test]
fn a_screen_is_a_png_in_a_file_or_on_stdout_or_text() {
    let shown = Shown::start(&["-device", "VGA,id=card"]);
    let file = shown.path("screen.png");

    let saved = ratite(&["screenshot", &shown.socket(), &file]);
    let piped = ratite(&["screenshot", &shown.socket(), "-", "--device", "card"]);
    let text = ratite(&["screenshot", &shown.socket(), "--text"]);

    for outcome in [&saved, &piped, &text] {
        outcome.assert_code(0);
        assert_eq!(outcome.stderr, "");
    }
    assert_eq!(saved.stdout, b"");
    for png in [fs::read(file).unwrap(), piped.stdout] {
        let picture = Picture::from_png(&png).unwrap();
        assert_eq!((picture.width(), picture.height()), (720, 400));
    }
    let lines: Vec<String> = text.stdout().lines().map(str::to_owned).collect();
    assert_eq!(
        (lines[0].as_str(), lines[12].as_str(), lines.len()),
        ("   ratite screen guest", "login:", 13)
    );
    shown.end();
}

#[test]
fn keys_are_pressed_and_a_text_is_typed_before_them() {
    let mut shown = Shown::start(&[]);

    let keys = ratite(&["keys", &shown.socket(), "ctrl-alt-delete", "f9"]);
    shown.run.wait_for("k1d k38 ke0 k53 ke0 kd3 kb8 k9d k43 kc3");
    let text = ratite(&["keys", &shown.socket(), "enter", "--text", "Zü", "--layout", "de", "--hold", "5ms"]);
    shown.run.wait_for("k2a k15 k95 kaa k1a k9a k1c k9c");

    for outcome in [keys, text] {
        outcome.assert_code(0);
        assert_eq!((outcome.stdout().as_str(), outcome.stderr.as_str()), ("", ""));
    }
    shown.end();
}

#[test]
fn what_qemu_does_not_do_is_told_with_what_helps() {
    let shown = Shown::start(&[]);
    let socket = shown.socket();

    let no_screen = ratite(&["screenshot", &socket, "--text"]);
    let nobody = ratite(&["screenshot", &shown.path("nobody.sock"), "x.png"]);

    no_screen.assert_code(1);
    no_screen.assert_says(&[
        "could not take the screenshot",
        "the machine has no screen",
        "There is no console",
    ]);
    no_screen.assert_says(&["hint: a machine has a screen if it has a graphics card: `ratite run --screen`"]);
    nobody.assert_code(1);
    nobody.assert_says(&["could not connect to ", "nobody.sock"]);
    shown.end();
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let shown = Shown::start(&["-vga", "std"]);

    let told = ratite(&["screenshot", &shown.socket(), &shown.path("no/such.png")]);

    told.assert_code(1);
    told.assert_says(&["error: could not write `", "no/such.png`\n  caused by: No such file or directory"]);
    shown.end();
}

#[test]
fn a_wrong_command_line_is_refused_before_anything_is_sent() {
    let check = |arguments: &[&str], words: &str| {
        let refused = ratite(arguments);
        refused.assert_code(2);
        refused.assert_says(&[words]);
    };

    check(&["screenshot", "./nowhere"], "<FILE.png>");
    check(&["screenshot", "./nowhere", "-", "--text"], "cannot both go to stdout");
    check(&["screenshot", "./nowhere", "x.png", "--head", "1"], "--device <ID>");
    check(&["keys", "./nowhere"], "<KEYS>");
    check(&["keys", "./nowhere", "ctrl-altt-f1"], "no key is called `altt`, perhaps `alt`");
    check(
        &["keys", "./nowhere", "--text", "ü"],
        "could not type 'ü', character 1 of the text, with the keyboard layout us",
    );
    check(&["keys", "./nowhere", "--text", "x", "--layout", "xx"], "there are us, uk, de and fr");
}
