//! Bags of references that follow a bag of objects, each made of the outputs of the one before: objects of all of them are damaged when
//! they are done, and those of the last one have to come back from their lineage.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use bagpress_codec::Codec;
use flate2::read::{GzDecoder, ZlibDecoder};
use serde_json::Value;

use super::bag::Bag;
use super::nats::{At, Nats};
use super::plan::{Chain, Damage};
use super::product::Product;
use super::remains::{self, LOOK};

/// The codecs of the bags that follow, in their order.
const CODECS: [&str; 2] = ["gzip:6", "zlib:9"];

/// What became of a chain.
#[derive(Debug, Default)]
pub(super) struct Chained {
    /// Objects that were damaged.
    pub(super) damaged: u64,
    /// Tasks that were run to make them again.
    pub(super) remade: u64,
    /// Outputs of the last bag that did not come back, or wrong.
    pub(super) lost: BTreeMap<u32, String>,
    pub(super) left_over: Vec<String>,
}

/// Runs the bags that follow `bag`, damages objects, fetches the last outputs, and removes the bags.
///
/// # Errors
///
/// If a bag does not complete, or the server does not come back.
pub(super) fn follow(bag: &Bag, chain: &Chain, product: &Product, server: &At) -> Result<Chained> {
    let outputs = chain.outputs.min(bag.shape.tasks());
    let mut links = vec![Link { run: bag.run.clone(), id: id_of(&bag.run)?, codec: None }];
    for codec in CODECS {
        let before = links.last().context("no bag")?;
        links.push(Link::run(bag, before, links.len(), codec, outputs, product)?);
    }
    let mut chained = Chained::default();
    for damage in &chain.damages {
        chained.damaged += u64::from(hit(&links, outputs, *damage, server)?);
    }
    fetch(bag, &links, outputs, product, &mut chained)?;
    for link in links.iter().skip(1).rev() {
        product.remove_run(bag, &link.run)?;
        chained.left_over.extend(remains::streams(server, &link.id)?);
    }
    Ok(chained)
}

/// One bag of a chain.
struct Link {
    run: PathBuf,
    id: String,
    /// None of the first one, whose outputs the bag itself can check.
    codec: Option<Codec>,
}

impl Link {
    fn reference(&self, output: u32) -> String {
        format!("obj://bag-{}/out_{output}.bin", self.id)
    }

    /// Runs the bag that follows, until it is complete.
    fn run(
        bag: &Bag,
        before: &Self,
        number: usize,
        codec: &str,
        outputs: u32,
        product: &Product,
    ) -> Result<Self> {
        let name = format!("{}-link-{number}", bag.shape.name());
        let runs = bag.run.ancestors().nth(2).context("a run folder without a folder of runs")?;
        let (run, list) = (runs.join(&name).join("objects"), runs.join(format!("{name}.refs")));
        let refs: Vec<_> = (0..outputs).map(|output| before.reference(output)).collect();
        fs::write(&list, refs.join("\n"))?;
        let once = || {
            let mut command = if run.join("bag.json").is_file() {
                let mut command = product.bagpress.guarded("gather");
                command.arg(&run).arg("--retry-failed");
                command
            } else {
                let mut command = product.bagpress.guarded("run");
                command.args(["--name", &name, "--codec", codec, "--results", "objects"]);
                command.args(["--delivery", bag.shape.delivery.as_str(), "--attempts", "1000"]);
                command.arg("--runs").arg(runs).arg("--refs").arg(&list);
                command
            };
            command.arg("--quiet");
            let status = product.spawn(command, bag)?.wait()?;
            ensure!(status.success(), "{name} is not complete: {status}");
            Ok(())
        };
        LOOK.run(once)?;
        fs::remove_file(&list)?;
        Ok(Self { id: id_of(&run)?, run, codec: Some(codec.parse().map_err(anyhow::Error::msg)?) })
    }

    /// What an output of the bag was made of.
    fn undo(&self, output: &[u8]) -> Result<Vec<u8>> {
        let mut input = Vec::new();
        match self.codec.as_ref().map(Codec::extension) {
            Some(".gz") => GzDecoder::new(output).read_to_end(&mut input),
            _ => ZlibDecoder::new(output).read_to_end(&mut input),
        }
        .context("decompress")?;
        Ok(input)
    }
}

fn id_of(run: &std::path::Path) -> Result<String> {
    let text = fs::read(run.join("bag.json")).context("read bag.json")?;
    let specification: Value = serde_json::from_slice(&text).context("read bag.json")?;
    Ok(specification["bag"].as_str().context("a bag without an id")?.to_owned())
}

/// Damages an object; whether there was one to damage.
fn hit(links: &[Link], outputs: u32, damage: Damage, server: &At) -> Result<bool> {
    let (Damage::ObjectFlip { bag, output, .. } | Damage::ObjectLoss { bag, output }) = damage;
    let link = &links[bag as usize % links.len()];
    let (bucket, name) = (format!("bag-{}", link.id), format!("out_{}.bin", output % outputs));
    LOOK.run(|| {
        let mut nats = Nats::connect(server)?;
        match damage {
            Damage::ObjectFlip { bit, .. } => nats.flip(&bucket, &name, bit),
            Damage::ObjectLoss { .. } => nats.lose(&bucket, &name),
        }
    })
}

/// Fetches the outputs of the last bag, whatever has to be made again for it, and compares them.
fn fetch(
    bag: &Bag,
    links: &[Link],
    outputs: u32,
    product: &Product,
    chained: &mut Chained,
) -> Result<()> {
    let last = links.last().context("no bag")?;
    let got = last.run.with_extension("got");
    let mut remade = 0;
    let once = || {
        let mut command = product.bagpress.guarded("object");
        command.arg("get").args((0..outputs).map(|output| last.reference(output)));
        command.arg("--out").arg(got.join("")).args(["--json", "--server", &product.url]);
        let output = command.output().context("start the program")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let said = said.lines().map(serde_json::from_str::<Value>);
        let answers: Vec<_> = said.collect::<Result<_, _>>().context("read what get says")?;
        let made = answers.iter().filter_map(|answer| answer["reconstructed"].as_u64());
        remade += made.sum::<u64>();
        anyhow::Ok((output.status.success(), answers))
    };
    let (_, answers) = LOOK.until(once, |(all, _)| *all)?;
    chained.remade = remade;
    for output in 0..outputs {
        let file = got.join(format!("out_{output}.bin"));
        let looked = fs::read(&file).map_err(anyhow::Error::from).and_then(|mut bytes| {
            for link in links.iter().skip(1).rev() {
                bytes = link.undo(&bytes)?;
            }
            bag.check(output, &bytes)
        });
        if let Err(error) = looked {
            let wanted = last.reference(output);
            let said = answers.iter().find(|answer| answer["reference"] == wanted);
            let said = said.map(Value::to_string).unwrap_or_default();
            chained.lost.insert(output, format!("{error:#}; get says {said}"));
        }
    }
    if got.exists() {
        fs::remove_dir_all(&got)?;
    }
    Ok(())
}
