//! Writing begins here: a writer for an object, or a whole object at once.

use bytes::Bytes;

use super::bucket::Bucket;
use super::commit::Written;
use super::error::Error;
use super::names;
use super::writer::Writer;

impl Bucket {
    /// Starts to write object `name`, its chunks under `token`: `<index>-<execution>`.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`], permanent.
    pub fn writer(&self, name: &str, token: &str) -> Result<Writer, Error> {
        names::check_object(name)?;
        names::check_chunk_token(token)?;
        Ok(Writer::new(self.clone(), name, token))
    }

    /// Writes a whole object, or adopts the one that is there: [`Writer::commit_or_adopt`].
    ///
    /// # Errors
    ///
    /// As [`Writer::write`] and [`Writer::commit_or_adopt`].
    pub async fn put(&self, name: &str, token: &str, bytes: Bytes) -> Result<Written, Error> {
        let mut writer = self.writer(name, token)?;
        writer.write(bytes).await?;
        writer.commit_or_adopt().await
    }
}
