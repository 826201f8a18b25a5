//! `server.txt`: the server that has the run's bag, so that later commands find it.

use std::io::Read;

use anyhow::{Context, Result};
use bagpress_broker::quote::name;

use crate::run_folder::folder::{RunFolder, SERVER};

impl RunFolder {
    /// Where the run's bag is: `local`, or the server's URL, without what lets one in.
    ///
    /// # Errors
    ///
    /// If the folder or the file is not to be trusted, or cannot be read.
    pub fn server(&self) -> Result<Option<String>> {
        let Some(mut file) = self.open(SERVER)? else { return Ok(None) };
        let mut server = String::new();
        let read = file.read_to_string(&mut server);
        read.with_context(|| format!("read {}", name(self.at(SERVER))))?;
        Ok(Some(server.trim().to_owned()))
    }

    /// Notes where the run's bag is; none is its own server.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn note_server(&self, url: Option<&str>) -> Result<()> {
        let without_secrets = |url: &str| match url.split_once("://") {
            Some((scheme, rest)) => {
                format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
            }
            None => url.rsplit_once('@').map_or(url, |(_, host)| host).to_owned(),
        };
        let urls = |all: &str| all.split(',').map(without_secrets).collect::<Vec<_>>().join(",");
        let server = url.map_or_else(|| "local".to_owned(), urls);
        self.write_durably(SERVER, (server + "\n").as_bytes())
    }
}
