//! Seeds break a chain of three bags in 200 ways, and every `get` is compared with a model of what can be made again.

use std::collections::HashMap;
use std::fs;

use bagpress_broker::Role;
use bagpress_broker::subjects::first_of_tar;
use bagpress_broker::testing::NatsServer;
use bagpress_codec::Digest;
use bagpress_producer::object::{State, To, Why};
use futures::StreamExt;

use crate::control::context;
use crate::files::write;
use crate::harness::{Place, Running};
use crate::lineage::{Fault, Outputs, break_it, chain_of, get, outputs};
use crate::objects::at;

use Fault::{Corrupt, Delete, Forget, Free, Lose, Replace};

/// How many lines of objects are broken, each in its own way.
const SEEDS: u32 = 200;

/// What `get` is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Right { reconstructed: Option<u32> },
    Gone(State, Option<Why>),
}

/// A line of three objects, each made of the one before: what has become of each.
type Line = [Option<Fault>; 3];

/// The second bag's outputs have a time.
const EXPIRES: usize = 1;

fn state(line: Line, of: usize) -> State {
    match line[of] {
        None => State::There,
        Some(Free) => State::Freed,
        Some(Delete) => State::Deleted,
        Some(Corrupt | Replace) => State::Corrupt,
        Some(Lose | Forget) if of == EXPIRES => State::Expired,
        Some(Lose | Forget) => State::Lost,
    }
}

/// Has an object made again in `line`: by how many tasks, or why it cannot be.
fn make(line: &mut Line, of: usize) -> Result<u32, Why> {
    let mut tasks = 0;
    if let Some(input) = of.checked_sub(1) {
        match state(*line, input) {
            State::There => {}
            State::Freed => return Err(Why::InputFreed),
            _ => tasks = make(line, input)?,
        }
    }
    line[of] = None;
    Ok(tasks + 1)
}

fn expected(line: &mut Line, of: usize) -> Expected {
    match state(*line, of) {
        State::There => Expected::Right { reconstructed: None },
        state @ (State::Freed | State::Expired) => Expected::Gone(state, None),
        state => match make(line, of) {
            Ok(tasks) => Expected::Right { reconstructed: Some(tasks) },
            Err(why) => Expected::Gone(state, Some(why)),
        },
    }
}

/// The next number of a sequence that a seed begins (`SplitMix64`, Steele et al. 2014).
fn draw(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % below
}

/// The chain of three bags; half of the first objects are made of generated data, and the others are tars of two files each.
async fn chain(place: &Place, server: &NatsServer) -> [Outputs; 3] {
    let (at, half) = (at(server), SEEDS / 2);
    for number in 0..2 * half {
        let text = format!("file {number} ").repeat(100);
        write(&place.path(&format!("in/f{number:03}")), text.as_bytes());
    }
    let mut first = Vec::new();
    for (name, what) in [
        ("plain", format!("--tasks {half} --bytes 3000 --data text")),
        ("packed", "in --pack 2 --keep-inputs".to_owned()),
    ] {
        let run = format!("run {what} --codec zlib:6 --results objects --name {name} -q {at}");
        place.run(&run).await.with_code(0);
        first.extend(outputs(place, &at, &format!("{name}/objects"), None).await);
    }
    let tars = first.iter().filter(|(of, _)| first_of_tar(of.object()).is_some()).count();
    assert_eq!(tars, half as usize);
    let lists = ["plain", "packed"].map(|name| fs::read_to_string(place.path(name)).unwrap());
    fs::write(place.path("one"), lists.concat()).unwrap();
    fs::remove_dir_all(place.path("in")).unwrap();
    chain_of(place, &at, first).await
}

#[tokio::test]
async fn every_get_of_a_broken_chain_gives_the_right_bytes_or_the_right_reason() {
    let (place, server) = Place::with_server().await;
    let _workers: [Running; 2] = [place.worker(&server), place.worker(&server)];
    let chain = chain(&place, &server).await;
    let (theirs, broker) = (context(&server).await, server.broker(Role::Producer).await);
    let one_seed = async |seed: u32| {
        let mut state = u64::from(seed);
        let mut line: Line = [None; 3];
        for (of, fault) in line.iter_mut().enumerate() {
            if draw(&mut state, 3) == 0 {
                continue;
            }
            let drawn = [Lose, Forget, Delete, Corrupt, Replace, Free];
            let drawn = drawn[usize::try_from(draw(&mut state, 6)).unwrap()];
            break_it(&theirs, &broker, &chain[of][seed as usize].0, drawn).await;
            *fault = Some(drawn);
        }
        let before = line;
        let mut targets = vec![0, 1, 2];
        let mut kinds = Vec::new();
        while !targets.is_empty() {
            let next = draw(&mut state, targets.len() as u64);
            let of = targets.remove(usize::try_from(next).unwrap());
            let (reference, digest) = &chain[of][seed as usize];
            let file = place.path(&format!("got-{seed}-{of}"));
            let answer = get(&broker, reference, To::File(file.clone())).await;
            let expected = expected(&mut line, of);
            let told = if answer.ok {
                assert_eq!(Digest::of(&fs::read(&file).unwrap()), *digest, "seed {seed}");
                Expected::Right { reconstructed: answer.reconstructed }
            } else {
                assert!(!file.exists(), "seed {seed}");
                Expected::Gone(answer.state, answer.not_reconstructed)
            };
            assert_eq!(told, expected, "seed {seed}: {before:?}, object {of}: {answer:?}");
            kinds.push(expected);
        }
        kinds
    };
    let all = futures::stream::iter(0..SEEDS).map(one_seed).buffer_unordered(8);
    let all: Vec<_> = all.concat().await;
    // What the seeds are there for did happen.
    let mut counts: HashMap<String, u32> = HashMap::new();
    for kind in all {
        *counts.entry(format!("{kind:?}")).or_default() += 1;
    }
    for wanted in ["Some(1)", "Some(2)", "Some(3)", "Freed", "Expired", "Lost, Some(InputFreed)"] {
        let found = counts.iter().filter(|(kind, _)| kind.contains(wanted)).count();
        assert!(found > 0, "{wanted}: {counts:?}");
    }
}
