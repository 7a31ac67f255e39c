use std::io;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::*;
use crate::snapshot::{Expect, SaveOptions, Store, StoreOptions};
use crate::storage::{Key, Memory, ReadRange, Storage};

/// Keeps all measurements.
#[derive(Debug, Default)]
struct Kept(Mutex<Vec<Measurement>>);

impl Recorder for Kept {
    fn record(&self, measurement: &Measurement) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(*measurement);
    }
}

impl Kept {
    /// Returns the measurements since the last call.
    fn take(&self) -> Vec<Measurement> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns operation, outcome and bytes of the measurements of a layer since the last call.
    fn of(&self, layer: Layer) -> Vec<(&'static str, &'static str, u64)> {
        let all = self.take();
        let of_layer = all.iter().filter(|one| one.layer == layer);
        of_layer
            .map(|one| (one.operation, one.outcome, one.bytes))
            .collect()
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.expect("a runtime").block_on(future)
}

fn store(recorder: &Arc<Kept>) -> (Arc<dyn Storage>, Store) {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new());
    let options = StoreOptions::default();
    (
        storage.clone(),
        Store::with_recorder(storage, options, recorder.clone()),
    )
}

#[test]
fn a_commit_is_measured_with_its_outcome_and_bytes() {
    let kept = Arc::new(Kept::default());
    let (_, store) = store(&kept);
    block_on(async {
        let scope = store.scope("bot", None).expect("a scope");
        let options = SaveOptions::default;
        let info = scope
            .save("notes", "rain".into(), options())
            .await
            .expect("saved");
        let commits = kept.take();
        let commits: Vec<_> = commits
            .iter()
            .filter(|one| one.layer == Layer::Commit)
            .collect();
        let commit = commits.last().expect("a commit");
        assert_eq!((commit.operation, commit.outcome), ("save", "ok"));
        assert_eq!((commit.backend, commit.bytes), ("memory", info.stored_size));
        assert!(commit.duration > Duration::ZERO);

        let mut late = options();
        late.expect = Expect::NeverSaved;
        let lost = scope.save("other", "fog".into(), options()).await;
        lost.expect("saved");
        kept.take();
        scope
            .save("other", "fog".into(), late)
            .await
            .expect_err("a conflict");
        scope.delete("notes", Expect::Any).await.expect("deleted");
        let stored = scope
            .stat("notes", None)
            .await
            .expect("read")
            .expect("a tombstone");
        assert_eq!(
            kept.of(Layer::Commit),
            [("delete", "ok", stored.stored_size)]
        );
    });
}

#[test]
fn a_storage_call_is_measured_with_its_outcome_and_bytes() {
    let kept = Arc::new(Kept::default());
    let (_, store) = store(&kept);
    let storage = Arc::clone(&store.inner.shared.storage);
    let key = Key::new("bot/~/x/1").expect("a key");
    block_on(async {
        let body = || vec![Bytes::from("ab"), Bytes::from("c")];
        storage.create(&key, body()).await.expect("created");
        storage.create(&key, body()).await.expect_err("it exists");
        let range = || ReadRange::Suffix(10);
        storage.read(&key, range()).await.expect("read");
        storage.delete(&key).await.expect("deleted");
        storage.read(&key, range()).await.expect_err("it is gone");
        let expected = [
            ("create", "ok", 3),
            ("create", "already_exists", 0),
            ("read", "ok", 3),
            ("delete", "ok", 0),
            ("read", "not_found", 0),
        ];
        assert_eq!(kept.of(Layer::Storage), expected);
    });
}

#[test]
fn an_upload_is_one_operation_and_is_cancelled_by_a_drop() {
    let kept = Arc::new(Kept::default());
    let (_, store) = store(&kept);
    let storage = Arc::clone(&store.inner.shared.storage);
    let key = Key::new("bot/~/x/1").expect("a key");
    block_on(async {
        for is_finished in [false, true, true] {
            let mut upload = storage.upload(&key).await.expect("begun");
            upload.write("ab".into()).await.expect("written");
            upload.write("c".into()).await.expect("written");
            if is_finished {
                let _ = upload.finish().await;
            }
        }
        let expected = [
            ("upload", "cancelled", 3),
            ("upload", "ok", 3),
            ("upload", "already_exists", 3),
        ];
        assert_eq!(kept.of(Layer::Storage), expected);
    });
}

#[test]
fn a_call_that_is_dropped_is_cancelled() {
    let kept = Arc::new(Kept::default());
    let telemetry = Telemetry::new("memory", Some(kept.clone()));
    let pending = telemetry.begin(Layer::Storage, "read", Span::none());
    let never = std::future::pending::<crate::storage::Result<()>>();
    block_on(async {
        let call = pending.last(never, |()| 7);
        let short = Duration::from_millis(1);
        tokio::time::timeout(short, call)
            .await
            .expect_err("it does not end");
    });
    let [measured] = kept.take()[..] else {
        panic!("one measurement");
    };
    assert_eq!((measured.outcome, measured.bytes), ("cancelled", 0));
    assert!(measured.duration >= Duration::from_millis(1));
}

#[cfg(feature = "guest")]
#[test]
fn a_guest_call_is_measured_also_where_it_is_refused() {
    use crate::guest::{Guest, Rights};

    let kept = Arc::new(Kept::default());
    let (_, store) = store(&kept);
    block_on(async {
        let guest = Guest::builder(store.scope("bot", None).expect("a scope"));
        let guest = guest.rights(Rights::all().under("notes/")).build();
        let options = SaveOptions::default;
        guest
            .save("notes/a", "rain".into(), options())
            .await
            .expect("saved");
        guest
            .save("secrets", "x".into(), options())
            .await
            .expect_err("denied");
        guest.load("notes/a", None).await.expect("loaded");
        let mut writer = guest.writer("notes/b", options()).await.expect("opened");
        writer.write(b"fog").await.expect("written");
        writer.finish().await.expect("saved");
        let reader = guest.reader("notes/b", None).await.expect("opened");
        reader.expect("a state").read(0, 10).await.expect("read");
        let expected = [
            ("save", "ok", 4),
            ("save", "denied", 0),
            ("load", "ok", 4),
            ("open_writer", "ok", 0),
            ("write", "ok", 3),
            ("finish", "ok", 0),
            ("open_reader", "ok", 0),
            ("read", "ok", 3),
        ];
        assert_eq!(kept.of(Layer::Guest), expected);
    });
}

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the spans that `work` closes, at the level info.
pub(crate) fn closed_spans(work: impl Future) -> String {
    use tracing_subscriber::fmt::format::FmtSpan;

    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || block_on(work));
    let log = log.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    String::from_utf8(log).expect("UTF-8")
}

#[cfg(feature = "guest")]
#[test]
fn spans_are_nested_and_hash_names() {
    use crate::guest::Guest;

    let log = closed_spans(async {
        let store = Store::new(Arc::new(Memory::new()));
        let guest = Guest::new(store.scope("agent-7", Some("session-7")).expect("a scope"));
        let options = SaveOptions::default();
        guest
            .save("secret-plan", "rain".into(), options)
            .await
            .expect("saved");
    });
    let hash = hashed("agent-7/session-7/secret-plan");
    let create = log.lines().find(|line| {
        let at = |part: &str| line.find(part);
        let call = at(&format!(
            "guest_call{{backend=\"memory\" operation=\"save\" object={hash}"
        ));
        let commit = at(&format!(
            "commit{{backend=\"memory\" operation=\"save\" object={hash}"
        ));
        let storage = at("storage_call{backend=\"memory\" operation=\"create\"");
        call.is_some() && call < commit && commit < storage && line.contains("outcome=\"ok\"")
    });
    assert!(create.is_some(), "{log}");
    for name in ["agent-7", "session-7", "secret-plan"] {
        assert!(!log.contains(name), "{log}");
    }
}

#[cfg(feature = "metrics")]
#[test]
fn the_bridge_passes_durations_and_bytes() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        MetricsRecorder::new().record(&Measurement {
            layer: Layer::Storage,
            backend: "s3",
            operation: "create",
            outcome: "ok",
            duration: Duration::from_millis(250),
            bytes: 4096,
        });
    });
    let mut found = Vec::new();
    for (key, unit, _, value) in snapshotter.snapshot().into_vec() {
        let (_, key) = key.into_parts();
        let labels = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()));
        let labels: Vec<_> = labels.collect();
        if labels.is_empty() {
            continue;
        }
        assert_eq!(labels, ["backend=s3", "operation=create", "outcome=ok"]);
        found.push((key.name().to_owned(), unit, value));
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    let [(duration, seconds, took), (io, bytes, count)] = &found[..] else {
        panic!("two metrics: {found:?}");
    };
    assert_eq!(
        (duration.as_str(), io.as_str()),
        ("db.client.operation.duration", "persist.storage.io")
    );
    assert_eq!(
        (*seconds, *bytes),
        (Some(metrics::Unit::Seconds), Some(metrics::Unit::Bytes))
    );
    assert_eq!(*took, DebugValue::Histogram(vec![0.25.into()]));
    assert_eq!(*count, DebugValue::Counter(4096));
}
