//! Messages between a gatherer and the workers that hold its leases.

use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::ids::{BagId, Execution, TaskId};
use crate::result::{Failed, TaskResult};

/// Header of an offer: which attempt it would be, from 1.
pub(crate) const ATTEMPT: &str = "Bag-Attempt";

/// "I execute this task." The answer to an offer, and what is renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Version of the wire.
    pub v: u32,
    /// The task's place in its bag.
    #[serde(deserialize_with = "bounded::index")]
    pub index: u32,
    /// Its round.
    #[serde(deserialize_with = "bounded::round")]
    pub round: u32,
    /// The execution: it identifies the lease.
    pub execution: Execution,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// The worker's id: its service instance.
    #[serde(deserialize_with = "bounded::text")]
    pub worker: String,
    /// Its host.
    #[serde(deserialize_with = "bounded::text")]
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// In the answer to an offer: how many more offers this worker would take at once. Older workers do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more: Option<u32>,
}

impl Lease {
    /// The task of `bag` that it is for.
    #[must_use]
    pub fn id(&self, bag: &BagId) -> TaskId {
        TaskId { bag: bag.clone(), index: self.index, round: self.round }
    }
}

/// The answer to an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Taken {
    /// It is executed.
    Lease(Lease),
    /// The worker has no slot for it now: offer it to another.
    Busy,
    /// It is no task.
    Refused(Failed),
}

/// "I do not execute it after all."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenBack {
    /// The lease.
    pub lease: Lease,
    /// Why.
    pub failed: Failed,
}

/// What a gatherer answers to a worker with a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The lease lasts, from now on.
    Held,
    /// The lease is over, or never was: what comes of this execution is not waited for.
    Withdrawn,
    /// This outcome is the one that counts; it is in the ledger.
    Counted,
    /// The task's round has another's outcome.
    HaveIt(Box<TaskResult>),
    /// The outcome cannot be counted now; send it again.
    Wait {
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Cause;

    fn lease() -> Lease {
        Lease {
            v: 1,
            index: 7,
            round: 0,
            execution: "0123456789abcdef01234567".parse().unwrap(),
            attempt: 1,
            worker: "W".to_owned(),
            host: "h".to_owned(),
            pid: 42,
            more: None,
        }
    }

    #[test]
    fn wire_format_is_pinned() {
        let text = |taken: &Taken| serde_json::to_string(taken).unwrap();
        insta::assert_snapshot!(text(&Taken::Lease(lease())), @r#"{"lease":{"v":1,"index":7,"round":0,"execution":"0123456789abcdef01234567","attempt":1,"worker":"W","host":"h","pid":42}}"#);
        let more = Taken::Lease(Lease { more: Some(63), ..lease() });
        insta::assert_snapshot!(text(&more), @r#"{"lease":{"v":1,"index":7,"round":0,"execution":"0123456789abcdef01234567","attempt":1,"worker":"W","host":"h","pid":42,"more":63}}"#);
        insta::assert_snapshot!(text(&Taken::Busy), @r#""busy""#);
        let refused = Taken::Refused(Failed::new(Cause::BadDescriptor, "junk"));
        insta::assert_snapshot!(text(&refused), @r#"{"refused":{"cause":"bad-descriptor","message":"junk"}}"#);
        let back = GivenBack { lease: lease(), failed: Failed::new(Cause::Drain, "leaving") };
        insta::assert_snapshot!(serde_json::to_string(&back).unwrap(), @r#"{"lease":{"v":1,"index":7,"round":0,"execution":"0123456789abcdef01234567","attempt":1,"worker":"W","host":"h","pid":42},"failed":{"cause":"drain","message":"leaving"}}"#);
        let wait = Verdict::Wait { reason: "disk full".to_owned() };
        insta::assert_snapshot!(serde_json::to_string(&wait).unwrap(), @r#"{"wait":{"reason":"disk full"}}"#);
        insta::assert_snapshot!(serde_json::to_string(&Verdict::Withdrawn).unwrap(), @r#""withdrawn""#);
    }
}
