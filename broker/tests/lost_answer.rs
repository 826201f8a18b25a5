//! A commit that arrived and whose answer did not: the worker finds out that it was its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bagpress_broker::ids::{Execution, TaskId};
use bagpress_broker::result::Place;
use bagpress_broker::samples::{bag, done};
use bagpress_broker::testing::NatsServer;
use bagpress_broker::{Address, Broker, Committed, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Passes everything on, except that it hangs up where the client has just sent a result, before any
/// answer: the first `lost` times.
async fn proxy(server: String, lost: usize) -> Outcome<(String, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("nats://{}", listener.local_addr()?);
    let hung_up = Arc::new(AtomicUsize::new(0));
    let count = hung_up.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(upstream) = TcpStream::connect(server.trim_start_matches("nats://")).await
            else {
                continue;
            };
            tokio::spawn(pass(client, upstream, lost, count.clone()));
        }
    });
    Ok((url, hung_up))
}

async fn pass(mut client: TcpStream, mut server: TcpStream, lost: usize, count: Arc<AtomicUsize>) {
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        let passed = tokio::select! {
            read = client.read(&mut up) => match read {
                Ok(0) | Err(_) => return,
                Ok(bytes) => {
                    let sent = server.write_all(&up[..bytes]).await;
                    let result = up[..bytes].windows(12).any(|w| w == b" bag.result.".as_slice())
                        || up[..bytes].windows(16).any(|w| w == b"HPUB bag.result.".as_slice());
                    if result && count.fetch_add(1, Ordering::SeqCst) < lost {
                        // What was sent is read by the server before it sees the end.
                        server.shutdown().await.ok();
                        while matches!(server.read(&mut down).await, Ok(read) if read > 0) {}
                        return;
                    }
                    sent
                }
            },
            read = server.read(&mut down) => match read {
                Ok(0) | Err(_) => return,
                Ok(bytes) => client.write_all(&down[..bytes]).await,
            },
        };
        if passed.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_cut_off_is_found_to_be_mine() -> Outcome {
    let server = NatsServer::start().await;
    let direct = server.broker(Role::Admin).await;
    let (url, hung_up) = proxy(server.url().to_owned(), 1).await?;
    let worker = Broker::connect(&Address::plain(&url), Role::Worker).await?;
    let id = TaskId { bag: bag(), index: 0, round: 0 };
    let mine = done(&id, &Execution::random(), b"output", Place::Staged);

    assert!(matches!(worker.commit(&mine).await?, Committed::Mine));

    assert!(hung_up.load(Ordering::SeqCst) >= 1, "no answer was cut off");
    assert_eq!(direct.committed(&id).await?, Some(mine));
    Ok(())
}

#[tokio::test]
async fn a_commit_that_lost_and_whose_answer_is_cut_off_is_found_to_be_the_others() -> Outcome {
    let server = NatsServer::start().await;
    let direct = server.broker(Role::Admin).await;
    let (url, hung_up) = proxy(server.url().to_owned(), 1).await?;
    let worker = Broker::connect(&Address::plain(&url), Role::Worker).await?;
    let id = TaskId { bag: bag(), index: 0, round: 0 };
    let (first, late) = (
        done(&id, &Execution::random(), b"output", Place::Staged),
        done(&id, &Execution::random(), b"output", Place::Staged),
    );
    assert!(matches!(direct.commit(&first).await?, Committed::Mine));

    let Committed::Other(winner) = worker.commit(&late).await? else {
        return Err("two outcomes".into());
    };

    assert!(hung_up.load(Ordering::SeqCst) >= 1, "no answer was cut off");
    assert_eq!(*winner, first);
    Ok(())
}
