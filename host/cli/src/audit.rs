//! Labels that say who created a version, and with which command.

use std::fs;
#[cfg(feature = "serve")]
use std::net::IpAddr;

use persist_host::storage::Environment;

/// Label with the user and the host.
pub(crate) const BY: &str = "persist.by";

/// Label with the command.
pub(crate) const VIA: &str = "persist.via";

/// Label with the user and the host that moved a version from another name.
pub(crate) const MOVED_BY: &str = "persist.moved-by";

/// Label with the command that moved a version from another name.
pub(crate) const MOVED_VIA: &str = "persist.moved-via";

/// Longest name of a user or a host that is recorded.
const MAX_NAME: usize = 100;

/// Client of a service that asks for no token.
#[cfg(feature = "serve")]
const NO_TOKEN: &str = "anonymous";

/// Returns the labels of a version that the command `via` creates.
///
/// They are for people who look for what happened, and prove nothing: the user is the one that the
/// environment names, or else the number of the account.
pub(crate) fn labels(environment: &Environment, via: &str) -> Vec<(String, String)> {
    let variable = |name: &str| {
        let value = environment.get(name)?.to_str()?.trim().to_owned();
        (!value.is_empty()).then_some(value)
    };
    let user = ["USER", "LOGNAME"].into_iter().find_map(variable);
    let user = user.unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()));
    let host = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.map(|host| host.trim().to_owned());
    let host = host.filter(|host| !host.is_empty());
    let host = host.or_else(|| variable("HOSTNAME"));
    let host = host.unwrap_or_else(|| "unknown".into());
    let short = |name: &str| name.chars().take(MAX_NAME).collect::<String>();
    let by = format!("{}@{}", short(&user), short(&host));
    vec![(BY.into(), by), (VIA.into(), format!("persist {via}"))]
}

/// Returns the labels of a version that a client of `persist serve` creates: the name of its token
/// in the manifest, and the address that it, or the proxy in front, connects from.
#[cfg(feature = "serve")]
pub(crate) fn labels_of_client(token: Option<&str>, address: IpAddr) -> Vec<(String, String)> {
    let by = token.unwrap_or(NO_TOKEN).chars().take(MAX_NAME);
    let by = crate::text::one_line(&by.collect::<String>());
    let address = address.to_canonical();
    let via = format!("persist serve, {address}");
    vec![(BY.into(), by), (VIA.into(), via)]
}
