//! `ratite doctor`: whether machines can be run here, and what mends what is missing.

mod accelerators;
mod firmware;
mod programs;
mod system;

use std::io;
use std::io::Write;

use serde_json::json;

use crate::args::Doctor;
use crate::mending::Distribution;
use crate::output::Paint;
use crate::report::Failure;

/// Looks at everything, and tells each finding as it comes.
pub(crate) async fn doctor(doctor: &Doctor) -> Result<(), Failure> {
    let mut chart = Chart { json: doctor.json, paint: Paint::of(&io::stdout()), heading: "" };
    let here = Distribution::here();

    let qemus = programs::qemus().await;
    chart.tell(&programs::about_qemus(&qemus, here))?;
    let accelerators = match programs::own(&qemus) {
        Some(qemu) => accelerators::look(&qemu.path, doctor.limit).await,
        None => Vec::new(),
    };
    chart.tell(&accelerators)?;
    chart.tell(&system::devices())?;
    chart.tell(&firmware::look(&firmware::folders(), here))?;
    chart.tell(&[programs::qemu_img(here).await])?;
    let surroundings = system::surroundings();
    chart.tell(&surroundings)?;

    let is_missing = |findings: &[Finding]| findings.iter().any(|it| it.state == State::Missing);
    let runs_code = accelerators.iter().any(|it| it.state != State::Missing);
    let why = match (programs::own(&qemus), runs_code) {
        (None, _) => Some("there is no QEMU that answers"),
        (_, false) => Some("no accelerator runs guest code"),
        _ if is_missing(&surroundings) => Some("this system lacks what ratite needs"),
        _ => None,
    };
    let (state, says) = match why {
        None => (State::Ok, "machines can be run"),
        Some(why) => (State::Missing, why),
    };
    chart.tell(&[Finding::new("verdict", "ratite run", state, says)])?;
    why.map_or(Ok(()), |why| Err(Failure::CannotRun { why }))
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    /// Machines run without it, but not all that one may want does.
    Warning,
    /// No machine runs without it.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    /// What kind of thing it is.
    check: &'static str,
    name: String,
    state: State,
    says: String,
    /// The command that mends it.
    mend: Option<String>,
}

impl Finding {
    fn new(check: &'static str, name: impl Into<String>, state: State, says: impl Into<String>) -> Self {
        Self { check, name: name.into(), state, says: says.into(), mend: None }
    }

    fn mend(mut self, command: Option<impl Into<String>>) -> Self {
        self.mend = command.map(Into::into);
        self
    }
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Missing => "missing",
        }
    }
}

/// What was found, on stdout.
#[derive(Debug)]
struct Chart {
    json: bool,
    paint: Paint,
    /// The kind of what was told last.
    heading: &'static str,
}

impl Chart {
    fn tell(&mut self, findings: &[Finding]) -> Result<(), Failure> {
        let mut text = String::new();
        for finding in findings {
            match self.json {
                true => text += &record(finding),
                false => {
                    let heading = if finding.check == self.heading { "" } else { finding.check };
                    self.heading = finding.check;
                    text += &lines(finding, heading, self.paint);
                }
            }
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::output)
    }
}

fn record(finding: &Finding) -> String {
    let Finding { check, name, state, says, mend } = finding;
    let fields = json!({ "check": check, "name": name, "state": state.name(), "says": says, "mend": mend });
    format!("{fields}\n")
}

fn lines(finding: &Finding, heading: &str, paint: Paint) -> String {
    let state = format!("{:<7}", finding.state.name());
    let state = match finding.state {
        State::Ok => paint.green(&state),
        State::Warning => paint.cyan(&state),
        State::Missing => paint.red(&state),
    };
    let heading = paint.bold(&format!("{heading:<11}"));
    let mut lines = format!("{heading}  {state}  {}: {}\n", finding.name, finding.says);
    if let Some(mend) = &finding.mend {
        lines += &format!("{:<22}{} `{mend}`\n", "", paint.cyan("mend:"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_what_mends_it_another() {
        let finding =
            Finding::new("qemu", "qemu-img", State::Warning, "not in PATH").mend(Some("apt install x"));

        let expected =
            "qemu         warning  qemu-img: not in PATH\n                      mend: `apt install x`\n";
        assert_eq!(lines(&finding, "qemu", Paint::NONE), expected);
        assert_eq!(
            record(&finding),
            r#"{"check":"qemu","mend":"apt install x","name":"qemu-img","says":"not in PATH","state":"warning"}"#
                .to_owned()
                + "\n"
        );
    }
}
