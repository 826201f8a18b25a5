//! Texts of codecs, and what they are equal to.

use super::*;

fn refusal(text: &str) -> String {
    text.parse::<Codec>().unwrap_err().to_string()
}

#[test]
fn every_codec_parses_as_it_prints() {
    for info in Codec::all() {
        let bare: Codec = info.name.parse().unwrap();
        assert_eq!(bare.level(), info.levels.map(|levels| levels.default));
        let levels = info.levels.map_or(vec![], |levels| (levels.min..=levels.max).collect());
        for level in levels {
            let text = format!("{}:{level}", info.name);
            let codec: Codec = text.parse().unwrap();
            assert_eq!(codec.to_string(), text);
            assert_eq!(codec.level(), Some(level));
            for switch in info.switches {
                let switched: Codec = format!("{text},{}", switch.name).parse().unwrap();
                assert_eq!(switched.to_string(), format!("{text},{}", switch.name));
                assert_eq!(switched.level(), Some(level));
                assert_eq!(switched.is_full(), *switch == FULL);
                assert!(!codec.is_full() && codec != switched);
            }
        }
    }
}

#[test]
fn a_name_without_a_level_means_six_and_three_for_zstd() {
    assert_eq!("zlib".parse::<Codec>(), "zlib:6".parse());
    assert_eq!("gzip".parse::<Codec>(), "gzip:6".parse());
    assert_eq!("gzip,full".parse::<Codec>().unwrap().to_string(), "gzip:6,full");
    assert_eq!("zstd".parse::<Codec>(), "zstd:3".parse());
    assert_eq!("zstd,long".parse::<Codec>().unwrap().to_string(), "zstd:3,long");
}

#[test]
fn a_refusal_says_what_would_do() {
    assert_eq!(refusal("zlib:10"), "level 10 of zlib is out of range: 0 to 9");
    assert_eq!(refusal("gzip:fast"), "level fast of gzip is out of range: 0 to 9");
    assert_eq!(refusal("zlib:"), "level  of zlib is out of range: 0 to 9");
    assert_eq!(refusal("zlib:06"), "level 06 of zlib is out of range: 0 to 9");
    let known = if cfg!(feature = "zfp") { "auto, zfp, store" } else { "auto, store" };
    let expected = format!("unknown codec `lzma`: known are zlib, gzip, zstd, {known}, noop");
    assert_eq!(refusal("lzma"), expected);
    assert_eq!(refusal("store:3"), "codec store takes no level, but was given `3`");
    assert_eq!(refusal("zlib:10,full"), "level 10 of zlib is out of range: 0 to 9");
    assert_eq!(refusal("zlib:6,fast"), "codec zlib takes no `,fast`: only `,full` may follow");
    assert_eq!(refusal("zlib:6,"), "codec zlib takes no `,`: only `,full` may follow");
    assert_eq!(
        refusal("gzip,full,full"),
        "codec gzip takes no `,full,full`: only `,full` may follow"
    );
    for (text, level) in [("zstd:0", 0), ("zstd:20", 20)] {
        let expected = format!("level {level} of zstd is out of range: 1 to 19");
        assert_eq!(refusal(text), expected);
    }
    assert_eq!(refusal("zstd,full"), "codec zstd takes no `,full`: only `,long` may follow");
    for text in ["ratio,speed", "speed,ratio", "balanced"] {
        let expected =
            format!("codec auto takes no `,{text}`: only `,ratio` or `,speed` may follow");
        assert_eq!(refusal(&format!("auto,{text}")), expected);
    }
    for name in ["store", "noop"] {
        assert_eq!(
            refusal(&format!("{name},full")),
            format!("codec {name} takes no `,full`: it has no look that could be left out")
        );
    }
    assert_eq!(refusal("store,x"), "codec store takes no `,x`: nothing may follow its name");
}

#[test]
#[cfg(feature = "zfp")]
fn a_codec_of_arrays_has_one_text_and_takes_a_grid() {
    for (given, printed) in [
        ("zfp", "zfp:reversible"),
        ("zfp:accuracy=0.001,f32,100x500x500", "zfp:accuracy=1e-3,f32,100x500x500"),
        ("zfp:rate=8", "zfp:rate=8"),
    ] {
        let codec: Codec = given.parse().unwrap();
        assert_eq!(codec.to_string(), printed);
        assert_eq!(printed.parse(), Ok(codec));
    }
    let npy: Codec = "zfp:accuracy=1e-3".parse().unwrap();
    let grid: Grid = "f32,3x4".parse().unwrap();
    let bare = npy.with_grid(grid).unwrap();
    assert_eq!((bare.grid(), npy.grid()), (Some(grid), None));
    assert!(bare != npy && bare.takes_arrays() && bare.is_lossy() && !bare.can_be_cut());
    assert!(npy.with_grid("i32,3".parse().unwrap()).is_err());
    let named = |name: &str| npy.of_restored(name.as_ref()).to_string();
    assert_eq!(named("a.npy"), "zfp:accuracy=1e-3");
    assert_eq!(named("a.f32"), "zfp:accuracy=1e-3,raw");
    assert!(npy.of_restored("a".as_ref()).only_decodes() && !npy.only_decodes());
    let gzip: Codec = "gzip".parse().unwrap();
    assert!(gzip.with_grid(grid).is_err() && gzip.of_restored("a".as_ref()) == gzip);
    assert!(refusal("zfp,full").contains("use reversible, rate=8"), "{}", refusal("zfp,full"));
}

#[test]
#[cfg(not(feature = "zfp"))]
fn a_codec_that_is_not_built_in_says_how_it_is() {
    assert!(refusal("zfp:reversible").starts_with("codec zfp is not built in: build with"));
}

#[test]
fn switches_are_part_of_what_makes_codecs_equal() {
    let texts = ["zlib:6", "zlib:6,full", "gzip:6,full", "zstd:6", "zstd:6,long"];
    let codecs: Vec<Codec> = texts.map(|text| text.parse().unwrap()).into();
    let set: std::collections::HashSet<_> = codecs.iter().chain(&codecs).collect();
    assert_eq!(set.len(), texts.len());
}

#[test]
fn help_lists_names_and_ranges() {
    let help: Vec<_> = Codec::all().map(ToString::to_string).collect();
    let arrays = if cfg!(feature = "zfp") { ", zfp:MODE[,DTYPE,SHAPE]" } else { "" };
    let expected = format!(
        "zlib:0..9[,full], gzip:0..9[,full], zstd:1..19[,long], auto[,ratio|,speed]{arrays}, store, noop"
    );
    assert_eq!(help.join(", "), expected);
}

#[test]
fn library_is_the_one_that_is_linked() {
    let lock = include_str!("../../../Cargo.lock");
    let version = |package: &str| {
        lock.split("[[package]]")
            .find(|text| text.contains(&format!("name = \"{package}\"")))
            .and_then(|text| text.split("version = \"").nth(1))
            .and_then(|rest| rest.split('"').next())
            .unwrap()
    };
    let library = |codec: &str| {
        let library = codec.parse::<Codec>().unwrap().library();
        library.split('+').next().unwrap().to_owned()
    };
    assert_eq!(library("zlib"), format!("zlib-rs/{}", version("zlib-rs")));
    // The binding names the version of the C library behind its own; another one may be linked all the same.
    let (_, zstd) = version("zstd-sys").split_once("+zstd.").unwrap();
    assert_eq!(library("zstd"), format!("zstd/{zstd}"));
    assert_eq!(library("auto"), library("zstd"));
    assert_eq!(zstd_safe::version_string(), zstd);
}

#[test]
fn an_invalid_codec_cannot_arrive_from_the_wire() {
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error as Invalid, StrDeserializer};

    let read = |text: &'static str| {
        let text: StrDeserializer<'_, Invalid> = text.into_deserializer();
        Codec::deserialize(text)
    };
    assert_eq!(read("gzip:9").unwrap(), "gzip:9".parse().unwrap());
    assert!(read("gzip:9,full").unwrap().is_full());
    assert!(read("noop,full").unwrap_err().to_string().contains("takes no `,full`"));
    assert!(read("zlib:10").unwrap_err().to_string().contains("out of range: 0 to 9"));
}
