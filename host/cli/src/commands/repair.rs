//! Repairs that an operator asks for.

use anyhow::Result;
use clap::Args;
use persist_host::snapshot::{Error, Expect, Name, Scope, Selection, Store, Version};

use super::{nothing, nowhere, printed};
use crate::address::{self, Address, SelectionArg};
use crate::error::Damaged;
use crate::print::{self, Out};

/// Adopt misplaced versions, such as those of a renamed directory
///
/// A version is misplaced if its file names another address; it cannot be loaded. --adopt saves the
/// newest version of each name again, as the next version of the name where the file is now, with
/// the label persist.adopted-from. ADDRESS@N adopts version N. No file is removed or overwritten.
/// To repair without this command, move the files back.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist repair bot2 --adopt
  persist repair bot2/memory@3 --adopt")]
pub(crate) struct Repair {
    /// Agent, session, name or version: agent, agent/session/, agent/name or agent/session/name,
    /// with @N for version N
    #[arg(value_name = "SELECTION")]
    target: Target,
    /// Save misplaced versions as the next version of the name where they are
    #[arg(long, required = true)]
    adopt: bool,
}

/// The names to repair, or one version.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Names(Selection),
    Version(Address, Version),
}

impl std::str::FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if !text.contains('@') {
            return Ok(Self::Names(text.parse::<SelectionArg>()?.0));
        }
        let address: Address = text.parse()?;
        match address.version {
            Some(version) => Ok(Self::Version(address, version)),
            None => anyhow::bail!("no version number after the @"),
        }
    }
}

impl Repair {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        debug_assert!(self.adopt);
        let selection = match self.target {
            Target::Names(selection) => selection,
            Target::Version(address, version) => {
                let scope = address.scope(store)?;
                if scope
                    .versions(address.name.as_str(), None, 1)
                    .await?
                    .is_empty()
                {
                    return Err(nothing(&address).into());
                }
                return adopt(&scope, &address.name, Some(version), out).await;
            }
        };
        let mut names = 0;
        let mut failed = 0;
        let mut heads = store.heads(&selection);
        while let Some(head) = heads.next().await? {
            names += 1;
            match head.info {
                Err(Error::Misplaced { .. }) => adopt(&head.scope, &head.name, None, out).await?,
                Err(error) => {
                    failed += 1;
                    let name = address_of(&head.scope, &head.name);
                    out.damaged(&name, &error)?;
                }
                Ok(_) => {}
            }
        }
        if names == 0 {
            return Err(nowhere(store, &selection).await);
        }
        Damaged::none_of(failed)
    }
}

async fn adopt(scope: &Scope, name: &Name, at: Option<Version>, out: Out) -> Result<()> {
    let (info, saved_as) = scope.adopt(name.as_str(), at, Expect::Any).await?;
    let address = format!("{}@{}", address_of(scope, name), info.version);
    let mut value = print::event("adopted", &address, &info);
    value["saved_as"] = saved_as.clone().into();
    let line = || format!("adopted {address}, which was saved as {saved_as}");
    printed(out.print(&value, line), &format!("{address} is adopted"))
}

fn address_of(scope: &Scope, name: &Name) -> String {
    address::address(scope.agent(), scope.session(), name)
}
