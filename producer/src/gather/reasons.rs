//! Why a bag that could move does not: decided from what is known, the most useful reason first.

use bagpress_broker::ServiceStats;

use crate::deliver::unserved::{Asked, idle, unserved};
use crate::run_folder::specification::Specification;

/// What is known without asking anybody.
#[derive(Debug, Clone, Default)]
pub(crate) struct LocalFacts {
    /// The disk does not answer, or uploads wait for its space.
    pub(crate) disk: Option<String>,
    /// Outcomes came that cannot be counted yet.
    pub(crate) uncounted: Option<String>,
    /// The broker answers but stores nothing.
    pub(crate) stores_nothing: bool,
    /// Publishing waits.
    pub(crate) publishing: Option<String>,
    /// The output bucket has no space.
    pub(crate) bucket: Option<String>,
    /// A stream that the broker lacks.
    pub(crate) missing: Option<String>,
    /// Whether there is a connection.
    pub(crate) connected: bool,
    /// Whether every output is being read back.
    pub(crate) reading_back: bool,
    /// The broker's address.
    pub(crate) url: String,
}

/// Why the bag waits, if that is known here.
pub(crate) fn known(known: &LocalFacts) -> Option<String> {
    let by_itself = |why: &String| format!("{why}; the bag then continues by itself");
    let disk = known.disk.as_ref();
    let disk = disk.map(|why| format!("{why}; the bag continues by itself once that is over"));
    let url = &known.url;
    disk.or_else(|| known.uncounted.as_ref().map(by_itself))
        .or_else(|| {
            known.stores_nothing.then(|| {
                format!(
                    "the broker at {url} answers but stores nothing, as one that met a full disk \
                     does; free some space there and restart it, the bag then continues by itself"
                )
            })
        })
        .or_else(|| known.publishing.clone())
        .or_else(|| {
            let full = known.bucket.as_ref();
            full.map(|why| {
                format!("{why}; unreferenced chunks are purged, the bag then continues by itself")
            })
        })
        .or_else(|| known.missing.clone())
        .or_else(|| {
            (!known.connected).then(|| format!("the broker at {url} is out of reach, reconnecting"))
        })
        .or_else(|| {
            let why = "every output is read back, to run again what is missing or bad";
            known.reading_back.then(|| why.to_owned())
        })
}

/// Why a bag waits that is not quiet for long: no worker has anything to do until inputs come that are absent.
pub(crate) fn early(absent: Option<String>, running: usize) -> Option<String> {
    absent.filter(|_| running == 0)
}

/// What the broker and the workers say.
#[derive(Debug)]
pub(crate) struct RemoteFacts {
    /// The stream of results is nearly full.
    pub(crate) results_full: Option<String>,
    /// Workers that report tasks of the bag, and how many.
    pub(crate) busy: (usize, usize),
    /// Workers that answered; asked only if none of them is busy.
    pub(crate) workers: Result<Vec<(String, ServiceStats)>, String>,
    /// Revisions of packs and blocks that tasks without an outcome are delivered by.
    pub(crate) revisions: Vec<&'static str>,
    /// Tasks that wait out a delay.
    pub(crate) delayed: Option<String>,
}

/// Why a bag waits of which nothing is known here.
pub(crate) fn told(told: &RemoteFacts, specification: &Specification) -> String {
    if let Some(why) = &told.results_full {
        return format!("{why}; free space there, the bag then continues by itself");
    }
    if let (workers, running @ 1..) = told.busy {
        return format!("{running} tasks are running on {workers} workers");
    }
    let workers = match &told.workers {
        Ok(workers) => workers,
        Err(error) => return error.clone(),
    };
    let (pool, revisions) = (&specification.pool, &told.revisions);
    let mut codecs = specification.codecs_and_libraries();
    codecs
        .find_map(|(codec, library)| {
            unserved(workers, &Asked { pool, codec: codec.name(), library, revisions })
        })
        .or_else(|| told.delayed.clone())
        .unwrap_or_else(|| idle(workers, pool))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected() -> LocalFacts {
        LocalFacts { connected: true, url: "nats://b".to_owned(), ..LocalFacts::default() }
    }

    #[test]
    fn absent_inputs_are_a_reason_as_soon_as_nobody_works() {
        let absent = || Some("1 of 1 inputs are not there yet".to_owned());
        assert_eq!(early(absent(), 0), absent());
        assert_eq!(early(absent(), 1), None);
        assert_eq!(early(None, 0), None);
    }

    #[test]
    fn a_bag_of_which_nothing_is_known_here_has_no_reason_yet() {
        assert_eq!(known(&connected()), None);
    }

    #[test]
    fn what_must_be_mended_first_is_said_first() {
        let some = |why: &str| Some(why.to_owned());
        let mut all = LocalFacts {
            disk: some("the disk hangs"),
            uncounted: some("out: disk full"),
            stores_nothing: true,
            publishing: some("publish: timed out"),
            bucket: some("bucket b is full"),
            missing: some("no stream BAG_TASKS"),
            connected: false,
            reading_back: true,
            url: "nats://b".to_owned(),
        };
        let mut said = Vec::new();
        let mend: [fn(&mut LocalFacts); 8] = [
            |known| known.disk = None,
            |known| known.uncounted = None,
            |known| known.stores_nothing = false,
            |known| known.publishing = None,
            |known| known.bucket = None,
            |known| known.missing = None,
            |known| known.connected = true,
            |known| known.reading_back = false,
        ];
        for mend in mend {
            said.push(known(&all).unwrap());
            mend(&mut all);
        }
        let expected = [
            "the disk hangs; the bag continues by itself once that is over",
            "out: disk full; the bag then continues by itself",
            "the broker at nats://b answers but stores nothing",
            "publish: timed out",
            "bucket b is full; unreferenced chunks are purged",
            "no stream BAG_TASKS",
            "the broker at nats://b is out of reach, reconnecting",
            "every output is read back",
        ];
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.starts_with(expected), "{said}, not {expected}");
        }
        assert_eq!(known(&all), None);
    }
}
