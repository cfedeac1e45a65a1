//! What `ratite run --json` writes: one JSON object a line, each with `event` and `time`. Pure.
//!
//! The names of the fields are a promise; docs/guide/command.md describes them. New ones may come.

use std::time::Duration;
use std::time::Instant;

use ratite::Asked;
use ratite::Exit;
use ratite::Machine;
use ratite::Match;
use ratite::Patterns;
use ratite::RamTransfer;
use ratite::Tail;
use ratite::Template;
use serde_json::Value;
use serde_json::json;

use crate::hints;
use crate::report;
use crate::report::Failure;

/// Makes the records of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Records {
    started: Instant,
}

impl Records {
    /// Records of a run that begins now.
    pub(crate) fn begin() -> Self {
        Self { started: Instant::now() }
    }

    /// `--accel auto` has chosen.
    pub(crate) fn accelerator(&self, chosen: &str, why: &str) -> Vec<u8> {
        self.line("accelerator", json!({ "accelerator": chosen, "why": why }))
    }

    /// The machine runs.
    pub(crate) fn launched(&self, machine: &Machine) -> Vec<u8> {
        let greeting = machine.client().ok().and_then(|client| client.greeting());
        let version = greeting.map(|greeting| &greeting.version);
        let fields = json!({
            "pid": machine.pid(),
            "command": machine.command_line().to_string(),
            "qemu": version.map(|it| format!("{}.{}.{}", it.major, it.minor, it.micro)),
            "package": version.map(|it| &it.package).filter(|package| !package.is_empty()),
            "work_folder": machine.work_folder().to_string_lossy(),
        });
        self.line("launched", fields)
    }

    /// The guest has said something.
    pub(crate) fn console(&self, text: &mut ConsoleText, bytes: &[u8]) -> Vec<u8> {
        self.said(text.next(bytes))
    }

    /// The guest will say nothing more.
    pub(crate) fn console_ended(&self, text: &mut ConsoleText) -> Vec<u8> {
        self.said(text.rest())
    }

    fn said(&self, piece: Option<Piece>) -> Vec<u8> {
        match piece {
            None => Vec::new(),
            Some(Piece::Text(text)) => self.line("console", json!({ "text": text })),
            Some(Piece::Bytes(bytes)) => self.line("console", json!({ "base64": base64(&bytes) })),
        }
    }

    /// A pattern has appeared. What it was is not known if the beginning is lost.
    pub(crate) fn matched(&self, patterns: &Patterns, index: usize, found: Option<&Match>) -> Vec<u8> {
        let groups = found.map(|found| {
            let groups = found.groups.iter().map(|group| group.as_deref().map(String::from_utf8_lossy));
            groups.collect::<Vec<_>>()
        });
        let fields = json!({
            "pattern": patterns.get(index).map(ToString::to_string),
            "failure": patterns.is_failure(index),
            "text": found.map(|found| String::from_utf8_lossy(&found.matched)),
            "groups": groups,
        });
        self.line("matched", fields)
    }

    /// A template was made of the machine.
    pub(crate) fn frozen(&self, name: &str, template: &Template) -> Vec<u8> {
        let (ram, because) = match template.ram() {
            RamTransfer::Mapped => ("mapped", None),
            RamTransfer::Streamed { because } => ("streamed", Some(because)),
            RamTransfer::Placed { because } => ("placed", Some(because)),
            _ => ("other", None),
        };
        let folder = template.folder().to_string_lossy();
        let fields = json!({ "template": name, "folder": folder, "ram": ram, "because": because });
        self.line("frozen", fields)
    }

    /// A last picture was taken.
    pub(crate) fn screenshot(&self, file: &str) -> Vec<u8> {
        self.line("screenshot", json!({ "file": file }))
    }

    /// How it ended. The last line in every case.
    pub(crate) fn ended(&self, outcome: &Result<Option<Exit>, Failure>) -> Vec<u8> {
        let (exit, failure) = match outcome {
            Ok(exit) => (exit.as_ref(), None),
            Err(failure) => (failure.exit(), Some(failure)),
        };
        let words = failure.and_then(Failure::words).or(exit.map(|exit| &exit.log));
        let fields = json!({
            "ok": failure.is_none(),
            "exit_code": report::exit_code(outcome),
            "error": failure.map(ToString::to_string),
            "causes": failure.map(Failure::causes).unwrap_or_default(),
            "hints": failure.map(hints::of).unwrap_or_default(),
            "status": exit.and_then(|exit| exit.status.code()),
            "signal": exit.and_then(|exit| exit.status.signal_name()),
            "reason": exit.and_then(|exit| exit.shutdown_reason.as_deref()),
            "asked": exit.map(|exit| asked(exit.asked)),
            "run_time": exit.map(|exit| seconds(exit.run_time)),
            "log": words.map(Tail::text).unwrap_or_default(),
        });
        self.line("ended", fields)
    }

    /// One line. What tells its kind comes first, for people who read along; an object of serde_json is sorted by name.
    fn line(&self, event: &str, fields: Value) -> Vec<u8> {
        let (time, fields) = (seconds(self.started.elapsed()), fields.to_string());
        let fields = fields.trim_start_matches('{');
        format!("{{\"event\":\"{event}\",\"time\":{time},{fields}\n").into_bytes()
    }
}

/// Seconds, to the millisecond.
fn seconds(duration: Duration) -> Value {
    json!((duration.as_secs_f64() * 1000.0).round() / 1000.0)
}

fn asked(asked: Asked) -> &'static str {
    match asked {
        Asked::Us => "ratite",
        Asked::UsByForce => "ratite-by-force",
        Asked::TimeOver => "time-over",
        Asked::Guest => "guest",
        Asked::Signal => "signal",
        Asked::Nobody => "nobody",
    }
}

/// A console as text. A character whose bytes come in two pieces is kept until it is whole.
#[derive(Debug, Default)]
pub(crate) struct ConsoleText {
    begun: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// What is no UTF-8.
    Bytes(Vec<u8>),
}

impl ConsoleText {
    fn next(&mut self, bytes: &[u8]) -> Option<Piece> {
        self.begun.extend(bytes);
        let keep = match std::str::from_utf8(&self.begun) {
            // Only what is the beginning of a character can become one.
            Err(error) if error.error_len().is_none() => self.begun.len() - error.valid_up_to(),
            _ => 0,
        };
        let kept = self.begun.split_off(self.begun.len() - keep);
        let whole = std::mem::replace(&mut self.begun, kept);
        piece(whole)
    }

    fn rest(&mut self) -> Option<Piece> {
        piece(std::mem::take(&mut self.begun))
    }
}

fn piece(bytes: Vec<u8>) -> Option<Piece> {
    match String::from_utf8(bytes) {
        Ok(text) if text.is_empty() => None,
        Ok(text) => Some(Piece::Text(text)),
        Err(error) => Some(Piece::Bytes(error.into_bytes())),
    }
}

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|at| u32::from(group.get(at).copied().unwrap_or_default()));
        let bits = a << 16 | b << 8 | c;
        for at in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_base64() {
        let shown = ["", "f", "fo", "foo", "foobar"].map(|text| base64(text.as_bytes()));

        assert_eq!(shown, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYmFy"]);
    }

    #[test]
    fn a_character_that_comes_in_two_pieces_is_one() {
        let mut text = ConsoleText::default();
        let letter = "ü".as_bytes();

        assert_eq!(text.next(&[b'a', letter[0]]), Some(Piece::Text("a".into())));
        assert_eq!(text.next(&letter[1..]), Some(Piece::Text("ü".into())));
        assert_eq!(text.next(b"\xff\x00"), Some(Piece::Bytes(b"\xff\x00".to_vec())));
        assert_eq!(text.next(&letter[..1]), None);
        assert_eq!(text.rest(), Some(Piece::Bytes(letter[..1].to_vec())));
    }
}
