//! The labels of an object that is there are changed, each time over what was read.

use async_nats::jetstream::object_store::ObjectInfo;

use super::bucket::Bucket;
use super::error::Error;
use super::marks::Labels;
use super::meta::{Info, Lookup};
use super::metadata::{Published, RACES_MAX, too_many_races};
use super::names;

impl Bucket {
    /// Changes the labels of an object, and nothing else of it; `change` says whether there is something to write, and is
    /// called again when somebody else was faster. Returns what is there then.
    ///
    /// # Errors
    ///
    /// Those of [`Lookup::found`] and [`Bucket::info`]; [`Error::Full`].
    pub async fn relabel(
        &self,
        name: &str,
        mut change: impl FnMut(&mut Labels) -> bool,
    ) -> Result<Info, Error> {
        names::check_object(name)?;
        let subject = names::metadata_subject(self.name(), name);
        for _ in 0..RACES_MAX {
            let message = self.message_from_leader(None, &subject).await?;
            let Some(message) = message else { return Lookup::Missing.found(self.name(), name) };
            let lookup = Lookup::read(self.name(), message.sequence, &message.payload);
            let mut info = lookup.found(self.name(), name)?;
            if !change(&mut info.metadata) {
                return Ok(info);
            }
            // What others have written into it stays as it is.
            let there: ObjectInfo = serde_json::from_slice(&message.payload)
                .map_err(|error| Error::unanswered("label an object", &error))?;
            let wire = ObjectInfo { metadata: info.metadata.clone(), ..there };
            if let Published::At(sequence) = self.publish_metadata(&wire, info.sequence).await? {
                return Ok(Info { sequence, ..info });
            }
            // Stored by a try whose acknowledgement was lost, or another's: the next look tells.
        }
        Err(too_many_races("label an object", self.name(), name))
    }
}
