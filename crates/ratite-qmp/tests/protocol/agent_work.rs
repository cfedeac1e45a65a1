//! What a guest agent is asked to do: programs, files, the guest itself.

use std::time::Duration;

use ratite_qmp::Agent;
use ratite_qmp::AgentError;
use ratite_qmp::FsState;
use ratite_qmp::GuestExit;
use ratite_qmp::GuestOutput;
use ratite_qmp::GuestProgram;
use serde_json::Value;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::agent_peer::AgentPeer;
use crate::agent_peer::agent;
use crate::peer::soon;

fn exec(agent: &Agent, limit: Duration) -> JoinHandle<Result<GuestOutput, AgentError>> {
    let agent = agent.clone();
    tokio::spawn(async move { agent.exec(&GuestProgram::new("/bin/x").arg("-a"), limit).await })
}

#[tokio::test(start_paused = true)]
async fn a_program_is_asked_after_until_it_has_ended() {
    let (agent, mut peer) = agent();
    let program = GuestProgram::new("/bin/x").args(["-a", "b"]).env("K", "v").input("in").without_output();
    let run = tokio::spawn(async move { agent.exec(&program, Duration::from_secs(60)).await });

    let asked = peer.answer("guest-exec", json!({ "pid": 7 })).await;
    assert_eq!(
        asked,
        json!({ "path": "/bin/x", "arg": ["-a", "b"], "env": ["K=v"], "input-data": "aW4=", "capture-output": false })
    );
    for _ in 0..20 {
        assert_eq!(peer.answer("guest-exec-status", json!({ "exited": false })).await, json!({ "pid": 7 }));
    }
    let ended = json!({ "exited": true, "exitcode": 3, "out-data": "AP8=", "err-data": "ZQ==", "err-truncated": true });
    peer.answer("guest-exec-status", ended).await;

    let output = run.await.unwrap().unwrap();
    assert_eq!(output.exit, GuestExit::Code(3));
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"\x00\xff"[..], &b"e"[..]));
    assert!(!output.stdout_truncated && output.stderr_truncated && !output.success());
}

#[tokio::test]
async fn a_signal_is_no_code() {
    let (agent, mut peer) = agent();
    let run = exec(&agent, Duration::from_secs(60));
    peer.answer("guest-exec", json!({ "pid": 7 })).await;
    peer.answer("guest-exec-status", json!({ "exited": true, "signal": 9 })).await;

    let output = soon(run).await.unwrap().unwrap();

    assert_eq!(output.exit.to_string(), "was ended by signal 9");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_runs_on_is_told_with_its_pid() {
    let (agent, mut peer) = agent();
    let mut run = exec(&agent, Duration::from_secs(5));
    peer.answer("guest-exec", json!({ "pid": 7 })).await;

    let outcome = loop {
        tokio::select! {
            outcome = &mut run => break outcome,
            _ = peer.answer("guest-exec-status", json!({ "exited": false })) => {}
        }
    };
    let error = outcome.unwrap().unwrap_err();

    assert_eq!(error.to_string(), "`/bin/x` still runs after 5s, as process 7 of the guest");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_falls_silent_while_a_program_runs_is_told_in_time() {
    let (agent, mut peer) = agent();
    let begun = tokio::time::Instant::now();
    let run = exec(&agent, Duration::from_secs(5));
    peer.answer("guest-exec", json!({ "pid": 7 })).await;

    let error = run.await.unwrap().unwrap_err();

    assert!(error.is_timed_out(), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_connection_that_ends_while_a_program_runs_is_told() {
    let (agent, mut peer) = agent();
    let run = exec(&agent, Duration::from_secs(60));
    peer.answer("guest-exec", json!({ "pid": 7 })).await;
    peer.command().await;

    drop(peer);

    let error = soon(run).await.unwrap().unwrap_err();
    assert!(matches!(error, AgentError::Disconnected { .. }), "{error:?}");
}

#[tokio::test]
async fn output_that_is_no_base64_is_told() {
    let (agent, mut peer) = agent();
    let run = exec(&agent, Duration::from_secs(60));
    peer.answer("guest-exec", json!({ "pid": 7 })).await;
    peer.answer("guest-exec-status", json!({ "exited": true, "exitcode": 0, "out-data": "%%" })).await;

    let error = soon(run).await.unwrap().unwrap_err();

    assert!(matches!(error, AgentError::Malformed { .. }), "{error:?}");
}

/// Answers what a file's first piece takes, and returns the handle.
async fn open(peer: &mut AgentPeer, path: &str, mode: &str) {
    assert_eq!(peer.answer("guest-file-open", json!(1000)).await, json!({ "path": path, "mode": mode }));
}

#[tokio::test]
async fn a_file_is_read_to_its_end_and_closed() {
    let (agent, mut peer) = agent();
    let read = tokio::spawn(async move { agent.read_file("/f").await });
    open(&mut peer, "/f", "r").await;
    peer.answer("guest-file-read", json!({ "count": 2, "buf-b64": "AP8=", "eof": false })).await;
    peer.answer("guest-file-read", json!({ "count": 1, "buf-b64": "YQ==", "eof": true })).await;
    peer.answer("guest-file-read", json!({ "count": 0, "buf-b64": "", "eof": true })).await;
    peer.answer("guest-file-close", json!({})).await;

    assert_eq!(soon(read).await.unwrap().unwrap(), b"\x00\xffa");
}

#[tokio::test]
async fn a_file_is_written_piece_by_piece_and_what_was_not_taken_comes_again() {
    let (agent, mut peer) = agent();
    let write = tokio::spawn(async move { agent.write_file("/f", &[7; (256 << 10) + 4]).await });
    open(&mut peer, "/f", "w").await;
    let whole = peer.answer("guest-file-write", json!({ "count": 256 << 10, "eof": false })).await;
    assert_eq!(whole["buf-b64"].as_str().unwrap().len(), (256_usize << 10).div_ceil(3) * 4);
    let rest = peer.answer("guest-file-write", json!({ "count": 3, "eof": false })).await;
    assert_eq!(rest["buf-b64"], "BwcHBw==");
    let last = peer.answer("guest-file-write", json!({ "count": 1, "eof": false })).await;
    assert_eq!(last["buf-b64"], "Bw==");
    peer.answer("guest-file-flush", json!({})).await;
    peer.answer("guest-file-close", json!({})).await;

    soon(write).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_agent_that_gets_nowhere_is_not_asked_for_ever() {
    let (agent, mut peer) = agent();
    let read = tokio::spawn({
        let agent = agent.clone();
        async move { agent.read_file("/f").await }
    });
    open(&mut peer, "/f", "r").await;
    peer.answer("guest-file-read", json!({ "count": 0, "buf-b64": "", "eof": false })).await;
    assert!(matches!(soon(read).await.unwrap(), Err(AgentError::Malformed { .. })));
    peer.answer("guest-file-close", json!({})).await;

    let write = tokio::spawn(async move { agent.write_file("/f", b"x").await });
    open(&mut peer, "/f", "w").await;
    peer.answer("guest-file-write", json!({ "count": 0, "eof": false })).await;
    assert!(matches!(soon(write).await.unwrap(), Err(AgentError::Malformed { .. })));
}

#[tokio::test]
async fn a_file_is_closed_also_after_an_error() {
    let (agent, mut peer) = agent();
    let read = tokio::spawn(async move { agent.read_file("/f").await });
    open(&mut peer, "/f", "r").await;
    peer.refuse("GenericError", "failed to read file: Is a directory").await;

    let error = soon(read).await.unwrap().unwrap_err();

    assert_eq!(error.refusal().unwrap().desc, "failed to read file: Is a directory");
    assert_eq!(peer.answer("guest-file-close", json!({})).await, json!({ "handle": 1000 }));
}

#[tokio::test]
async fn a_file_is_closed_also_when_its_reader_is_cancelled() {
    let (agent, mut peer) = agent();
    let read = tokio::spawn(async move { agent.read_file("/f").await });
    open(&mut peer, "/f", "r").await;
    assert_eq!(peer.command().await["execute"], "guest-file-read");

    read.abort();

    assert!(read.await.unwrap_err().is_cancelled());
    assert_eq!(peer.answer("guest-file-close", json!({})).await, json!({ "handle": 1000 }));
}

#[tokio::test]
async fn a_file_is_closed_also_when_its_opener_is_cancelled() {
    let (agent, mut peer) = agent();
    let read = tokio::spawn(async move { agent.read_file("/f").await });
    assert_eq!(peer.command().await["execute"], "guest-file-open");

    read.abort();
    assert!(read.await.unwrap_err().is_cancelled());
    peer.send(b"{\"return\": 1000}\n", false).await;

    assert_eq!(peer.answer("guest-file-close", json!({})).await, json!({ "handle": 1000 }));
}

#[tokio::test]
async fn a_file_that_an_agent_claims_to_write_too_much_of_is_no_panic() {
    let (agent, mut peer) = agent();
    let write = tokio::spawn(async move { agent.write_file("/f", b"x").await });
    open(&mut peer, "/f", "w").await;
    peer.answer("guest-file-write", json!({ "count": 999, "eof": false })).await;
    peer.answer("guest-file-flush", json!({})).await;
    peer.answer("guest-file-close", json!({})).await;

    soon(write).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_an_agent_tells_of_the_guest_is_read() {
    let (agent, mut peer) = agent();
    let told = tokio::spawn(async move {
        let info = agent.info().await.unwrap();
        let interfaces = agent.interfaces().await.unwrap();
        let state = agent.fs_status().await.unwrap();
        let frozen = agent.fs_freeze().await.unwrap();
        let thawed = agent.fs_thaw().await.unwrap();
        let trimmed = agent.fs_trim(4096).await.unwrap();
        let time = agent.time().await.unwrap();
        agent.set_time(time).await.unwrap();
        (info, interfaces, (state, frozen, thawed), trimmed)
    });
    let info = json!({ "version": "1.2", "supported_commands": [{ "name": "guest-a", "enabled": false }] });
    peer.answer("guest-info", info).await;
    let interfaces = json!([
        { "name": "lo" },
        { "name": "eth0", "hardware-address": "52:54:00:12:34:56",
          "ip-addresses": [{ "ip-address": "10.0.2.15", "ip-address-type": "ipv4", "prefix": 24 }] },
    ]);
    peer.answer("guest-network-get-interfaces", interfaces).await;
    peer.answer("guest-fsfreeze-status", json!("frozen")).await;
    peer.answer("guest-fsfreeze-freeze", json!(3)).await;
    peer.answer("guest-fsfreeze-thaw", json!(2)).await;
    let paths =
        json!({ "paths": [{ "path": "/", "trimmed": 9, "minimum": 1 }, { "path": "/x", "error": "no" }] });
    assert_eq!(peer.answer("guest-fstrim", paths).await, json!({ "minimum": 4096 }));
    peer.answer("guest-get-time", json!(1_700_000_000_000_000_000_u64)).await;
    assert_eq!(
        peer.answer("guest-set-time", json!({})).await,
        json!({ "time": 1_700_000_000_000_000_000_u64 })
    );

    let (info, interfaces, fs, trimmed) = soon(told).await.unwrap();

    let command = info.command("guest-a").unwrap();
    assert!(!command.enabled && command.success_response);
    assert_eq!(interfaces[1].addresses[0].address, "10.0.2.15");
    assert_eq!(fs, (FsState::Frozen, 3, 2));
    assert_eq!((trimmed[0].trimmed, trimmed[1].error.as_deref()), (Some(9), Some("no")));
}

#[tokio::test]
async fn a_value_of_another_type_is_told() {
    let (agent, mut peer) = agent();
    let told = tokio::spawn(async move { agent.info().await });
    peer.answer("guest-info", Value::Null).await;

    let error = soon(told).await.unwrap().unwrap_err();

    assert_eq!(error.to_string(), "could not read the guest agent's reply to `guest-info`");
}
