//! Whether connected workers can run a bag: right pool, right codec library; what is said if none can.

use bagpress_broker::ServiceStats;
use bagpress_broker::ids::Pool;
use bagpress_broker::pack;

/// What there is to say of workers that could take a bag's tasks, and have none.
pub(crate) fn idle(workers: &[(String, ServiceStats)], pool: &Pool) -> String {
    let of_pool = || workers.iter().filter(|(_, worker)| worker.pool == pool.as_str());
    let listen = of_pool().count();
    match of_pool().map(|(_, worker)| worker.slots.saturating_sub(worker.running)).sum::<usize>() {
        0 => format!("{listen} workers connected, all busy with other bags"),
        free => format!(
            "{listen} workers connected with {free} free slots; they take a task as soon as the \
             broker gives one out"
        ),
    }
}

/// Workers that know nothing of a codec, and would fail each task of it as `bad-descriptor`: those of a version without it.
/// What is said of them, if there are any.
pub(crate) fn ignorant(
    workers: &[(String, ServiceStats)],
    pool: &Pool,
    codec: &str,
) -> Option<String> {
    let is_of = |entry: &String| entry.split_once('=').is_some_and(|(name, _)| name == codec);
    let of_pool = || workers.iter().filter(|(_, worker)| worker.pool == pool.as_str());
    let mut ignorant = of_pool().filter(|(_, worker)| !worker.codecs.iter().any(is_of));
    let (id, worker) = ignorant.next()?;
    let (others, listen, version) = (ignorant.count(), of_pool().count(), &worker.version);
    Some(format!(
        "{} of {listen} workers of pool {pool} do not know the codec {codec}, such as {id} of version \
         {version}: they would fail its tasks",
        others + 1
    ))
}

/// Workers that would fail each task of a generated field, if there are any.
pub(crate) fn without_fields(workers: &[(String, ServiceStats)], pool: &Pool) -> Option<String> {
    let knows = |w: &ServiceStats| w.revisions.iter().any(|known| known == pack::FIELDS);
    let mut of_pool = workers.iter().filter(|(_, worker)| worker.pool == pool.as_str());
    let (id, worker) = of_pool.find(|(_, worker)| !knows(worker))?;
    let version = &worker.version;
    Some(format!(
        "workers of pool {pool} do not know generated fields, such as {id} of version {version}: they would fail its tasks"
    ))
}

/// Workers that take tasks of any version and know nothing of parts of objects, or of packs of them: they would take the object for
/// the input, and fail it. What is said of them, if there are any.
pub(crate) fn without_parts(
    workers: &[(String, ServiceStats)],
    pool: &Pool,
    revision: &str,
) -> Option<String> {
    let knows = |w: &ServiceStats| w.revisions.iter().any(|known| known == revision);
    let mut of_pool = workers.iter().filter(|(_, worker)| worker.pool == pool.as_str());
    let (id, worker) = of_pool.find(|(_, worker)| worker.any_codec_version && !knows(worker))?;
    let version = &worker.version;
    Some(format!(
        "workers of pool {pool} with --any-codec-version do not know outputs in tars by {revision}, such as {id} of version {version}: they would fail its tasks"
    ))
}

/// That no worker of a pool has a codec at all, if there are workers, and none does.
pub(crate) fn nobody_has(
    workers: &[(String, ServiceStats)],
    pool: &Pool,
    codec: &str,
) -> Option<String> {
    let is_of = |entry: &String| entry.split_once('=').is_some_and(|(name, _)| name == codec);
    let of_pool = || workers.iter().filter(|(_, worker)| worker.pool == pool.as_str());
    let has = of_pool().any(|(_, worker)| worker.codecs.iter().any(is_of));
    let listen = of_pool().count();
    (listen > 0 && !has)
        .then(|| format!("none of {listen} workers of pool {pool} has the codec {codec}"))
}

/// What a task asks of a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) pool: &'a Pool,
    /// The codec, and the version of its library.
    pub(crate) codec: &'a str,
    pub(crate) library: &'a str,
    /// The revisions of packs and blocks that tasks of the bag are delivered by: a worker must know that of each.
    pub(crate) revisions: &'a [&'a str],
}

/// Why none of the workers that answered can take some of a bag's tasks, unless one can take each.
pub(crate) fn unserved(workers: &[(String, ServiceStats)], asked: &Asked<'_>) -> Option<String> {
    let Asked { pool, codec, library, revisions } = asked;
    let of_pool: Vec<_> = workers.iter().filter(|(_, w)| w.pool == pool.as_str()).collect();
    if of_pool.is_empty() {
        return Some(format!(
            "no workers are connected to pool {pool}; start some with `bagpress worker`"
        ));
    }
    let wanted = format!("{codec}={library}");
    let fits = |w: &ServiceStats| w.any_codec_version || w.codecs.contains(&wanted);
    let count = of_pool.len();
    let fitting: Vec<_> = of_pool.into_iter().filter(|(_, worker)| fits(worker)).collect();
    if fitting.is_empty() {
        return Some(format!(
            "{count} workers connected, none has {library} for {codec}; update them, or start one with \
             `bagpress worker --any-codec-version`"
        ));
    }
    let knows = |w: &ServiceStats, revision: &str| {
        w.any_codec_version || w.revisions.iter().any(|known| known == revision)
    };
    let unknown =
        revisions.iter().find(|revision| !fitting.iter().any(|(_, w)| knows(w, revision)))?;
    Some(format!(
        "{count} workers connected, none knows {unknown}, by which tasks of the bag are delivered: they are of an \
         earlier version; update them, or start one of this version with `bagpress worker`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(pool: &str, library: &str, any: bool) -> (String, ServiceStats) {
        let codecs = vec![format!("zlib={library}")];
        let pool = pool.to_owned();
        let busy = ServiceStats { slots: 2, running: 2, ..ServiceStats::default() };
        let stats = ServiceStats { pool, codecs, any_codec_version: any, ..busy };
        ("W".to_owned(), stats)
    }

    #[test]
    fn workers_that_would_fail_the_tasks_of_a_codec_are_named() {
        let pool = Pool::default();
        let old = ("OLD".to_owned(), worker("default", "zlib-rs/1", false).1);
        let mut new = worker("default", "zlib-rs/2", false);
        new.1.codecs.push("zstd=zstd/1.5.7+1".to_owned());
        let said = ignorant(&[new.clone(), old.clone()], &pool, "zstd").unwrap();
        assert!(said.starts_with("1 of 2 workers of pool default do not know"), "{said}");
        assert!(said.contains("such as OLD of version"), "{said}");
        assert_eq!(ignorant(&[new.clone(), old], &pool, "zlib"), None, "another version of it");
        let elsewhere = worker("other", "zlib-rs/2", true);
        assert_eq!(ignorant(&[new, elsewhere], &pool, "zstd"), None);
        assert_eq!(ignorant(&[], &pool, "zstd"), None);
    }

    #[test]
    fn a_bag_that_no_worker_can_take_is_told_from_one_that_some_can() {
        let pool = Pool::default();
        let without = worker("default", "zlib-rs/2", false);
        let mut with = without.clone();
        with.1.codecs.push("zfp=zfp/1.0.1+1".to_owned());
        with.1.revisions.push(pack::FIELDS.to_owned());
        let said = nobody_has(std::slice::from_ref(&without), &pool, "zfp").unwrap();
        assert_eq!(said, "none of 1 workers of pool default has the codec zfp");
        assert_eq!(nobody_has(&[without.clone(), with.clone()], &pool, "zfp"), None);
        assert_eq!(nobody_has(&[], &pool, "zfp"), None);
        assert_eq!(without_fields(std::slice::from_ref(&with), &pool), None);
        let any = |knows: bool| {
            let revisions = knows.then(|| pack::PARTS.to_owned()).into_iter().collect();
            let stats = ServiceStats { any_codec_version: true, revisions, ..without.1.clone() };
            ("W".to_owned(), stats)
        };
        let parts = |workers: &[_], revision| without_parts(workers, &pool, revision);
        assert_eq!(parts(&[without.clone(), any(true)], pack::PARTS), None, "it gives back");
        for (knows, revision) in [(false, pack::PARTS), (true, pack::PACKED_PARTS)] {
            let said = parts(&[any(knows)], revision).unwrap();
            assert!(said.contains(&format!("in tars by {revision}, such as W")), "{said}");
        }
        assert!(without_fields(&[with, without], &pool).unwrap().contains("generated fields"));
    }

    #[test]
    fn the_most_useful_reason_is_given() {
        let pool = Pool::default();
        let why = |workers: &[_]| {
            let asked =
                Asked { pool: &pool, codec: "zlib", library: "zlib-rs/2", revisions: &["packs/1"] };
            unserved(workers, &asked).unwrap_or_else(|| idle(workers, &pool))
        };
        assert!(why(&[]).contains("no workers are connected to pool default"));
        assert!(why(&[worker("other", "zlib-rs/2", false)]).contains("no workers are connected"));
        let old = worker("default", "zlib-rs/1", false);
        assert!(why(std::slice::from_ref(&old)).contains("none has zlib-rs/2"));
        assert!(why(&[old, worker("default", "", true)]).contains("all busy with other bags"));
        let mut one = worker("default", "zlib-rs/2", false);
        assert!(why(std::slice::from_ref(&one)).contains("none knows packs/1"));
        let mut unfit = worker("default", "zlib-rs/1", false);
        unfit.1.revisions = vec!["packs/1".to_owned()];
        assert!(why(&[one.clone(), unfit]).contains("2 workers connected, none knows packs/1"));
        one.1.revisions = vec!["packs/2".to_owned(), "packs/1".to_owned()];
        assert!(why(&[one.clone(), worker("default", "zlib-rs/2", false)]).contains("all busy"));
        assert!(why(std::slice::from_ref(&one)).contains("all busy with other bags"));
        one.1.running = 0;
        assert!(why(&[one]).contains("1 workers connected with 2 free slots"));
    }
}
