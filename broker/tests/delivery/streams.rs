//! The streams and durables are made once, and checked.

use super::*;

#[tokio::test]
async fn ensure_makes_everything_once_and_require_finds_it() -> Outcome {
    let server = NatsServer::start().await;
    let (first, second) = (connect(&server).await?, connect(&server).await?);
    let pool = Pool::default();

    let missing = first.require(&pool).await.unwrap_err();
    assert!(matches!(missing, Error::Missing { .. }), "{missing}");

    // By two at once, and again.
    let (one, other) = tokio::join!(ensure(&first, &pool), ensure(&second, &pool));
    one?;
    other?;
    ensure(&first, &pool).await?;
    first.require(&pool).await?;

    let elsewhere: Pool = "gpu".parse()?;
    let missing = first.require(&elsewhere).await.unwrap_err();
    assert!(missing.to_string().contains("workers-gpu"), "{missing}");
    ensure(&first, &elsewhere).await?;
    first.require(&elsewhere).await?;
    Ok(())
}

#[tokio::test]
async fn a_stream_with_other_settings_is_refused_by_the_setting() -> Outcome {
    let server = NatsServer::start().await;
    let broker = connect(&server).await?;
    let stream = jetstream::stream::Config {
        name: subjects::TASKS.to_owned(),
        subjects: vec![subjects::TASK_ALL.to_owned()],
        ..jetstream::stream::Config::default()
    };
    broker.jetstream().create_stream(stream).await?;

    let unfit = ensure(&broker, &Pool::default()).await.unwrap_err();

    let Error::Unfit { what, field, .. } = &unfit else { return Err(unfit.into()) };
    assert_eq!((what.as_str(), *field), ("stream BAG_TASKS", "retention"));
    let still = broker.require(&Pool::default()).await.unwrap_err();
    assert!(matches!(still, Error::Unfit { .. }), "{still}");
    Ok(())
}

#[tokio::test]
async fn a_durable_with_another_lease_is_refused() -> Outcome {
    let server = NatsServer::start().await;
    let broker = server.broker(Role::Admin).await;
    let context = broker.jetstream();
    let durable: jetstream::consumer::Consumer<jetstream::consumer::pull::Config> =
        context.get_consumer_from_stream(DURABLE, subjects::TASKS).await?;
    let mut config = durable.cached_info().config.clone();
    config.ack_wait = Duration::from_secs(30);
    context.delete_consumer_from_stream(DURABLE, subjects::TASKS).await?;
    let stream = context.get_stream(subjects::TASKS).await?;
    stream.create_consumer(config).await?;

    let unfit = broker.require(&Pool::default()).await.unwrap_err();

    let Error::Unfit { field, found, .. } = &unfit else { return Err(unfit.into()) };
    assert_eq!((*field, found.as_str()), ("ack_wait", "30s"));
    Ok(())
}

#[tokio::test]
async fn a_server_without_jetstream_is_named_as_such() -> Outcome {
    let folder = tempfile::tempdir()?;
    let program = find_program(None)?;
    let mut server = tokio::process::Command::new(program.path)
        .args(["--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir"])
        .arg(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let ports = folder.path().join(format!("nats-server_{}.ports", server.id().unwrap()));
    let url = eventually("the server listens", SOON, async || {
        let text = std::fs::read_to_string(&ports).ok()?;
        let ports: serde_json::Value = serde_json::from_str(&text).ok()?;
        ports["nats"][0].as_str().map(str::to_owned)
    })
    .await;
    let broker = Broker::connect(&Address::plain(&url), Role::Producer).await?;

    for refused in [
        broker.require(&Pool::default()).await.unwrap_err(),
        ensure(&broker, &Pool::default()).await.unwrap_err(),
    ] {
        assert!(matches!(refused, Error::NoJetStream { .. }), "{refused}");
    }
    server.kill().await?;
    Ok(())
}

#[tokio::test]
async fn an_account_without_jetstream_is_named_as_such() -> Outcome {
    let accounts = r"accounts {
        with { jetstream: enabled, users: [ { user: in, password: x } ] }
        without { users: [ { user: out, password: x } ] }
    }
    no_auth_user: in";
    let server = NatsServer::start_with(accounts).await;
    let address = Address::parse(&server.url().replace("//", "//out:x@"))?;
    let broker = Broker::connect(&address, Role::Producer).await?;

    let refused = broker.require(&Pool::default()).await.unwrap_err();

    assert!(matches!(refused, Error::NoJetStream { .. }), "{refused}");
    Ok(())
}
