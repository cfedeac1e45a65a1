//! Trouble with one machine holds up no other: a debugger at its process, a heavy pattern, a slow disk.

use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use ratite::ConsoleConfig;
use ratite::Pattern;
use ratite::ShutdownErrorKind;
use ratite::Timeouts;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::not_tested;
use ratite_tests::scenario::play;
use ratite_tests::scenario::program;
use ratite_tests::scenario::wait_until;

#[test]
fn a_traced_machine_holds_up_no_other_and_is_reaped_when_its_tracer_ends() {
    play(async |stage| {
        let timeouts = Timeouts { kill: Duration::from_millis(300), ..Timeouts::default() };
        let traced = stage.fake(&["ignore-quit"]).timeouts(timeouts).launch().await.unwrap();
        let other = stage.fake(&[]).launch().await.unwrap();
        let mut tracer = Command::new(program("tracer"));
        tracer.arg(traced.pid().to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut tracer = tracer.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(tracer.stdout.take().unwrap()).read_line(&mut said).unwrap();
        if said != "traced\n" {
            not_tested(&format!("this system permits no tracing: {said}"));
            tracer.wait().unwrap();
            return;
        }

        let start = Instant::now();
        let error = traced.shutdown(Duration::from_millis(100)).await.unwrap_err();
        other.shutdown(AT_ONCE).await.unwrap();
        let third = stage.fake(&[]).launch().await.unwrap();
        third.shutdown(AT_ONCE).await.unwrap();

        assert!(start.elapsed() < AT_ONCE, "after {:?}", start.elapsed());
        let pid = traced.pid();
        let limit = timeouts.kill;
        assert_eq!(error.kind(), ShutdownErrorKind::Unkillable { pid, limit });
        drop(tracer.stdin.take());
        assert!(tracer.wait().unwrap().success());
        assert_eq!(traced.exited().await.signal(), Some(9));
    });
}

#[test]
fn a_pattern_that_takes_long_keeps_its_limit_and_lets_the_console_flow() {
    play(async |stage| {
        let machine = stage.fake(&["console-echo"]).console(ConsoleConfig::serial()).launch().await.unwrap();
        let console = machine.console().unwrap();
        // Letters in no order that a pattern could use.
        let mut random = 1_u32;
        let letters = (0..60_000).map(|_| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if random & (1 << 20) == 0 { 'a' } else { 'b' }
        });
        console.write(format!("{}\n", letters.collect::<String>())).await.unwrap();
        wait_until("all is there to be searched", PATIENCE, || console.bytes_seen() > 60_000);

        let pattern = Pattern::regex("[ab]*a[ab]{20000}c").unwrap();
        let start = Instant::now();
        let error = console.expect(pattern, Duration::from_millis(300)).await.unwrap_err();

        assert!(start.elapsed() < AT_ONCE, "after {:?}: {error}", start.elapsed());
        machine.shutdown(AT_ONCE).await.unwrap();
    });
}

#[test]
fn a_folder_that_takes_long_to_remove_holds_up_no_other_machine() {
    play(async |stage| {
        let full = stage.fake(&[]).launch().await.unwrap();
        let other = stage.fake(&[]).launch().await.unwrap();
        let folder = full.work_folder().to_owned();
        for number in 0..100_000 {
            File::create(folder.join(number.to_string())).unwrap();
        }

        let ended = full.exited();
        drop(full);
        ended.await;
        other.kill().await.unwrap();

        assert!(folder.exists(), "the other machine has waited for the folder's removal");
        wait_until("the folder is gone", PATIENCE, || !folder.exists());
    });
}
