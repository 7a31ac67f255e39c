//! Runs of the smallest agent a second, beside bare wasmtime and a native save.
use persist_host::snapshot::{SaveOptions, Store};
use persist_host::storage::Memory;
use persist_host::wasm::{AgentHost, Limits, SnapshotCtx};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine};

const BARE: &str = r#"(component
  (core module $m (memory (export "memory") 2) (func (export "run") (result i32) i32.const 7))
  (core instance $i (instantiate $m))
  (func (export "run") (result u32) (canon lift (core func $i "run"))))"#;

fn per_second<F, Fut>(tasks: usize, seconds: f64, make: F) -> f64
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    // make(task) performs one unit repeatedly until STOP.
    let rt = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    rt.block_on(async {
        COUNT.store(0, Relaxed);
        STOP.store(0, Relaxed);
        let all: Vec<_> = (0..tasks).map(|t| tokio::spawn(make(t))).collect();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (from, start) = (COUNT.load(Relaxed), Instant::now());
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        let n = COUNT.load(Relaxed) - from;
        let took = start.elapsed().as_secs_f64();
        STOP.store(1, Relaxed);
        for a in all {
            a.await.unwrap();
        }
        n as f64 / took
    })
}
static COUNT: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicU64 = AtomicU64::new(0);

fn bare(pool: bool) -> (Engine, wasmtime::component::InstancePre<()>) {
    let mut config = Config::new();
    config.concurrency_support(false);
    if pool {
        config.allocation_strategy(wasmtime::InstanceAllocationStrategy::pooling());
    }
    let engine = Engine::new(&config).unwrap();
    let pre = Linker::new(&engine)
        .instantiate_pre(&Component::new(&engine, wat::parse_str(BARE).unwrap()).unwrap())
        .unwrap();
    (engine, pre)
}

fn main() {
    let seconds: f64 = std::env::args().nth(1).map_or(1.5, |a| a.parse().unwrap());
    let only = std::env::args().nth(2).unwrap_or_default();
    let wasm = wat::parse_str(include_str!("../testdata/save.wat")).unwrap();
    let mut limits = Limits::default();
    limits.saves_per_minute = 1 << 40;
    limits.reads_per_minute = 1 << 40;
    limits.names_at_rest = 1 << 40;
    limits.bytes_at_rest = 1 << 50;
    limits.versions_at_rest = 1 << 50;
    let host = AgentHost::builder()
        .limits(limits.clone())
        .cache(None)
        .build()
        .unwrap();
    let rt = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let agent = rt.block_on(host.load(&wasm)).unwrap();
    let empty = rt.block_on(host.load(&wat::parse_str(r#"(component
  (core module $libc (memory (export "memory") 2)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
    (func (export "run") (param i32 i32) (result i32) (i32.store (i32.const 520) (i32.const 1)) (i32.const 512)))
  (core instance $i (instantiate $libc))
  (func (export "run") (param "args" (list string)) (result (result string (error string)))
    (canon lift (core func $i "run") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))"#).unwrap())).unwrap();
    for tasks in [1, 2, 8] {
        print!("{tasks} tasks:");
        if only.is_empty() {
            for pool in [false, true] {
                let (engine, pre) = bare(pool);
                let n = per_second(tasks, seconds, |_| {
                    let (engine, pre) = (engine.clone(), pre.clone());
                    async move {
                        while STOP.load(Relaxed) == 0 {
                            let mut store = wasmtime::Store::new(&engine, ());
                            let i = pre.instantiate_async(&mut store).await.unwrap();
                            let f = i.get_typed_func::<(), (u32,)>(&mut store, "run").unwrap();
                            f.call_async(&mut store, ()).await.unwrap();
                            COUNT.fetch_add(1, Relaxed);
                            if COUNT.load(Relaxed) % 64 == 0 {
                                tokio::task::yield_now().await;
                            }
                        }
                    }
                });
                print!(" bare({}) {n:.0}", if pool { "pool" } else { "demand" });
            }
            let n = per_second(tasks, seconds, |task| async move {
                let mut i = 0;
                while STOP.load(Relaxed) == 0 {
                    let store = Store::new(Arc::new(Memory::new()));
                    let scope = store.scope(&format!("a{task}"), None).unwrap();
                    for _ in 0..100 {
                        scope
                            .save("memory", "hello".into(), SaveOptions::default())
                            .await
                            .unwrap();
                        COUNT.fetch_add(1, Relaxed);
                        i += 1;
                        if i % 64 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                }
            });
            print!(" native-save {n:.0}");
            let n = per_second(tasks, seconds, |task| {
                let agent = empty.clone();
                let store = Store::new(Arc::new(Memory::new()));
                let guest = SnapshotCtx::builder(store.scope(&format!("a{task}"), None).unwrap())
                    .limits(limits.clone())
                    .build();
                async move {
                    while STOP.load(Relaxed) == 0 {
                        agent.run(guest.clone(), &[]).await.answer.unwrap();
                        COUNT.fetch_add(1, Relaxed);
                        if COUNT.load(Relaxed) % 64 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                }
            });
            print!(" empty-run {n:.0}");
        }
        let n = per_second(tasks, seconds, |task| {
            let agent = agent.clone();
            let limits = limits.clone();
            async move {
                while STOP.load(Relaxed) == 0 {
                    let store = Store::new(Arc::new(Memory::new()));
                    let guest =
                        SnapshotCtx::builder(store.scope(&format!("a{task}"), None).unwrap())
                            .limits(limits.clone())
                            .build();
                    for i in 0..100 {
                        agent.run(guest.clone(), &[]).await.answer.unwrap();
                        COUNT.fetch_add(1, Relaxed);
                        if i % 64 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                }
            }
        });
        println!(" agent {n:.0}");
    }
}
