//! Keys that a request can carry.

/// Refuses a key that no request can carry, or that was surely not meant: a line break at its end
/// is in every second secret of Kubernetes.
///
/// # Errors
/// The reason, as the end of a sentence.
pub(super) fn check_key(key: &str) -> Result<(), &'static str> {
    if key.ends_with(['\n', '\r']) {
        return Err("ends in a line break; remove it");
    }
    if key.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err("contains a space, a line break or another invalid character")
    }
}
