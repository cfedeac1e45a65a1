//! A Linux guest, booted to its shell prompt on the serial console and spoken to.

use std::time::Duration;

use ratite::Asked;
use ratite::ConsoleConfig;
use ratite::ConsoleError;
use ratite::Pattern;
use ratite::Patterns;
use ratite::blocking;
use ratite_tests::linux_guest::PROMPT;
use ratite_tests::linux_guest::VIRTIO;
use ratite_tests::linux_guest::machine;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;

/// Against hangs only: a boot takes two seconds, and a loaded machine some more.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn a_linux_guest_boots_to_a_shell_and_is_spoken_to() {
    play(async |stage| {
        let log = stage.path("console.log");
        let config = machine(&[]).base_folder(stage.base()).console(ConsoleConfig::serial().log(&log));

        let machine = config.launch().await.unwrap();
        let console = machine.console().unwrap();
        console.expect(PROMPT, LIMIT).await.unwrap();
        console.write("echo $((6 * 7)); uname -s\n").await.unwrap();
        let answer = console.expect(Pattern::regex(r"\n(\d+)\r\n(\w+)\r\n").unwrap(), LIMIT).await.unwrap();
        console.expect(PROMPT, LIMIT).await.unwrap();
        console.write("poweroff -f\n").await.unwrap();
        let exit = machine.wait(LIMIT).await.unwrap();

        assert_eq!(answer.groups, [Some(b"42".to_vec()), Some(b"Linux".to_vec())]);
        assert_eq!((exit.status.code(), exit.asked), (Some(0), Asked::Guest));
        assert_eq!(exit.shutdown_reason.as_deref(), Some("guest-shutdown"));
        let recorded = std::fs::read(&log).unwrap();
        assert_eq!(recorded.len() as u64, console.bytes_seen());
        assert!(String::from_utf8_lossy(&recorded).contains("echo $((6 * 7))"));
    });
}

#[test]
fn a_linux_guest_is_ended_while_it_boots() {
    play_blocking(|stage| {
        let machine = blocking::Machine::launch(&machine(&[]).base_folder(stage.base())).unwrap();

        let exit = machine.shutdown(LIMIT).unwrap();

        assert_eq!((exit.status.code(), exit.asked), (Some(0), Asked::Us));
    });
}

#[test]
fn a_linux_guest_is_spoken_to_on_four_consoles_at_once() {
    play(async |stage| {
        let config = machine(&[VIRTIO, "ratite.shell=ttyS2"])
            .base_folder(stage.base())
            .console(ConsoleConfig::serial().name("third").index(2))
            .console(ConsoleConfig::virtconsole().name("hvc0"))
            .console(ConsoleConfig::virtserialport("org.example.0"));
        let machine = config.launch().await.unwrap();
        let console = |name| machine.console_named(name).unwrap();
        for (name, word) in [("console", "one"), ("third", "two"), ("hvc0", "three")] {
            console(name).expect(PROMPT, LIMIT).await.unwrap();
            let echo = format!("echo {word} from $(tty)");
            console(name).send_echoed(&echo, LIMIT).await.unwrap();
            console(name).send_line("").await.unwrap();
        }

        for (name, said) in [
            ("hvc0", "three from /dev/hvc0\r\n"),
            ("third", "two from /dev/ttyS2\r\n"),
            ("console", "one from /dev/ttyS0\r\n"),
        ] {
            console(name).expect(said, LIMIT).await.unwrap();
        }
        let port = "/dev/virtio-ports/org.example.0";
        console("console").send_line(format!("read line <{port}; echo got $line >{port}")).await.unwrap();
        console("org.example.0").write("over the channel\n").await.unwrap();
        assert_eq!(
            console("org.example.0").expect("channel\n", LIMIT).await.unwrap().before_text(),
            "got over the "
        );
        machine.kill().await.unwrap();
    });
}

#[test]
fn a_linux_guest_that_panics_ends_the_wait_for_it() {
    play(async |stage| {
        let machine = machine(&[]).base_folder(stage.base()).launch().await.unwrap();
        let console = machine.console().unwrap();
        console.expect(PROMPT, LIMIT).await.unwrap();
        let next = Patterns::from("never").failing_on(Pattern::linux_failures());

        console.send_line("echo c >/proc/sysrq-trigger").await.unwrap();
        let error = console.expect(next, LIMIT).await.unwrap_err();

        assert!(
            matches!(&error, ConsoleError::Failure { found, .. } if found.text().contains("BUG: ") || found.text().contains("panic")),
            "{error:?}"
        );
        machine.kill().await.unwrap();
    });
}
