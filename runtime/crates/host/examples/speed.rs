//! Measures what a call and an instance of a component cost, for `make bench`. Bodies are 300 bytes of JSON. Without an argument
//! the component is one that looks at each body and does nothing; it needs the example `compile_component` beside it.

use std::path::Path;
use std::time::Instant;

use wharf_host::{Batch, Body, Compiler, Host, HostOptions, Message, ReceiverOptions, Redelivery};

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "figures are what this program is for")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let program = std::env::current_exe()?.with_file_name("compile_component");
    let compiler = Compiler { program, args: Vec::new() };
    let host = Host::new(HostOptions::new(dir.path().to_owned(), compiler))?;
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/guests/wasm32-wasip2/release");
    let component = std::env::args().nth(1).map_or_else(|| guests.join("guest_quiet.wasm"), Into::into);
    println!("{}, {} bytes", component.display(), std::fs::metadata(&component)?.len());
    let start = Instant::now();
    let receiver = host.load(ReceiverOptions::new("quiet", component.clone())).await?;
    println!("compile and load {:?}", start.elapsed());
    let start = Instant::now();
    host.load(ReceiverOptions::new("quiet", component)).await?;
    println!("load from the cache {:?}", start.elapsed());

    let count = 10_000;
    let start = Instant::now();
    for _ in 0..count {
        drop(receiver.instantiate().await?);
    }
    println!("instantiate and drop {:?}", start.elapsed() / count);

    let mut instance = receiver.instantiate().await?;
    for size in [1, 64, 256] {
        let batch = batch(size);
        let rounds = 1_000_000 / u32::try_from(size)?;
        let start = Instant::now();
        for _ in 0..rounds {
            instance.handle(&batch).await?;
        }
        println!("batches of {size}: {:?} a message", start.elapsed() / (rounds * u32::try_from(size)?));
    }
    Ok(())
}

fn batch(size: u64) -> Batch {
    let body = format!("{{\"value\":\"{}\"}}", "x".repeat(288));
    let message = |offset| Message {
        offset,
        agent: "agent-1".into(),
        received_at: 1_700_000_000_000,
        redelivery: Redelivery::None,
        id: None,
        sent_at: None,
        user: None,
        trace: None,
        body: Body::Json(body.clone()),
    };
    Batch { data_type: "system_metrics".into(), messages: (0..size).map(message).collect() }
}
