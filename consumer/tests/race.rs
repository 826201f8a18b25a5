//! Two executions of one task, raced at every step between its delivery and its ack: the task has one
//! outcome, the bytes of that outcome are there, and nothing else remains.

#[path = "race/by_hand.rs"]
mod by_hand;
#[path = "race/counts.rs"]
mod counts;
#[path = "../../objstore/tests/house/mod.rs"]
mod house;
#[path = "race/limit.rs"]
mod limit;

use std::collections::HashSet;
use std::time::Duration;

use bagpress_broker::descriptor::{Input, ResultPath, TaskDescriptor};
use bagpress_broker::ids::Execution;
use bagpress_broker::result::{Cause, Outcome as End, Place, TaskResult};
use bagpress_broker::{AttemptRecord, Committed, Error, samples};
use bagpress_codec::DataKind;
use bagpress_objstore::Stored;
use bagpress_objstore::object_ref::Lookup;

use self::by_hand::*;
use self::house::{Outcome, sample};

#[tokio::test(flavor = "multi_thread")]
async fn stored_and_not_committed() -> Outcome {
    for results in BOTH {
        let mut race = Race::on(results).await?;
        let task = race.submit().await?;
        let first = ByHand::execute(&race, &task).await?.close().await?;
        assert!(matches!(first.stored, Stored::Staged | Stored::Object(_)), "{:?}", first.stored);
        race.taken_and_lost().await?;

        let worker = race.worker(1);
        let outcome = race.exactly_one(&task).await?;

        assert_ne!(outcome.execution, first.execution);
        assert_eq!(outcome.attempt, 2);
        if results == ResultPath::Objects {
            // Adopted, not written again.
            let info = race.bucket.info_from_leader("out_0.bin").await?;
            let Lookup::Found(info) = info else { return Err(format!("{info:?}").into()) };
            assert_eq!(info.token, format!("0-{}", first.execution));
        }
        // It was not dead, only late.
        let Committed::Other(winner) = first.commit(&race).await? else {
            return Err("two outcomes".into());
        };
        assert_eq!(*winner, outcome);
        assert_eq!(race.exactly_one(&task).await?, outcome);
        worker.drained().await?;
    }
    Ok(())
}

/// The last chunk is there; CLOSE, or the metadata, is not.
#[tokio::test(flavor = "multi_thread")]
async fn uploaded_and_not_closed() -> Outcome {
    for results in BOTH {
        for gathered_before in [false, true] {
            let mut race = Race::on(results).await?;
            let task = race.submit().await?;
            let first = ByHand::execute(&race, &task).await?;
            race.taken_and_lost().await?;
            let worker = race.worker(1);
            race.answered().await;
            let winner = race.outcomes().await?.pop().ok_or("no outcome")?;
            assert_ne!(winner.execution, first.execution);
            if gathered_before {
                race.accept(&winner)?;
            }

            let first = first.close().await?;

            match (results, &first.stored) {
                (ResultPath::Staged, Stored::Decided(line)) if gathered_before => {
                    assert_eq!(**line, winner);
                }
                (ResultPath::Staged, Stored::Staged) if !gathered_before => {}
                (ResultPath::Objects, Stored::Object(info)) => {
                    assert_eq!(info.token, format!("0-{}", winner.execution));
                }
                (_, stored) => return Err(format!("{stored:?}").into()),
            }
            if !matches!(first.stored, Stored::Decided(_)) {
                assert!(matches!(first.commit(&race).await?, Committed::Other(_)));
            }
            assert_eq!(race.exactly_one(&task).await?, winner);
            worker.drained().await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_and_not_acknowledged() -> Outcome {
    for results in BOTH {
        let mut race = Race::on(results).await?;
        let task = race.submit().await?;
        let first = ByHand::execute(&race, &task).await?.close().await?;
        assert!(matches!(first.commit(&race).await?, Committed::Mine));
        race.taken_and_lost().await?;

        let worker = race.worker(1);
        let outcome = race.exactly_one(&task).await?;

        assert_eq!(outcome.execution, first.execution);
        // It was acknowledged, not executed.
        let workers = race.house.gatherer.workers(Duration::from_millis(300)).await?;
        assert_eq!((workers.len(), workers[0].1.done, workers[0].1.failed), (1, 0, 0));
        worker.drained().await?;
    }
    Ok(())
}

/// What somebody put where the output belongs, with the digest of what it is.
async fn planted(race: &Race, bytes: &'static [u8]) -> Outcome<TaskResult> {
    let task = race.task();
    let execution = Execution::random();
    let token = format!("0-{execution}");
    let stored = race.bucket.put("out_0.bin", &token, bytes.into()).await?;
    let (bucket, object, chunks) = (stored.info.bucket, stored.info.name, stored.info.chunks);
    let place = Place::Object { bucket, object, chunks };
    Ok(samples::done(&task.id(), &execution, bytes, place))
}

/// The object of an outcome gets its name, as its gatherer does it.
async fn named(race: &Race, outcome: &TaskResult) -> Outcome {
    let place = &outcome.done().ok_or("failed")?.place;
    let Place::Object { object, .. } = place else { return Err("no object".into()) };
    let info = race.bucket.check_present(object).await?;
    Ok(race.bucket.rename(&info, "out_0.bin").await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_planted_before_a_worker_came_is_not_its_output() -> Outcome {
    let race = Race::on(ResultPath::Objects).await?;
    planted(&race, b"of somebody else").await?;
    let task = race.submit().await?;
    let worker = race.worker(1);
    race.answered().await;
    let outcomes = race.outcomes().await?;
    let [outcome] = outcomes.as_slice() else { return Err(format!("{outcomes:?}").into()) };
    named(&race, outcome).await?;
    race.check_output(&task, outcome).await?;
    worker.drained().await
}

/// A worker with another version of the codec makes other bytes, and was first.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_counts_is_not_replaced_by_who_makes_other_bytes() -> Outcome {
    let mut race = Race::on(ResultPath::Objects).await?;
    let first = planted(&race, b"by another version").await?;
    let task = race.submit_slow().await?;
    race.taken_and_lost().await?;
    let noted = race.listen().await?;
    let worker = race.worker(1);
    race.another_uploads(&first.execution).await;
    assert!(matches!(race.house.worker.commit(&first).await?, Committed::Mine));
    race.answered().await;
    assert_eq!(race.outcomes().await?, [first]);
    assert_eq!(race.output(task.index).await?, b"by another version");
    worker.drained().await?;
    assert_eq!(race.answers(noted).await?, ["duplicate", "ack"]);
    // The loser takes its own object away, and nothing else.
    race.nothing_unnamed().await?;
    let mut left = race.bucket.list();
    assert_eq!(left.next().await?.map(|info| info.name).as_deref(), Some("out_0.bin"));
    assert_eq!(left.next().await?, None);
    Ok(())
}

/// The loser is a real worker in the middle of its upload.
#[tokio::test(flavor = "multi_thread")]
async fn committed_while_another_executes() -> Outcome {
    for results in BOTH {
        for gathered_before in [false, true] {
            let mut race = Race::on(results).await?;
            let task = race.submit_slow().await?;
            let first = ByHand::execute(&race, &task).await?.close().await?;
            race.taken_and_lost().await?;
            let noted = race.listen().await?;
            let worker = race.worker(1);
            race.another_uploads(&first.execution).await;

            assert!(matches!(first.commit(&race).await?, Committed::Mine));
            if gathered_before {
                race.accept(&first.result())?;
            }

            let outcome = race.exactly_one(&task).await?;
            assert_eq!(outcome.execution, first.execution);
            worker.drained().await?;
            race.nothing_unnamed().await?;
            // It would not be counted if the worker died in between.
            assert_eq!(race.answers(noted).await?, ["duplicate", "ack"]);
        }
    }
    Ok(())
}

/// Both have stored; the one that commits second is the duplicate, even if it stored first.
#[tokio::test(flavor = "multi_thread")]
async fn both_stored_and_then_committed() -> Outcome {
    for results in BOTH {
        let mut race = Race::on(results).await?;
        let task = race.submit().await?;
        let first = ByHand::execute(&race, &task).await?.close().await?;
        let second = ByHand::execute(&race, &task).await?.close().await?;

        assert!(matches!(second.commit(&race).await?, Committed::Mine));
        let Committed::Other(winner) = first.commit(&race).await? else {
            return Err("two outcomes".into());
        };
        assert_eq!(winner.execution, second.execution);

        race.taken_and_lost().await?;
        let worker = race.worker(1);
        assert_eq!(race.exactly_one(&task).await?.execution, second.execution);
        worker.drained().await?;
    }
    Ok(())
}

/// The broker forgot a result that the ledger has: the worker commits that one.
#[tokio::test(flavor = "multi_thread")]
async fn in_the_ledger_and_not_committed() -> Outcome {
    let race = Race::on(ResultPath::Staged).await?;
    let task = race.submit().await?;
    let first = ByHand::execute(&race, &task).await?.close().await?;
    race.accept(&first.result())?;

    let worker = race.worker(1);

    assert_eq!(race.exactly_one(&task).await?, first.result());
    worker.drained().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn half_an_upload_of_a_dead_worker_goes_when_the_task_is_decided() -> Outcome {
    let mut race = Race::on(ResultPath::Staged).await?;
    let task = race.submit().await?;
    let dead = Execution::random();
    std::fs::write(race.house.parts.part(0, 0, &dead), sample(MIB))?;
    race.taken_and_lost().await?;

    let worker = race.worker(1);

    assert_ne!(race.exactly_one(&task).await?.execution, dead);
    worker.drained().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_no_worker_survives_fails_and_is_not_executed_again() -> Outcome {
    for results in BOTH {
        let mut race = Race::on(results).await?;
        let task = race.submit_with(TaskDescriptor { attempts: 2, ..race.task() }).await?;
        race.taken_and_lost().await?;
        race.taken_and_lost().await?;

        let worker = race.worker(1);
        race.answered().await;

        let outcomes = race.outcomes().await?;
        let [TaskResult { outcome: End::Failed(failed), .. }] = outcomes.as_slice() else {
            return Err(format!("{outcomes:?}").into());
        };
        assert_eq!(failed.cause, Cause::CrashLimit);
        assert_eq!(outcomes[0].id(), task.id());
        race.nothing_unnamed().await?;
        worker.drained().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_given_back_as_planned_are_no_crashes() -> Outcome {
    let mut race = Race::on(ResultPath::Objects).await?;
    let task = race.submit_with(TaskDescriptor { attempts: 1, ..race.task() }).await?;
    for _ in 0..3 {
        let delivery = race.take().await?;
        let before = race.house.worker.planned_give_backs(delivery.id()).await?;
        let record =
            AttemptRecord::new(delivery.id(), delivery.delivered(), before, Cause::Drain, "W");
        race.house.worker.record_attempt(&task.bag, &record).await?;
        delivery.nak(Duration::ZERO).await?;
    }

    let worker = race.worker(1);

    assert_eq!(race.exactly_one(&task).await?.attempt, 1);
    worker.drained().await?;
    Ok(())
}

/// Every task is taken away from its living worker once, so that both execute it.
#[tokio::test(flavor = "multi_thread")]
async fn two_workers_that_execute_the_same_tasks() -> Outcome {
    const TASKS: u32 = 12;
    for results in BOTH {
        let race = Race::on(results).await?;
        let mut held = race.house.gatherer.held_events(&race.house.bag).await?;
        race.house.gatherer.flush().await?;
        let input = Input::Generate { data: DataKind::Text, seed: 1, bytes: 2 << 20 };
        let mut tasks = Vec::new();
        for index in 0..TASKS {
            let task = TaskDescriptor { index, input: input.clone(), ..race.task() };
            tasks.push(race.submit_with(task).await?);
        }
        let workers = [race.worker(1), race.worker(1)];
        let gatherer = race.house.gatherer.clone();
        let thief = tokio::spawn(async move {
            let mut stolen = HashSet::new();
            while let Some(held) = held.held().await {
                for delivery in held.deliveries.into_iter().filter(|d| d.delivered == 1) {
                    if stolen.insert(delivery.index) {
                        gatherer.nak_for(&delivery.reply).await?;
                    }
                }
            }
            Ok::<_, Error>(())
        });

        race.answered().await;
        for worker in workers {
            worker.drained().await?;
        }
        thief.abort();

        let outcomes = race.outcomes().await?;
        let indices: HashSet<_> = outcomes.iter().map(|result| result.index).collect();
        assert_eq!((outcomes.len(), indices.len()), (TASKS as usize, TASKS as usize));
        for result in &outcomes {
            race.accept(result)?;
            race.check_output(&tasks[result.index as usize], result).await?;
        }
        race.nothing_unnamed().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_fails_its_task_alone_and_at_once() -> Outcome {
    let race = Race::on(ResultPath::Staged).await?;
    let content = sample(MIB + 1);
    let mut tasks = Vec::new();
    for index in 0..2 {
        let name = format!("source {index}");
        let path = race.house.folder().join(&name);
        std::fs::write(&path, &content)?;
        race.house.ledger.take_input(index, &path)?;
        let input = Input::File { name, bytes: content.len() as u64 };
        tasks.push(TaskDescriptor { index, input, ..race.task() });
    }
    std::fs::remove_file(race.house.folder().join("source 0"))?;
    for task in &tasks {
        race.submit_with(task.clone()).await?;
    }

    let worker = race.worker(1);
    race.answered().await;

    for result in race.outcomes().await? {
        match &result.outcome {
            End::Failed(failed) => {
                assert_eq!((result.index, failed.cause), (0, Cause::InputMissing));
                assert_eq!(result.attempt, 1);
                race.house.parts.sweep(&[(0, 0)]);
            }
            End::Done(_) => {
                assert_eq!(result.index, 1);
                race.accept(&result)?;
                race.check_output(&tasks[1], &result).await?;
            }
        }
    }
    race.nothing_unnamed().await?;
    worker.drained().await?;
    Ok(())
}
