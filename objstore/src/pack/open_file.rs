//! One file of a pack, not yet open.

use bagpress_broker::result::Failed;

use crate::sink::Sink;
use crate::source::Source;

/// Opens one file of a pack and its output. Blocks: it belongs to the thread that compresses.
pub type OpenFile = Box<dyn FnOnce() -> Result<(Source, Sink), Failed> + Send>;
