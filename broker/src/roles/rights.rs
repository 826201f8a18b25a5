//! The rights of each role, subject by subject: the one source of a server's configuration and of the table in the docs.

use std::str::FromStr;

use crate::ids::{BagId, Pool};
use crate::{Role, subjects};

/// Name of the account that has the bags: 1 to 48 characters of `A-Z`, `a-z`, `0-9`, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account(String);

impl FromStr for Account {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        if (1..=48).contains(&text.len()) && text.bytes().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err("use 1 to 48 letters, digits, - and _".to_owned())
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a role uses a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum May {
    /// Publishes, and gets at most one answer.
    Ask,
    /// Publishes, and gets any number of answers.
    AskMany,
    /// Asks the workers; any number of answers.
    AskWorkers,
    /// Subscribes, and gives one answer.
    Serve,
    /// Subscribes as a member of the queue group of workers alone, and gives one answer.
    Join,
    /// Subscribes.
    Hear,
}

impl May {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ask | Self::AskMany => "publish",
            Self::AskWorkers => "ask workers",
            Self::Serve => "serve",
            Self::Join => "serve, in queue group `workers`",
            Self::Hear => "subscribe",
        }
    }
}

/// One thing that a role may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// How.
    pub may: May,
    /// A pattern of subjects.
    pub subject: String,
    /// What it matches and is refused all the same.
    pub except: Vec<String>,
    /// What it is needed for.
    pub why: &'static str,
}

/// All roles, in the order of the table.
pub const ROLES: [Role; 4] = [Role::Admin, Role::Producer, Role::Worker, Role::Observer];

/// What `role` may do; everything in its account where this is empty.
#[must_use]
pub fn rights(role: Role) -> Vec<Right> {
    match role {
        Role::Admin => Vec::new(),
        Role::Producer => producer(),
        Role::Worker => worker(),
        Role::Observer => observer(),
    }
}

/// Whether the role has an account of its own, apart from that of the bags.
#[must_use]
pub fn is_apart(role: Role) -> bool {
    matches!(role, Role::Worker | Role::Observer)
}

fn producer() -> Vec<Right> {
    let streams = [subjects::RESULTS, subjects::ATTEMPTS, &subjects::lines()].map(str::to_owned);
    let mut rights = vec![
        right(May::Ask, subjects::TASK_ALL, "submit tasks"),
        right(May::Ask, pool(subjects::run), "offer tasks to workers"),
        right(
            May::Ask,
            subjects::RESULT_ALL,
            "commit the failure of a task that no worker can execute",
        ),
        right(May::Ask, subjects::ATTEMPT_ALL, "record attempts of the queue group"),
        right(May::Ask, subjects::DUPLICATE_ALL, "record executions that came too late"),
        right(May::Ask, subjects::line_all(), "write the bag's line"),
        right(May::Ask, subjects::CANCELLED_ALL, "announce a cancellation"),
        right(May::Ask, subjects::GATHERS_ALL, "announce a gatherer"),
        right(May::Ask, bag(subjects::open), "find out whether a bag is gathered"),
        right(May::Ask, subjects::CHUNK_ALL, "put inputs"),
        right(May::Ask, subjects::METADATA_ALL, "put inputs, remove outputs"),
        right(May::Ask, "$JS.ACK.BAG_TASKS.*.>", "give back what a dead worker had"),
        right(May::Ask, "_R_.>", "answer workers"),
        right(May::AskWorkers, subjects::stats(), "see what workers do"),
        right(May::AskWorkers, subjects::ping("*"), "notice that a worker died"),
        right(May::Ask, api("INFO"), "find JetStream"),
        right(May::Ask, api("STREAM.LIST"), "find buckets"),
        right(May::Ask, api("STREAM.INFO.*"), "check streams, count subjects"),
        right(May::Ask, api("STREAM.MSG.GET.*"), "read one message"),
        right(May::AskMany, api("DIRECT.GET.*"), "read objects"),
        right(May::Ask, metadata(), "read objects"),
        right(May::Ask, api("STREAM.PURGE.*"), "remove a bag's messages"),
        but_ours(May::Ask, "STREAM.CREATE", "make buckets"),
        but_ours(May::Ask, "STREAM.UPDATE", "enlarge a bucket"),
        but_ours(May::Ask, "STREAM.DELETE", "remove buckets"),
        right(May::Ask, api("CONSUMER.INFO.BAG_TASKS.*"), "check the durable"),
    ];
    for stream in streams {
        rights.extend([
            right(May::Ask, api(&format!("CONSUMER.CREATE.{stream}.>")), "read a stream"),
            right(May::Ask, api(&format!("CONSUMER.INFO.{stream}.*")), "read a stream"),
            right(May::Ask, api(&format!("CONSUMER.DELETE.{stream}.*")), "read a stream"),
            right(May::AskMany, api(&format!("CONSUMER.MSG.NEXT.{stream}.*")), "read a stream"),
        ]);
    }
    rights.extend([
        right(May::Serve, bag(subjects::uploads_of), "receive outputs, serve inputs"),
        right(May::Serve, bag(subjects::leases_of), "receive messages from workers with leases"),
        right(
            May::Hear,
            bag(|bag| subjects::event(bag, subjects::HELD)),
            "know which worker holds what",
        ),
        right(May::Hear, subjects::CANCELLED_ALL, "end when a bag is cancelled"),
        inbox(Role::Producer),
        // `status` speaks as an observer, with any key.
        inbox(Role::Observer),
    ]);
    rights
}

fn worker() -> Vec<Right> {
    let status = subjects::worker_status("*");
    let mut rights = vec![
        right(May::Ask, subjects::RESULT_ALL, "commit outcomes"),
        right(May::Ask, subjects::ATTEMPT_ALL, "record why a delivery is given back"),
        right(May::Ask, subjects::DUPLICATE_ALL, "record executions that came too late"),
        right(May::Ask, bag(|bag| subjects::event(bag, subjects::HELD)), "report what it holds"),
        right(May::Ask, bag(subjects::open), "open an upload"),
        right(May::Ask, bag(|bag| subjects::chunk(bag, "*")), "upload"),
        right(May::Ask, bag(subjects::close), "close an upload"),
        right(May::Ask, bag(subjects::no_room), "report that there is no space"),
        right(May::Ask, bag(subjects::input), "read inputs"),
        right(May::Ask, bag(subjects::leases_of), "renew, give back, hand outcomes over"),
        right(May::Ask, "$JS.ACK.BAG_TASKS.*.>", "answer deliveries"),
        right(May::AskMany, api("CONSUMER.MSG.NEXT.BAG_TASKS.*"), "pull tasks"),
        right(May::Ask, api("CONSUMER.INFO.BAG_TASKS.*"), "check the durable"),
        right(May::Ask, api("INFO"), "find JetStream"),
        right(May::Ask, api("STREAM.INFO.*"), "check streams, count chunks"),
        right(May::Ask, subjects::CHUNK_ALL, "put outputs"),
        right(May::Ask, subjects::METADATA_ALL, "put outputs"),
        Right {
            except: vec![api(&format!("STREAM.MSG.GET.{}", subjects::TASKS))],
            ..right(
                May::Ask,
                api("STREAM.MSG.GET.*"),
                "read a bag's line, a result, an object's metadata",
            )
        },
        but_ours(May::AskMany, "DIRECT.GET", "read objects"),
        right(May::Ask, metadata(), "read objects"),
        but_ours(May::Ask, "STREAM.PURGE", "remove the chunks of an output that is not needed"),
        right(May::Join, pool(subjects::run), "receive offers"),
        right(May::Join, status, "`nats micro`"),
        right(May::Hear, subjects::CANCELLED_ALL, "stop what was cancelled"),
        right(May::Hear, subjects::GATHERS_ALL, "ask again"),
        inbox(Role::Worker),
    ];
    rights.extend(service().map(|subject| right(May::Serve, subject, "`status`, `nats micro`")));
    rights
}

/// No consumers: a consumer's delivery subject is not checked, so a role that may create one may publish anywhere.
fn observer() -> Vec<Right> {
    let mut rights = vec![
        right(May::Ask, api("INFO"), "find JetStream"),
        right(May::Ask, api("STREAM.NAMES"), "`nats stream ls`"),
        right(May::Ask, api("STREAM.LIST"), "`nats stream report`"),
        right(May::Ask, api("STREAM.INFO.*"), "`status`, `nats stream info`"),
        right(May::Ask, api("CONSUMER.NAMES.*"), "`nats consumer ls`"),
        right(May::Ask, api("CONSUMER.LIST.*"), "`nats consumer report`"),
        right(May::Ask, api("CONSUMER.INFO.*.*"), "`nats consumer info`"),
    ];
    for stream in ours() {
        rights.extend([
            right(
                May::Ask,
                api(&format!("STREAM.MSG.GET.{stream}")),
                "`status`, `nats stream get`",
            ),
            right(May::AskMany, api(&format!("DIRECT.GET.{stream}")), "`status`"),
            right(May::AskMany, api(&format!("DIRECT.GET.{stream}.>")), "`nats kv get`"),
        ]);
    }
    rights
        .extend(service().map(|subject| right(May::AskWorkers, subject, "`status`, `nats micro`")));
    rights.push(inbox(Role::Observer));
    rights
}

fn right(may: May, subject: impl Into<String>, why: &'static str) -> Right {
    Right { may, subject: subject.into(), except: Vec::new(), why }
}

/// The right to do something with every stream but ours: with buckets, of which no pattern tells the name.
fn but_ours(may: May, verb: &str, why: &'static str) -> Right {
    let except = ours().into_iter().map(|stream| api(&format!("{verb}.{stream}"))).collect();
    Right { except, ..right(may, api(&format!("{verb}.*")), why) }
}

fn inbox(role: Role) -> Right {
    right(May::Hear, format!("{}.>", subjects::inbox(role.as_str())), "get answers")
}

/// What the NATS services API asks of a worker.
fn service() -> impl Iterator<Item = String> {
    let verbs = ["PING", "INFO", "STATS"].into_iter();
    verbs.flat_map(|verb| {
        let of = format!("$SRV.{verb}.{}", subjects::SERVICE);
        [format!("$SRV.{verb}"), of.clone(), format!("{of}.*")]
    })
}

fn ours() -> [String; 4] {
    [subjects::TASKS.into(), subjects::RESULTS.into(), subjects::ATTEMPTS.into(), subjects::lines()]
}

/// The last metadata of one object.
fn metadata() -> String {
    api(&format!("DIRECT.GET.*.{}", subjects::METADATA_ALL))
}

fn api(what: &str) -> String {
    format!("$JS.API.{what}")
}

/// A subject's pattern for every bag.
fn bag(subject: impl Fn(&BagId) -> String) -> String {
    every(subject)
}

/// A subject's pattern for every pool.
fn pool(subject: impl Fn(&Pool) -> String) -> String {
    every(subject)
}

fn every<T: FromStr>(subject: impl Fn(&T) -> String) -> String {
    const EVERY: &str = "every-one";
    let one = EVERY.parse().unwrap_or_else(|_| unreachable!("a name of a bag and of a pool"));
    subject(&one).replace(EVERY, "*")
}

/// The table of rights, as the docs have it.
#[must_use]
pub fn table() -> String {
    let mut lines = vec!["| role | may | subject | for |\n| --- | --- | --- | --- |\n".to_owned()];
    for role in ROLES {
        let name = role.as_str();
        if rights(role).is_empty() {
            lines.push(format!("| {name} | everything | `>` | `broker --init` |\n"));
        }
        for Right { may, subject, except, why } in rights(role) {
            let mut subject = format!("`{subject}`");
            if !except.is_empty() {
                let of = |one: &String| one.rsplit('.').next().unwrap_or_default().to_owned();
                let except: Vec<_> = except.iter().map(of).collect();
                subject = format!("{subject} but {}", except.join(", "));
            }
            lines.push(format!("| {name} | {} | {subject} | {why} |\n", may.as_str()));
        }
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TaskId;

    fn matches(pattern: &str, subject: &str) -> bool {
        let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
        loop {
            match (pattern.next(), subject.next()) {
                (None, None) | (Some(">"), Some(_)) => return true,
                (Some(one), Some(token)) if one == "*" || one == token => {}
                _ => return false,
            }
        }
    }

    /// The roles that may publish to `subject`, or subscribe to it; the admin, who may do everything, is left out.
    fn who(subject: &str, publishes: bool) -> Vec<&'static str> {
        let may = |role: &Role| {
            rights(*role).iter().any(|right| {
                let is_publish = !matches!(right.may, May::Serve | May::Join | May::Hear);
                let is_excepted = right.except.iter().any(|except| matches(except, subject));
                is_publish == publishes && matches(&right.subject, subject) && !is_excepted
            })
        };
        ROLES.into_iter().filter(may).map(Role::as_str).collect()
    }

    #[test]
    fn every_subject_of_ours_is_somebodys_right() {
        let bag: BagId = "b-1".parse().unwrap();
        let (pool, id) = (Pool::default(), TaskId { bag: bag.clone(), index: 7, round: 2 });
        let both: &[_] = &["producer", "worker"];
        let (producer, worker, nobody): (&[_], &[_], &[_]) = (&["producer"], &["worker"], &[]);
        let all: &[_] = &["producer", "observer"];
        for (subject, publish, subscribe) in [
            (subjects::task(&pool, &id), producer, nobody),
            (subjects::result(&id), both, nobody),
            (subjects::attempt(&bag, 7), both, nobody),
            (subjects::duplicate(&bag, 7), both, nobody),
            (subjects::line(&bag), producer, nobody),
            (subjects::run(&pool), producer, worker),
            (subjects::open(&bag), both, producer),
            (subjects::chunk(&bag, "7_2-x"), worker, producer),
            (subjects::close(&bag), worker, producer),
            (subjects::no_room(&bag), worker, producer),
            (subjects::input(&bag), worker, producer),
            (subjects::renew(&bag), worker, producer),
            (subjects::give_back(&bag), worker, producer),
            (subjects::outcome(&bag), worker, producer),
            (subjects::event(&bag, subjects::HELD), worker, producer),
            (subjects::event(&bag, subjects::CANCELLED), producer, both),
            (subjects::event(&bag, subjects::GATHERS), producer, worker),
            (subjects::stats(), all, worker),
            (subjects::ping("W1"), all, worker),
        ] {
            assert_eq!(who(&subject, true), publish, "publish to {subject}");
            assert_eq!(who(&subject, false), subscribe, "subscribe to {subject}");
        }
    }

    #[test]
    fn no_right_of_a_worker_or_observer_reaches_the_streams_of_all() {
        let verbs = ["CREATE", "UPDATE", "DELETE", "PURGE", "MSG.DELETE", "SNAPSHOT", "RESTORE"];
        for stream in ours() {
            for verb in verbs {
                let who = who(&api(&format!("STREAM.{verb}.{stream}")), true);
                let may: &[_] = if verb == "PURGE" { &["producer"] } else { &[] };
                assert_eq!(who, may, "{verb} {stream}");
            }
            for verb in ["CREATE", "DURABLE.CREATE", "DELETE", "PAUSE", "UNPIN"] {
                for consumer in ["workers", "workers.bag.task.default.*.*.*"] {
                    let who = who(&api(&format!("CONSUMER.{verb}.{stream}.{consumer}")), true);
                    assert!(
                        !who.contains(&"worker") && !who.contains(&"observer"),
                        "{verb} {stream}"
                    );
                }
            }
        }
    }
}
