//! `ratite log`: what a console has recorded, and what it says from then on.

use std::io;
use std::io::IsTerminal;

use ratite::qmp::Socket;
use tokio::io::AsyncReadExt;

use crate::args::Log;
use crate::output::Bytes;
use crate::questions::Questions;
use crate::report;
use crate::report::Failure;
use crate::target::Target;
use crate::target::failure;
use crate::target::remote;

/// How much is read at once.
const PIECE: usize = 64 << 10;

/// Copies a machine's console to stdout.
pub(crate) async fn log(log: &Log) -> Result<(), Failure> {
    let name = match &log.target {
        Target::Name(name) => name,
        Target::Address(address) => {
            return Err(Failure::Usage {
                problem: format!("nobody records the console of the QEMU at {address}"),
                hint: "ratite records those of the machines that it has started; `-chardev …,logfile=PATH` has QEMU record one".into(),
            });
        }
    };
    let attached = remote(name).await?.log(log.console.as_deref(), log.follow).await.map_err(failure)?;
    if attached.omitted > 0 {
        report::remark(&format!("the first {} bytes are not recorded any more", attached.omitted));
    }
    let mut console = Socket::try_from(attached.stream).map_err(Failure::System)?;
    let output = Bytes::to_stdout().map_err(Failure::System)?;
    let mut questions = io::stdout().is_terminal().then(Questions::default);
    let mut piece = vec![0; PIECE];
    let is_closed = loop {
        tokio::select! {
            read = console.read(&mut piece) => match read {
                Ok(count @ 1..) => match output.room().await {
                    Some(room) => room.send(match &mut questions {
                        Some(questions) => questions.without(&piece[..count]),
                        None => piece[..count].to_vec(),
                    }),
                    None => break true,
                },
                // A reset is how the end of a killed program looks from here.
                Ok(0) | Err(_) => break false,
            },
            () = output.closed() => break true,
        }
    };
    match is_closed {
        true => Err(Failure::output(output.failure().await)),
        false => output.finish().await.map_err(Failure::output),
    }
}
