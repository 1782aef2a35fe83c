//! A receiver of your own, with acknowledgements: exactly-once from a sender that may hang up at any time.
//!
//! ```text
//! cargo run --release --example custom_receiver
//! ```
//!
//! A till sends numbered sales over TCP, one `NUMBER CENTS` per line. It forgets a sale only when it has read
//! `ACK NUMBER`, which is written once the sale is durable in the job's store; after it reconnects it sends
//! again what it has no acknowledgement of. So every sale arrives at least once, and the job's state, which
//! knows the last number, takes each exactly once, also when both are killed and the till starts over.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::net::TcpListener;
use std::time::Duration;

use millpond::{BlockStore, Receiver, ReceiverError, StopMode, StreamingContext};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const SALES: u64 = 2_000;

fn cents(number: u64) -> u64 {
    100 + number * 37 % 900
}

// -- the job's side --

#[millpond::data]
#[derive(Clone)]
struct Sale {
    number: u64,
    cents: u64,
}

#[millpond::data]
#[derive(Clone, Debug, Default, PartialEq)]
struct Takings {
    last: u64,
    cents: u64,
}

/// Connects to the till. When it fails, the job calls it again after a wait.
struct TillReceiver {
    address: String,
}

impl Receiver for TillReceiver {
    type Item = Sale;

    async fn receive(&mut self, blocks: BlockStore<Sale>) -> Result<(), ReceiverError> {
        let (read, mut write) = TcpStream::connect(&self.address).await?.into_split();
        let mut lines = BufReader::new(read);
        loop {
            // All whole lines that are there become one block, and get one acknowledgement.
            let mut sales = vec![read_sale(&mut lines).await?];
            while lines.buffer().contains(&b'\n') {
                sales.push(read_sale(&mut lines).await?);
            }
            let last = sales[sales.len() - 1].number;
            blocks.store(sales).await?;
            write.write_all(format!("ACK {last}\n").as_bytes()).await?;
        }
    }
}

async fn read_sale(lines: &mut (impl AsyncBufReadExt + Unpin)) -> Result<Sale, ReceiverError> {
    let mut line = String::new();
    lines.read_line(&mut line).await?;
    // Half a line is a wrong number.
    let line = line.strip_suffix('\n').ok_or("the till hung up")?;
    let (number, cents) = line.split_once(' ').ok_or("not a sale")?;
    Ok(Sale { number: number.parse()?, cents: cents.parse()? })
}

/// Takes the sale that follows the last one; what was sent again has been taken.
fn take(sales: &[Sale], takings: Option<Takings>) -> Option<Takings> {
    let mut takings = takings.unwrap_or_default();
    for sale in sales {
        if sale.number == takings.last + 1 {
            takings = Takings { last: sale.number, cents: takings.cents + sale.cents };
        }
    }
    Some(takings)
}

// -- the sender's side --

/// Sends all sales; returns how many lines that took and how often it hung up.
fn till(listener: &TcpListener) -> io::Result<(u64, u64)> {
    let (mut acknowledged, mut lines, mut connections) = (0, 0, 0);
    while acknowledged < SALES {
        let (mut socket, _) = listener.accept()?;
        connections += 1;
        // Every other time it hangs up without waiting: what was stored then, it does not learn.
        let patient = connections % 2 == 0;
        let upto = SALES.min(acknowledged + 100);
        for number in acknowledged + 1..=upto {
            writeln!(socket, "{number} {}", cents(number))?;
            lines += 1;
        }
        let mut answers = io::BufReader::new(&socket).lines();
        while patient && acknowledged < upto {
            let answer = answers.next().transpose()?.unwrap_or_default();
            let number = answer.strip_prefix("ACK ").and_then(|number| number.parse().ok());
            acknowledged = number.ok_or_else(|| io::Error::other("not an acknowledgement"))?;
        }
    }
    Ok((lines, connections))
}

fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let context = StreamingContext::builder("custom-receiver")
        .store("millpond-demo/custom-receiver")
        .batch_interval(Duration::from_millis(100))
        .build()?;
    context
        .receiver_stream("sales", TillReceiver { address })
        .map(|sale| ("till 1".to_owned(), sale))
        .update_state_by_key("takings", take)
        .for_each_rdd(|rdd, info| {
            for (till, takings) in rdd.collect()? {
                println!("{}: {till} has sold up to number {}", info.batch, takings.last);
            }
            Ok(())
        });
    let job = context.start()?;
    let takings = job.state::<String, Takings>("takings")?;

    let till = std::thread::spawn(move || till(&listener));
    while !till.is_finished() {
        if job.await_termination_or_timeout(Duration::from_millis(50))? {
            println!("stopped; start me again to go on");
            return Ok(());
        }
    }
    let (lines, connections) = till.join().map_err(|_| "the till panicked")??;
    // All is acknowledged, so all is durable: a graceful stop counts it.
    job.stop(StopMode::Graceful)?;

    let expected = Takings { last: SALES, cents: (1..=SALES).map(cents).sum() };
    let found = takings.get(&"till 1".to_owned())?;
    println!("{SALES} sales in {lines} lines over {connections} connections: {found:?}");
    if found == Some(expected) { Ok(()) } else { Err("these are not the takings of these sales".into()) }
}
