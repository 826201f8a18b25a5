//! What follows a codec's name in its text: a level, and switches.

use crate::Error;
use crate::entry::{CodecInfo, FULL, Parameters};

pub(crate) fn split_once(text: &str, separator: char) -> (&str, Option<&str>) {
    text.split_once(separator).map_or((text, None), |(front, back)| (front, Some(back)))
}

/// Each switch at most once and in the entry's order: one text for one codec.
pub(crate) fn parse_switches(
    info: &CodecInfo,
    mut parameters: Parameters,
    text: Option<&str>,
) -> Result<Parameters, Error> {
    let Some(text) = text else { return Ok(parameters) };
    let mut left = info.switches.iter();
    for word in text.split(',') {
        let found = left.find(|switch| switch.name == word);
        let Some(switch) = found.filter(|switch| !switch.alone || text == word) else {
            let (switch, hint) = (text.to_owned(), switch_hint(info, text));
            return Err(Error::BadSwitch { codec: info.name, switch, hint });
        };
        parameters = parameters.with(switch);
    }
    Ok(parameters)
}

fn switch_hint(info: &CodecInfo, text: &str) -> String {
    let words: Vec<_> = info.switches.iter().map(|switch| format!("`,{}`", switch.name)).collect();
    match (words.is_empty(), text == FULL.name) {
        (true, true) => "it has no look that could be left out".to_owned(),
        (true, false) => "nothing may follow its name".to_owned(),
        (false, _) => {
            let alone = info.switches.iter().any(|switch| switch.alone);
            format!("only {} may follow", words.join(if alone { " or " } else { " and " }))
        }
    }
}

pub(crate) fn parse_level(info: &CodecInfo, level: Option<&str>) -> Result<Option<u32>, Error> {
    match (info.levels, level) {
        (Some(levels), None) => Ok(Some(levels.default)),
        (Some(levels), Some(text)) => text
            .parse()
            .ok()
            // One text for one codec: no `+6`, no `06`.
            .filter(|level: &u32| level.to_string() == text)
            .filter(|level| (levels.min..=levels.max).contains(level))
            .map(Some)
            .ok_or_else(|| Error::LevelOutOfRange {
                codec: info.name,
                level: text.to_owned(),
                level_min: levels.min,
                level_max: levels.max,
            }),
        (None, None) => Ok(None),
        (None, Some(text)) => Err(Error::TakesNoLevel { codec: info.name, level: text.to_owned() }),
    }
}
