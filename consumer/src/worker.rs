//! The worker's main loop: connects, receives tasks from the stream or the queue group, starts an attempt for each,
//! drains on a signal.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bagpress_broker::descriptor::DeliveryPath;
use bagpress_broker::ids::BagId;
use bagpress_broker::quote::words;
use bagpress_broker::{Broker, Delivery, Error, Offer, Role, limits};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::appetite::{Appetite, Experience};
use crate::assignment::Assignment;
use crate::attempt::attempt;
use crate::context::Context;
use crate::holdings::{Holding, Holdings};
use crate::intake::{Incoming, Intake, wait_for_streams};
use crate::options::Options;
use crate::slots::Slots;
use crate::stats::{Counts, register};

/// Works until `drain` is cancelled, then finishes the tasks that slots execute, gives back the rest, and
/// returns.
///
/// # Errors
///
/// What no retry can cure: refused permissions, credentials, a broker without streams. A broker out of
/// reach is not one: the worker waits for it.
pub async fn run(options: Options, drain: CancellationToken) -> Result<(), Error> {
    let refused = Mutex::new(None);
    let waiting = async {
        let mut after = limits::WORKER_NOTICE;
        loop {
            tokio::time::sleep(after).await;
            let url = options.address.url();
            let unresolved = options.address.unresolved().await;
            let why = unresolved.or_else(|| {
                refused.lock().unwrap_or_else(PoisonError::into_inner).as_deref().map(words)
            });
            warn!(url, why, "no server answers, waiting for it");
            after = limits::RECONCILE_AFTER;
        }
    };
    let (control, data) = tokio::select! {
        connected = connect(&options, &refused) => connected?,
        () = drain.cancelled() => return Ok(()),
        never = waiting => never,
    };
    if options.delivery == Some(DeliveryPath::Jetstream) {
        tokio::select! {
            found = wait_for_streams(&control, &options.pool, Some(limits::STREAMS_WITHIN)) => found?,
            () = drain.cancelled() => return Ok(()),
        }
    }
    // What is refused is not answered: whatever waits for it would wait in vain.
    let serving = Box::pin(serve(&options, &control, &data, &drain));
    let serving = data.unless_denied(serving);
    control.unless_denied(serving).await
}

/// Makes two connections: a chunk must never sit ahead of a lease renewal. Notes why it was `refused` last.
async fn connect(
    options: &Options,
    refused: &Mutex<Option<String>>,
) -> Result<(Broker, Broker), Error> {
    let see = |why: &str| {
        *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    };
    let control = Broker::connect_seeing(&options.address, Role::Worker, see).await?;
    let data = Broker::connect(&options.address, Role::Worker).await?;
    Ok((control, data))
}

/// Serves until it is told to drain.
async fn serve(
    options: &Options,
    control: &Broker,
    data: &Broker,
    drain: &CancellationToken,
) -> Result<(), Error> {
    let slots = Slots::start(options.slots).map_err(|source| {
        let path = PathBuf::from("worker");
        Error::Io { what: "start the slots of", path, source }
    })?;
    let counts = Arc::new(Counts::default());
    let (service, holdings) = register(control, options, counts.clone()).await?;
    let holder = holdings.holder().clone();
    let brokers = (control, data);
    let context = Context::new(options, brokers, holder.clone(), slots, counts, drain.clone());
    let context = Arc::new(context);
    let intake = Intake::join(control, &options.pool, options.delivery, holder).await?;
    info!(worker = service.id(), slots = options.slots, pool = %options.pool, url = control.url(), "worker started");
    let cancellations = context.cancelled().listen().await?;
    let gatherings = control.gatherings().await?;
    let worker = Worker {
        context: context.clone(),
        holdings: holdings.clone(),
        intake,
        attempts: JoinSet::new(),
        paced: HashSet::new(),
        tried: HashSet::new(),
        idle_exit: options.idle_exit,
        last_delivery: Instant::now(),
    };
    let ended = tokio::select! {
        ended = worker.work() => ended,
        never = async { holdings.keep().await } => Ok(never),
        () = context.cancelled().keep(cancellations, || holdings.bags()) => Ok(()),
        () = context.store().follow(gatherings) => Ok(()),
    };
    holdings.report_changes().await;
    // What was sent last must be on its way before the process ends.
    if let Err(error) = control.flush().await {
        warn!(%error, "last answers may be lost");
    }
    info!("worker ended");
    ended
}

/// Takes what comes in, and begins an attempt for each.
struct Worker {
    context: Arc<Context>,
    holdings: Arc<Holdings>,
    intake: Intake,
    attempts: JoinSet<(BagId, bool)>,
    /// Bags of which a task was executed here: how long their tasks take is known.
    paced: HashSet<BagId>,
    /// Bags of which the first tasks are held.
    tried: HashSet<BagId>,
    idle_exit: Option<Duration>,
    last_delivery: Instant,
}

impl Worker {
    async fn work(mut self) -> Result<(), Error> {
        let drain = self.context.drain().clone();
        let context = self.context.clone();
        loop {
            let load = context.slots().load(Instant::now());
            context.counts().running(load.running);
            self.intake.ask(Appetite::of(&load, self.holdings.len())).await?;
            let idle_until = self.idle_exit.map(|idle| self.last_delivery + idle);
            let wake_at = [load.next_change, idle_until].into_iter().flatten().min();
            let sleep = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                incoming = self.intake.receive() => self.take(incoming?).await,
                () = context.slots().changed() => {}
                Some(ended) = self.attempts.join_next() => self.note_ended(ended),
                () = sleep => {
                    let idle = idle_until.is_some_and(|at| Instant::now() >= at);
                    if idle && self.holdings.len() == 0 {
                        info!("nothing to do, ending");
                        drain.cancel();
                    }
                }
                () = drain.cancelled() => break,
            }
        }
        self.drain().await;
        Ok(())
    }

    async fn take(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Pulled(first) => self.take_pulled(first).await,
            Incoming::Offered(offer) => self.take_offered(offer).await,
            Incoming::Withdrawn(execution) => self.holdings.withdraw(&execution),
            Incoming::Nothing => {}
        }
    }

    /// Takes what has arrived from the stream, reports it, and begins an attempt for each.
    async fn take_pulled(&mut self, first: Delivery) {
        self.last_delivery = Instant::now();
        let mut pulled = vec![Assignment::Pulled(first)];
        while pulled.len() < limits::PULL_AHEAD_MAX
            && let Some(next) = self.intake.ready()
        {
            pulled.push(Assignment::Pulled(next));
        }
        let held: Vec<_> = pulled.iter().map(|pulled| self.holdings.hold(pulled)).collect();
        self.holdings.report_at_once(&pulled).await;
        for (assignment, holding) in pulled.into_iter().zip(held) {
            self.begin(assignment, holding);
        }
    }

    async fn take_offered(&mut self, offer: Offer) {
        self.last_delivery = Instant::now();
        let mut experience = self.experience(&offer.id().bag);
        // Its slots may have got deliveries of the stream meanwhile, or tasks turned out to be longer.
        if self.appetite().offers(experience) == 0 {
            return offer.pass().await;
        }
        if experience == Experience::None {
            self.tried.insert(offer.id().bag.clone());
            experience = Experience::Held;
        }
        let assignment = Assignment::Offered(offer.clone());
        let holding = self.holdings.hold(&assignment);
        self.begin(assignment, holding);
        let more = self.appetite().offers(experience).min(self.intake.members());
        offer.take(more).await;
    }

    fn experience(&self, bag: &BagId) -> Experience {
        match (self.paced.contains(bag), self.tried.contains(bag)) {
            (true, _) => Experience::Executed,
            (false, true) => Experience::Held,
            (false, false) => Experience::None,
        }
    }

    fn appetite(&self) -> Appetite {
        Appetite::of(&self.context.slots().load(Instant::now()), self.holdings.len())
    }

    fn note_ended(&mut self, ended: Result<(BagId, bool), JoinError>) {
        match ended {
            Ok((bag, executed)) => {
                self.tried.remove(&bag);
                if executed && !self.paced.contains(&bag) {
                    if self.paced.len() >= limits::BAGS_REMEMBERED {
                        self.paced.clear();
                    }
                    self.paced.insert(bag);
                }
            }
            Err(error) => {
                warn!(%error, "attempt left to its lease");
                // Of which bag it was is lost with it.
                self.tried.clear();
            }
        }
    }

    fn begin(&mut self, assignment: Assignment, holding: Holding) {
        let context = self.context.clone();
        let waiting = context.slots().waiting();
        self.attempts.spawn(async move {
            let executed = attempt(&context, &assignment, waiting, holding.handle()).await;
            drop(holding);
            (assignment.id().bag.clone(), executed)
        });
    }

    /// Asks for nothing more, gives back what still arrives, and waits for the attempts that have begun.
    async fn drain(self) {
        let Self { context, intake, mut attempts, .. } = self;
        info!(attempts = attempts.len(), "draining");
        let leaving = async {
            for delivery in intake.leave().await {
                let assignment = Assignment::Pulled(delivery);
                if let Err(error) = context.answers().give_back_unstarted(&assignment).await {
                    warn!(%error, task = %assignment.id(), "left to its lease");
                }
            }
        };
        let finishing = async {
            while let Some(ended) = attempts.join_next().await {
                if let Err(error) = ended {
                    warn!(%error, "attempt left to its lease");
                }
            }
        };
        tokio::join!(leaving, finishing);
    }
}
