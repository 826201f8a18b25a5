//! What became of an object, as far as its bucket knows.

use super::bucket::Bucket;
use super::error::Error;
use super::meta::Info;

impl Bucket {
    /// The object of a name, if all of it is there, by the bucket's leader; otherwise what became of it. Reads no chunk.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Freed`], [`Error::Deleted`], [`Error::Expired`], [`Error::Lost`], [`Error::Malformed`]
    /// and [`Error::NoBucket`] by what became of it; [`Error::Unanswered`], transient.
    pub async fn find(&self, name: &str) -> Result<Info, Error> {
        let info = self.info_from_leader(name).await?.found(self.name(), name)?;
        match self.count_chunks(&info.token).await? {
            found if found == info.chunks => Ok(info),
            found => Err(self.became(&info, info.lost(found)).await),
        }
    }

    /// What an object has come to of which something is missing: in a bucket where nothing stays for long, its time is over.
    pub(super) async fn became(&self, info: &Info, error: Error) -> Error {
        if !matches!(error, Error::Lost { .. }) {
            return error;
        }
        let ttl = self.facts().await.ok().and_then(|facts| facts.ttl);
        match ttl.zip(info.modified) {
            Some((ttl, modified)) => {
                let (bucket, object) = (info.bucket.clone(), info.name.clone());
                Error::Expired { bucket, object, at: modified + ttl }
            }
            None => error,
        }
    }
}
