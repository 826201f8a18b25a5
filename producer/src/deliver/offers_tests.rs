//! Offers and leases, step by step, on a clock of the test's own.

use std::time::Duration;

use bagpress_broker::ids::Execution;

use super::*;

const MS: Duration = Duration::from_millis(1);

pub(super) fn lease(key: Key, worker: &str, attempt: u32) -> Lease {
    Lease {
        v: limits::WIRE_VERSION,
        index: key.0,
        round: key.1,
        execution: Execution::random(),
        attempt,
        worker: worker.to_owned(),
        host: "h".to_owned(),
        pid: 1,
        more: None,
    }
}

pub(super) fn table(tasks: u32) -> (Offers, Instant) {
    let (mut offers, now) = (Offers::new(3, HashMap::new()), Instant::now());
    for index in 0..tasks {
        offers.add((index, 0), Bytes::from(index.to_string()), now);
    }
    (offers, now)
}

/// The next offer's number and attempt.
fn offered(offers: &mut Offers, now: Instant) -> Option<(u64, u32)> {
    match offers.next(now)? {
        Next::Offer { number, attempt, .. } => Some((number, attempt)),
        Next::Exhausted { .. } => None,
    }
}

#[test]
fn more_is_offered_as_more_is_taken_and_nothing_while_nobody_is_idle() {
    let (mut offers, now) = table(20);
    let (first, _) = offered(&mut offers, now).unwrap();
    assert_eq!(offers.next(now), None);
    assert!(offers.taken(first, lease((0, 0), "a", 1), now));
    let (second, _) = offered(&mut offers, now).unwrap();
    let (third, _) = offered(&mut offers, now).unwrap();
    assert_eq!(offers.next(now), None);
    assert!(offers.taken(second, lease((1, 0), "b", 1), now));
    offers.nobody(third, now);
    assert_eq!(offers.next(now), None);
    assert_eq!(offers.wants(now), 0);
    // Somebody may have become idle unseen.
    let again = offers.look_at(now);
    assert!(again > now && again <= now + limits::OFFER_AGAIN_BUSY);
    assert!(offered(&mut offers, again).is_some());
    assert_eq!(offers.next(again), None);
    // Or seen.
    offers.idle();
    assert!(offered(&mut offers, again).is_some());
}

#[test]
fn as_many_are_offered_at_a_time_as_a_worker_said_it_would_take() {
    let (mut offers, now) = table(20);
    let (first, _) = offered(&mut offers, now).unwrap();
    let more = |key, more| Lease { more: Some(more), ..lease(key, "a", 1) };
    assert!(offers.taken(first, more((0, 0), 5), now));
    let numbers: Vec<_> = std::iter::from_fn(|| offered(&mut offers, now)).collect();
    assert_eq!(numbers.len(), 5);
    // It got one more, and four are on their way to it.
    assert!(offers.taken(numbers[0].0, more((1, 0), 4), now));
    assert_eq!((offers.next(now), offers.wants(now)), (None, 0));
    // It joined for three more.
    assert!(offers.taken(numbers[1].0, more((2, 0), 6), now));
    assert_eq!(std::iter::from_fn(|| offered(&mut offers, now)).count(), 3);
    // It got other work.
    offers.passed(numbers[2].0, now);
    assert_eq!(std::iter::from_fn(|| offered(&mut offers, now)).count(), 1);
    // It is dead: those that were on their way to it are tried elsewhere, one after the other at first.
    offers.worker_lost("a", now);
    let later = now + limits::OFFER_ANSWERED_WITHIN;
    offers.vanish(later);
    assert!(offered(&mut offers, later).is_some());
}

#[test]
fn an_offer_without_an_answer_is_made_again() {
    let (mut offers, now) = table(1);
    let (first, _) = offered(&mut offers, now).unwrap();
    offers.vanish(now + 99 * MS);
    assert_eq!(offers.next(now + 99 * MS), None);
    assert_eq!(offers.look_at(now), now + limits::OFFER_ANSWERED_WITHIN);
    let later = now + limits::OFFER_ANSWERED_WITHIN;
    offers.vanish(later);
    let (second, attempt) = offered(&mut offers, later).unwrap();
    assert_ne!(first, second);
    assert_eq!(attempt, 1, "nobody had it");
    // The first one had been answered after all, and so is the second.
    assert!(offers.taken(first, lease((0, 0), "slow", 1), later));
    assert!(!offers.taken(second, lease((0, 0), "late", 1), later), "two have the lease");
}

#[test]
fn a_lease_lasts_as_long_as_it_is_renewed() {
    let (mut offers, now) = table(1);
    let (number, _) = offered(&mut offers, now).unwrap();
    let held = lease((0, 0), "a", 1);
    assert!(offers.taken(number, held.clone(), now));
    let renewed = now + limits::LEASE_RENEWAL;
    assert!(offers.hold(held.clone(), renewed));
    assert_eq!(offers.expire(renewed, renewed + limits::LEASE).len(), 0);
    let over = renewed + limits::LEASE + MS;
    assert_eq!(offers.expire(renewed + MS, over).len(), 1);
    let (number, attempt) = offered(&mut offers, over).unwrap();
    assert_eq!(attempt, 2);
    assert!(offers.taken(number, lease((0, 0), "b", 2), over));
    assert!(!offers.hold(held, over), "its lease is another's");
}

#[test]
fn what_a_dead_worker_had_is_offered_at_once() {
    let (mut offers, now) = table(2);
    let (number, _) = offered(&mut offers, now).unwrap();
    offers.taken(number, lease((0, 0), "a", 1), now);
    let (number, _) = offered(&mut offers, now).unwrap();
    offers.taken(number, lease((1, 0), "b", 1), now);
    assert_eq!(offers.leases(), 2);
    assert_eq!(offers.worker_lost("a", now).len(), 1);
    assert_eq!(offers.leases(), 1);
    assert_eq!(offered(&mut offers, now).unwrap().1, 2);
}

#[test]
fn a_task_that_every_worker_dies_of_is_not_offered_again() {
    let (mut offers, now) = table(1);
    for attempt in 1..=3 {
        let (number, found) = offered(&mut offers, now).unwrap();
        assert_eq!(found, attempt);
        offers.taken(number, lease((0, 0), "a", attempt), now);
        offers.worker_lost("a", now);
    }
    assert!(
        matches!(offers.next(now), Some(Next::Exhausted { key: (0, 0), past }) if past.spent == 3)
    );
    assert_eq!(offers.next(now), None);
}

#[test]
fn what_is_given_back_as_planned_spends_no_attempt() {
    let (mut offers, mut now) = table(1);
    for times in 0..10 {
        let (number, attempt) = offered(&mut offers, now).unwrap();
        assert_eq!(attempt, 1);
        let held = lease((0, 0), "a", 1);
        offers.taken(number, held.clone(), now);
        let cause = if times % 2 == 0 { Cause::Drain } else { Cause::Full };
        assert_eq!(offers.given_back(&held, cause, now), Some(times));
        if cause == Cause::Full {
            assert_eq!(offers.next(now), None, "a disk does not empty itself at once");
            now += limits::GIVE_BACK_DELAY_MAX;
        }
    }
}

/// A task that the wrong member was picked for again and again, while another member has the right version.
#[test]
fn whom_a_task_fits_is_not_waited_for_long_where_another_is_picked() {
    let (mut offers, mut now) = table(2);
    for times in 0..10 {
        let (number, _) = offered(&mut offers, now).unwrap();
        let held = lease((0, 0), "unfit", 1);
        offers.taken(number, held.clone(), now);
        offers.given_back(&held, Cause::CodecVersion, now);
        if times == 0 {
            let (number, _) = offered(&mut offers, now).unwrap();
            offers.taken(number, lease((1, 0), "fit", 1), now);
            offers.done((1, 0), now);
        }
        assert_eq!(offers.next(now), None, "not at once");
        now += limits::UNFIT_DELAY_MAX;
    }
    assert!(offered(&mut offers, now).is_some());
}

#[test]
fn a_round_that_lost_its_input_is_over() {
    let (mut offers, now) = table(1);
    let (number, _) = offered(&mut offers, now).unwrap();
    let held = lease((0, 0), "a", 1);
    assert!(offers.taken(number, held.clone(), now));
    assert_eq!(offers.end_round((0, 0), &held.execution), Some(0));
    assert!(!offers.hold(held, now), "a renewal that was on its way");
    assert_eq!(offers.next(now + limits::LEASE), None);
    offers.add((0, 1), Bytes::new(), now);
    assert_eq!(offered(&mut offers, now).map(|(_, attempt)| attempt), Some(1));
}

/// Renewals are sent by a task of their own, and one may come behind the give-back.
#[test]
fn a_renewal_behind_its_give_back_holds_nothing() {
    let (mut offers, now) = table(1);
    let (number, _) = offered(&mut offers, now).unwrap();
    let held = lease((0, 0), "a", 1);
    assert!(offers.taken(number, held.clone(), now));
    assert_eq!(offers.given_back(&held, Cause::Drain, now), Some(0));
    assert!(!offers.hold(held, now));
    assert_eq!(offers.leases(), 0);
    let (number, attempt) = offered(&mut offers, now).unwrap();
    assert_eq!(attempt, 1);
    assert!(offers.taken(number, lease((0, 0), "a", 1), now));
}

#[test]
fn a_new_gatherer_takes_over_the_leases_that_are_renewed() {
    let (mut offers, now) = (Offers::new(3, HashMap::new()), Instant::now());
    let held = lease((0, 0), "a", 2);
    assert!(offers.hold(held.clone(), now));
    offers.add((0, 0), Bytes::from_static(b"0"), now);
    assert_eq!(offers.next(now), None, "somebody executes it");
    assert_eq!(offers.worker_lost("a", now).len(), 1);
    assert_eq!(offered(&mut offers, now).unwrap().1, 3);
}

#[test]
fn attempts_spent_under_an_earlier_gatherer_count() {
    let now = Instant::now();
    let past = |spent| Past { spent, ..Past::default() };
    let known = [((0, 0), past(2)), ((1, 0), past(3)), ((2, 0), past(1))].into();
    let mut offers = Offers::new(3, known);
    // Somebody goes on with one while it is handed in: the first try of three, and the third.
    assert!(offers.hold(lease((2, 0), "a", 3), now));
    for index in 0..3 {
        offers.add((index, 0), Bytes::from(index.to_string()), now);
    }
    let (number, attempt) = offered(&mut offers, now).unwrap();
    assert_eq!(attempt, 3);
    assert!(offers.taken(number, lease((0, 0), "b", 3), now));
    assert!(matches!(offers.next(now), Some(Next::Exhausted { key: (1, 0), .. })));
    assert_eq!(offers.leases(), 2, "a worker that goes on is let");
    offers.worker_lost("a", now);
    assert!(matches!(offers.next(now), Some(Next::Exhausted { key: (2, 0), .. })));
    offers.worker_lost("b", now);
    assert!(matches!(offers.next(now), Some(Next::Exhausted { key: (0, 0), .. })));
}

#[test]
fn a_lease_that_is_lost_twice_spends_one_attempt() {
    let (mut offers, now) = table(1);
    let (number, _) = offered(&mut offers, now).unwrap();
    let held = lease((0, 0), "a", 1);
    assert!(offers.taken(number, held.clone(), now));
    assert!(offers.worker_lost("a", now)[0].spent);
    assert!(offers.hold(held, now), "it was not dead after all");
    let again = offers.worker_lost("a", now);
    assert_eq!((again.len(), again[0].spent), (1, false));
    assert_eq!(offered(&mut offers, now).unwrap().1, 2);
}

#[test]
fn outputs_that_vanish_spend_no_attempt_and_end_the_task_all_the_same() {
    let (mut offers, mut now) = table(1);
    for times in 0..limits::BYTES_LOST_MAX {
        let (number, attempt) = offered(&mut offers, now).unwrap();
        assert_eq!(attempt, 1);
        let held = lease((0, 0), "a", 1);
        assert!(offers.taken(number, held.clone(), now));
        assert_eq!(offers.bytes_lost((0, 0), &held.execution, now), Some(times));
        assert_eq!(offers.next(now), None, "a disk does not mend itself at once");
        now += limits::GIVE_BACK_DELAY_MAX;
    }
    let Some(Next::Exhausted { past, .. }) = offers.next(now) else {
        panic!("offered without an end")
    };
    assert_eq!((past.spent, past.bytes_lost), (0, limits::BYTES_LOST_MAX));
    assert_eq!(offers.bytes_lost((0, 0), &Execution::random(), now), None);
}
