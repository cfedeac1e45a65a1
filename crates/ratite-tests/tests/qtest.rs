//! Machines under qtest: answers are never mixed with interrupts, and nothing is sent that would hurt.

use std::time::Duration;
use std::time::Instant;

use ratite::Irqs;
use ratite::LaunchErrorKind;
use ratite::QtestError;
use ratite::Timeouts;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::chain;
use ratite_tests::scenario::play;

#[test]
fn a_command_is_answered_with_what_follows_ok() {
    play(async |stage| {
        let machine = stage.fake(&[]).qtest().launch().await.unwrap();
        let qtest = machine.qtest().unwrap();

        qtest.command("writel 0x10 0xdeadbeef").await.unwrap();

        assert_eq!(qtest.command("readw 0x12").await.unwrap(), "0x000000000000dead");
        assert_eq!(qtest.raw("readw 0x12").await.unwrap(), "OK 0x000000000000dead");
        let line = machine.command_line().to_string();
        assert!(line.ends_with("-qtest chardev:qtest -accel qtest"), "{line}");
    });
}

#[test]
fn a_machine_that_is_not_under_qtest_has_no_session() {
    play(async |stage| {
        assert!(stage.fake(&[]).launch().await.unwrap().qtest().is_none());
    });
}

#[test]
fn interrupts_do_not_shift_the_answers() {
    play(async |stage| {
        let machine = stage.fake(&["qtest-irq"]).qtest().launch().await.unwrap();
        let qtest = machine.qtest().unwrap();

        for step in 1..=100 {
            assert_eq!(qtest.command("clock_step 10").await.unwrap(), (step * 10).to_string());
        }

        assert_eq!(qtest.irqs(), Irqs::from([(8, true)]));
        qtest.wait_irq(8, true, AT_ONCE).await.unwrap();
        let never = qtest.wait_irq(9, true, Duration::from_millis(50)).await.unwrap_err();
        assert_says(&never, &["no interrupt line 9 raised within 50ms"]);
    });
}

#[test]
fn an_interrupt_wakes_who_waits_for_it() {
    play(async |stage| {
        let machine = stage.fake(&[]).qtest().launch().await.unwrap();
        let qtest = machine.qtest().unwrap().clone();
        let waiting = tokio::spawn(async move { qtest.wait_irq(3, true, PATIENCE).await });

        // The fake raises it instead of an answer.
        let raising = machine.qtest().unwrap().command("fake-irq 3");
        drop(tokio::time::timeout(Duration::from_millis(100), raising).await);

        waiting.await.unwrap().unwrap();
    });
}

#[test]
fn what_would_hurt_is_refused_and_not_sent() {
    play(async |stage| {
        let machine = stage.fake(&[]).qtest().launch().await.unwrap();
        let qtest = machine.qtest().unwrap();

        for command in ["", " ", "\t", "clock_step\nclock_step", "x\r", "x\0"] {
            let error = qtest.command(command).await.unwrap_err();
            assert!(matches!(error, QtestError::Command { .. }), "{command:?}: {error:?}");
        }

        assert_eq!(qtest.command("clock_step 1").await.unwrap(), "1");
    });
}

#[test]
fn a_refusal_is_told_verbatim() {
    play(async |stage| {
        let machine = stage.fake(&[]).qtest().launch().await.unwrap();

        let error = machine.qtest().unwrap().command("nonsense 1").await.unwrap_err();

        let told = "QEMU answered `FAIL Unknown command 'nonsense'` to the qtest command `nonsense 1`";
        assert_eq!(error.to_string(), told);
    });
}

#[test]
fn an_answer_that_does_not_come_ends_at_the_limit() {
    play(async |stage| {
        let command = Duration::from_millis(100);
        let config = stage.fake(&[]).qtest().timeouts(Timeouts { command, ..Timeouts::default() });
        let machine = config.launch().await.unwrap();

        let error = machine.qtest().unwrap().command("fake-silent").await.unwrap_err();

        assert!(matches!(error, QtestError::TimedOut(_)), "{error:?}");
        assert_says(&error, &["no answer to the qtest command `fake-silent` within 100ms"]);
    });
}

#[test]
fn a_late_answer_is_nobody_elses() {
    play(async |stage| {
        let machine = stage.fake(&[]).qtest().launch().await.unwrap();
        let qtest = machine.qtest().unwrap();

        for step in 1..50 {
            drop(tokio::time::timeout(Duration::from_micros(step * 3), qtest.command("clock_step 1")).await);
            assert!(qtest.command("endianness").await.unwrap() == "little");
        }
    });
}

#[test]
fn qemus_death_ends_what_waits() {
    play(async |stage| {
        let machine = stage.fake(&[]).qtest().launch().await.unwrap();
        let qtest = machine.qtest().unwrap();

        let start = Instant::now();
        let exiting = qtest.command("fake-exit").await;
        let later = qtest.command("clock_step").await;
        let irq = qtest.wait_irq(1, true, Duration::MAX).await;

        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        assert!(matches!(exiting, Err(QtestError::Disconnected { .. })), "{exiting:?}");
        assert!(matches!(later, Err(QtestError::Disconnected { .. })), "{later:?}");
        assert!(matches!(irq, Err(QtestError::Disconnected { .. })), "{irq:?}");
        assert!(machine.wait(PATIENCE).await.unwrap().success());
    });
}

#[test]
fn a_real_qemu_without_the_accelerator_says_so_in_its_last_words() {
    play(async |stage| {
        match stage.real().qtest().launch().await {
            // Most builds have it.
            Ok(machine) => assert_eq!(machine.qtest().unwrap().command("clock_step 1").await.unwrap(), "1"),
            Err(error) => {
                assert!(matches!(error.kind(), LaunchErrorKind::Exited(_)), "{}", chain(&error));
                assert!(error.log().text().contains("invalid accelerator qtest"), "{:?}", error.log());
            }
        }
    });
}

#[test]
fn a_real_qemu_under_tcg_answers_qtest() {
    play(async |stage| {
        let config = stage.guest().arg("-S").accelerator("tcg").qtest();
        let machine = config.launch().await.unwrap();
        let qtest = machine.qtest().unwrap();

        qtest.command("writel 0x1000 0x12345678").await.unwrap();

        assert_eq!(qtest.command("readl 0x1000").await.unwrap(), "0x0000000012345678");
        assert!(!machine.command_line().to_string().contains("-accel qtest"));
        let refused = qtest.command("nonsense").await.unwrap_err();
        assert_says(&refused, &["nonsense"]);
        assert!(machine.shutdown(PATIENCE).await.unwrap().success());
    });
}
