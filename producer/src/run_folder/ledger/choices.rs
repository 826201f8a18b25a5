//! What a codec that chooses has chosen, summed up.

use std::collections::BTreeMap;
use std::fmt;

use bagpress_broker::result::Done;
use serde::{Deserialize, Serialize};

/// By what was chosen, such as `zstd:3`: there are as many as there are levels. The blocks of a file that is cut count in its place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Choices(BTreeMap<String, Chosen>);

/// The outputs for which the same was chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// How many they are.
    pub outputs: u64,
    /// How many blocks of files there are besides, each of which is no output by itself.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub blocks: u64,
    /// Bytes of their inputs.
    pub input_bytes: u64,
    /// Bytes that they have.
    pub output_bytes: u64,
    /// Bytes that were predicted, of those that are long enough for that.
    pub predicted_bytes: u64,
    /// Bytes that these have.
    pub predicted_became_bytes: u64,
}

impl Choices {
    /// Counts an output, if something was chosen for it.
    pub(super) fn add(&mut self, done: &Done) {
        self.count(done, |chosen| &mut chosen.outputs);
    }

    /// The same of a block of a file.
    pub(super) fn add_block(&mut self, done: &Done) {
        self.count(done, |chosen| &mut chosen.blocks);
    }

    fn count(&mut self, done: &Done, what: fn(&mut Chosen) -> &mut u64) {
        let Some(choice) = done.choice else { return };
        let Some(codec) = choice.codec() else { return };
        let chosen = self.0.entry(codec.to_string()).or_default();
        *what(chosen) += 1;
        let add = |sum: &mut u64, more| *sum = sum.saturating_add(more);
        add(&mut chosen.input_bytes, done.input_bytes);
        add(&mut chosen.output_bytes, done.output_bytes);
        if let Some(predicted) = choice.predicted_bytes {
            add(&mut chosen.predicted_bytes, predicted);
            add(&mut chosen.predicted_became_bytes, done.output_bytes);
        }
    }

    /// Whether nothing was chosen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl fmt::Display for Choices {
    /// Writes `zstd:1 for 20 outputs, zstd:3 for 300; predicted 1000 bytes, which became 1010`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (codec, chosen)) in self.0.iter().enumerate() {
            let before = if place == 0 { "" } else { ", " };
            let outputs = match (place, chosen.outputs) {
                (0, 1) => "1 output".to_owned(),
                (0, outputs) => format!("{outputs} outputs"),
                (_, outputs) => outputs.to_string(),
            };
            let blocks = match chosen.blocks {
                1 => "1 block".to_owned(),
                blocks => format!("{blocks} blocks"),
            };
            let of = match (chosen.outputs, chosen.blocks) {
                (_, 0) => outputs,
                (0, _) => blocks,
                _ => format!("{outputs} and {blocks}"),
            };
            write!(formatter, "{before}{codec} for {of}")?;
        }
        let sum = |of: fn(&Chosen) -> u64| self.0.values().map(of).fold(0, u64::saturating_add);
        let predicted = sum(|chosen| chosen.predicted_bytes);
        if predicted > 0 {
            let became = sum(|chosen| chosen.predicted_became_bytes);
            write!(formatter, "; predicted {predicted} bytes, which became {became}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bagpress_broker::ids::{Execution, TaskId};
    use bagpress_broker::result::{Outcome, Place};
    use bagpress_broker::samples;
    use bagpress_codec::Choice;

    use super::*;

    fn done(choice: Option<Choice>) -> Done {
        let id = TaskId { bag: samples::bag(), index: 0, round: 0 };
        let result = samples::done(&id, &Execution::random(), b"0123456789", Place::Staged);
        let Outcome::Done(done) = result.outcome else { panic!("it is done") };
        Done { choice, ..done }
    }

    #[test]
    fn what_was_chosen_and_predicted_is_told_beside_what_came() {
        let mut choices = Choices::default();
        choices.add(&done(None));
        assert!(choices.is_empty());
        for (level, predicted_bytes) in [(3, None), (19, Some(12)), (3, Some(30)), (20, Some(1))] {
            choices.add(&done(Some(Choice { level, predicted_bytes })));
        }
        let text = "zstd:19 for 1 output, zstd:3 for 2; predicted 42 bytes, which became 20";
        assert_eq!(choices.to_string(), text);
    }

    #[test]
    fn blocks_are_called_blocks_and_not_outputs() {
        let mut choices = Choices::default();
        let chosen = |level| done(Some(Choice { level, predicted_bytes: None }));
        choices.add_block(&chosen(1));
        choices.add(&chosen(3));
        for _ in 0..2 {
            choices.add_block(&chosen(3));
        }
        assert_eq!(choices.to_string(), "zstd:1 for 1 block, zstd:3 for 1 and 2 blocks");
    }
}
