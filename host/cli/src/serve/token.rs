//! Bearer tokens of `persist serve`: how they are made, and what each allows.

use std::fmt;

use anyhow::Result;
use clap::{Args, Subcommand};
use globset::GlobMatcher;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::print::Out;

/// Begins each token, so that scanners of repositories find one that was committed by mistake.
const PREFIX: &str = "persist_";

/// Make tokens for `persist serve`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist token new
  persist token new --name ci --rights run,read --agents 'support-*'")]
pub(crate) struct Token {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    New(New),
}

/// Print a new random token, and the lines for the manifest that let it in
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist token new --name ci --rights run,read --agents 'support-*'")]
struct New {
    /// Name of the token in the manifest
    #[arg(long, default_value = "token")]
    name: String,
    /// Rights of the token: run, read, save, metrics and admin, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "run,read", value_enum)]
    rights: Vec<TokenRight>,
    /// Agents that the token may name: names or globs, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "*")]
    agents: Vec<String>,
}

/// Operations that a token allows.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TokenRight {
    /// Run agents
    Run,
    /// Read names, histories, states and changes
    Read,
    /// Save, restore, fork and delete: changes that can be undone
    Save,
    /// Read the metrics of the service, of all agents together
    Metrics,
    /// All of these, and pins, without which versions may be pruned
    Admin,
}

/// A token that a manifest lets in.
pub(super) struct KnownToken {
    pub(super) name: String,
    /// SHA-256 of the token. A token is 32 random bytes, which no one can guess, so that a slow
    /// hash, as passwords need it, would only slow down the server.
    pub(super) hash: [u8; 32],
    pub(super) rights: Vec<TokenRight>,
    pub(super) agents: Vec<GlobMatcher>,
}

impl KnownToken {
    /// Returns true if the token has a right.
    pub(super) fn allows(&self, right: TokenRight) -> bool {
        self.rights.contains(&right) || self.rights.contains(&TokenRight::Admin)
    }

    /// Returns true if the token may name an agent.
    pub(super) fn covers(&self, agent: &str) -> bool {
        self.agents.iter().any(|glob| glob.is_match(agent))
    }
}

/// Finds the token that a client sent. Takes the same time for each, found or not.
pub(super) fn find<'a>(known: &'a [KnownToken], sent: &str) -> Option<&'a KnownToken> {
    let hash: [u8; 32] = Sha256::digest(sent.as_bytes()).into();
    let mut found = None;
    for token in known {
        if bool::from(token.hash.ct_eq(&hash)) {
            found = Some(token);
        }
    }
    found
}

impl Token {
    pub(crate) fn run(self, out: Out) -> Result<()> {
        let Action::New(new) = self.action;
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        let token = format!("{PREFIX}{}", hex::encode(bytes));
        let hash = hex::encode(Sha256::digest(token.as_bytes()));
        let rights: Vec<_> = new.rights.iter().map(ToString::to_string).collect();
        let entry = Entry {
            name: &new.name,
            sha256: &hash,
            rights: &rights,
            agents: &new.agents,
        };
        let value = json!({ "token": token, "manifest": entry.to_string() });
        Ok(out.result(&value, || format!("{token}\n\n{entry}"))?)
    }
}

impl fmt::Display for TokenRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Run => "run",
            Self::Read => "read",
            Self::Save => "save",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        })
    }
}

/// A token as the manifest holds it.
struct Entry<'a> {
    name: &'a str,
    sha256: &'a str,
    rights: &'a [String],
    agents: &'a [String],
}

impl fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A JSON string is a TOML string, too.
        write!(
            f,
            "[[tokens]]\nname = {}\nsha256 = \"{}\"\nrights = {}\nagents = {}",
            json!(self.name),
            self.sha256,
            json!(self.rights),
            json!(self.agents)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_its_hash_alone() {
        let known = |text: &str| KnownToken {
            name: text.into(),
            hash: Sha256::digest(text.as_bytes()).into(),
            rights: vec![TokenRight::Read],
            agents: Vec::new(),
        };
        let tokens = [known("one"), known("two")];
        let two = find(&tokens, "two").expect("known");
        assert_eq!(two.hash, tokens[1].hash);
        assert!(two.allows(TokenRight::Read) && !two.allows(TokenRight::Save));
        assert!(find(&tokens, "three").is_none());
        assert!(find(&tokens, &hex::encode(two.hash)).is_none());
    }
}
