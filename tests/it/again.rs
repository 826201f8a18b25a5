//! A bag that is complete, gathered once more: what was measured when it was made stays.

use std::fs;

use serde_json::Value;

use crate::harness::Place;

#[tokio::test]
async fn a_summary_of_a_complete_bag_keeps_what_its_gathering_measured() {
    let place = Place::new().await;
    place.run("run --tasks 4 --bytes 256KiB --name t --workers 1 -q").await.with_code(0);
    let path = place.folder("t/staged/summary.json");
    let read = || serde_json::from_slice::<Value>(&fs::read(&path).unwrap()).unwrap();
    let before = read();
    assert!(before["makespan_ms"].as_f64().unwrap() > 0.0, "{before}");
    let again = place.run("gather runs/t/staged -q").await.with_code(0);
    assert_eq!(read(), before);
    let row = format!("makespan        {:.0} ms\n", before["makespan_ms"].as_f64().unwrap());
    assert!(again.stdout.contains(&row), "{again:?}");
    // One that counts outcomes measures anew.
    fs::remove_file(place.folder("t/staged/results/out_1.bin")).unwrap();
    place.run("gather runs/t/staged --repair --workers 1 -q").await.with_code(0);
    assert_ne!(read()["makespan_ms"], before["makespan_ms"]);
}
