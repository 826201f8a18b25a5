//! Versions of nats-server.

/// Oldest nats-server that we work with: batched direct get came with it.
pub const SERVER_VERSION_MIN: &str = "2.11.0";

/// Whether `found` (such as `2.12.1` or `2.15.0-dev`) is `wanted` or newer.
#[must_use]
pub fn version_at_least(found: &str, wanted: &str) -> bool {
    let parse = |text: &str| -> Option<(u32, u32, u32)> {
        let core = text.trim_start_matches('v').split(['-', '+']).next()?;
        let mut parts = core.split('.').map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?, parts.next().unwrap_or(Ok(0)).ok()?))
    };
    match (parse(found), parse(wanted)) {
        (Some(found), Some(wanted)) => found >= wanted,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        for (found, fits) in [
            ("2.9.10", false),
            ("2.10.29", false),
            ("2.11.0", true),
            ("v2.15.1", true),
            ("3.0.0-dev", true),
            ("?", false),
        ] {
            assert_eq!(version_at_least(found, "2.11.0"), fits, "{found}");
        }
    }
}
