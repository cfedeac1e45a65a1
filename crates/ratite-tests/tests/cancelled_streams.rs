//! Whoever reads a console or speaks qtest may go away at any moment: every byte and every answer is there for the next.
//!
//! Each wait is dropped at every point at which it can stand still, and then at many moments in between.

use ratite::Console;
use ratite::ConsoleConfig;
use ratite::Machine;
use ratite::Match;
use ratite::Pattern;
use ratite::Qtest;
use ratite_tests::polling::Departure;
use ratite_tests::polling::Dice;
use ratite_tests::polling::after_steps;
use ratite_tests::polling::after_turns;
use ratite_tests::polling::at_every_point;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::play;
use serde_json::json;

/// How many moments of each wait are tried, beside its points.
const MOMENTS: u64 = 300;

async fn launch(stage: &Stage) -> Machine {
    stage.fake(&[]).console(ConsoleConfig::serial()).qtest().launch().await.expect("it launches")
}

fn console(machine: &Machine) -> &Console {
    machine.console().expect("it was given a console")
}

fn qtest(machine: &Machine) -> &Qtest {
    machine.qtest().expect("it runs under qtest")
}

/// Lets the guest write each piece, one after the other.
async fn say(machine: &Machine, pieces: &[&str]) {
    for piece in pieces {
        machine.cmd("fake-console", json!({ "text": piece })).await.expect("the fake writes it");
    }
}

/// A way to look for a pattern.
#[derive(Debug, Clone, Copy)]
enum Search {
    Expect,
    /// And to take it at once.
    Find,
}

impl Search {
    async fn of(self, console: &Console, pattern: &Pattern) -> Match {
        match self {
            Self::Expect => console.expect(pattern, PATIENCE).await.expect("it comes"),
            Self::Find => {
                let found = console.find(pattern, PATIENCE).await.expect("it comes");
                found.take().expect("it is no failure").expect("nobody else reads")
            }
        }
    }
}

/// Has the guest ask for a login while somebody waits for that, and goes away; the next one finds all of it. Whether it
/// was found before.
async fn check_login(machine: &Machine, pattern: &Pattern, search: Search, departure: Departure) -> bool {
    let console = console(machine);
    let waiting = departure.from(search.of(console, pattern));
    let (found, ()) = tokio::join!(waiting, say(machine, &["noise ", "lo", "log", "i", "n:", " "]));
    let came_to_its_end = found.is_some();
    let found = match found {
        Some(found) => found,
        // All of it has been said, and nothing of it was lost.
        None => console.expect(pattern, AT_ONCE).await.expect("it has come"),
    };
    assert_eq!((found.before_text().as_str(), found.text().as_str()), ("noise lo", "login: "));
    came_to_its_end
}

#[test]
fn a_dropped_search_leaves_every_byte_to_the_next() {
    play(async |stage| {
        let machine = &launch(stage).await;
        let mut dice = Dice::new(4);
        let patterns = [Pattern::literal("login: "), Pattern::regex(r"log(in|out):\s").unwrap()];
        for (pattern, search) in patterns.iter().flat_map(|p| [(p, Search::Expect), (p, Search::Find)]) {
            let steps = at_every_point(async |steps| {
                check_login(machine, pattern, search, Departure::AfterSteps(steps)).await
            })
            .await;
            for _ in 0..MOMENTS / 6 {
                check_login(machine, pattern, search, Departure::AfterTurns(dice.below(3000))).await;
            }

            assert!(steps >= 1, "there was something to drop");
            assert_eq!(console(machine).take().unwrap(), b"");
        }
    });
}

#[test]
fn what_was_found_and_not_taken_is_there_for_the_next() {
    play(async |stage| {
        let machine = &launch(stage).await;
        let console = console(machine);
        say(machine, &["one two"]).await;

        drop(console.find("two", AT_ONCE).await.unwrap());
        let stale = console.find("two", AT_ONCE).await.unwrap();

        assert_eq!(console.expect("one", AT_ONCE).await.unwrap().before, b"");
        assert!(stale.take().expect("it is no failure").is_none(), "somebody else has read");
        assert_eq!(console.expect("two", AT_ONCE).await.unwrap().before, b" ");
    });
}

#[test]
fn dropped_reads_lose_no_byte() {
    play(async |stage| {
        let machine = &launch(stage).await;
        let console = console(machine);
        let pieces: Vec<String> = (0..300).map(|number| format!("<{number}>")).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let all = pieces.concat();
        let (mut step, mut dice) = (0, Dice::new(5));
        let reading = async {
            let mut heard = Vec::new();
            while heard.len() < all.len() {
                step += 1;
                let read = match step % 4 {
                    0 => after_turns(dice.below(100), console.read(PATIENCE)).await,
                    1 => after_steps(step % 6, console.read_at_most(2, PATIENCE)).await,
                    2 => {
                        drop(after_steps(step % 5, console.ready(PATIENCE)).await);
                        None
                    }
                    _ => after_steps(step % 5, console.read(PATIENCE)).await,
                };
                heard.extend(read.map(Result::unwrap).unwrap_or_default());
            }
            String::from_utf8(heard).unwrap()
        };

        let (heard, ()) = tokio::join!(reading, say(machine, &pieces));

        assert_eq!(heard, all);
    });
}

#[test]
fn a_dropped_write_is_written_whole_or_not_at_all() {
    play(async |stage| {
        let machine = &launch(stage).await;
        let console = console(machine);
        let (mut typed, mut dice) = (String::new(), Dice::new(6));

        for number in 0..MOMENTS {
            let line = format!("<{number}>\n");
            let written = match number % 2 {
                0 => after_steps(usize::try_from(number / 2 % 6).unwrap(), console.write(&line)).await,
                _ => after_turns(dice.below(200), console.write(&line)).await,
            };
            console.write("|").await.unwrap();
            while !typed.ends_with('|') {
                typed += machine.cmd("fake-console-read", ()).await.unwrap().as_str().unwrap();
            }

            let arrived = std::mem::take(&mut typed);
            let whole = arrived == format!("{line}|");
            assert!(whole || (arrived == "|" && written.is_none()), "{arrived:?} for {line:?}, {written:?}");
        }
    });
}

#[test]
fn a_dropped_qtest_command_leaves_the_next_one_its_own_answer() {
    play(async |stage| {
        let machine = &launch(stage).await;
        let qtest = qtest(machine);
        let (mut dice, mut clock) = (Dice::new(7), 0);
        // Each step of the clock is answered with the time, which tells whose answer it is.
        let mut check_next = async |dropped: Option<String>| {
            let before = clock;
            clock = qtest.command("clock_step 1000").await.unwrap().parse::<u64>().unwrap();
            assert!([before + 1000, before + 1001].contains(&clock), "{clock} after {before}");
            assert!(dropped.is_none_or(|answer| answer == (before + 1).to_string()));
        };

        let steps = at_every_point(async |steps| {
            let answer = after_steps(steps, qtest.command("clock_step 1")).await.map(Result::unwrap);
            let answered = answer.is_some();
            check_next(answer).await;
            answered
        })
        .await;
        for _ in 0..MOMENTS {
            let step = qtest.command("clock_step 1");
            check_next(after_turns(dice.below(300), step).await.map(Result::unwrap)).await;
        }

        assert!(steps >= 1, "there was something to drop");
    });
}

#[test]
fn a_dropped_wait_for_an_interrupt_leaves_it_to_the_next() {
    play(async |stage| {
        let machine = &launch(stage).await;
        let qtest = qtest(machine);
        let mut line = 0;

        let steps = at_every_point(async |steps| {
            line += 1;
            let raise = format!("fake-irq {line}");
            let waiting = async {
                let reached = after_steps(steps, qtest.wait_irq(line, true, PATIENCE)).await;
                qtest.wait_irq(line, true, AT_ONCE).await.unwrap();
                reached.is_some()
            };
            tokio::select! {
                reached = waiting => reached,
                answer = qtest.command(&raise) => panic!("the fake raises it instead of an answer: {answer:?}"),
            }
        })
        .await;

        assert!(steps >= 1, "there was something to drop");
    });
}
