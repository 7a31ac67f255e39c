//! Random numbers that are unique in practice: names of temporary files, nonces of operations. And
//! random parts of waits.

/// 128 random bits from the operating system.
///
/// # Panics
/// Panics if the operating system has none. Going on with a guess could make two operations look
/// like one.
pub(crate) fn u128() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    u128::from_le_bytes(bytes)
}

/// A random number from 0 to 1. Hosts that wait a random part of a time do not stay in step.
pub(crate) fn random_share() -> f64 {
    (u128() >> 96) as f64 / f64::from(u32::MAX)
}
