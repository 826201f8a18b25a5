//! Whether a worker, or a right, is there.

use super::*;

#[tokio::test]
async fn a_worker_is_there_until_its_connection_is_gone() -> Outcome {
    let server = NatsServer::start().await;
    let gatherer = server.broker(Role::Producer).await;
    // A runtime of its own, which can end as a killed process does: without a word.
    let process = tokio::runtime::Runtime::new()?;
    let address = Address::plain(server.url());
    let starting = process.spawn(async move {
        let worker = Broker::connect(&address, Role::Worker).await?;
        let stats = || ServiceStats { slots: 3, done: 5, ..ServiceStats::default() };
        let service = Service::start(&worker, HashMap::new(), stats).await?;
        worker.flush().await?;
        Ok::<_, Error>(service)
    });
    let service = starting.await??;

    assert_eq!(gatherer.probe(service.id(), SOON).await, Presence::Here);
    let workers = gatherer.workers(Duration::from_millis(500)).await?;
    assert_eq!(workers.len(), 1);
    assert_eq!((workers[0].0.as_str(), workers[0].1.slots), (service.id(), 3));

    process.shutdown_background();
    eventually("the worker is gone", SOON, async || {
        // One that it took with it is not answered at all.
        let presence = gatherer.probe(service.id(), Duration::from_millis(200)).await;
        (presence == Presence::Gone).then_some(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_silent_server_says_nothing_about_a_worker() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Producer).await;
    drop(server);

    let presence = broker.probe("nobody", Duration::from_millis(300)).await;

    assert_eq!(presence, Presence::Unknown);
    Ok(())
}

#[tokio::test]
async fn a_refused_permission_is_an_error_at_once() -> Outcome {
    let users = r#"authorization { users: [
        { user: all, password: x }
        { user: few, password: x, permissions: { publish: { deny: "bag.task.>" } } }
    ] }
    no_auth_user: all"#;
    let server = NatsServer::start_with(users).await;
    server.broker(Role::Admin).await;
    let address = Address::parse(&server.url().replace("//", "//few:x@"))?;
    let broker = Broker::connect(&address, Role::Producer).await?;

    let pending =
        broker.submit(&Pool::default(), &task(&bag(), 0, ResultPath::Staged), true).await?;

    let fatal = tokio::select! {
        fatal = broker.fatal() => fatal,
        submitted = pending => return Err(format!("not refused: {submitted:?}").into()),
    };
    let Error::Denied(why) = &fatal else { return Err(fatal.into()) };
    assert!(why.contains("bag.task."), "{why}");
    Ok(())
}

#[tokio::test]
async fn wrong_credentials_are_refused_at_once() -> Outcome {
    let users = r"authorization { users: [ { user: all, password: x } ] }
    no_auth_user: all";
    let server = NatsServer::start_with(users).await;
    let address = Address::parse(&server.url().replace("//", "//all:y@"))?;

    let refused = Broker::connect(&address, Role::Producer).await.unwrap_err();

    assert!(matches!(refused, Error::Denied(_)), "{refused}");
    Ok(())
}
