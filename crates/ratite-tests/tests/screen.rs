//! Screens of a real QEMU: read as text and as pixels, waited for, and refused.

use std::fs;
use std::io::Write;
use std::time::Duration;

use ratite::Cell;
use ratite::Difference;
use ratite::Layout;
use ratite::Monitor;
use ratite::Pattern;
use ratite::Picture;
use ratite::Region;
use ratite::Screen;
use ratite::ScreenError;
use ratite::ScreenText;
use ratite::Tolerance;
use ratite::qmp::Address;
use ratite::qmp::Client;
use ratite::qmp::Options;
use ratite::qmp::within;
use ratite_tests::linux_guest;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::descriptors_of;
use ratite_tests::scenario::entries;
use ratite_tests::scenario::play;
use ratite_tests::scenario::send_signal;
use ratite_tests::screen_guest::boot;
use ratite_tests::screen_guest::config;
use ratite_tests::screen_guest::show;
use ratite_tests::scripted_qmp::ScriptedQmp;
use rustix::process::Signal;
use serde_json::json;

/// The cell in which the guest's cursor blinks.
const CURSOR: Region = Region { x: 7 * 9, y: 12 * 16, width: 9, height: 16 };

/// The colours that the guest writes in: a VGA has six bits a channel, of which QEMU makes eight.
const GREY: [u8; 3] = [0xa8; 3];
const WHITE: [u8; 3] = [0xff; 3];
const BLUE: [u8; 3] = [0, 0, 0xa8];
const BLACK: [u8; 3] = [0; 3];

fn but_the_cursor() -> Tolerance {
    Tolerance::exact().ignoring(CURSOR)
}

#[test]
fn a_text_mode_screen_is_read_in_its_places_and_colours() {
    play(async |stage| {
        let machine = boot(config(stage)).await;

        let text = machine.screen().unwrap().wait_text("login: ", PATIENCE).await.unwrap();

        assert_eq!((text.columns(), text.rows(), text.unknown()), (80, 25, 0));
        let lines = text.lines();
        assert_eq!(lines[0], "   ratite screen guest");
        assert_eq!(lines[3], " !\"#$%&'()*+,-./0123456789:;<=>?");
        assert_eq!(lines[4], "@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_");
        assert_eq!(lines[6], "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒ");
        assert_eq!(lines[8], "└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌ ▄▌▐▀");
        assert_eq!(lines[12], "login:");
        assert!(lines[13..].iter().all(String::is_empty), "{lines:?}");
        let cell = |character, foreground, background| Some(Cell { character, foreground, background });
        assert_eq!(text.cell(3, 0), cell('r', WHITE, BLUE));
        assert_eq!(text.cell(0, 12), cell('l', GREY, BLACK));
        assert_eq!(text.cell(2, 0), cell(' ', BLACK, BLACK));
        machine.kill().await.unwrap();
    });
}

#[test]
fn the_cursor_is_seen_when_it_is_to_be_seen() {
    play(async |stage| {
        let machine = boot(config(stage)).await;
        let screen = machine.screen().unwrap();
        let blank = screen.wait_text("login: ", PATIENCE).await.unwrap().text();

        // It blinks.
        let seen = within(PATIENCE, "cursor", async {
            loop {
                let text = screen.text(PATIENCE).await.unwrap();
                assert_eq!(text.text(), blank);
                if let Some(cursor) = text.cursor() {
                    return cursor;
                }
            }
        });

        assert_eq!(seen.await, Ok((7, 12)));
        machine.kill().await.unwrap();
    });
}

#[test]
fn other_text_modes_are_read_too() {
    play(async |stage| {
        let machine = boot(config(stage)).await;
        let screen = machine.screen().unwrap();

        show(&machine, "f2").await;
        let forty = screen.wait_text("ratite screen guest", PATIENCE).await.unwrap();
        show(&machine, "f3").await;
        let fifty = screen.wait_text("login: ", PATIENCE).await.unwrap();

        assert_eq!((forty.columns(), forty.rows(), forty.unknown()), (40, 25, 0));
        assert_eq!(forty.lines()[0], "ratite screen guest");
        assert_eq!((fifty.columns(), fifty.rows(), fifty.unknown()), (80, 50, 0));
        assert_eq!(fifty.lines()[5], "`abcdefghijklmnopqrstuvwxyz{|}~⌂");
        machine.kill().await.unwrap();
    });
}

#[test]
fn text_that_is_drawn_on_a_graphics_screen_is_read_too() {
    play(async |stage| {
        let machine = boot(config(stage)).await;

        show(&machine, "f6").await;
        let text = machine.screen().unwrap().wait_text("ratite screen guest", PATIENCE).await.unwrap();

        assert_eq!((text.columns(), text.rows(), text.unknown()), (80, 30, 0));
        assert_eq!(text.text(), "ratite screen guest\n");
        let yellow = [0xff, 0xff, 0x57];
        assert_eq!(text.cell(0, 0), Some(Cell { character: 'r', foreground: yellow, background: BLACK }));
        machine.kill().await.unwrap();
    });
}

#[test]
fn keys_are_typed_into_linux_and_its_screen_is_read() {
    play(async |stage| {
        let config = linux_guest::machine(&["console=tty0"]).base_folder(stage.base());
        let machine = config.args(["-vga", "std", "-m", "256"]).launch().await.unwrap();
        let (screen, input) = (machine.screen().unwrap(), machine.input().unwrap());
        screen.wait_text("guest# ", PATIENCE).await.unwrap();

        input.type_text("clear; echo \"Sum: $((6*7)) ~|\\{}[]\"\n", Layout::Us).await.unwrap();

        let text = screen.wait_text(Pattern::regex(r"^Sum: 42.*\n").unwrap(), PATIENCE).await.unwrap();
        assert_eq!((text.lines()[0].as_str(), text.unknown()), ("Sum: 42 ~|\\{}[]", 0));
        machine.kill().await.unwrap();
    });
}

/// What mode 13h shows of the guest's drawing: each pixel twice, in the sixteen colours that a VGA begins with.
fn drawing() -> Picture {
    let colours: [[u8; 3]; 16] = std::array::from_fn(|colour| {
        let (high, low) = if colour & 8 == 0 { (0xa8, 0) } else { (0xff, 0x57) };
        let channel = |bit| if colour & bit == 0 { low } else { high };
        if colour == 6 { [0xa8, 0x57, 0] } else { [channel(4), channel(2), channel(1)] }
    });
    let places = (0..400).flat_map(|y| (0..640).map(move |x| (x / 2, y / 2)));
    let rgb: Vec<u8> = places.flat_map(|(x, y)| colours[(x / 8 + y / 8 * 5) % 16]).collect();
    Picture::from_rgb(640, 400, rgb).expect("it has as many pixels")
}

#[test]
fn a_picture_is_pixel_for_pixel_what_the_guest_has_drawn() {
    play(async |stage| {
        let machine = boot(config(stage)).await;
        let (screen, file) = (machine.screen().unwrap(), stage.path("screen.png"));
        show(&machine, "f4").await;

        let seen = screen.looks_like(&drawing(), &Tolerance::exact(), PATIENCE).await.unwrap();
        let png = screen.screenshot_png(PATIENCE).await.unwrap();
        seen.save_png(&file).unwrap();

        assert_eq!(seen.difference(&drawing(), &Tolerance::exact()).to_string(), "no pixel differs");
        assert_eq!(Picture::from_png(&png).unwrap(), drawing());
        assert_eq!(Picture::from_png(&fs::read(file).unwrap()).unwrap(), drawing());
        machine.kill().await.unwrap();
    });
}

#[test]
fn a_change_is_waited_for_and_found_in_its_place() {
    play(async |stage| {
        let machine = boot(config(stage)).await;
        let screen = machine.screen().unwrap().every(Duration::from_millis(20));
        let still = Duration::from_millis(300);
        let before = screen.still(still, &but_the_cursor(), PATIENCE).await.unwrap();
        let unchanged = screen.changed_from(&before, &but_the_cursor(), Duration::from_millis(300)).await;
        let (waiting, reference) = (screen.clone(), before.clone());
        let waiting =
            tokio::spawn(async move { waiting.changed_from(&reference, &but_the_cursor(), PATIENCE).await });

        show(&machine, "f5").await;

        let after = waiting.await.unwrap().unwrap();
        let cell = Region { x: 0, y: 15 * 16, width: 9, height: 16 };
        match after.difference(&before, &but_the_cursor()) {
            Difference::Pixels { bounds: Some(bounds), .. } => {
                assert!(cell.contains(bounds.x, bounds.y) && bounds.height <= 16, "{bounds}");
            }
            other => panic!("{other}"),
        }
        let error = unchanged.unwrap_err();
        assert_says(&error, &["no change of the screen within 300ms: no pixel differs"]);
        assert!(error.picture().is_some_and(|last| last.looks_like(&before, &but_the_cursor())));
        machine.kill().await.unwrap();
    });
}

#[test]
fn a_wait_in_vain_says_what_was_to_be_seen_instead() {
    play(async |stage| {
        let machine = boot(config(stage)).await;
        let screen = machine.screen().unwrap();
        screen.wait_text("login: ", PATIENCE).await.unwrap();
        let limit = Duration::from_millis(500);

        let no_text = screen.wait_text("password:", limit).await.unwrap_err();
        let no_look = screen.looks_like(&drawing(), &Tolerance::exact(), limit).await.unwrap_err();
        let blinking = screen.still(Duration::from_secs(60), &Tolerance::exact(), limit).await.unwrap_err();

        assert_says(&no_text, &["no `password:` on the screen within 500ms"]);
        let last = no_text.picture().unwrap();
        assert!(ScreenText::read(last).unwrap().text().contains("login:"));
        assert_says(&no_look, &["within 500ms: it has 720x400 pixels instead of 640x400"]);
        assert_says(&blinking, &["no screen that is still for 60s within 500ms"]);
        machine.kill().await.unwrap();
    });
}

#[test]
fn a_machine_without_a_screen_says_so() {
    play(async |stage| {
        let machine = stage.guest().launch().await.unwrap();
        let screen = machine.screen().unwrap();

        for error in [
            screen.screenshot(PATIENCE).await.map(drop),
            screen.screenshot_png(PATIENCE).await.map(drop),
            screen.wait_text("x", PATIENCE).await.map(drop),
            screen.still(Duration::ZERO, &Tolerance::exact(), PATIENCE).await.map(drop),
        ]
        .map(Result::unwrap_err)
        {
            assert!(matches!(error, ScreenError::NoScreen(_)), "{error:?}");
            assert_says(&error, &["the machine has no screen", "There is no console to take a screendump"]);
        }
        machine.kill().await.unwrap();
    });
}

#[test]
fn a_card_or_a_head_that_there_is_not_is_told_in_qemus_words() {
    play(async |stage| {
        let machine = boot(config(stage)).await;
        let screen = machine.screen().unwrap();

        screen.clone().device("card").screenshot(PATIENCE).await.unwrap();
        let device = screen.clone().device("nosuch").screenshot(PATIENCE).await.unwrap_err();
        let head = screen.clone().device("card").head(7).screenshot_png(PATIENCE).await.unwrap_err();
        let alone = screen.clone().head(1).screenshot(PATIENCE).await.unwrap_err();

        assert_eq!(device.refusal().unwrap().class, "DeviceNotFound");
        assert_says(&alone, &["'head' must be specified together with 'device'"]);
        assert_says(&device, &["could not take a picture", "Device 'nosuch' not found"]);
        assert_says(&head, &["could not take a picture", "head 7"]);
        machine.kill().await.unwrap();
    });
}

#[test]
fn a_screenshot_that_is_given_up_leaves_nothing_in_qemu() {
    play(async |stage| {
        let machine = boot(config(stage)).await;
        let screen = machine.screen().unwrap();
        screen.screenshot(PATIENCE).await.unwrap();
        let before = descriptors_of(machine.pid());

        for microseconds in (0..4000).step_by(50) {
            let _given_up_or_not = screen.screenshot(Duration::from_micros(microseconds)).await;
        }
        send_signal(machine.pid(), Signal::STOP);
        let stopped = screen.screenshot(Duration::from_millis(100)).await.unwrap_err();
        send_signal(machine.pid(), Signal::CONT);

        assert_says(&stopped, &["no picture of the screen within 100ms"]);
        // Commands are answered in their order, so what is still to be removed may take a while.
        let clean = async { while machine.cmd("query-fdsets", ()).await.unwrap() != json!([]) {} };
        within(PATIENCE, "end of the descriptor sets", clean).await.unwrap();
        assert_eq!(descriptors_of(machine.pid()), before);
        machine.kill().await.unwrap();
    });
}

fn forgotten_folders() -> Vec<String> {
    let ours = format!("ratite-screen-{}-", std::process::id());
    entries(&std::env::temp_dir()).into_iter().filter(|name| name.starts_with(&ours)).collect()
}

#[test]
fn a_monitor_that_carries_no_descriptors_is_served_by_a_file_that_is_removed() {
    play(async |stage| {
        let tcp = Monitor::Tcp { host: "127.0.0.1".into(), port: 0 };
        let machine = boot(config(stage).monitor(tcp)).await;
        let screen = machine.screen().unwrap();

        let text = screen.wait_text("login: ", PATIENCE).await.unwrap();
        let png = screen.screenshot_png(PATIENCE).await.unwrap();
        for microseconds in (0..4000).step_by(100) {
            let _given_up_or_not = screen.screenshot(Duration::from_micros(microseconds)).await;
        }
        screen.screenshot(PATIENCE).await.unwrap();

        assert_eq!(text.columns(), 80);
        assert_eq!(Picture::from_png(&png).unwrap().width(), 720);
        let gone = async {
            while !forgotten_folders().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        within(PATIENCE, "end of the folders", gone).await.unwrap();
        machine.kill().await.unwrap();
    });
}

#[test]
fn a_qemu_that_somebody_else_runs_has_a_screen_too() {
    play(async |stage| {
        let path = stage.path("other.sock");
        let machine = boot(config(stage).args(["-qmp".into(), listening(stage)])).await;
        let client = Client::connect(&Address::unix(&path), Options::default()).await.unwrap();

        let text = Screen::over(client).wait_text("login: ", PATIENCE).await.unwrap();

        assert_eq!(text.lines()[0].trim(), "ratite screen guest");
        machine.kill().await.unwrap();
    });
}

fn listening(stage: &Stage) -> String {
    format!("unix:{},server=on,wait=off", stage.path("other.sock").display())
}

/// A PPM of one red pixel.
const RED: &[u8] = b"P6\n1 1\n255\n\xff\x00\x00";

#[test]
fn a_qemu_that_writes_no_png_has_its_picture_converted() {
    play(async |_stage| {
        for refusal in ["Parameter 'format' is unexpected", "Enable PNG support with libpng for screendump"] {
            let (socket, script) = ScriptedQmp::play(move |mut qmp| {
                qmp.handshake();
                for asked in ["png", ""] {
                    let add = qmp.expect_command("add-fd");
                    let file = qmp.take_descriptors().pop().unwrap();
                    qmp.reply(&add, json!({ "fdset-id": 3, "fd": 9 }));
                    let dump = qmp.expect_command("screendump");
                    assert_eq!(dump["arguments"]["filename"], "/dev/fdset/3");
                    assert_eq!(dump["arguments"]["format"].as_str().unwrap_or(""), asked);
                    if asked == "png" {
                        qmp.error(&dump, "GenericError", refusal);
                    } else {
                        fs::File::from(file).write_all(RED).unwrap();
                        qmp.reply(&dump, json!({}));
                    }
                    let remove = qmp.expect_command("remove-fd");
                    assert_eq!(remove["arguments"]["fdset-id"], 3);
                    qmp.reply(&remove, json!({}));
                }
                qmp.read_to_end();
            });
            socket.set_nonblocking(true).unwrap();
            let socket = ratite::qmp::Socket::try_from(socket).unwrap();
            let client = Client::over(socket, Options::default()).await.unwrap();

            let png = Screen::over(client).screenshot_png(PATIENCE).await.unwrap();

            assert_eq!(Picture::from_png(&png).unwrap().pixel(0, 0), Some([255, 0, 0]));
            tokio::task::spawn_blocking(|| script.join().unwrap()).await.unwrap();
        }
    });
}

#[test]
fn what_is_no_picture_is_told() {
    play(async |_stage| {
        let (socket, script) = ScriptedQmp::play(|mut qmp| {
            qmp.handshake();
            for name in ["add-fd", "screendump", "remove-fd"] {
                let command = qmp.expect_command(name);
                qmp.reply(&command, json!({ "fdset-id": 0, "fd": 9 }));
            }
            qmp.read_to_end();
        });
        let socket = ratite::qmp::Socket::try_from(socket).unwrap();
        let client = Client::over(socket, Options::default()).await.unwrap();

        let error = Screen::over(client).screenshot(PATIENCE).await.unwrap_err();

        assert_says(&error, &["could not understand the picture", "could not read 0 bytes as a PPM"]);
        tokio::task::spawn_blocking(|| script.join().unwrap()).await.unwrap();
    });
}
