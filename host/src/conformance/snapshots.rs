//! That the snapshot layer keeps its word on this storage, whatever happens between the two.

use std::sync::Arc;

use super::place::{Place, Verdict, ensure, noise, on};
use super::{Fault, Faulty};
use crate::snapshot::{Error, Expect, SaveOptions, Scope, Store, Version};
use crate::storage::Storage;

fn scope(place: &Place<'_>, storage: Arc<dyn Storage>) -> Result<Scope, String> {
    Store::new(storage)
        .scope(&place.dir, None)
        .map_err(on("scope"))
}

pub(super) async fn a_lost_reply_is_recognised(place: &Place<'_>) -> Verdict {
    let storage = Arc::new(Faulty::new(place.storage()));
    let scope = scope(place, storage.clone())?;
    let save = async |n| {
        scope
            .save("memory", noise(n, 100), SaveOptions::default())
            .await
    };
    storage.plan(Fault::ReplyLost);
    let first = save(1)
        .await
        .map_err(on("a save whose reply was lost"))?
        .version;
    ensure(first == 1, || {
        format!("a save whose reply was lost became version {first}")
    })?;
    storage.plan(Fault::OwnRetry);
    let second = save(2).await.map_err(on("a save that met itself"))?.version;
    ensure(second == 2, || {
        format!("a save that met itself became version {second}")
    })?;
    storage.plan(Fault::RequestLost);
    let unknown = save(3).await;
    ensure(
        matches!(unknown, Err(Error::UnknownOutcome { version: 3, .. })),
        || format!("a save that may still arrive: {unknown:?}"),
    )
}

/// Answers that a host had received when it died.
#[derive(Default)]
struct Told {
    /// The newest version that was acknowledged, and its state; none for a tombstone.
    newest: Option<(Version, Option<u64>)>,
    finished: bool,
}

/// A day in the life of a host: every change that there is.
async fn live(scope: &Scope, told: &mut Told) -> Result<(), Error> {
    let options = SaveOptions::default;
    for n in 1..=2 {
        let info = scope.save("memory", noise(n, 1000), options()).await?;
        told.newest = Some((info.version, Some(n)));
    }
    let mut writer = scope.writer("memory", options()).await?;
    // Does not compress, so that it is sent in pieces.
    writer.write(&noise(3, 9 << 20)).await?;
    let info = writer.finish().await?;
    told.newest = Some((info.version, Some(3)));
    let info = scope
        .delete("memory", Expect::Version(info.version))
        .await?;
    told.newest = Some((info.version, None));
    let info = scope.restore("memory", 1, Expect::Any).await?;
    told.newest = Some((info.version, Some(1)));
    told.finished = true;
    Ok(())
}

pub(super) async fn a_host_may_die_at_any_call(place: &Place<'_>) -> Verdict {
    for made in [false, true] {
        for call in 0.. {
            // A name of its own for each life.
            let life = Place {
                open: place.open,
                dir: format!("{}-{made}-{call}", place.dir),
            };
            let dying = Arc::new(Faulty::new(life.storage()));
            dying.die_at(call, made);
            let mut told = Told::default();
            let ended = live(&scope(&life, dying)?, &mut told).await;
            let after = scope(&life, life.storage())?;
            let about = |what: String| format!("died at call {call} (made: {made}): {what}");
            check_after_death(&after, &told).await.map_err(about)?;
            if told.finished {
                ensure(ended.is_ok(), || "it finished and failed".into())?;
                break;
            }
        }
    }
    Ok(())
}

/// All that was acknowledged is there; at most the change under way is there too, whole; the next
/// save works.
async fn check_after_death(scope: &Scope, told: &Told) -> Verdict {
    let acknowledged = told.newest.map_or(0, |(version, _)| version);
    let head = scope.stat("memory", None).await.map_err(on("stat"))?;
    let head = head.map_or(0, |info| info.version);
    ensure(head == acknowledged || head == acknowledged + 1, || {
        format!("version {acknowledged} was acknowledged and the newest is {head}")
    })?;
    if let Some((version, Some(state))) = told.newest {
        let snapshot = scope
            .load("memory", Some(version))
            .await
            .map_err(on("load"))?;
        let len = if state == 3 { 9 << 20 } else { 1000 };
        let same = snapshot.is_some_and(|snapshot| snapshot.state == noise(state, len));
        ensure(same, || {
            format!("version {version} is not what was acknowledged")
        })?;
    }
    scope
        .load("memory", None)
        .await
        .map_err(on("load the newest"))?;
    let next = scope
        .save("memory", noise(9, 10), SaveOptions::default())
        .await
        .map_err(on("the next save"))?;
    ensure(next.version == head + 1, || {
        format!("the next save became version {}", next.version)
    })
}
