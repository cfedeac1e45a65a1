//! A launch that nobody waits for any more leaves nothing behind, whenever it was given up.

use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use ratite::ConsoleConfig;
use ratite::MachineConfig;
use ratite::Monitor;
use ratite_tests::orphans::machine_folders;
use ratite_tests::orphans::processes_with_mark;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::play;
use ratite_tests::scenario::wait_until;

/// Polls `future` so often at most, each time that it asks to be polled; `None` if that was not enough.
async fn polled<T>(times: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut polls = 0;
    poll_fn(|cx| {
        polls += 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if polls >= times => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[track_caller]
fn nothing_is_left(base: &Path) {
    let mark = format!("{}-", std::process::id());
    wait_until("the process is gone", AT_ONCE, || processes_with_mark(&mark).is_empty());
    wait_until("the folder is gone", AT_ONCE, || machine_folders(base).is_empty());
}

/// Gives a launch up after each number of polls that it can take, and returns how many there were.
async fn give_up_after_each_poll(stage: &Stage, config: &MachineConfig) -> usize {
    for polls in 1..200 {
        if let Some(launched) = polled(polls, config.launch()).await {
            launched.expect("it launches").kill().await.expect("it ends");
            return polls;
        }
        nothing_is_left(stage.base());
    }
    panic!("a launch takes no 200 polls");
}

#[test]
fn a_launch_can_be_given_up_at_every_point() {
    play(async |stage| {
        let host = "localhost".to_owned();
        let monitors = [
            Monitor::SocketPair,
            Monitor::Unix(stage.path("monitor")),
            Monitor::Tcp { host, port: 0 },
            Monitor::Off,
        ];
        for monitor in monitors {
            let config =
                stage.fake(&["spawn-child"]).monitor(monitor).console(ConsoleConfig::serial()).qtest();

            let polls = give_up_after_each_poll(stage, &config).await;

            assert!(polls > 1, "there was something to give up");
        }
    });
}

#[test]
fn a_launch_of_a_shell_around_qemu_can_be_given_up_at_every_point() {
    play(async |stage| {
        let config = stage.fake(&[]).wrapper(["sh", "-c", r#"sleep 1000 & "$@"; true"#, "sh"]);

        give_up_after_each_poll(stage, &config).await;
    });
}

#[test]
fn a_launch_can_be_given_up_after_any_time() {
    play(async |stage| {
        let config = stage.fake(&["greeting-delay=5"]).console(ConsoleConfig::serial());

        for tick in 0..40 {
            let limit = Duration::from_micros(250 * tick);
            drop(tokio::time::timeout(limit, config.launch()).await);
        }

        nothing_is_left(stage.base());
    });
}

#[test]
fn a_launch_whose_task_is_aborted_leaves_nothing() {
    play(async |stage| {
        let config = stage.fake(&["silent", "write-file=pid"]).working_folder(stage.path(""));
        let pid = stage.path("pid");
        let launch = tokio::spawn(async move { config.launch().await.map(drop) });
        wait_until("QEMU runs", PATIENCE, || pid.exists());

        launch.abort();

        assert!(launch.await.unwrap_err().is_cancelled());
        nothing_is_left(stage.base());
    });
}

#[test]
fn a_launch_whose_runtime_goes_leaves_nothing() {
    play(async |stage| {
        let config = stage.fake(&["silent", "write-file=pid"]).working_folder(stage.path(""));
        let pid = stage.path("pid");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move { config.launch().await.map(drop) });
        wait_until("QEMU runs", PATIENCE, || pid.exists());

        runtime.shutdown_background();

        nothing_is_left(stage.base());
    });
}

#[test]
fn a_launch_that_panics_in_the_middle_leaves_nothing() {
    play(async |stage| {
        let config = stage.fake(&["silent", "write-file=pid"]).working_folder(stage.path(""));
        let pid = stage.path("pid");
        let panicking = tokio::spawn(async move {
            let watch = async {
                wait_until("QEMU runs", PATIENCE, || pid.exists());
                panic!("on purpose");
            };
            tokio::join!(config.launch(), async {
                tokio::task::yield_now().await;
                watch.await
            })
            .0
            .map(drop)
        });

        let ended = panicking.await;

        assert!(ended.unwrap_err().is_panic());
        nothing_is_left(stage.base());
    });
}

#[test]
fn a_launch_that_was_given_up_leaves_the_next_one_intact() {
    play(async |stage| {
        let config = stage.fake(&[]);
        drop(polled(1, config.launch()).await);
        drop(polled(2, config.launch()).await);

        let machine = config.launch().await.unwrap();

        assert!(machine.is_running());
    });
}
