//! What a gathering does after a reconnect, a stall or a loss, in virtual time: nothing here waits.

use bagpress_broker::result::Cause;

use super::*;

const TICK: Duration = Duration::from_millis(100);
const TASKS: u32 = 8;

/// A gathering whose clock is turned by hand.
struct Run {
    state: State,
    now: Instant,
    sight: Sight,
}

impl Run {
    fn of(traits: Traits) -> Self {
        let now = Instant::now();
        let sight = Sight { connects: 1, running: 0, ours: true, misses_inputs: false };
        Self { state: State::new(traits, 1, now), now, sight }
    }

    /// A bag by JetStream whose outputs become files; it goes on and is reconciled.
    fn followed() -> Self {
        let mut run = Self::of(committed());
        run.on(Event::Begin { fresh: false });
        run.on(Event::Listed(Bits::new(TASKS)));
        run.on(Event::CaughtUp);
        run.on(Event::Published { gave_way: false });
        run
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        self.state.on(event, self.now)
    }

    /// Lets `time` go by, and returns what was done meanwhile but renewals and looks for unreported deliveries.
    fn pass(&mut self, time: Duration) -> Vec<Action> {
        let (until, mut done) = (self.now + time, Vec::new());
        while self.now < until {
            self.now += TICK;
            let actions = self.on(Event::Tick(self.sight));
            let told = |action: &Action| !matches!(action, Action::Renew | Action::GiveBackUnheld);
            done.extend(actions.into_iter().filter(told));
        }
        done
    }
}

fn just_before(time: Duration) -> Duration {
    time.saturating_sub(TICK)
}

fn committed() -> Traits {
    let stall_timeout = Duration::from_mins(5);
    Traits { committed: true, objects: Objects::None, awaits_inputs: false, stall_timeout }
}

fn objects() -> Traits {
    Traits { objects: Objects::Stay, ..committed() }
}

#[test]
fn a_new_bag_is_published_and_one_that_goes_on_is_reconciled_before() {
    assert_eq!(Run::of(committed()).on(Event::Begin { fresh: true }), [Action::PublishAll]);
    assert_eq!(Run::of(committed()).on(Event::Begin { fresh: false }), [Action::ListWaiting]);
}

#[test]
fn a_bag_whose_tasks_the_gatherer_keeps_looks_for_objects_and_offers_all() {
    let mut run = Run::of(Traits { committed: false, ..objects() });
    let begun = run.on(Event::Begin { fresh: false });
    assert_eq!(begun, [Action::LookForObjects, Action::PublishAll]);
}

#[test]
fn results_are_read_behind_the_list_of_what_waits_and_only_then_is_anything_published() {
    let mut run = Run::of(committed());
    run.on(Event::Begin { fresh: false });
    let mut waiting = Bits::new(TASKS);
    waiting.set(3, true);
    let listed = run.on(Event::Listed(waiting.clone()));
    assert_eq!(listed, [Action::ReadAgain, Action::RemakeBuckets]);
    assert!(run.state.is_reconciling() && !run.state.is_settled(1));
    assert_eq!(run.pass(Duration::from_mins(1)), [], "a look in the middle would begin again");
    assert_eq!(run.on(Event::CaughtUp), [Action::PublishMissing(waiting)]);
    assert_eq!(run.on(Event::CaughtUp), [], "once is enough");
    run.now += limits::RECONCILE_AFTER * 2;
    run.on(Event::PublishesMissing);
    assert_eq!(
        run.pass(just_before(limits::RECONCILE_AFTER)),
        [],
        "however long that took to begin"
    );
    assert!(run.state.is_publishing());
}

#[test]
fn a_bag_that_moves_is_left_alone() {
    let mut run = Run::followed();
    for _ in 0..100 {
        run.on(Event::Counted);
        assert_eq!(run.pass(Duration::from_secs(9)), []);
    }
}

#[test]
fn a_bag_that_stands_still_is_looked_at_every_ten_seconds_unless_somebody_works() {
    let mut run = Run::followed();
    assert_eq!(run.pass(just_before(limits::RECONCILE_AFTER)), []);
    assert_eq!(run.pass(TICK), [Action::ListWaiting]);
    run.on(Event::Listed(Bits::new(TASKS)));
    run.on(Event::CaughtUp);
    run.on(Event::Published { gave_way: false });
    assert_eq!(run.pass(just_before(limits::RECONCILE_AFTER)), [], "not twice at once");
    run.sight.running = 1;
    assert_eq!(run.pass(Duration::from_hours(1)), [], "a long task is nothing lost");
}

#[test]
fn a_reconnect_is_followed_by_a_look_at_once_and_by_one_only() {
    let mut run = Run::followed();
    run.sight.connects = 2;
    run.sight.running = 5;
    assert_eq!(run.pass(TICK), [Action::ListWaiting]);
    assert_eq!(run.pass(Duration::from_secs(9)), []);
}

#[test]
fn publishing_that_goes_on_gives_way_to_a_look_after_a_reconnect() {
    let mut run = Run::followed();
    run.on(Event::Listed(Bits::new(TASKS)));
    run.on(Event::CaughtUp);
    run.sight.connects = 2;
    assert_eq!(run.pass(TICK), [Action::GiveWay]);
    run.on(Event::Published { gave_way: true });
    let again = run.pass(Duration::from_secs(1));
    assert_eq!(again, [Action::ListWaiting], "what gave way is missing");
}

#[test]
fn a_round_that_is_due_does_not_wait_for_inputs_from_elsewhere() {
    let gone_on = [(true, Objects::Stay), (false, Objects::Stay), (false, Objects::None)];
    for (is_committed, objects) in gone_on {
        let traits = Traits { committed: is_committed, objects, ..committed() };
        let traits = Traits { awaits_inputs: true, ..traits };
        let mut run = Run::of(traits);
        run.on(Event::Begin { fresh: true });
        assert_eq!(run.state.lost((3, 0), run.now), None);
        let delay = Cause::BytesLost.give_back_delay(0);
        assert_eq!(run.pass(just_before(delay)), []);
        assert_eq!(run.pass(TICK), [Action::GiveWay]);
        run.on(Event::Published { gave_way: true });
        assert_eq!(run.pass(TICK), [Action::BeginRounds(vec![(3, 0)])]);
        run.on(Event::Published { gave_way: false });
        // What gave way goes on.
        let next = run.pass(LOOK_EVERY);
        let goes_on = [Action::PublishAll, Action::ListWaiting];
        assert!(next.iter().any(|action| goes_on.contains(action)), "{next:?}");
    }
}

#[test]
fn what_cannot_be_listed_is_tried_again_every_second_while_a_stream_is_missing() {
    let mut run = Run::followed();
    run.sight.connects = 2;
    assert_eq!(run.pass(TICK), [Action::ListWaiting]);
    for _ in 0..3 {
        run.on(Event::NotListed { missing: true });
        assert_eq!(run.pass(just_before(Duration::from_secs(1))), []);
        assert_eq!(run.pass(TICK), [Action::ListWaiting]);
    }
    run.on(Event::Listed(Bits::new(TASKS)));
    run.on(Event::CaughtUp);
    run.on(Event::Published { gave_way: false });
    run.sight.running = 1;
    assert_eq!(run.pass(Duration::from_secs(5)), [], "the stream is there again");
}

#[test]
fn nothing_is_made_anew_while_it_is_not_certain_that_the_bag_is_ours() {
    let mut run = Run::of(objects());
    run.on(Event::Begin { fresh: true });
    run.on(Event::Published { gave_way: false });
    run.sight = Sight { ours: false, connects: 2, ..run.sight };
    assert_eq!(run.pass(Duration::from_mins(1)), []);
    run.sight.ours = true;
    assert_eq!(run.pass(TICK), [Action::RemakeBuckets, Action::ListWaiting]);
}

#[test]
fn a_process_that_was_stopped_for_a_lease_asks_whose_the_bag_is() {
    let mut run = Run::followed();
    run.pass(Duration::from_secs(1));
    assert!(!run.state.must_ask_whose_it_is(run.now));
    run.now += limits::GATHERER_LEASE;
    assert!(run.state.must_ask_whose_it_is(run.now));
    run.sight.ours = false;
    run.pass(TICK);
    assert!(run.state.must_ask_whose_it_is(run.now), "nobody has said so");
    run.sight.ours = true;
    run.pass(TICK);
    assert!(!run.state.must_ask_whose_it_is(run.now));
}

#[test]
fn buckets_are_made_again_after_a_reconnect_until_they_are_seen() {
    let mut run = Run::of(Traits { objects: Objects::Pass, ..objects() });
    run.on(Event::Begin { fresh: true });
    run.sight = Sight { connects: 2, running: 1, ..run.sight };
    let tried = run.pass(Duration::from_secs(1));
    let tried = tried.iter().filter(|action| **action == Action::RemakeBuckets).count();
    assert!((2..=4).contains(&tried), "{tried} tries in a second");
    run.on(Event::BucketsSeen { connects: 2 });
    assert!(!run.pass(Duration::from_secs(1)).contains(&Action::RemakeBuckets));
    run.sight.misses_inputs = true;
    assert!(run.pass(TICK).contains(&Action::RemakeBuckets), "whoever publishes found none");
}

#[test]
fn a_bag_of_objects_ends_only_when_they_were_looked_at_with_the_last_connection() {
    let mut run = Run::of(objects());
    run.on(Event::Begin { fresh: true });
    run.on(Event::Published { gave_way: false });
    assert!(run.state.is_settled(1) && !run.state.is_settled(2));
    run.on(Event::ObjectsUnknown);
    assert!(!run.state.is_settled(1), "nobody could say");
    assert_eq!(run.pass(Duration::from_secs(1)), [Action::ListWaiting]);
    assert!(Run::followed().state.is_settled(2), "files are not forgotten by a broker");
}

#[test]
fn a_gatherer_that_keeps_the_tasks_looks_for_objects_alone_after_a_reconnect() {
    let mut run = Run::of(Traits { committed: false, ..objects() });
    run.on(Event::Begin { fresh: true });
    run.on(Event::Published { gave_way: false });
    run.on(Event::BucketsSeen { connects: 2 });
    run.sight.connects = 2;
    let forgotten = [Action::RemakeBuckets, Action::LookForObjects, Action::PublishAll];
    assert_eq!(run.pass(TICK), forgotten);
    run.on(Event::Published { gave_way: false });
    assert_eq!(run.pass(Duration::from_mins(1)), [], "standing still loses nothing");

    let mut run = Run::of(Traits { committed: false, ..committed() });
    run.on(Event::Begin { fresh: true });
    run.on(Event::Published { gave_way: false });
    run.sight.connects = 2;
    assert_eq!(run.pass(Duration::from_mins(1)), []);
}

#[test]
fn a_round_whose_delay_is_over_begins_when_nothing_else_is_published() {
    let mut run = Run::followed();
    run.sight.running = 1;
    assert_eq!(run.state.lost((5, 0), run.now), None);
    assert_eq!(run.state.begin_later(), HashSet::from([5]));
    run.on(Event::Listed(Bits::new(TASKS)));
    assert_eq!(run.pass(Cause::BytesLost.give_back_delay(0) * 2), [], "a look goes on");
    run.on(Event::CaughtUp);
    assert_eq!(run.pass(TICK), [], "others are published");
    run.on(Event::Published { gave_way: false });
    assert_eq!(run.pass(TICK), [Action::BeginRounds(vec![(5, 0)])]);
    assert!(run.state.is_publishing() && run.state.begin_later().is_empty());
}

#[test]
fn a_task_whose_bytes_vanish_each_time_fails_and_one_that_is_decided_is_forgotten() {
    let mut run = Run::followed();
    for round in 0..limits::BYTES_LOST_MAX - 1 {
        assert_eq!(run.state.lost((5, round), run.now), None);
    }
    let failed = run.state.lost((5, limits::BYTES_LOST_MAX - 1), run.now);
    assert_eq!(failed.map(|failed| failed.cause), Some(Cause::BytesLost));
    run.state.decided(5);
    assert!(run.state.begin_later().is_empty());
}

#[test]
fn a_stalled_bag_is_given_up_when_its_time_is_over_and_nobody_works() {
    let stall_timeout = Duration::from_secs(20);
    let mut run = Run::of(Traits { stall_timeout, ..committed() });
    run.on(Event::Begin { fresh: true });
    run.sight.running = 1;
    assert!(!run.pass(Duration::from_secs(30)).contains(&Action::GiveUp));
    run.on(Event::Counted);
    run.sight.running = 0;
    assert!(!run.pass(just_before(stall_timeout)).contains(&Action::GiveUp));
    assert!(run.pass(TICK).contains(&Action::GiveUp));
}

#[test]
fn the_time_for_which_outputs_were_read_back_is_no_stall() {
    let mut run = Run::of(committed());
    run.now += run.state.stall_timeout() * 2;
    run.on(Event::Begin { fresh: false });
    run.on(Event::Listed(Bits::new(TASKS)));
    run.on(Event::CaughtUp);
    assert!(!run.pass(Duration::from_mins(4)).contains(&Action::GiveUp));
    assert!(run.pass(Duration::from_mins(2)).contains(&Action::GiveUp));
}

#[test]
fn deliveries_that_no_worker_reports_are_looked_for_once_a_second_while_the_bag_is_still() {
    let mut run = Run::followed();
    let looks = |run: &mut Run, running| {
        run.sight.running = running;
        let mut looks = 0;
        for _ in 0..50 {
            run.now += TICK;
            let actions = run.on(Event::Tick(run.sight));
            looks += usize::from(actions.contains(&Action::GiveBackUnheld));
        }
        looks
    };
    assert_eq!(looks(&mut run, 1), 0);
    assert!((4..=5).contains(&looks(&mut run, 0)));
}

#[test]
fn the_lease_is_renewed_once_a_second() {
    let mut run = Run::followed();
    let mut renewals = 0;
    for _ in 0..100 {
        run.now += TICK;
        let actions = run.on(Event::Tick(run.sight));
        renewals += usize::from(actions.contains(&Action::Renew));
    }
    assert!((9..=11).contains(&renewals), "{renewals} in ten seconds");
}
