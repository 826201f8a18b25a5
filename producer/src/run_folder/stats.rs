//! `stats_N.json`, as in the comparison that `docs/benchmark.md` describes.

use std::io::{self, Write};
use std::path::Path;

use bagpress_broker::result::{Outcome, TaskResult};
use bagpress_objstore::beneath::Dir;
use serde_json::json;
use tracing::info;

/// `stats_N.json` of one task. Never synced: the ledger has everything in it.
pub(crate) fn write_stats(folder: &Dir, codec: &str, result: &TaskResult) {
    let times = &result.times;
    #[expect(clippy::cast_precision_loss, reason = "a label for people")]
    let ms = |us: u64| us as f64 / 1000.0;
    let mut stats = json!({
        "index": result.index, "codec": codec, "worker": result.worker, "host": result.host,
        "attempt": result.attempt, "round": result.round,
        "total_ms": ms(times.execute_us), "input_ms": ms(times.input_us),
        "compress_ms": ms(times.compress_us), "verify_ms": ms(times.verify_us),
        "transfer_ms": ms(times.transfer_us), "queue_ms": ms(times.queue_us),
    });
    let more = match &result.outcome {
        Outcome::Done(done) => {
            #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
            let ratio = done.output_bytes as f64 / done.input_bytes.max(1) as f64;
            let mut more = json!({
                "ok": true, "input_bytes": done.input_bytes, "output_bytes": done.output_bytes,
                "output_per_input": ratio, "input_digest": done.input_digest,
                "output_digest": done.output_digest, "verified": done.verified, "fidelity": done.fidelity,
                "place": done.place,
            });
            if let Some(choice) = done.choice {
                more["choice"] = json!(choice);
            }
            more
        }
        Outcome::Failed(failed) => {
            json!({ "ok": false, "cause": failed.cause, "message": failed.message })
        }
    };
    if let (Some(stats), serde_json::Value::Object(more)) = (stats.as_object_mut(), more) {
        stats.extend(more);
    }
    let name = format!("stats_{}.json", result.index);
    if let Err(error) = write(folder, Path::new(&name), &format!("{stats:#}\n")) {
        info!(%error, name, "stats file not written");
    }
}

/// Writes a file again: whatever had its name is not written through.
fn write(folder: &Dir, name: &Path, text: &str) -> io::Result<()> {
    folder.remove_file(name)?;
    folder.create(name)?.write_all(text.as_bytes())
}
