//! Checks of the guarantees of each call.

use bytes::Bytes;

use super::place::{Place, Verdict, ensure, ensure_kind, noise, on};
use crate::storage::{ErrorKind, Key, ReadRange, Storage};

/// The whole object at `key`.
pub(super) async fn whole(storage: &dyn Storage, key: &Key) -> Result<Bytes, String> {
    let part = storage
        .read(key, ReadRange::Suffix(u64::MAX))
        .await
        .map_err(on("read"))?;
    let whole = part.start == 0 && part.size == part.bytes.len() as u64;
    ensure(whole, || {
        format!(
            "the whole object is {} bytes from {}, size {}",
            part.bytes.len(),
            part.start,
            part.size
        )
    })?;
    Ok(part.bytes)
}

pub(super) async fn what_is_created_is_read_back(place: &Place<'_>) -> Verdict {
    let storage = place.storage();
    for (n, pieces) in [
        vec![],
        vec![Bytes::new()],
        vec![noise(1, 1)],
        vec![noise(2, 300_000), Bytes::new(), noise(3, 17)],
        vec![noise(4, 5 << 20), noise(5, 5 << 20)],
    ]
    .into_iter()
    .enumerate()
    {
        let key = place.key(&format!("object-{n}"));
        storage
            .create(&key, pieces.clone())
            .await
            .map_err(on("create"))?;
        let read = whole(&*place.storage(), &key).await?;
        ensure(read == pieces.concat(), || {
            format!("object {n} came back as {} other bytes", read.len())
        })?;
    }
    Ok(())
}

pub(super) async fn what_is_there_is_not_created_again(place: &Place<'_>) -> Verdict {
    let storage = place.storage();
    let key = place.key("object");
    storage
        .create(&key, vec![noise(1, 1000)])
        .await
        .map_err(on("create"))?;
    for storage in [storage, place.storage()] {
        let again = storage.create(&key, vec![noise(2, 2000)]).await;
        ensure_kind(again, ErrorKind::AlreadyExists, "create again")?;
        let read = whole(&*storage, &key).await?;
        ensure(read == noise(1, 1000), || {
            "the second create changed the object".into()
        })?;
    }
    Ok(())
}

pub(super) async fn what_is_not_there_is_not_found(place: &Place<'_>) -> Verdict {
    let storage = place.storage();
    for range in [ReadRange::Suffix(10), ReadRange::Bounded(0..10)] {
        let read = storage.read(&place.key("nothing"), range).await;
        ensure_kind(read, ErrorKind::NotFound, "read where nothing is")?;
    }
    storage
        .create(&place.key("dir/object"), vec![noise(1, 1)])
        .await
        .map_err(on("create"))?;
    let below = storage
        .read(&place.key("dir/object-2"), ReadRange::Suffix(1))
        .await;
    ensure_kind(below, ErrorKind::NotFound, "read beside an object")
}

pub(super) async fn a_range_is_what_was_asked_for(place: &Place<'_>) -> Verdict {
    let storage = place.storage();
    let key = place.key("object");
    let object = noise(1, 100_000);
    storage
        .create(&key, vec![object.clone()])
        .await
        .map_err(on("create"))?;
    let size = object.len() as u64;
    for range in [
        ReadRange::Suffix(1),
        ReadRange::Suffix(size),
        ReadRange::Suffix(size + 1),
        ReadRange::Bounded(0..1),
        ReadRange::Bounded(1..size),
        ReadRange::Bounded(size - 1..size + 10),
        ReadRange::Bounded(70_000..70_001),
    ] {
        let part = storage
            .read(&key, range.clone())
            .await
            .map_err(on("read"))?;
        let expected = range.of(size);
        let right = part.size == size
            && part.start == expected.start
            && part.bytes == object[expected.start as usize..expected.end as usize];
        ensure(right, || {
            format!(
                "{range:?}: {} bytes from {} of {}",
                part.bytes.len(),
                part.start,
                part.size
            )
        })?;
    }
    Ok(())
}

pub(super) async fn an_upload_is_visible_when_finished(place: &Place<'_>) -> Verdict {
    let storage = place.storage();
    let key = place.key("object");
    let mut upload = storage.upload(&key).await.map_err(on("upload"))?;
    for n in 0..3 {
        upload.write(noise(n, 9 << 20)).await.map_err(on("write"))?;
        let early = storage.read(&key, ReadRange::Suffix(1)).await;
        ensure_kind(early, ErrorKind::NotFound, "read before finish")?;
    }
    upload.finish().await.map_err(on("finish"))?;
    let expected: Vec<u8> = (0..3).flat_map(|n| noise(n, 9 << 20)).collect();
    let read = whole(&*place.storage(), &key).await?;
    ensure(read == expected, || {
        format!("the upload came back as {} other bytes", read.len())
    })?;

    let key = place.key("dropped");
    let mut upload = storage.upload(&key).await.map_err(on("upload"))?;
    upload.write(noise(1, 9 << 20)).await.map_err(on("write"))?;
    drop(upload);
    let dropped = storage.read(&key, ReadRange::Suffix(1)).await;
    ensure_kind(
        dropped,
        ErrorKind::NotFound,
        "read after an upload was dropped",
    )?;
    storage
        .create(&key, vec![noise(1, 1)])
        .await
        .map_err(on("create where an upload was dropped"))
}

pub(super) async fn an_upload_does_not_overwrite(place: &Place<'_>) -> Verdict {
    let storage = place.storage();
    let key = place.key("object");
    let mut upload = storage.upload(&key).await.map_err(on("upload"))?;
    upload.write(noise(2, 100)).await.map_err(on("write"))?;
    storage
        .create(&key, vec![noise(1, 1000)])
        .await
        .map_err(on("create"))?;
    ensure_kind(
        upload.finish().await,
        ErrorKind::AlreadyExists,
        "finish after a create",
    )?;
    let read = whole(&*storage, &key).await?;
    ensure(read == noise(1, 1000), || {
        "the upload changed the object".into()
    })
}

pub(super) async fn what_is_replaced_is_new(place: &Place<'_>) -> Verdict {
    let storage = place.storage();
    let key = place.key("object");
    for n in 0..3 {
        let mut replace = storage.replace(&key).await.map_err(on("replace"))?;
        replace.write(noise(n, 1000)).await.map_err(on("write"))?;
        let before = storage.read(&key, ReadRange::Suffix(1)).await;
        ensure(before.is_ok() == (n > 0), || {
            "an unfinished replacement is seen".into()
        })?;
        replace.finish().await.map_err(on("finish"))?;
        let read = whole(&*place.storage(), &key).await?;
        ensure(read == noise(n, 1000), || {
            format!("replacement {n} is not what is read")
        })?;
    }
    let mut dropped = storage.replace(&key).await.map_err(on("replace"))?;
    dropped.write(noise(9, 1000)).await.map_err(on("write"))?;
    drop(dropped);
    let read = whole(&*storage, &key).await?;
    ensure(read == noise(2, 1000), || {
        "a replacement that was dropped changed the object".into()
    })
}

pub(super) async fn what_is_deleted_is_gone(place: &Place<'_>) -> Verdict {
    let storage = place.storage();
    let key = place.key("object");
    storage
        .delete(&key)
        .await
        .map_err(on("delete where nothing is"))?;
    storage
        .create(&key, vec![noise(1, 10)])
        .await
        .map_err(on("create"))?;
    storage.delete(&key).await.map_err(on("delete"))?;
    let read = place.storage().read(&key, ReadRange::Suffix(1)).await;
    ensure_kind(read, ErrorKind::NotFound, "read after delete")?;
    storage.delete(&key).await.map_err(on("delete again"))?;
    storage
        .create(&key, vec![noise(2, 10)])
        .await
        .map_err(on("create after delete"))?;
    let read = whole(&*storage, &key).await?;
    ensure(read == noise(2, 10), || "what was deleted came back".into())
}

pub(super) async fn odd_keys_stay_apart(place: &Place<'_>) -> Verdict {
    let storage = place.storage();
    let long = "l".repeat(200);
    let names = [
        "~", "~2e.", "~2f", "-", "--", "_", "a.", "a..b", "a", "a-", "a.gz", "0", "~41", "con",
        "nul.gz", &long,
    ];
    for (n, name) in (0..).zip(names) {
        let key = place.key(&format!("{name}/object"));
        storage
            .create(&key, vec![noise(n, 100)])
            .await
            .map_err(on(name))?;
    }
    for (n, name) in (0..).zip(names) {
        let read = whole(&*storage, &place.key(&format!("{name}/object"))).await?;
        ensure(read == noise(n, 100), || format!("{name} met another key"))?;
    }
    Ok(())
}
