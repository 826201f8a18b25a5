//! The memory of a gatherer stays within its bound, whatever arrives. A test of its own, as it looks at the process.

#[expect(dead_code, reason = "others need more of it")]
#[path = "house/execute.rs"]
mod execute;
#[expect(dead_code, reason = "others need more of it")]
mod flood;
#[expect(dead_code, reason = "others need more of it")]
mod house;

use std::time::Duration;

use bagpress_broker::ids::Execution;
use bagpress_broker::limits;
use bagpress_objstore::Stored;

use self::execute::Execute;
use self::flood::Hostile;
use self::house::{House, Outcome, sample};

const CHUNK: usize = limits::CHUNK_BYTES;
const MIB: usize = 1024 * 1024;
const SENDERS: u32 = 4;
/// By each, half of them with leave and half without: 1 GiB by all.
const CLOSES: usize = 512;
/// Beside the budget: what the connection reads at a time, what the disk's threads have, this test's own output.
const BESIDE: usize = 96 * MIB;

/// Memory of this process that no file backs.
fn resident() -> Outcome<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).ok_or("no RssAnon")?;
    let kib: usize = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
    Ok(kib * 1024)
}

#[tokio::test(flavor = "multi_thread")]
async fn closes_that_several_send_at_once_take_no_more_memory_than_their_budget() -> Outcome {
    let house = House::open(false).await?;
    let (honest, output) = (Execute::new(&house, 0), sample(CHUNK - 1));
    let before = resident()?;
    let floods: Vec<_> = (0..SENDERS)
        .map(|n| {
            let mut hostile = Hostile::connect(&house, &format!("hostile{n}"))?;
            Ok(std::thread::spawn(move || {
                let junk = vec![7; CHUNK];
                let mut flood = || -> Outcome {
                    let opened: Vec<_> = (0..CLOSES / 2).map(|_| Execution::random()).collect();
                    for execution in &opened {
                        hostile.open(n, execution)?;
                    }
                    for executions in opened.chunks(4) {
                        for execution in executions {
                            hostile.close(n, execution, &junk)?;
                            hostile.close(n, &Execution::random(), &junk)?;
                        }
                        // Faster than anything can be written; slower than the server sends to one connection, which it
                        // would cut otherwise.
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    Ok(())
                };
                flood().map_err(|error| error.to_string())?;
                Ok::<_, String>(hostile)
            }))
        })
        .collect::<Outcome<_>>()?;
    let mut most = 0;
    let mut look = || -> Outcome {
        most = resident()?.max(most);
        Ok(())
    };

    let mut storing = std::pin::pin!(honest.store(&output));
    let stored = loop {
        look()?;
        let looks = tokio::time::timeout(Duration::from_millis(5), &mut storing).await;
        if let Ok(stored) = looks {
            break stored?;
        }
    };
    assert!(matches!(stored, Stored::Staged), "{stored:?}");
    while !floods.iter().all(std::thread::JoinHandle::is_finished) {
        look()?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let hostile: Vec<_> =
        floods.into_iter().map(|flood| flood.join().map_err(|_| "panicked")?).collect();
    for flood in hostile {
        flood?;
    }
    // What was sent last is still being served.
    let last = Execute::new(&house, 1).store(b"the last one").await?;
    look()?;
    assert!(matches!(last, Stored::Staged), "{last:?}");
    let grown = most.saturating_sub(before);
    assert!(grown <= limits::ARRIVED_BYTES + BESIDE, "{grown} bytes");
    Ok(())
}
