//! Which workers can run the task of a lost object.

use bagpress_broker::descriptor::TaskDescriptor;
use bagpress_broker::ids::Pool;
use bagpress_broker::{ServiceStats, pack};

/// How many of the workers that answered take a task of a pool.
///
/// # Errors
///
/// Why none does, and what to do.
pub(super) fn who_takes(
    workers: &[(String, ServiceStats)],
    pool: &Pool,
    task: &TaskDescriptor,
) -> Result<usize, String> {
    let of_pool = || workers.iter().filter(|(_, worker)| worker.pool == pool.as_str());
    let able = of_pool().filter(|(_, worker)| task.again.is_none() || knows_again(worker)).count();
    match (able, of_pool().count()) {
        (0, 0) => Err(format!(
            "no workers are connected to pool {pool}; its task waits for one: start some with `bagpress worker`, and ask again"
        )),
        (0, all) => Err(format!(
            "none of {all} workers of pool {pool} knows {}, by which the tar of a pack is made again: they are of an earlier version, and \
             its task waits for another one: update them, or start one of this version with `bagpress worker`, and ask again",
            pack::AGAIN
        )),
        (able, _) => Ok(able),
    }
}

/// Workers that take tasks of any version and would fail that of a tar, since they do not know such tasks. What is said of them, if there are any.
pub(super) fn who_fails_it(
    workers: &[(String, ServiceStats)],
    pool: &Pool,
    task: &TaskDescriptor,
) -> Option<String> {
    task.again.as_ref()?;
    let mut of_pool = workers.iter().filter(|(_, worker)| worker.pool == pool.as_str());
    let (id, worker) =
        of_pool.find(|(_, worker)| worker.any_codec_version && !knows_again(worker))?;
    Some(format!(
        "workers of pool {pool} with --any-codec-version do not know {}, such as {id} of version {}, and fail its task: update them, \
         or end them, and ask again",
        pack::AGAIN,
        worker.version
    ))
}

fn knows_again(worker: &ServiceStats) -> bool {
    worker.revisions.iter().any(|known| known == pack::AGAIN)
}

#[cfg(test)]
mod tests {
    use bagpress_broker::descriptor::{Again, ResultPath};
    use bagpress_broker::samples;
    use bagpress_codec::Digest;

    use super::*;

    fn worker(pool: &str, any: bool, knows: bool) -> (String, ServiceStats) {
        let revisions = knows.then(|| pack::AGAIN.to_owned()).into_iter().collect();
        let stats = ServiceStats { any_codec_version: any, revisions, ..ServiceStats::default() };
        ("W".to_owned(), ServiceStats { pool: pool.to_owned(), ..stats })
    }

    #[test]
    fn a_tar_waits_for_a_worker_that_can_make_it_and_any_worker_makes_all_else() {
        let pool = Pool::default();
        let plain = samples::task(&samples::bag(), 0, ResultPath::Objects);
        let again = Again { files: 2, places: vec![0], digest: Digest::of(b"") };
        let tar = TaskDescriptor { again: Some(Box::new(again)), ..plain.clone() };
        let (old, new) = (worker("default", false, false), worker("default", false, true));
        let takes = |workers: &[_], task| who_takes(workers, &pool, task);
        for task in [&plain, &tar] {
            let elsewhere = worker("other", false, true);
            assert!(takes(&[elsewhere], task).unwrap_err().contains("no workers are connected"));
            assert_eq!(takes(&[new.clone(), new.clone()], task), Ok(2));
        }
        assert_eq!(takes(std::slice::from_ref(&old), &plain), Ok(1));
        assert!(takes(std::slice::from_ref(&old), &tar).unwrap_err().contains("again/1"));
        assert_eq!(takes(&[old.clone(), new.clone()], &tar), Ok(1));
        let any = worker("default", true, false);
        assert!(
            who_fails_it(&[new.clone(), any.clone()], &pool, &tar).unwrap().contains("such as W")
        );
        assert_eq!(who_fails_it(&[any], &pool, &plain), None);
        assert_eq!(who_fails_it(&[old, new, worker("default", true, true)], &pool, &tar), None);
    }
}
