//! A specification from a request and the files that were found for it. No I/O but the clock.

use std::path::PathBuf;

use anyhow::Result;
use bagpress_broker::ids::{BagId, RunName};
use bagpress_broker::limits;
use bagpress_broker::result::wall_clock_us;
use bagpress_codec::{Codec, Digest};

use crate::error::Usage;
use crate::run_folder::cuts::BlockSize;
use crate::run_folder::data::OwnCodec;
use crate::run_folder::extents::PackSize;
use crate::run_folder::inputs::finder::Found;
use crate::run_folder::specification::{Data, Specification};
use crate::submit::planned::Planned;
use crate::submit::request::{Generated, Request};

/// The specification of a bag of `files`, whose list has that digest, or of a generated bag.
///
/// # Errors
///
/// If the codec cannot be made; if a bag of files comes without them.
pub(crate) fn specify(
    request: &Request,
    name: &RunName,
    out: Option<PathBuf>,
    files: Option<(&Found, Digest)>,
) -> Result<Specification> {
    let codec = request.codec()?;
    let (data, tasks, input_bytes) = match (&request.generated, files) {
        (Some(generated), _) => {
            let Generated { tasks, bytes, data, seed } = *generated;
            (Data::Generated { data, seed, bytes }, tasks, bytes.saturating_mul(u64::from(tasks)))
        }
        (None, Some((found, list))) => (data_of(request, found, list), found.files, found.bytes),
        (None, None) => anyhow::bail!("a bag of files needs its list"),
    };
    let packable = request.can_be_packed()?;
    let to_come =
        if request.has_parts() { bytes_to_come(&request.references) } else { input_bytes };
    let pack = PackSize::of(request.pack, tasks, to_come).filter(|_| packable);
    let own = || files.iter().flat_map(|(found, _)| &found.codecs);
    let pack = own().chain([&codec]).try_fold(pack, |pack, codec| Some(pack?.for_codec(codec)));
    let pack = pack.flatten();
    let largest = files.map_or(0, |(found, _)| found.largest);
    let block = BlockSize::of(request.block, tasks, input_bytes, largest);
    // A stream is read from its start.
    if let (Some(size), Some(own)) = (block, with_smaller(own(), block)) {
        return Err(Usage::error(
            format!("blocks of {} bytes: with {own} they are smaller", size.bytes),
            "choose a smaller --block, such as 8MiB, or none",
        ));
    }
    let block =
        block.filter(|_| packable && request.has_files() && !request.restore && codec.can_be_cut());
    let data = match data {
        Data::Parts { list, largest } if pack.is_some() => Data::PackedParts { list, largest },
        data => data,
    };
    let stats_by_default = request.generated.is_some() && tasks <= limits::STATS_FILES_MAX;
    Ok(Specification {
        v: limits::WIRE_VERSION,
        bag: BagId::new(name),
        name: name.clone(),
        pool: request.pool.clone(),
        codec,
        library: codec.library(),
        delivery: request.delivery,
        results: request.results,
        verify: request.verify,
        transfer: request.transfer,
        attempts: request.attempts,
        tasks,
        input_bytes,
        data,
        out,
        get: request.get,
        keep_inputs: request.keep_inputs,
        remove_source: request.remove_source,
        stats: request.stats.unwrap_or(stats_by_default),
        pack,
        block,
        ttl_s: request.ttl.map(|ttl| ttl.as_secs()),
        created_us: wall_clock_us(),
        selection: files.filter(|_| request.selects()).map(|(found, _)| found.selected),
    })
}

/// A codec whose blocks would have to be smaller, if there is one.
fn with_smaller<'a>(
    mut codecs: impl Iterator<Item = &'a Codec>,
    size: Option<BlockSize>,
) -> Option<&'a Codec> {
    let bytes = size?.bytes;
    codecs.find(|codec| codec.can_be_cut() && codec.block_bytes_max() < bytes)
}

/// About how many bytes come of what is to be restored: packs are as large as what is in them.
fn bytes_to_come(references: &[Planned]) -> u64 {
    let each = references.iter().map(|planned| {
        let restored = planned.original.map_or(0, |original| original.bytes);
        planned.bytes.unwrap_or(0).max(restored)
    });
    each.fold(0, u64::saturating_add)
}

/// Where the inputs come from, of files whose list has that digest.
fn data_of(request: &Request, found: &Found, list: Digest) -> Data {
    let (largest, roots) = (found.largest, found.roots.clone());
    if request.has_parts() {
        return Data::Parts { list, largest };
    }
    if !request.references.is_empty() {
        return Data::Referenced { list, largest, restored: request.restore };
    }
    if found.no_files > 0 || !found.codecs.is_empty() {
        let own = |codec: &Codec| OwnCodec { codec: *codec, library: codec.library() };
        return Data::Listed {
            list,
            largest,
            roots,
            files: found.files - found.no_files,
            fields: found.fields,
            codecs: found.codecs.iter().map(own).collect(),
        };
    }
    if request.restore {
        Data::Restored { list, largest, roots }
    } else {
        Data::Files { list, largest, roots }
    }
}

/// What a user is told of how the files were chosen.
pub(crate) fn notes(request: &Request, found: &Found) -> Vec<String> {
    let mut notes = Vec::new();
    if !found.skipped.is_empty() {
        notes.push(format!("skipped: {}", found.skipped));
    }
    if request.selects() {
        notes.push(found.selected.to_string());
    }
    if let Some(first) = &found.first_refused {
        let rest = match found.refused {
            1 => String::new(),
            refused => format!(", and {} more", refused - 1),
        };
        notes.push(format!("will fail: {first}{rest}"));
    }
    notes
}
