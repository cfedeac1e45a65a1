//! A Linux guest, booted to its shell prompt on the serial console and spoken to.

use std::time::Duration;

use ratite::Asked;
use ratite::ConsoleConfig;
use ratite::Pattern;
use ratite::blocking;
use ratite_tests::linux_guest::PROMPT;
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
