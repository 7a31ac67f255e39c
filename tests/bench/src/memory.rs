//! Memory of this process, as Linux reports it.

use std::fs;

use anyhow::{Context, Result};

const KIB: u64 = 1 << 10;

/// Returns the bytes that the process has in memory now.
pub(crate) fn resident() -> Result<u64> {
    field("VmRSS:")
}

/// Forgets the peak, so that [`peak`] counts from here.
pub(crate) fn reset_peak() -> Result<()> {
    fs::write("/proc/self/clear_refs", "5").context("cannot reset the peak of memory")
}

/// Returns the most bytes that the process had in memory.
pub(crate) fn peak() -> Result<u64> {
    field("VmHWM:")
}

fn field(name: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib: u64 = kib.context("/proc reports no memory")?.parse()?;
    Ok(kib * KIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_no_less_than_what_is_resident() {
        let block = vec![1u8; 8 << 20];
        let now = resident().expect("a number");
        assert!(now > block.len() as u64, "{now}");
        assert!(peak().expect("a number") >= now);
    }
}
