//! The name of an object wherever it is: `obj://BUCKET/NAME`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::names;

const SCHEME: &str = "obj://";

/// A reference to an object: a bucket, and the object's name in it, which may have slashes and at most 512 bytes.
///
/// It stands for the same bytes for as long as the object is there: nothing of ours ever puts other bytes under it.
///
/// ```
/// use bagpress_objstore::object_ref::Reference;
/// let reference: Reference = "obj://photos/2024/a.jpg".parse()?;
/// assert_eq!((reference.bucket(), reference.object()), ("photos", "2024/a.jpg"));
/// assert_eq!(reference.to_string(), "obj://photos/2024/a.jpg");
/// # Ok::<(), bagpress_objstore::object_ref::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    bucket: String,
    object: String,
}

impl Reference {
    /// Of an object of this name in a bucket.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`], permanent.
    pub fn new(bucket: &str, object: &str) -> Result<Self, Error> {
        names::check_token("a bucket", bucket)?;
        names::check_object(object)?;
        Ok(Self { bucket: bucket.to_owned(), object: object.to_owned() })
    }

    /// Whether a text is meant as a reference.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// The bucket.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The object's name in it.
    #[must_use]
    pub fn object(&self) -> &str {
        &self.object
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = text.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/'));
        let (bucket, object) = parts.ok_or_else(|| Error::BadName {
            what: "a reference, which is obj://BUCKET/NAME",
            name: text.chars().take(80).collect(),
        })?;
        Self::new(bucket, object)
    }
}

impl TryFrom<String> for Reference {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.bucket, self.object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_reads_back_and_nothing_else_is_one() {
        for text in ["obj://b/n", "obj://bag-t1-abcdefgh/out_0.bin", "obj://b/a b/ä", "obj://b//"]
        {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), text);
        }
        for none in ["", "b/n", "obj://b", "obj://b/", "obj:///n", "obj://b.c/n", "OBJ://b/n"] {
            assert!(none.parse::<Reference>().is_err(), "{none}");
        }
    }
}
