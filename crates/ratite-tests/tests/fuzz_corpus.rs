//! What the fuzzers found worth keeping is tried again, and what they try is tried with values made to measure.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report, also in what they share")]

use std::fs;
use std::os::unix::net::UnixStream;
use std::panic;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use ratite::Console;
use ratite::ConsoleConfig;
use ratite::ConsoleError;
use ratite::Pattern;
use ratite_tests::fuzzing;
use regex_automata::Input;
use regex_automata::meta::Regex;

#[test]
fn every_input_of_the_codec_keeps_the_promises() {
    replay("codec", fuzzing::codec);
}

#[test]
fn every_input_of_the_event_filter_keeps_the_promises() {
    replay("event_filter", fuzzing::event_filter);
}

#[test]
fn every_input_of_the_address_parser_keeps_the_promises() {
    replay("address", fuzzing::address);
}

#[test]
fn every_input_of_the_console_matcher_keeps_the_promises() {
    replay("console_matcher", fuzzing::console_matcher);
}

#[test]
fn every_input_of_the_qtest_reader_keeps_the_promises() {
    replay("qtest_reader", fuzzing::qtest_reader);
}

proptest! {
    #[test]
    fn messages_are_found_however_they_are_cut(
        head in "[0-9]{2}[0-9]{2}0[01]",
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "{", "}", "[", "]", "\"", "\\", ":", ",", "\r\n", " ", "1", "-0.5", "é", "\0",
                "\"return\":", "\"event\":", "\"id\":", "\"error\":", "{\"return\":{}}", "{\"event\":\"A\"}",
                "{\"error\":{\"class\":\"A\",\"desc\":\"b\"}}", "{\"event\":\"B\",\"data\":{\"a\":[1e3]}}",
            ]),
            0..24,
        ),
    ) {
        fuzzing::codec(format!("2{head}{}", parts.concat()).as_bytes());
    }

    #[test]
    fn filters_take_what_the_rule_of_subsets_says(
        event in "\\{d\\{(a[tfn1-3]|b\\[[12]{0,2}\\]|c\\{(x[123n]|y\\.[123]){0,2}\\}){0,3}\\}\\}",
        steps in "([and|m])*(d\\{(a[tfn1-3]|b\\[[12]{0,2}\\]|c\\{(x[123n]|y\\.[123]){0,2}\\}){0,2}\\}){0,2}",
    ) {
        fuzzing::event_filter(format!("A\"{event}{steps}").as_bytes());
    }

    #[test]
    fn addresses_are_what_the_grammar_says(
        text in "(tcp:|unix:|fd:|/|\\./|\\.\\./){0,2}(host|\\[::1(%[a:%]{0,2})?\\]|tcp|fd|unix|1\\.2\\.3\\.4|@| |:){0,2}:?[0-9]{0,6}",
    ) {
        fuzzing::address(text.as_bytes());
    }

    #[test]
    fn a_search_ends_where_the_first_match_does(
        cuts in "[0-9]{3}",
        expression in "(\\(\\?m\\))?(\\^|[ab.]|a[*+?]|b\\{1,2\\}|\\(a\\|bb\\)|\\\\b|\\\\B|\\$|\\\\n){1,5}",
        stream in "[ab \n]{0,40}",
    ) {
        fuzzing::console_matcher(format!("3{cuts}r{expression}\0{stream}").as_bytes());
    }

    #[test]
    fn answers_find_their_commands(
        cuts in "[0-9]{2}",
        callers in "[0-3]{0,6}",
        lines in prop::collection::vec(
            prop::sample::select(vec!["OK\n", "OK 0x1\r\n", "FAIL no\n", "IRQ raise 1\n", "IRQ lower 1\n", "IRQ raise x\n", "\n", "OK"]),
            0..12,
        ),
    ) {
        fuzzing::qtest_reader(format!("2{cuts}{callers}\0{}", lines.concat()).as_bytes());
    }

    #[test]
    fn a_console_takes_up_to_the_first_match_and_tells_its_parts(
        stream in "[abc \n]{0,30}",
        expression in prop::sample::select(vec![
            "ab", "(a)(c)?b", "(a+)b", "b.a", "(a|bb)c", "(?s)c.", "(?m)^b", "a\\b", "a\\B", " \\b", "(?m)(c)?b$", "ab$",
        ]),
    ) {
        check_console(stream.as_bytes(), expression);
    }
}

/// Runs `check` on every file of the corpus.
#[track_caller]
fn replay(name: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in files {
        let input = fs::read(&file).unwrap();
        // Its own panic does not know the file.
        let outcome = panic::catch_unwind(|| check(&input));
        assert!(outcome.is_ok(), "{} breaks a promise, see above", file.display());
    }
}

/// Reads matches from a console until there is none, and compares each with what an ordinary regex finds.
#[track_caller]
fn check_console(stream: &[u8], expression: &str) {
    let pattern = Pattern::regex(expression).unwrap();
    let regex = Regex::new(expression).unwrap();
    let console = console_that_said(stream);
    let mut rest = stream;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    loop {
        let expected = (0..=rest.len()).find(|end| regex.is_match(up_to(rest, *end)));
        let outcome = runtime.block_on(console.expect(&pattern, Duration::from_secs(10)));
        match (outcome, expected) {
            (Ok(found), Some(end)) => {
                let parts = regex.find(up_to(rest, end)).unwrap();
                assert_eq!(
                    (found.before.as_slice(), found.matched.as_slice()),
                    rest[..end].split_at(parts.start())
                );
                assert!(found.groups.len() < regex.captures_len());
                rest = &rest[end..];
            }
            (Err(ConsoleError::Ended { .. }), None) => break,
            (outcome, expected) => panic!("{outcome:?} instead of {expected:?} in {}", rest.escape_ascii()),
        }
    }
    assert_eq!(console.take().unwrap(), rest);
}

/// The first `end` bytes, with a look at the one that follows.
fn up_to(bytes: &[u8], end: usize) -> Input<'_> {
    Input::new(&bytes[..bytes.len().min(end + 1)]).span(0..end)
}

/// A console whose guest wrote this and ended.
fn console_that_said(stream: &[u8]) -> Console {
    use std::io::Write;
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(stream).unwrap();
    Console::over(ours, &ConsoleConfig::serial(), Duration::from_secs(10)).unwrap()
}
