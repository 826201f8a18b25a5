//! One task of a bag, named as its user knows it.

use crate::harness::Place;

#[tokio::test]
async fn a_task_is_found_by_its_file_its_output_and_its_index() {
    let place = Place::new().await;
    std::fs::create_dir_all(place.path("in/below")).unwrap();
    for name in ["in/a", "in/below/b", "in/c"] {
        std::fs::write(place.path(name), name).unwrap();
    }
    place.run("run in --out out --codec gzip --name t -q --workers 1").await.with_code(0);
    let absolute = place.path("in/below/b").display().to_string();
    for file in ["1", "in/below/b", &absolute, "in/below/b.gz", "out/in/below/b.gz"] {
        let said = place.run(&format!("status runs/t/staged {file} --json")).await.with_code(0);
        let task: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(task["index"], 1, "{file}: {said:?}");
    }
    let nowhere = place.run("status runs/t/staged in/below").await.with_code(2);
    assert!(nowhere.stderr.contains("no file of the bag is in/below"), "{nowhere:?}");
    place.run("run --tasks 1 --name g -q --workers 1").await.with_code(0);
    let generated = place.run("status runs/g/staged in/a").await.with_code(2);
    assert!(generated.stderr.contains("the bag has no files"), "{generated:?}");
}
