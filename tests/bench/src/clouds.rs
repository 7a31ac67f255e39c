//! Saves and loads of Persist on an S3 and a GCS server beside object_store and `aws s3 cp`, at
//! several distances to the server.
//!
//! The servers run on this machine. A [relay](crate::relay) adds the round trip of a network.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::buffered::BufWriter;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};
use persist_host::snapshot::{SaveOptions, Version};
use persist_servers::{Kind, Server};
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::Builder;

use crate::cloud_clients::Route;
use crate::inputs::Input;
use crate::measure::{median, millis, ratio, size, time};
use crate::relay::Traffic;
use crate::table::Table;
use crate::{KIB, MIB, Options};

/// Round trips to the server, in milliseconds. 0: without the relay.
const ROUND_TRIPS: [u64; 4] = [0, 1, 10, 50];

const SMALL: usize = 4 * KIB;

/// A state whose first byte is read: many times the end of an object that a reader begins with.
const STREAMED: usize = 16 * MIB;

/// Target duration of a save of 4 KiB, as a multiple of object_store's put.
const SAVE_AIM: f64 = 1.1;

/// Target of a large state: this many times as fast as `aws s3 cp`.
const LARGE_AIM: f64 = 1.2;

/// Bytes of a read from a file or a state.
const PIECE: usize = MIB;

/// Length of the ranges that object_store reads, and how many are read at once.
const RANGE: u64 = 8 << 20;
const RANGES: usize = 8;

/// Returns Markdown.
pub(crate) fn run(options: &Options, place: &Path) -> Result<String> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let place = tempfile::tempdir_in(place)?;
    let mut saves = Vec::new();
    let mut loads = Vec::new();
    let mut first_bytes = Vec::new();
    let mut moved = Vec::new();
    for kind in [Kind::SeaweedFs, Kind::FakeGcs] {
        let server = Server::launch(kind)?;
        for round_trip in ROUND_TRIPS.map(Duration::from_millis) {
            runtime.block_on(async {
                let route = Route::open(&server, kind, round_trip).await?;
                let bench = Bench {
                    route,
                    cloud: name(kind),
                    rounds: rounds(round_trip, options.quick),
                };
                saves.push(bench.saves().await?);
                loads.push(bench.loads().await?);
                // fake-gcs-server does not keep the condition of an upload in parts.
                if kind == Kind::SeaweedFs {
                    first_bytes.push(bench.first_bytes().await?);
                    for input in [Input::Json, Input::Noise] {
                        let large = Large::new(&bench.route, &server, options, place.path());
                        moved.push(large.measure(input).await?);
                    }
                }
                anyhow::Ok(())
            })?;
            eprintln!("measured {} at {round_trip:?}", name(kind));
        }
    }
    let mut text = saves_table(&saves)?;
    text += &loads_table("Loads of 4 KiB", "a load", &loads)?;
    let what = format!("First byte of {}", size(STREAMED));
    text += &loads_table(&what, "the first byte", &first_bytes)?;
    text += &large_tables(options, &moved)?;
    text += &aims(&saves, &moved)?;
    Ok(text)
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::FakeGcs => "GCS",
        _ => "S3",
    }
}

/// An odd number, for the median.
fn rounds(round_trip: Duration, quick: bool) -> usize {
    match (round_trip.as_millis(), quick) {
        (..=1, false) => 101,
        (..=10, false) => 51,
        (_, false) => 21,
        (..=1, true) => 31,
        (_, true) => 11,
    }
}

/// Durations of one contender, and what passed the relay meanwhile.
#[derive(Debug, Default)]
struct Tally {
    times: Vec<Duration>,
    traffic: Option<Traffic>,
}

impl Tally {
    fn median(&mut self) -> Duration {
        median(&mut self.times)
    }

    /// Returns requests of one call, and connections that were opened for all calls.
    fn requests(&self) -> String {
        let Some(traffic) = self.traffic else {
            return "-".into();
        };
        let requests = traffic.requests as f64 / self.times.len() as f64;
        format!("{requests:.2} / {}", traffic.connections)
    }
}

/// Medians of contenders at one distance.
#[derive(Debug)]
struct Line {
    cloud: &'static str,
    round_trip: Duration,
    times: Vec<Duration>,
    requests: Vec<String>,
}

impl Line {
    fn head(&self) -> [String; 2] {
        [self.cloud.into(), self.round_trip.as_millis().to_string()]
    }

    /// How many times as long as another contender the first one takes.
    fn to(&self, other: usize) -> f64 {
        ratio(self.times[0], self.times[other])
    }
}

struct Bench {
    route: Route,
    cloud: &'static str,
    rounds: usize,
}

impl Bench {
    /// Measures one call.
    async fn turn<T>(&self, tally: &mut Tally, call: impl Future<Output = Result<T>>) -> Result<T> {
        let before = self.route.traffic();
        let started = Instant::now();
        let done = call.await?;
        tally.times.push(started.elapsed());
        if let (Some(before), Some(after)) = (before, self.route.traffic()) {
            *tally.traffic.get_or_insert_default() += after - before;
        }
        Ok(done)
    }

    fn line(&self, tallies: &mut [Tally]) -> Line {
        Line {
            cloud: self.cloud,
            round_trip: self.route.round_trip,
            times: tallies.iter_mut().map(Tally::median).collect(),
            requests: tallies.iter().map(Tally::requests).collect(),
        }
    }

    /// Name of a state, and of what object_store puts, at this distance.
    fn name(&self, what: &str) -> String {
        format!("{what}-{}", self.route.round_trip.as_millis())
    }

    /// Saves to a name whose head is known, and creates of objects with the same bytes.
    async fn saves(&self) -> Result<Line> {
        let Route { scope, objects, .. } = &self.route;
        let name = self.name("small");
        let state = Bytes::from(Input::Json.state(SMALL));
        let save = || async {
            let saved = scope.save(&name, state.clone(), SaveOptions::default());
            anyhow::Ok(saved.await?)
        };
        // The first save initializes the store and looks up the head.
        for _ in 0..2 {
            save().await?;
        }
        let stored = self.route.stored(&name).await?;
        let put = |number: usize| {
            let path = ObjectPath::from_iter(["puts", &name, &format!("{number}.gz")]);
            let payload = PutPayload::from(stored.clone());
            async move {
                Ok(objects
                    .put_opts(&path, payload, PutMode::Create.into())
                    .await?)
            }
        };
        put(0).await?;
        let mut tallies = [Tally::default(), Tally::default()];
        for round in 1..=self.rounds {
            for turn in 0..2 {
                match (turn + round) % 2 {
                    0 => drop(self.turn(&mut tallies[0], save()).await?),
                    _ => drop(self.turn(&mut tallies[1], put(round)).await?),
                }
            }
        }
        Ok(self.line(&mut tallies))
    }

    /// Loads of the newest version and of a known one, beside the same with object_store.
    async fn loads(&self) -> Result<Line> {
        let scope = &self.route.scope;
        let name = self.name("small");
        let load = |at: Option<Version>| {
            let name = &name;
            async move {
                let loaded = scope.load(name, at).await?;
                let loaded = loaded.context("nothing was saved")?;
                ensure!(loaded.state.len() == SMALL, "a load returns another state");
                anyhow::Ok(loaded.info.version)
            }
        };
        let newest = load(None).await?;
        let raw = Bytes::from(Input::Json.state(SMALL));
        let place = self.put(raw).await?;
        let get = |path: ObjectPath| async move {
            let got = self.route.objects.get(&path).await?.bytes().await?;
            ensure!(got.len() == SMALL, "object_store gets another state");
            anyhow::Ok(newest)
        };
        let mut tallies: [Tally; 4] = Default::default();
        for round in 0..self.rounds {
            for turn in 0..4 {
                let which = (turn + round) % 4;
                let tally = &mut tallies[which];
                match which {
                    0 => self.turn(tally, load(None)).await?,
                    1 => self.turn(tally, load(Some(newest))).await?,
                    2 => {
                        let newest = async { get(self.listed(&place).await?).await };
                        self.turn(tally, newest).await?
                    }
                    _ => self.turn(tally, get(place.clone().join("1"))).await?,
                };
            }
        }
        Ok(self.line(&mut tallies))
    }

    /// First bytes of a large state, of the newest version and of a known one.
    async fn first_bytes(&self) -> Result<Line> {
        let scope = &self.route.scope;
        let name = self.name("streamed");
        let state = Bytes::from(Input::Json.state(STREAMED));
        let saved = scope.save(&name, state.clone(), SaveOptions::default());
        let newest = saved.await?.version;
        let place = self.put(state).await?;
        let read = |at: Option<Version>| {
            let name = &name;
            async move {
                let reader = scope.reader(name, at).await?;
                let read = reader.context("nothing was saved")?.read(0, PIECE).await?;
                ensure!(!read.is_empty(), "a reader reads nothing");
                anyhow::Ok(())
            }
        };
        let get = |path: ObjectPath| async move {
            let mut got = self.route.objects.get(&path).await?.into_stream();
            let first = got.try_next().await?.context("an empty object")?;
            ensure!(!first.is_empty(), "object_store gets nothing");
            anyhow::Ok(())
        };
        let mut tallies: [Tally; 4] = Default::default();
        // Fewer: what a get does not read ends its connection.
        for round in 0..self.rounds.min(11) {
            for turn in 0..4 {
                let which = (turn + round) % 4;
                let tally = &mut tallies[which];
                match which {
                    0 => self.turn(tally, read(None)).await?,
                    1 => self.turn(tally, read(Some(newest))).await?,
                    2 => {
                        let newest = async { get(self.listed(&place).await?).await };
                        self.turn(tally, newest).await?;
                    }
                    _ => self.turn(tally, get(place.clone().join("1"))).await?,
                }
            }
        }
        Ok(self.line(&mut tallies))
    }

    /// Puts an object `1` into a place of its own, which it returns.
    async fn put(&self, state: Bytes) -> Result<ObjectPath> {
        let place = ObjectPath::from_iter(["newest", &self.name(&state.len().to_string())]);
        self.route
            .objects
            .put(&place.clone().join("1"), state.into())
            .await?;
        Ok(place)
    }

    /// Returns what is listed first in a place.
    async fn listed(&self, place: &ObjectPath) -> Result<ObjectPath> {
        let mut list = self.route.objects.list(Some(place));
        let first = list.try_next().await?;
        Ok(first.context("nothing was put")?.location)
    }
}

/// Programs that move a large state from a file to the server and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mover {
    /// `Writer` and `Reader`, in bounded memory.
    Stream,
    /// `Scope::save` and `Scope::load`, with the whole state in memory.
    Whole,
    /// `BufWriter`, and ranges that are read at once.
    ObjectStore,
    /// `aws s3 cp`.
    Aws,
}

impl Mover {
    const ALL: [Self; 4] = [Self::Stream, Self::Whole, Self::ObjectStore, Self::Aws];
}

/// Large states at one distance.
struct Large<'a> {
    route: &'a Route,
    server: &'a Server,
    aws: Option<&'a Path>,
    place: &'a Path,
    size: usize,
    rounds: usize,
}

/// Medians of all movers; none of `aws` where it is not installed.
#[derive(Debug)]
struct Moved {
    input: Input,
    size: usize,
    round_trip: Duration,
    up: [Option<Duration>; 4],
    down: [Option<Duration>; 4],
}

impl<'a> Large<'a> {
    fn new(route: &'a Route, server: &'a Server, options: &'a Options, place: &'a Path) -> Self {
        Self {
            route,
            server,
            aws: options.aws.as_deref(),
            place,
            size: large_size(route.round_trip, options.quick),
            rounds: if options.quick { 1 } else { 3 },
        }
    }

    async fn measure(&self, input: Input) -> Result<Moved> {
        let file = self.place.join("state");
        let sum = {
            let state = input.state(self.size);
            fs::write(&file, &state)?;
            crc32fast::hash(&state)
        };
        let mut up: [Vec<Duration>; 4] = Default::default();
        let mut down: [Vec<Duration>; 4] = Default::default();
        for round in 0..self.rounds {
            for turn in 0..Mover::ALL.len() {
                let which = (turn + round) % Mover::ALL.len();
                let mover = Mover::ALL[which];
                if mover == Mover::Aws && self.aws.is_none() {
                    continue;
                }
                let name = format!("{mover:?}-{input:?}-{}", self.route.round_trip.as_millis());
                let loaded = self.place.join("loaded");
                let started = Instant::now();
                self.up(mover, &name, &file).await?;
                up[which].push(started.elapsed());
                let started = Instant::now();
                self.down(mover, &name, &loaded).await?;
                down[which].push(started.elapsed());
                let is_same = crc32fast::hash(&fs::read(&loaded)?) == sum;
                ensure!(is_same, "{mover:?} loads other bytes");
                fs::remove_file(&loaded)?;
            }
        }
        let medians = |mut turns: [Vec<Duration>; 4]| {
            turns
                .each_mut()
                .map(|turns| (!turns.is_empty()).then(|| median(turns)))
        };
        Ok(Moved {
            input,
            size: self.size,
            round_trip: self.route.round_trip,
            up: medians(up),
            down: medians(down),
        })
    }

    async fn up(&self, mover: Mover, name: &str, from: &Path) -> Result<()> {
        let Route { scope, objects, .. } = self.route;
        match mover {
            Mover::Stream => {
                let mut writer = scope.writer(name, SaveOptions::default()).await?;
                let mut file = File::open(from)?;
                let mut piece = vec![0; PIECE];
                loop {
                    let len = file.read(&mut piece)?;
                    if len == 0 {
                        break;
                    }
                    writer.write(&piece[..len]).await?;
                }
                writer.finish().await?;
            }
            Mover::Whole => {
                let state = Bytes::from(fs::read(from)?);
                scope.save(name, state, SaveOptions::default()).await?;
            }
            Mover::ObjectStore => {
                let mut writer = BufWriter::new(Arc::clone(objects), name.into());
                let mut file = File::open(from)?;
                loop {
                    let mut piece = vec![0; PIECE];
                    let len = file.read(&mut piece)?;
                    if len == 0 {
                        break;
                    }
                    piece.truncate(len);
                    writer.put(piece.into()).await?;
                }
                writer.shutdown().await?;
            }
            Mover::Aws => self.aws(from, Path::new(&self.url(name)))?,
        }
        Ok(())
    }

    async fn down(&self, mover: Mover, name: &str, to: &Path) -> Result<()> {
        let Route { scope, objects, .. } = self.route;
        match mover {
            Mover::Stream => {
                let reader = scope.reader(name, None).await?;
                let mut reader = reader.context("nothing was saved")?;
                let mut file = File::create(to)?;
                let mut offset = 0;
                loop {
                    let piece = reader.read(offset, PIECE).await?;
                    if piece.is_empty() {
                        break;
                    }
                    file.write_all(&piece)?;
                    offset += piece.len() as u64;
                }
            }
            Mover::Whole => {
                let loaded = scope.load(name, None).await?;
                fs::write(to, loaded.context("nothing was saved")?.state)?;
            }
            Mover::ObjectStore => {
                let path = ObjectPath::from(name);
                let len = objects.head(&path).await?.size;
                let mut pieces = stream::iter(ranges(len))
                    .map(|range| objects.get_range(&path, range))
                    .buffered(RANGES);
                let mut file = File::create(to)?;
                while let Some(piece) = pieces.try_next().await? {
                    file.write_all(&piece)?;
                }
            }
            Mover::Aws => self.aws(Path::new(&self.url(name)), to)?,
        }
        Ok(())
    }

    fn url(&self, name: &str) -> String {
        format!("s3://{}/{name}", self.server.facts().bucket)
    }

    fn aws(&self, from: &Path, to: &Path) -> Result<()> {
        let aws = self.aws.context("no aws")?;
        let mut copy = Command::new(aws);
        copy.args(["s3", "cp", "--only-show-errors"])
            .args([from, to]);
        copy.envs(self.server.environment(&self.route.endpoint));
        // Not the settings and credentials of the user.
        let nothing = self.place.join("no-settings");
        copy.env("AWS_CONFIG_FILE", &nothing)
            .env("AWS_SHARED_CREDENTIALS_FILE", &nothing)
            .env_remove("AWS_PROFILE")
            .env_remove("AWS_SESSION_TOKEN");
        ensure!(copy.status()?.success(), "aws s3 cp failed");
        Ok(())
    }
}

fn large_size(round_trip: Duration, quick: bool) -> usize {
    match (round_trip.is_zero(), quick) {
        (true, false) => 384 * MIB,
        (true, true) | (false, false) => 64 * MIB,
        (false, true) => 16 * MIB,
    }
}

/// Ranges that an object of `len` bytes is read in.
fn ranges(len: u64) -> impl Iterator<Item = Range<u64>> {
    (0..len)
        .step_by(RANGE as usize)
        .map(move |start| start..len.min(start + RANGE))
}

/// Returns how long `aws` takes to start and do nothing.
fn start_of(aws: &Path) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..3 {
        let version = || Ok(Command::new(aws).arg("--version").output()?);
        times.push(time(version)?.0);
    }
    Ok(median(&mut times))
}

fn saves_table(lines: &[Line]) -> Result<String> {
    let mut table = Table::new([
        "server",
        "round trip ms",
        "Persist: save ms",
        "object_store: put ms",
        "to the put",
        "Persist: requests / connections",
        "object_store: requests / connections",
    ]);
    for line in lines {
        let times = line.times.iter().map(|&time| millis(time));
        let ratio = format!("{:.2}x", line.to(1));
        let cells = line.head().into_iter().chain(times).chain([ratio]);
        table.row(cells.chain(line.requests.iter().cloned()));
    }
    let mut text = String::new();
    writeln!(
        text,
        "### Saves of 4 KiB\n\nSaves of one name by one `Scope`, which knows the head; and puts \
         with `PutMode::Create` of the bytes that Persist stored. Requests are of one call, \
         connections are those that were opened for all of them.\n\n{table}"
    )?;
    Ok(text)
}

fn loads_table(title: &str, what: &str, lines: &[Line]) -> Result<String> {
    let mut table = Table::new([
        "server",
        "round trip ms",
        "Persist: newest ms",
        "Persist: known version ms",
        "object_store: list and get ms",
        "object_store: get ms",
        "requests / connections of each",
    ]);
    for line in lines {
        let times = line.times.iter().map(|&time| millis(time));
        let cells = line.head().into_iter().chain(times);
        table.row(cells.chain([line.requests.join(", ")]));
    }
    let mut text = String::new();
    writeln!(
        text,
        "### {title}\n\nTime of {what} of the newest version, which must be looked up, and of one \
         whose number or key is known. Persist verifies what it returns; object_store reads the \
         state as it is.\n\n{table}"
    )?;
    Ok(text)
}

fn large_tables(options: &Options, moved: &[Moved]) -> Result<String> {
    let table = |of: fn(&Moved) -> &[Option<Duration>; 4], names: [&str; 4]| {
        let [stream, whole, objects, aws] = names.map(str::to_owned);
        let head = ["state", "size", "round trip ms"].map(str::to_owned);
        let mut table = Table::new(head.into_iter().chain([
            format!("{stream} ms"),
            format!("{whole} ms"),
            objects,
            aws,
        ]));
        for moved in moved {
            let times = of(moved);
            let time = |time: Option<Duration>| time.map_or_else(|| "-".into(), millis);
            let slower = |other| {
                let ratio = slower(times, other);
                ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}x"))
            };
            table.row([
                moved.input.name().into(),
                size(moved.size),
                moved.round_trip.as_millis().to_string(),
                time(times[0]),
                time(times[1]),
                slower(2),
                slower(3),
            ]);
        }
        table
    };
    let up = table(
        |moved| &moved.up,
        ["`Writer`", "`Scope::save`", "`BufWriter`", "`aws s3 cp`"],
    );
    let down = table(
        |moved| &moved.down,
        ["`Reader`", "`Scope::load`", "ranges at once", "`aws s3 cp`"],
    );
    let aws = match &options.aws {
        Some(aws) => {
            let start = start_of(aws)?;
            format!(
                "`aws` takes {} ms to start, which is part of its time.",
                millis(start)
            )
        }
        None => "`aws` was not installed.".into(),
    };
    let mut text = String::new();
    writeln!(
        text,
        "### Large states to S3\n\nFrom a file to the server. Persist compresses; the others send \
         the state as it is. The last two columns say how many times as long as the faster one of \
         Persist's two calls the others take (more than 1: Persist is faster). {aws}\n\n{up}\n\
         ### Large states from S3\n\nFrom the server to a file.\n\n{down}"
    )?;
    Ok(text)
}

/// How many times as long as the faster one of Persist's calls another takes.
fn slower(times: &[Option<Duration>; 4], other: usize) -> Option<f64> {
    let persist = times[..2].iter().flatten().min()?;
    Some(ratio(times[other]?, *persist))
}

/// Aims, and the cases that miss them.
fn aims(saves: &[Line], moved: &[Moved]) -> Result<String> {
    let saves = saves.iter().map(|line| {
        let case = format!("{} at {} ms", line.cloud, line.round_trip.as_millis());
        (case, line.to(1), line.to(1) <= SAVE_AIM)
    });
    // At a distance, the states are smaller, and the start of `aws` counts for more.
    let near = || moved.iter().filter(|moved| moved.round_trip.is_zero());
    let large = |of: fn(&Moved) -> &[Option<Duration>; 4]| {
        near().filter_map(move |moved| {
            let ratio = slower(of(moved), 3)?;
            Some((moved.input.name().to_owned(), ratio, ratio >= LARGE_AIM))
        })
    };
    let mut text = String::from("### Aims\n\n");
    let mut aim = |what: String, cases: Vec<(String, f64, bool)>| {
        let met = cases.iter().filter(|case| case.2).count();
        write!(text, "- {what}: met in {met} of {} cases", cases.len())?;
        let missed = cases.iter().filter(|case| !case.2);
        let missed: Vec<_> = missed
            .map(|(case, ratio, _)| format!("{case} ({ratio:.2}x)"))
            .collect();
        if missed.is_empty() {
            writeln!(text, ".")
        } else {
            writeln!(text, "; missed: {}.", missed.join(", "))
        }
    };
    let what = format!("a save of 4 KiB takes at most {SAVE_AIM}x object_store's put");
    aim(what, saves.collect())?;
    let what = |way| format!("{LARGE_AIM}x as fast as `aws s3 cp` {way} the server");
    aim(what("to"), large(|moved| &moved.up).collect())?;
    aim(what("from"), large(|moved| &moved.down).collect())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_an_object_once() {
        for len in [1, RANGE - 1, RANGE, RANGE + 1, 3 * RANGE] {
            let mut next = 0;
            for range in ranges(len) {
                assert_eq!(range.start, next);
                next = range.end;
            }
            assert_eq!(next, len);
        }
        assert_eq!(ranges(0).count(), 0);
    }

    #[test]
    fn a_contender_is_compared_with_the_faster_call_of_persist() {
        let times = [40, 20, 30, 60].map(|millis| Some(Duration::from_millis(millis)));
        assert_eq!(slower(&times, 3), Some(3.0));
        assert_eq!(slower(&[times[0], times[1], None, None], 3), None);
    }
}
