//! Runs 64 machines at once.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;
use std::time::Instant;

use ratite::MachineConfig;
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = MachineConfig::new("qemu-system-x86_64").machine_type("none");
    let start = Instant::now();

    let mut launches = JoinSet::new();
    for _ in 0..64 {
        let config = config.clone();
        launches.spawn(async move { config.launch().await });
    }
    let machines = launches.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
    println!("{} machines run after {:?}", machines.len(), start.elapsed());

    let mut shutdowns = JoinSet::new();
    for machine in machines {
        shutdowns.spawn(async move { machine.shutdown(Duration::from_secs(20)).await });
    }
    let exits = shutdowns.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
    println!(
        "{} of them ended well, all within {:?}",
        exits.iter().filter(|e| e.success()).count(),
        start.elapsed()
    );
    Ok(())
}
