//! Keys and mice of a real QEMU, as a guest sees them that tells every byte.

use std::time::Duration;

use ratite::Button;
use ratite::InputError;
use ratite::Keys;
use ratite::Layout;
use ratite::Machine;
use ratite::qmp::ExecuteError;
use ratite::qmp::within;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::play;
use ratite_tests::screen_guest::boot;
use ratite_tests::screen_guest::config;
use ratite_tests::screen_guest::console;
use serde_json::Value;

/// Keys that are told apart soon: some milliseconds each.
const SHORT: Duration = Duration::from_millis(5);

/// What the guest has seen, up to and with `last`.
async fn seen(machine: &Machine, last: &str) -> String {
    let found = console(machine).expect(last, PATIENCE).await.expect("the guest tells it");
    String::from_utf8_lossy(&found.before).trim_start().to_owned() + last
}

#[test]
fn a_combination_is_pressed_in_order_and_released_in_the_other() {
    play(async |stage| {
        let machine = boot(config(stage)).await;
        let input = machine.input().unwrap();

        input.send_key("ctrl-alt-f7").await.unwrap();
        assert_eq!(seen(&machine, "k9d").await, "k1d k38 k41 kc1 kb8 k9d");
        input.send_key("Ctrl+Alt+Del").await.unwrap();
        assert_eq!(seen(&machine, "k9d").await, "k1d k38 ke0 k53 ke0 kd3 kb8 k9d");
        input.send_key("enter").await.unwrap();
        assert_eq!(seen(&machine, "k9c").await, "k1c k9c");
        machine.kill().await.unwrap();
    });
}

#[test]
fn a_text_is_typed_with_the_keys_of_its_layout() {
    play(async |stage| {
        let machine = boot(config(stage)).await;
        let input = machine.input().unwrap().hold(SHORT);

        input.type_text("aZ\n", Layout::Us).await.unwrap();
        assert_eq!(seen(&machine, "k9c").await, "k1e k9e k2a k2c kac kaa k1c k9c");
        input.type_text("z@", Layout::De).await.unwrap();
        assert_eq!(seen(&machine, "ke0 kb8").await, "k15 k95 ke0 k38 k10 k90 ke0 kb8");
        input.type_text("£", Layout::Uk).await.unwrap();
        assert_eq!(seen(&machine, "kaa").await, "k2a k04 k84 kaa");
        input.type_text("é", Layout::Fr).await.unwrap();
        assert_eq!(seen(&machine, "k83").await, "k03 k83");
        machine.kill().await.unwrap();
    });
}

#[test]
fn a_long_text_loses_nothing() {
    play(async |stage| {
        let machine = boot(config(stage)).await;

        machine.input().unwrap().hold(SHORT).type_text(&"ab".repeat(100), Layout::Us).await.unwrap();
        machine.input().unwrap().send_key("esc").await.unwrap();

        assert_eq!(seen(&machine, "k81").await, "k1e k9e k30 kb0 ".repeat(100) + "k01 k81");
        machine.kill().await.unwrap();
    });
}

#[test]
fn what_cannot_be_pressed_or_typed_is_refused_before_anything_is_sent() {
    play(async |stage| {
        let machine = boot(config(stage)).await;
        let input = machine.input().unwrap();

        let key = input.send_key("ctrl-altt-f1").await.unwrap_err();
        let text = input.type_text("naïve", Layout::Us).await.unwrap_err();
        input.send_key("a").await.unwrap();

        assert_says(
            &key,
            &["could not read the keys `ctrl-altt-f1`: no key is called `altt`, perhaps `alt`"],
        );
        assert_says(&text, &["could not type 'ï', character 3 of the text, with the keyboard layout us"]);
        assert_eq!(seen(&machine, "k9e").await, "k1e k9e");
        machine.kill().await.unwrap();
    });
}

#[test]
fn every_key_that_qemu_knows_has_a_name() {
    play(async |stage| {
        let machine = stage.real().launch().await.unwrap();
        let schema = machine.cmd("query-qmp-schema", ()).await.unwrap();
        let values = |entity: &Value| -> Vec<String> {
            let values = entity["values"].as_array().into_iter().flatten();
            values.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let of_keys = |values: &Vec<String>| values.iter().any(|value| value == "bracket_left");
        let codes = schema.as_array().unwrap().iter().map(values).find(of_keys).unwrap();

        let known = |code: &str| code.parse::<Keys>().is_ok_and(|keys| keys.codes() == [code]);
        let unknown: Vec<_> = codes.iter().filter(|code| *code != "unmapped" && !known(code)).collect();

        assert!(codes.len() > 100 && unknown.is_empty(), "{unknown:?}");
        machine.kill().await.unwrap();
    });
}

#[test]
fn no_key_stays_pressed_when_typing_is_given_up() {
    play(async |stage| {
        let machine = boot(config(stage)).await;
        let input = machine.input().unwrap().hold(Duration::from_millis(50));

        for milliseconds in [0, 1, 10, 60, 110, 170, 230] {
            let typing = input.type_text("ABC", Layout::Us);
            within(Duration::from_millis(milliseconds), "text", typing).await.unwrap_err();
        }
        input.send_key("esc").await.unwrap();

        let seen = seen(&machine, "k81").await;
        let mut pressed = Vec::new();
        for byte in seen.split(' ').map(|told| u8::from_str_radix(&told[1..], 16).unwrap()) {
            match byte & 0x80 {
                0 => pressed.push(byte),
                _ => pressed.retain(|key| key | 0x80 != byte),
            }
        }
        assert!(seen.len() > 20 && pressed.is_empty(), "{pressed:x?} still pressed: {seen}");
        machine.kill().await.unwrap();
    });
}

#[test]
fn a_machine_that_is_paused_would_see_nothing_and_gets_nothing() {
    play(async |stage| {
        let machine = boot(config(stage)).await;
        let input = machine.input().unwrap();
        machine.cmd("stop", ()).await.unwrap();

        let key = input.send_key("a").await.unwrap_err();
        let text = input.type_text("a", Layout::Us).await.unwrap_err();
        let moved = input.move_by(1, 1).await.unwrap_err();
        let clicked = input.click(Button::Left).await.unwrap_err();
        machine.cmd("cont", ()).await.unwrap();
        input.send_key("b").await.unwrap();

        for error in [key, text] {
            assert!(matches!(&error, InputError::NotRunning { status } if status == "paused"), "{error:?}");
            assert_says(&error, &["the machine does not run, it is `paused`: its guest would see no input"]);
        }
        for error in [moved, clicked] {
            assert_says(&error, &["QEMU refused `input-send-event`", "VM not running"]);
        }
        assert_eq!(seen(&machine, "kb0").await, "k30 kb0");
        machine.kill().await.unwrap();
    });
}

#[test]
fn a_mouse_is_moved_and_clicked() {
    play(async |stage| {
        let machine = boot(config(stage)).await;
        let input = machine.input().unwrap();

        input.move_by(5, 7).await.unwrap();
        assert_eq!(seen(&machine, "mf9").await, "m28 m05 mf9");
        input.click(Button::Right).await.unwrap();
        assert_eq!(seen(&machine, "m08 m00 m00").await, "m0a m00 m00 m08 m00 m00");
        input.press_button(Button::Left).await.unwrap();
        input.move_by(1, 0).await.unwrap();
        input.release_button(Button::Left).await.unwrap();
        assert_eq!(seen(&machine, "m08 m00 m00").await, "m09 m00 m00 m09 m01 m00 m08 m00 m00");
        machine.kill().await.unwrap();
    });
}

#[test]
fn no_button_stays_pressed_when_a_click_is_given_up() {
    play(async |stage| {
        let machine = boot(config(stage)).await;
        let input = machine.input().unwrap().hold(Duration::from_millis(200));

        within(Duration::from_millis(50), "click", input.click(Button::Left)).await.unwrap_err();

        assert_eq!(seen(&machine, "m08 m00 m00").await, "m09 m00 m00 m08 m00 m00");
        machine.kill().await.unwrap();
    });
}

#[test]
fn a_place_on_the_screen_needs_a_device_that_takes_one() {
    play(async |stage| {
        let with_tablet = config(stage).args(["-usb", "-device", "usb-tablet"]);
        let (without, with) = (boot(config(stage)).await, boot(with_tablet).await);

        let refused = without.input().unwrap().move_to(0.5, 0.5).await.unwrap_err();
        let outside = with.input().unwrap().move_to(0.5, 1.01).await.unwrap_err();
        let nowhere = with.input().unwrap().move_to(f64::NAN, 0.0).await.unwrap_err();
        for (x, y) in [(0.0, 0.0), (0.5, 0.25), (1.0, 1.0)] {
            with.input().unwrap().move_to(x, y).await.unwrap();
        }
        with.input().unwrap().scroll(-2).await.unwrap();

        assert_says(&refused, &["`-device usb-tablet`", "it has QEMU PS/2 Mouse"]);
        assert_says(&outside, &["the screen ends at 1.0: 0.5, 1.01 is not on it"]);
        assert!(matches!(nowhere, InputError::OffScreen { .. }));
        without.kill().await.unwrap();
        with.kill().await.unwrap();
    });
}

#[test]
fn a_machine_that_ends_holds_no_key_any_longer() {
    play(async |stage| {
        let machine = boot(config(stage)).await;
        let input = machine.input().unwrap().hold(Duration::from_secs(10));
        let typing = tokio::spawn(async move { input.type_text("abc", Layout::Us).await });
        seen(&machine, "k1e").await;

        machine.kill().await.unwrap();

        let typed = within(AT_ONCE, "end of typing", typing).await.unwrap().unwrap();
        assert!(matches!(typed, Err(InputError::Command(ExecuteError::Disconnected { .. }))), "{typed:?}");
    });
}
