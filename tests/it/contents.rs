//! What a file contains, whatever is said of it: read to its end, and as it is when it is read.

use std::fs;
use std::path::Path;

use crate::harness::Place;
use crate::taken::{WAYS, content, run_of};

#[tokio::test]
async fn a_file_without_a_size_gives_its_content() {
    for how in WAYS.into_iter().chain(["--transfer wire", "--transfer wire --delivery queue-group"])
    {
        let place = Place::new().await;
        // Neither size is that of the content: 0, and 4,096.
        let mut inputs = vec!["/proc/version"];
        let sys = "/sys/kernel/mm/transparent_hugepage/enabled";
        inputs.extend(Path::new(sys).exists().then_some(sys));
        let words = format!("run {} --out out --name t -q --workers 1 {how}", inputs.join(" "));
        place.run(&words).await.with_code(0);
        for input in inputs {
            let name = Path::new(input).file_name().unwrap().to_str().unwrap();
            let output = place.path("out").join(format!("{name}.gz"));
            assert_eq!(content(&output), fs::read(input).unwrap(), "{how}: {input}");
        }
        place.run(&format!("verify {}", run_of("t", how))).await.with_code(0);
    }
}

#[tokio::test]
async fn a_file_that_changed_is_retried_as_it_is_then() {
    for how in WAYS.into_iter().chain(["--transfer wire"]) {
        let (place, server) = Place::with_server().await;
        let at = format!("--server {}", server.url());
        fs::create_dir(place.path("in")).unwrap();
        fs::write(place.path("in/log"), "one line\n").unwrap();
        let run = run_of("t", how);
        // Where a task waits at the broker, its object was put when the bag was submitted.
        if how == "--results objects" {
            continue;
        }
        place.run(&format!("submit in --out out --name t {how} {at}")).await.with_code(0);
        fs::write(place.path("in/log"), "one line\ntwo lines\n").unwrap();
        let _worker = place.spawn(&format!("worker --slots 1 --allow / {at}"));
        let failed = place.run(&format!("gather {run} -q {at}")).await.with_code(1);
        assert!(failed.stdout.contains("input-changed"), "{how}: {failed:?}");
        place.run(&format!("gather {run} -q --retry-failed {at}")).await.with_code(0);
        assert_eq!(content(&place.path("out/in/log.gz")), b"one line\ntwo lines\n");
        let (source, output) = (place.path("in/log"), place.path("out/in/log.gz"));
        let time = |path: &Path| path.metadata().unwrap().modified().unwrap();
        assert_eq!(time(&source), time(&output), "{how}");
        place.run(&format!("verify {run}")).await.with_code(0);
    }
}
