//! What a line means in HMP, the language of QEMU's human monitor, and which words it has. Pure.

use serde_json::Map;

use crate::commands::shell::interpreter::Step;
use crate::language::Candidate;
use crate::language::Completion;
use crate::language::Mistake;
use crate::language::Request;

/// Reads lines, and remembers the chosen CPU.
#[derive(Debug, Default)]
pub(super) struct Hmp {
    /// The CPU that commands are about, if one was chosen; a machine without CPUs has none.
    pub(super) cpu: Option<u64>,
}

impl Hmp {
    /// What `line` asks for.
    pub(super) fn read(&self, line: &str) -> Result<Step, Mistake> {
        let line = line.trim();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => Ok(Step::Nothing),
            [comment, ..] if comment.starts_with('#') => Ok(Step::Nothing),
            ["exit"] => Ok(Step::Leave),
            ["cpu"] => Ok(Step::Say(match self.cpu {
                Some(cpu) => format!("CPU {cpu} is chosen"),
                None => "no CPU is chosen, and QEMU takes its first; `cpu N` chooses".into(),
            })),
            ["cpu", number] => match number.parse() {
                // Whether there is such a CPU shows with any command that is harmless.
                Ok(cpu) => Ok(Step::Choose(request("info version", Some(cpu)), cpu)),
                Err(_) => Err(Mistake::new(format!("`{number}` is no number of a CPU"))),
            },
            _ => Ok(Step::Send(request(line, self.cpu))),
        }
    }
}

/// A line of HMP as a command of QMP.
pub(super) fn request(line: &str, cpu: Option<u64>) -> Request {
    let mut arguments = Map::from_iter([("command-line".to_owned(), line.into())]);
    if let Some(cpu) = cpu {
        arguments.insert("cpu-index".into(), cpu.into());
    }
    Request { name: "human-monitor-command".into(), arguments }
}

/// Whether a request ends the machine.
pub(super) fn is_quit(request: &Request) -> bool {
    let line = request.arguments.get("command-line").and_then(|line| line.as_str());
    line.is_some_and(|line| ["q", "quit"].contains(&line))
}

/// The words of HMP: its commands, and what `info` tells.
#[derive(Debug, Clone, Default)]
pub(super) struct HmpWords {
    commands: Vec<String>,
    infos: Vec<String>,
}

impl HmpWords {
    /// From what the monitor says to `help` and to `help info`.
    pub(super) fn of(help: &str, info: &str) -> Self {
        let names = |line: &str| {
            let first = line.split_whitespace().next().unwrap_or_default().to_owned();
            first.split('|').map(str::to_owned).collect::<Vec<_>>()
        };
        let commands = help.lines().filter(|line| !line.starts_with(char::is_whitespace)).flat_map(names);
        let infos = info.lines().filter_map(|line| line.strip_prefix("info ")).flat_map(names);
        Self { commands: tidy(commands), infos: tidy(infos) }
    }

    /// What may follow at the end of `line`.
    pub(super) fn complete(&self, line: &str) -> Completion {
        let start = line.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let (before, last) = line.split_at(start);
        let words = match before.split_whitespace().collect::<Vec<_>>().as_slice() {
            [] | ["help" | "?"] => &self.commands,
            ["info"] | ["help" | "?", "info"] => &self.infos,
            _ => return Completion::default(),
        };
        let fitting = words.iter().filter(|word| word.starts_with(last));
        let candidates = fitting.map(|word| Candidate { shown: word.clone(), text: format!("{word} ") });
        Completion { start, candidates: candidates.collect() }
    }
}

fn tidy(names: impl Iterator<Item = String>) -> Vec<String> {
    let is_name = |name: &String| {
        name.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter))
    };
    let mut names: Vec<String> = names.filter(is_name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sent(hmp: &Hmp, line: &str) -> serde_json::Value {
        match hmp.read(line).unwrap() {
            Step::Send(request) | Step::Choose(request, _) => request.arguments.into(),
            step => panic!("{step:?}"),
        }
    }

    #[test]
    fn a_cpu_is_named_only_once_it_is_chosen() {
        assert_eq!(sent(&Hmp { cpu: None }, " info  status "), json!({"command-line": "info  status"}));
        assert_eq!(sent(&Hmp { cpu: Some(2) }, "x /i 0"), json!({"command-line": "x /i 0", "cpu-index": 2}));
        assert_eq!(
            sent(&Hmp { cpu: None }, "cpu 3"),
            json!({"command-line": "info version", "cpu-index": 3})
        );
    }

    #[test]
    fn blank_lines_and_a_bare_cpu_are_fine() {
        let hmp = Hmp::default();

        assert_eq!(hmp.read("  "), Ok(Step::Nothing));
        assert!(matches!(hmp.read("cpu"), Ok(Step::Say(_))));
        assert_eq!(hmp.read("cpu x").unwrap_err().what, "`x` is no number of a CPU");
        assert_eq!(hmp.read("exit"), Ok(Step::Leave));
    }

    #[test]
    fn the_words_are_those_of_its_help() {
        let help = "block_resize device size -- resize a block image\nc|cont  -- resume\n/fmt -- x\n\t\tmore of it\n";
        let info = "info block [-n] -- show info\ninfo blockstats  -- show\n";
        let words = HmpWords::of(help, info);
        let texts = |line: &str| {
            let completion = words.complete(line);
            let texts: Vec<_> = completion.candidates.into_iter().map(|candidate| candidate.text).collect();
            (completion.start, texts.concat())
        };

        assert_eq!(texts("c"), (0, "c cont ".to_owned()));
        assert_eq!(texts("info bl"), (5, "block blockstats ".to_owned()));
        assert_eq!(texts("help co"), (5, "cont ".to_owned()));
        assert_eq!(texts("cont x"), (0, String::new()));
    }
}
