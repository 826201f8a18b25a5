//! The codecs of a bag: its own, and those of tasks that have another one.

use std::io;

use bagpress_codec::{Codec, DataKind};

use crate::run_folder::inputs::InputEntry;
use crate::run_folder::plan::BagPlan;
use crate::run_folder::specification::{Data, Specification};

/// Codecs that are named where people read which a bag has.
const SHOWN: usize = 3;

impl BagPlan {
    /// The codec of a task; of a block, that of its file.
    ///
    /// # Errors
    ///
    /// If the list of inputs cannot be read.
    pub(crate) fn codec(&self, index: u32) -> io::Result<Codec> {
        let (specification, file) = (&self.specification, self.section(index));
        match &self.inputs {
            Some(list) if specification.has_own_codecs() => {
                let entry = list.get(file.map_or(index, |(file, _)| file))?;
                Ok(specification.codec_of(Some(&entry)))
            }
            _ => Ok(specification.codec),
        }
    }
}

impl Specification {
    /// The codec of the task that `entry` is, or of a generated one.
    #[must_use]
    pub fn codec_of(&self, entry: Option<&InputEntry>) -> Codec {
        entry.and_then(|entry| entry.codec).unwrap_or(self.codec)
    }

    /// Whether a task may have another codec than the bag.
    pub(crate) fn has_own_codecs(&self) -> bool {
        !self.data.own_codecs().is_empty()
    }

    /// Every codec that a task of the bag may have, and that of the bag, which is the first, also if no task has it.
    pub(crate) fn codecs(&self) -> impl Iterator<Item = &Codec> {
        self.codecs_and_libraries().map(|(codec, _)| codec)
    }

    /// The same, each with the library that descriptors pin.
    pub(crate) fn codecs_and_libraries(&self) -> impl Iterator<Item = (&Codec, &str)> {
        let own = self.data.own_codecs().iter().map(|own| (&own.codec, own.library.as_str()));
        std::iter::once((&self.codec, self.library.as_str())).chain(own)
    }

    /// The library that descriptors of tasks of `codec` pin.
    pub(crate) fn library_of(&self, codec: &Codec) -> &str {
        let mut all = self.codecs_and_libraries();
        all.find(|(own, _)| *own == codec).map_or(&self.library, |(_, library)| library)
    }

    /// What people read of its codecs: the first few.
    pub(super) fn codecs_shown(&self) -> String {
        let mut shown: Vec<_> = self.codecs().take(SHOWN).map(ToString::to_string).collect();
        let more = self.codecs().count() - shown.len();
        if more > 0 {
            shown.push(format!("{more} more"));
        }
        shown.join(", ")
    }

    /// Whether workers are to make arrays of numbers, which not every version of them can.
    pub(crate) fn generates_fields(&self) -> bool {
        matches!(
            self.data,
            Data::Generated { data: DataKind::Field { .. }, .. }
                | Data::Listed { fields: true, .. }
        )
    }
}
