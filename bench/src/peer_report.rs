//! One bag by one peer, with what the RFC's comparison kept and printed: `bench/run_work_queue.sh`, `bench/run_ray.sh`.

use std::fs;

use anyhow::{Context, Result, bail, ensure};

use crate::cli::{BagArgs, PeerArgs};
use crate::output::print;
use crate::outputs::{Expected, write_inputs};
use crate::peer::{Case, Peer, PeerRun, TaskStats};
use crate::session::temporary;
use crate::systems::{Way, named};
use crate::table::{row, table};

pub(crate) fn peer(args: &PeerArgs) -> Result<()> {
    let systems = named(std::slice::from_ref(&args.system))?;
    let Some(Way::Peer(kind)) = systems.first().map(|system| system.way) else {
        bail!("{} is no peer; `bagpress run` and `bagpress-bench limit` run it", args.system);
    };
    let (bag, data) = args.bag.of(args.data)?;
    let checked = systems.first().map_or(Ok(()), |system| system.check(&bag.codec, None));
    checked.with_context(|| format!("run {}", args.system))?;
    let peer = Peer::find(&args.peers, kind)?;
    peer.versions(&bag.codec, None)?;
    let folder = args.runs.join(&args.name).join(&args.system);
    ensure!(!folder.exists(), "{} is there already: take another name", folder.display());
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let case = Case { bag: &bag, data, workers: args.workers, bags: 1, then: None };
    let inputs = temporary(&folder)?;
    if kind.reads_files {
        write_inputs(&bag, data, inputs.path())?;
    }
    let ran = peer.run(&case, &folder.canonicalize()?, &inputs.path().canonicalize()?)?;
    Expected::of(&bag, data, None).check_outputs(&folder.join("results"))?;
    let mut rows = text(args, &bag, &ran);
    rows.push(row!["folder", folder.display()]);
    let text = table(&rows);
    fs::write(folder.join("summary.txt"), &text).context("write the summary")?;
    print(&text)
}

/// The lines of `bagpress run`, as far as a peer knows them.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn text(args: &PeerArgs, bag: &BagArgs, ran: &PeerRun) -> Vec<Vec<String>> {
    let PeerArgs { system, name, .. } = args;
    let mut rows = vec![
        row!["bag", format!("{name}  ({}, {system})", bag.codec)],
        row!["makespan", format!("{:.0} ms", ran.makespan_ms)],
        row![
            "completed",
            format!("{0}/{0}, failed: 0, every output checked afterwards", bag.tasks)
        ],
    ];
    if !ran.tasks.is_empty() {
        let mut total: Vec<_> = ran.tasks.iter().map(|task| task.total_ms).collect();
        total.sort_by(f64::total_cmp);
        let mean = total.iter().sum::<f64>() / total.len() as f64;
        let (p50, p95) = (percentile(&total, 50), percentile(&total, 95));
        rows.push(row!["task total_ms", format!("mean {mean:.2}, p50 {p50:.2}, p95 {p95:.2}")]);
        let sum = |what: fn(&TaskStats) -> u64| ran.tasks.iter().map(what).sum::<u64>();
        let (input, output) = (sum(|task| task.input_bytes), sum(|task| task.output_bytes));
        let ratio = output as f64 / input.max(1) as f64;
        rows.push(row!["output/input", format!("{ratio:.5}  ({output} of {input} bytes)")]);
    }
    rows
}

/// The least value that so many percent of the values do not exceed; the values are sorted.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_so_many_do_not_exceed() {
        let of = |values: &[f64]| [50, 95].map(|percent| percentile(values, percent).to_string());
        assert_eq!(of(&(1..=20).map(f64::from).collect::<Vec<_>>()), ["10", "19"]);
        assert_eq!(of(&[7.0]), ["7", "7"]);
    }
}
