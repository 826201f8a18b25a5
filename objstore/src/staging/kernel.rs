//! Which kernel this is.

/// Tells two kernels apart, also two containers' from two machines'. Empty where there is none.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
