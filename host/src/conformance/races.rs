//! One winner for each key.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::calls::whole;
use super::place::{Place, Verdict, ensure, noise, on};
use crate::snapshot::{SaveOptions, Store};
use crate::storage::{ErrorKind, Key, Storage};

type Result<T, E = crate::storage::Error> = std::result::Result<T, E>;

/// Contenders for one key. Enough that a check and a write that are not one step come apart.
const CONTENDERS: u64 = 16;
const ROUNDS: usize = 10;

/// Returns the barrier where contenders wait for each other: one that starts late finds the race
/// over.
fn start() -> Arc<Barrier> {
    Arc::new(Barrier::new(CONTENDERS as usize))
}

/// Number and answer of a contender.
type Outcome = Result<(u64, Result<()>), String>;

/// Returns the answer of a contender. One that won must find its own object: a server that looks
/// first and writes then may overwrite it.
async fn stays(storage: &dyn Storage, key: &Key, contender: u64, made: Result<()>) -> Outcome {
    if made.is_ok() {
        let read = whole(storage, key).await?;
        ensure(read == noise(contender, 10_000), || {
            "what was acknowledged was overwritten".into()
        })?;
    }
    Ok((contender, made))
}

/// Judges a race: one contender won, the others were told so, and the object is the winner's.
async fn judge(place: &Place<'_>, key: &str, mut race: JoinSet<Outcome>) -> Verdict {
    let mut winners = Vec::new();
    while let Some(ended) = race.join_next().await {
        match ended.map_err(on("a contender"))?? {
            (contender, Ok(())) => winners.push(contender),
            (_, Err(error)) if error.kind() == ErrorKind::AlreadyExists => {}
            (_, Err(error)) => return Err(format!("a loser was told {:?}: {error}", error.kind())),
        }
    }
    ensure(winners.len() == 1, || {
        format!("{} of {CONTENDERS} were told that they won", winners.len())
    })?;
    let read = whole(&*place.storage(), &place.key(key)).await?;
    ensure(read == noise(winners[0], 10_000), || {
        "the object is not the winner's".into()
    })
}

pub(super) async fn one_of_many_creates_wins(place: &Place<'_>) -> Verdict {
    for round in 0..ROUNDS {
        let name = format!("object-{round}");
        let mut race = JoinSet::new();
        let start = start();
        for contender in 0..CONTENDERS {
            let storage = place.storage();
            let key = place.key(&name);
            let start = Arc::clone(&start);
            let body = vec![noise(contender, 10_000)];
            race.spawn(async move {
                start.wait().await;
                let made = storage.create(&key, body).await;
                stays(&*storage, &key, contender, made).await
            });
        }
        judge(place, &name, race).await?;
    }
    Ok(())
}

pub(super) async fn one_of_many_uploads_wins(place: &Place<'_>) -> Verdict {
    for round in 0..ROUNDS {
        let name = format!("object-{round}");
        let mut uploads = Vec::new();
        for contender in 0..CONTENDERS {
            let storage = place.storage();
            let key = place.key(&name);
            let mut upload = storage.upload(&key).await.map_err(on("upload"))?;
            upload
                .write(noise(contender, 10_000))
                .await
                .map_err(on("write"))?;
            uploads.push((contender, storage, key, upload));
        }
        let mut race = JoinSet::new();
        let start = start();
        for (contender, storage, key, upload) in uploads {
            let start = Arc::clone(&start);
            race.spawn(async move {
                start.wait().await;
                let made = upload.finish().await;
                stays(&*storage, &key, contender, made).await
            });
        }
        judge(place, &name, race).await?;
    }
    Ok(())
}

pub(super) async fn racing_saves_are_all_there(place: &Place<'_>) -> Verdict {
    const SAVES: u64 = 3;
    let mut race = JoinSet::new();
    for writer in 0..CONTENDERS / 2 {
        let scope = Store::new(place.storage())
            .scope(&place.dir, None)
            .map_err(on("scope"))?;
        race.spawn(async move {
            let mut acknowledged = Vec::new();
            for n in 0..SAVES {
                let state = noise(writer * SAVES + n, 100);
                let saved = scope
                    .save("memory", state.clone(), SaveOptions::default())
                    .await;
                acknowledged.push((saved.map_err(on("save"))?.version, state));
            }
            Ok::<_, String>(acknowledged)
        });
    }
    let mut acknowledged = Vec::new();
    while let Some(ended) = race.join_next().await {
        acknowledged.extend(ended.map_err(on("a writer"))??);
    }
    let scope = Store::new(place.storage())
        .scope(&place.dir, None)
        .map_err(on("scope"))?;
    let versions: BTreeSet<_> = acknowledged.iter().map(|(version, _)| *version).collect();
    let all = (1..=CONTENDERS / 2 * SAVES).collect();
    ensure(versions == all, || {
        format!("versions were acknowledged as {versions:?}")
    })?;
    for (version, state) in acknowledged {
        let snapshot = scope
            .load("memory", Some(version))
            .await
            .map_err(on("load"))?;
        let same = snapshot.is_some_and(|snapshot| snapshot.state == state);
        ensure(same, || {
            format!("version {version} is not what was acknowledged")
        })?;
    }
    Ok(())
}
