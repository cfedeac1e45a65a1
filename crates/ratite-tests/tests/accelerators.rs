//! An accelerator is available when guest code has run on it, fast enough: what is listed and what is measured, with QEMUs
//! that lie, hang and refuse, and with a real one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use ratite::AcceleratorError;
use ratite::Accelerators;
use ratite::LaunchErrorKind;
use ratite::Measurement;
use ratite::Verdict;
use ratite::blocking;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::fake_qemu;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;
use ratite_tests::scenario::wait_until;

const QEMU: &str = "qemu-system-x86_64";

/// Long enough for a fake to come up on a busy machine, and no longer: it is waited for in vain.
const SHORT: Duration = Duration::from_secs(2);

/// A script in place of a QEMU.
fn script(stage: &Stage, text: &str) -> PathBuf {
    let path = stage.path("qemu");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a folder of our own");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a file of our own");
    path
}

/// A fake QEMU that misbehaves as `words` say, when it is launched.
fn fake(stage: &Stage, words: &[&str]) -> PathBuf {
    let words: String = words.iter().map(|word| format!(" -fake '{word}'")).collect();
    script(stage, &format!("exec {} \"$@\"{words}", fake_qemu().display()))
}

/// Measures the `tcg` of a fake QEMU.
async fn measure_fake(stage: &Stage, words: &[&str]) -> Measurement {
    let accelerators = Accelerators::of(fake(stage, words)).await.expect("a fake lists them");
    accelerators.measure("tcg", SHORT).await.expect("a fake can be launched")
}

#[track_caller]
fn check_unusable(measured: &Measurement, why: &str) {
    assert_eq!(measured.verdict, Verdict::Unusable, "{measured:?}");
    assert!(measured.why.contains(why), "{measured:?}");
}

#[test]
fn what_the_binary_lists_is_listed() {
    play(async |stage| {
        let several = Accelerators::of(fake_qemu()).await.unwrap();
        let none = script(stage, "echo Accelerators supported in QEMU binary:");
        let none = Accelerators::of(none).await.unwrap();

        assert_eq!(several.listed, ["tcg", "qtest"]);
        assert_eq!(none.listed, Vec::<String>::new());
        assert_eq!(none.measure_all(SHORT).await.unwrap(), []);
    });
}

#[test]
fn what_is_no_qemu_is_named_with_what_it_did() {
    play(async |stage| {
        let missing = Accelerators::of("/nowhere/qemu").await.unwrap_err();
        let other = Accelerators::of("/bin/false").await.unwrap_err();
        let endless = Accelerators::of(script(stage, "exec yes")).await.unwrap_err();

        let AcceleratorError::Launch(error) = &missing else { panic!("{missing:?}") };
        assert!(matches!(error.kind(), LaunchErrorKind::Spawn { .. }), "{error:?}");
        assert_says(&missing, &["`/nowhere/qemu`", "there is no such file"]);
        assert_says(&other, &["`/bin/false` did not list its accelerators, and exited with status 1"]);
        assert_says(&endless, &["qemu` said too much to be a list of accelerators"]);
    });
}

#[test]
fn a_binary_that_hangs_is_given_up() {
    play(async |stage| {
        let start = Instant::now();

        let error = Accelerators::of(script(stage, "exec sleep 1000")).await.unwrap_err();

        assert_says(&error, &["qemu` did not list its accelerators within 5s"]);
        assert!(start.elapsed() < Accelerators::LIMIT + AT_ONCE, "{:?}", start.elapsed());
    });
}

#[test]
fn guest_code_that_does_not_run_is_told_by_how_far_it_came() {
    play(async |stage| {
        let silent = measure_fake(stage, &[]).await;
        let in_real_mode = measure_fake(stage, &["console-banner=r"]).await;
        let in_long_mode = measure_fake(stage, &["console-banner=rR"]).await;

        check_unusable(&silent, "ran no guest code within 2s");
        check_unusable(&in_real_mode, "too slowly to get to 64-bit mode within 2s");
        check_unusable(&in_long_mode, "its guest obeyed no orders within 2s");
        assert_eq!(silent.speed, None);
        assert!(in_long_mode.speed.is_some_and(|speed| speed.loops_per_second.is_none()));
    });
}

#[test]
fn a_qemu_that_refuses_stops_or_dies_is_told_in_its_own_words() {
    play(async |stage| {
        let refused = measure_fake(stage, &["exit-before-monitor=1"]).await;
        let silent = measure_fake(stage, &["silent"]).await;
        let dead = measure_fake(stage, &["console-banner=r", "abort-on=cont"]).await;

        check_unusable(&refused, "does not start: ");
        check_unusable(&refused, "-machine bogus: unsupported machine type");
        check_unusable(&silent, "did not let QEMU start within");
        check_unusable(&dead, "QEMU was killed by signal 6 (SIGABRT)");
    });
}

#[test]
fn for_another_target_nothing_is_measured_and_nothing_guessed() {
    play(async |stage| {
        let start = Instant::now();

        let measured = measure_fake(stage, &["target=aarch64"]).await;

        assert_eq!(measured.verdict, Verdict::NotMeasured);
        assert_eq!(measured.why, "was not run: the guest code is for x86_64, and this QEMU for aarch64");
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    });
}

#[test]
fn what_is_not_there_and_what_runs_no_code_is_not_tried() {
    play(async |_| {
        let accelerators = Accelerators::of(fake_qemu()).await.unwrap();

        let absent = accelerators.measure("kvm", SHORT).await.unwrap();
        let qtest = accelerators.measure("qtest", SHORT).await.unwrap();

        check_unusable(&absent, "is not built into this QEMU");
        check_unusable(&qtest, "runs no guest code");
        assert!(!absent.listed && qtest.listed);
    });
}

#[test]
fn a_measurement_that_is_dropped_leaves_nothing() {
    play(async |stage| {
        let accelerators = Accelerators::of(fake(stage, &["console-banner=rR"])).await.unwrap();

        for milliseconds in [1, 20, 80, 300] {
            let measuring = accelerators.measure("tcg", PATIENCE);
            let dropped = tokio::time::timeout(Duration::from_millis(milliseconds), measuring).await;

            assert!(dropped.is_err(), "{dropped:?}");
        }

        let ours = format!("qemu-machine-{}-", std::process::id());
        let folders = || fs::read_dir("/var/tmp").into_iter().flatten().flatten();
        let gone = || !folders().any(|folder| folder.file_name().to_string_lossy().starts_with(&ours));
        wait_until("the work folders are gone", PATIENCE, gone);
    });
}

#[test]
fn tcg_is_usable() {
    play_blocking(|_| {
        let accelerators = blocking::Accelerators::of(QEMU).unwrap();

        let tcg = accelerators.measure("tcg", PATIENCE).unwrap();

        assert!(accelerators.listed().contains(&"tcg".to_owned()));
        assert!(tcg.is_usable(), "{tcg:?}");
        let speed = tcg.speed.unwrap();
        let rates = [
            speed.loops_per_second,
            speed.cpuids_per_second,
            speed.port_writes_per_second,
            speed.page_moves_per_second,
        ];
        assert!(rates.iter().all(|rate| rate.is_some_and(|rate| rate > 1000.0)), "{speed:?}");
    });
}

#[test]
fn a_limit_that_is_too_short_is_not_held_against_tcg() {
    play(async |_| {
        let accelerators = Accelerators::of(QEMU).await.unwrap();

        for milliseconds in [0, 40, 80, 120] {
            let measured = accelerators.measure("tcg", Duration::from_millis(milliseconds)).await.unwrap();

            let says_why = measured.why.contains("within") || measured.verdict != Verdict::Unusable;
            assert!(says_why, "{milliseconds} ms: {measured:?}");
        }
    });
}

#[test]
fn kvm_is_usable_or_says_why_not_in_time() {
    if !Path::new("/dev/kvm").exists() {
        eprintln!("not run: there is no /dev/kvm");
        return;
    }
    play(async |_| {
        let accelerators = Accelerators::of(QEMU).await.unwrap();
        let start = Instant::now();

        let kvm = accelerators.measure("kvm", Accelerators::LIMIT).await.unwrap();
        let all = accelerators.measure_all(Accelerators::LIMIT).await.unwrap();

        assert!(start.elapsed() < Accelerators::LIMIT * 3 + AT_ONCE, "{:?}", start.elapsed());
        assert_ne!(kvm.verdict, Verdict::NotMeasured, "{kvm:?}");
        assert!(kvm.is_usable() || !kvm.why.is_empty(), "{kvm:?}");
        assert_eq!(all[0].accelerator, "tcg");
        let compared = all.iter().find(|it| it.accelerator == "kvm");
        let slow = compared.is_some_and(|it| it.why.contains("more slowly than TCG"));
        assert!(slow || compared.is_none_or(|it| it.verdict == kvm.verdict), "{kvm:?} {compared:?}");
    });
}
