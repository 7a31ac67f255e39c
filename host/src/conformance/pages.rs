//! Checks of the guarantees of a list.

use std::sync::Arc;
use std::time::Duration;

use super::place::{Place, Verdict, ensure, noise, on};
use crate::storage::{Entry, List, Object, RecursiveList, Storage};

async fn create(place: &Place<'_>, names: &[&str]) -> Result<Arc<dyn Storage>, String> {
    let storage = place.storage();
    for name in names {
        storage
            .create(&place.key(name), vec![noise(1, 10)])
            .await
            .map_err(on("create"))?;
    }
    Ok(storage)
}

/// All entries, in pages of `limit`.
async fn all(
    storage: &dyn Storage,
    dir: &str,
    prefix: &str,
    limit: usize,
) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let list = List {
            dir,
            prefix,
            after: entries.last().cloned(),
            limit,
            meta: false,
        };
        let page = storage.list(&list).await.map_err(on("list"))?;
        ensure(page.entries.len() <= limit, || {
            format!(
                "a page of at most {limit} has {} entries",
                page.entries.len()
            )
        })?;
        ensure(!(page.entries.is_empty() && page.more), || {
            "an empty page says that more follows".into()
        })?;
        entries.extend(page.entries);
        if !page.more {
            return Ok(entries);
        }
        ensure(entries.len() < 10_000, || "the pages do not end".into())?;
    }
}

fn objects(names: &[&str]) -> Vec<Entry> {
    names.iter().map(|name| Entry::object(*name)).collect()
}

pub(super) async fn a_list_is_in_order(place: &Place<'_>) -> Verdict {
    let sorted = [
        "-", "0", "0.", "00", "1-", "10", "9", "_", "a", "a-", "a.b", "aa", "b", "~7e",
    ];
    let mut shuffled = sorted;
    shuffled.reverse();
    shuffled.swap(2, 9);
    let storage = create(place, &shuffled).await?;
    for limit in [1, 2, 5, sorted.len(), 1000] {
        let entries = all(&*storage, &place.dir, "", limit).await?;
        ensure(entries == objects(&sorted), || {
            format!("in pages of {limit}: {entries:?}")
        })?;
    }
    let empty = all(&*storage, &format!("{}/nowhere", place.dir), "", 10).await?;
    ensure(empty.is_empty(), || {
        format!("a directory that is not there lists {empty:?}")
    })
}

pub(super) async fn a_list_shows_directories(place: &Place<'_>) -> Verdict {
    let keys = ["a/x/1", "a/x/2", "a/y", "a.b/z", "a-", "b", "c/1"];
    let storage = create(place, &keys).await?;
    let expected = [
        Entry::object("a-"),
        Entry::Dir("a.b".into()),
        Entry::Dir("a".into()),
        Entry::object("b"),
        Entry::Dir("c".into()),
    ];
    for limit in [1, 2, 100] {
        let entries = all(&*storage, &place.dir, "", limit).await?;
        ensure(entries == expected, || {
            format!("in pages of {limit}: {entries:?}")
        })?;
    }
    storage
        .delete(&place.key("c/1"))
        .await
        .map_err(on("delete"))?;
    // A server may show the directory for a while.
    let mut entries = all(&*storage, &place.dir, "", 1).await?;
    entries.retain(|entry| *entry != Entry::Dir("c".into()));
    ensure(entries == expected[..4], || {
        format!("after the last object of another one was deleted: {entries:?}")
    })
}

pub(super) async fn a_list_keeps_to_its_prefix(place: &Place<'_>) -> Verdict {
    let storage = create(place, &["a", "ab", "abc/1", "abd", "ac", "b"]).await?;
    let expected = [
        Entry::object("ab"),
        Entry::Dir("abc".into()),
        Entry::object("abd"),
    ];
    for limit in [1, 100] {
        let entries = all(&*storage, &place.dir, "ab", limit).await?;
        ensure(entries == expected, || {
            format!("with prefix ab: {entries:?}")
        })?;
    }
    Ok(())
}

pub(super) async fn a_list_shows_a_change_at_once(place: &Place<'_>) -> Verdict {
    let mut names = Vec::new();
    for n in (0..20).rev() {
        let name = format!("{n:02}");
        create(place, &[&name]).await?;
        names.insert(0, name);
        let entries = all(&*place.storage(), &place.dir, "", 7).await?;
        let expected: Vec<_> = names.iter().map(Entry::object).collect();
        ensure(entries == expected, || {
            format!("after creating {n:02}: {entries:?}")
        })?;
    }
    for n in 0..5 {
        let name = names.remove(0);
        place
            .storage()
            .delete(&place.key(&name))
            .await
            .map_err(on("delete"))?;
        let entries = all(&*place.storage(), &place.dir, "", 7).await?;
        ensure(entries.len() == names.len(), || {
            format!("after deleting {n:02}: {entries:?}")
        })?;
    }
    Ok(())
}

pub(super) async fn a_list_tells_sizes_and_times(place: &Place<'_>) -> Verdict {
    /// Servers tell times in whole seconds, and not of the same moment.
    const SLACK: Duration = Duration::from_secs(5);

    let storage = place.storage();
    let list = List {
        dir: &place.dir,
        prefix: "",
        after: None,
        limit: 10,
        meta: true,
    };
    let before = storage.list(&list).await.map_err(on("list"))?.now;
    for (name, size) in [("a", 0), ("b", 5), ("c", 70_000)] {
        let created = storage.create(&place.key(name), vec![noise(1, size)]).await;
        created.map_err(on("create"))?;
    }
    let page = storage.list(&list).await.map_err(on("list"))?;
    let (Some(before), Some(now)) = (before, page.now) else {
        return Err("metadata was asked for, and the page does not say when it was made".into());
    };
    let mut sizes = Vec::new();
    for entry in &page.entries {
        let Entry::Object(Object {
            meta: Some(meta), ..
        }) = entry
        else {
            return Err(format!("metadata was asked for: {entry:?}"));
        };
        sizes.push(meta.size);
        let earliest = before - SLACK;
        let latest = now + SLACK;
        ensure((earliest..=latest).contains(&meta.created), || {
            format!("made between {before:?} and {now:?}: {entry:?}")
        })?;
    }
    ensure(sizes == [0, 5, 70_000], || format!("sizes: {sizes:?}"))
}

pub(super) async fn a_recursive_list_shows_every_object_once(place: &Place<'_>) -> Verdict {
    let keys = [
        "a-", "a.b/z", "a/x/1", "a/x/2", "a/y", "a/z-/1", "a/z/1", "b", "c/1",
    ];
    let storage = create(place, &keys).await?;
    for limit in [1, 2, 4, keys.len(), 1000] {
        let mut found = all_below(&*storage, &place.dir, limit).await?;
        let in_one_place = |dir: &str| {
            let inside = found.iter().map(|name| name.starts_with(dir));
            inside
                .clone()
                .zip(inside.skip(1))
                .filter(|(a, b)| a != b)
                .count()
                <= 2
        };
        ensure(in_one_place("a/x/") && in_one_place("a/z/"), || {
            format!("in pages of {limit}, a directory's objects do not stand together: {found:?}")
        })?;
        found.sort();
        ensure(found == keys, || format!("in pages of {limit}: {found:?}"))?;
    }
    let below = all_below(&*storage, &format!("{}/a/x", place.dir), 10).await?;
    ensure(below == ["1", "2"], || format!("below a/x: {below:?}"))?;
    let nothing = all_below(&*storage, &format!("{}/nowhere", place.dir), 10).await?;
    ensure(nothing.is_empty(), || {
        format!("a directory that is not there lists {nothing:?}")
    })
}

/// Names of all objects below `dir`, in pages of `limit`.
async fn all_below(storage: &dyn Storage, dir: &str, limit: usize) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    let mut token = None;
    loop {
        let list = RecursiveList {
            dir,
            token,
            limit,
            meta: true,
        };
        let page = storage.list_recursive(&list).await;
        let page = page.map_err(on("list recursively"))?;
        ensure(page.objects.len() <= limit, || {
            format!(
                "a page of at most {limit} has {} objects",
                page.objects.len()
            )
        })?;
        ensure(page.now.is_some(), || "a page has no time".into())?;
        for object in page.objects {
            let size = object.meta.map(|meta| meta.size);
            ensure(size == Some(10), || format!("{object:?} has 10 bytes"))?;
            names.push(object.name);
        }
        token = page.next;
        if token.is_none() {
            return Ok(names);
        }
        ensure(names.len() < 10_000, || "the pages do not end".into())?;
    }
}
