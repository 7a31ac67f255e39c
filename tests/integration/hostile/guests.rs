//! The guests, by what is claimed of them.

use std::sync::Arc;

use persist_host::storage::Local;
use persist_host::wasm::{AgentHost, RunError, SnapshotCtx};
use persist_tests::{block_on, scope, tempdir};

use super::End::{Answers, Cpu, Refused, Traps};
use super::What::{Act, Made, Script, Wat, Whole};
use super::{Guest, alone, limits};

macro_rules! guests {
    ($($claim:ident: $kind:ident($what:expr) => $end:expr;)*) => {
        pub(super) const GUESTS: &[Guest] = &[
            $(Guest { claim: stringify!($claim), what: $kind($what), end: $end },)*
        ];

        $(#[test]
        fn $claim() {
            alone(stringify!($claim));
        })*
    };
}

macro_rules! file {
    ($name:literal) => {
        include_str!(concat!("../../hostile/", $name, ".wat"))
    };
}

const EMPTY: &str = "size 0 sum cbf29ce484222325";

guests! {
    // Lists and names that are not what they say. GHSA-852m-cvvp-9p4w (CVE-2026-27204): guest-sized
    // buffers.
    a_list_of_four_gib_is_refused_before_it_is_copied: Wat(file!("four_gib_list")) =>
        Traps("out of bounds");
    a_list_that_ends_behind_its_memory_is_not_read: Wat(file!("list_past_the_end")) =>
        Traps("out of bounds");
    a_name_that_is_no_text_reaches_nobody: Wat(file!("name_of_no_text")) => Traps("utf-8");
    labels_without_end_take_no_memory_of_the_host: Wat(file!("labels_without_end")) =>
        Traps("out of bounds");
    labels_that_share_a_text_are_counted_each: Wat(file!("labels_of_one_text")) =>
        Traps("inline-size");
    a_state_far_over_the_limit_is_no_memory_of_the_host: Act(&["raw-save", "a", "20000000"]) =>
        Traps("inline-size");
    an_answer_of_all_its_memory_is_no_memory_of_the_host: Whole(file!("whole_answer_of_48_mib")) =>
        Traps("inline-size");

    // Handles. GHSA-852m-cvvp-9p4w: unlimited handles.
    a_finished_writer_cannot_be_written_to: Wat(file!("write_after_finish")) => Traps("handle");
    a_writer_cannot_be_finished_twice: Wat(file!("finish_twice")) => Traps("handle");
    a_writer_cannot_be_dropped_twice: Wat(file!("drop_twice")) => Traps("handle");
    a_dropped_writer_cannot_be_finished: Wat(file!("finish_after_drop")) => Traps("handle");
    a_made_up_handle_is_nobodys: Wat(file!("handle_made_up")) => Traps("handle");
    a_reader_is_no_writer: Wat(file!("handle_of_another_kind")) => Traps("handle");
    a_resource_of_the_guests_own_is_no_writer: Wat(file!("handle_of_its_own")) => Traps("handle");
    open_handles_are_limited: Wat(file!("a_million_handles")) => Traps("handle");
    open_timers_are_limited: Whole(file!("whole_alarm_clocks")) => Traps("");
    open_writers_are_limited_per_scope: Wat(file!("writers_never_finished")) => Answers(&["done"]);
    a_hundred_thousand_readers_are_sixteen: Wat(file!("readers_never_closed")) =>
        Answers(&["done"]);
    writers_that_are_dropped_give_their_place_back: Wat(file!("forty_writers_of_a_chunk")) =>
        Answers(&["done"]);
    of_four_writers_of_one_name_one_wins: Wat(file!("finished_while_being_written")) =>
        Answers(&["done"]);

    // Endings in every state.
    a_loop_before_the_first_call_is_stopped: Wat(file!("loop_in_start")) => Cpu;
    a_trap_before_the_first_call_ends_one_run: Wat(file!("trap_in_start")) => Traps("unreachable");
    a_loop_that_holds_a_writer_is_stopped: Wat(file!("loop_with_a_writer")) => Cpu;
    a_loop_that_holds_a_large_writer_is_stopped: Act(&["loop-mid-write", "log", "12"]) => Cpu;
    a_loop_where_the_host_asks_for_room_is_stopped: Whole(file!("whole_loop_in_realloc")) => Cpu;
    room_outside_of_memory_is_not_written_to: Whole(file!("whole_realloc_outside")) =>
        Traps("end of memory");
    a_trap_with_an_open_writer_leaves_nothing: Wat(file!("trap_with_an_open_writer")) =>
        Traps("unreachable");
    a_trap_with_a_written_writer_leaves_nothing: Act(&["trap-mid-write", "log"]) =>
        Traps("unreachable");
    a_trap_with_a_failed_writer_leaves_nothing: Wat(file!("trap_with_a_failed_writer")) =>
        Traps("unreachable");
    a_trap_after_a_finish_keeps_what_was_finished: Wat(file!("trap_after_finish")) =>
        Traps("unreachable");
    a_panic_with_nothing_open_ends_one_run: Act(&["panic"]) => Traps("unreachable");
    a_writer_that_is_leaked_is_aborted: Act(&["leaked", "log"]) => Answers(&["leaked"]);

    // Memory, stack and time.
    a_storm_of_growing_ends_at_the_limit: Wat(file!("grow_storm")) => Answers(&["done"]);
    a_storm_of_copying_is_stopped: Wat(file!("copy_storm")) => Cpu;
    a_table_ends_at_the_limit: Wat(file!("table_storm")) => Answers(&["done"]);
    memory_that_is_wanted_at_once_is_refused: Wat(file!("too_much_memory_at_once")) =>
        Traps("memory");
    seventeen_memories_are_refused: Whole(file!("whole_many_memories")) => Traps("limit");
    an_endless_recursion_is_a_trap: Wat(file!("deep_recursion")) => Traps("stack");
    a_call_from_deep_in_the_stack_works: Wat(file!("recursion_into_the_host")) =>
        Answers(&["done"]);
    an_endless_loop_is_stopped: Act(&["loop"]) => Cpu;

    // What WASI gives. GHSA-852m-cvvp-9p4w: random bytes; a socket is a descriptor of the host.
    random_bytes_per_call_are_limited: Whole(file!("whole_random_flood")) => Traps("");
    not_one_socket_is_opened: Whole(file!("whole_sockets")) => Answers(&["none"]);

    // Asking on and on.
    saving_on_and_on_ends_at_the_limit: Wat(file!("saves_without_end")) => Answers(&["done"]);
    a_flood_of_deletions_makes_nothing: Script(&[
        "flood 1000 delete a#", "flood 1000 restore a# 1", "stat a1",
    ])
        => Answers(&["0 then…", "0 then…", "none"]);

    // Names.
    a_name_that_looks_like_a_path_is_a_name: Script(&[
        "save ../../etc/passwd 1", "save /etc/passwd 2", "save . 3", "save .. 4",
        "save ~/store.json 5", "save a/../b 6",
        "save %5c%5chost%5cshare 7", "save con 8", "save %2e%2e%2f 9", "stat ..", "stat a/../b",
        "stat b",
    ]) => Answers(&[
        "version 1", "version 1", "version 1", "version 1", "version 1", "version 1", "version 1",
        "version 1", "version 1",
        "version 1 saved size 4", "version 1 saved size 6", "none",
    ]);
    names_that_differ_in_case_or_normal_form_differ: Script(&[
        "save memory 1", "save Memory 2", "save MEMORY 3", "save %c3%a9 4", "save e%cc%81 5",
        "save %ef%bb%bfmemory 6",
        "save memory%20 7", "stat memory", "stat Memory", "stat %c3%a9", "stat e%cc%81",
    ]) => Answers(&[
        "version 1", "version 1", "version 1", "version 1", "version 1", "version 1", "version 1",
        "version 1 saved size 1", "version 1 saved size 2", "version 1 saved size 4", "version 1 \
         saved size 5",
    ]);
    an_empty_name_is_refused_everywhere: Script(&[
        "save  1", "save a%00b 1", "save a%0ab 1", "save %c2%85 1", "save a^1000000 1",
        "save a^201 1", "save %f0%9f%92%a9^17 1",
        "load ", "stat a^1000000", "open w a%00", "reader r ", "delete ", "fork  b", "fork a ",
        "history  1", "restore  1",
        "save a^200 1",
    ]) => Answers(&[
        "invalid…", "invalid…", "invalid…", "invalid…", "invalid…", "invalid…", "invalid…",
        "invalid…", "invalid…", "invalid…", "invalid…", "invalid…", "invalid…", "invalid…",
        "invalid…", "invalid…",
        "version 1",
    ]);
    names_of_a_page_are_as_many_as_the_page: Script(&[
        "flood 30 save n# 1", "names n 4294967295", "names n n3 9", "names n3 4",
        "names a^1000000 9", "names  0",
        "names n a%00 1",
    ]) => Answers(&[
        "30 then no error",
        "[n0 n1 n10 n11 n12 n13 n14 n15 n16 n17 n18 n19 n2 n20 n21 n22 n23 n24 n25 n26]",
        "[n4 n5 n6 n7 n8 n9]", "[n3]", "[]", "invalid…", "invalid…",
    ]);

    // Numbers and labels at their ends.
    versions_at_the_ends_of_numbers_are_not_there: Script(&[
        "save a 1", "load a 0", "load a 18446744073709551615", "load a 10000000000", "history a 0 \
         10",
        "history a 18446744073709551615 10", "history a 4294967295", "save a 1 \
         18446744073709551615",
        "save a 1 0", "restore a 18446744073709551615", "restore a 0", "delete a \
         18446744073709551615", "history a 0",
        "stat a",
    ]) => Answers(&[
        "version 1", "not-found", "not-found", "not-found", "[]", "[1]", "[1]", "conflict 1",
        "conflict 1", "not-found",
        "not-found", "conflict 1", "invalid…", "version 1 saved size 1",
    ]);
    a_reader_at_the_end_of_numbers_reads_nothing: Wat(file!("reader_at_the_end_of_numbers")) =>
        Answers(&["done"]);
    a_reader_past_the_end_reads_nothing: Script(&[
        "reader r a", "save a 5", "reader r a", "read r 5 1", "read r 18446744073709551615 \
         4294967295", "read r 0 0",
        "save a 0", "delete a", "read r 4 9", "reader r a",
    ]) => Answers(&[
        "none", "version 1", "version 1", EMPTY, EMPTY, "invalid…", "version 2", "version 3",
        "size 1…", "none",
    ]);
    floods_of_labels_are_refused: Script(&[
        "labels a 50000 x", "labels a 1 x^8193", "labels a 9000 ", "label a persist.restored-from \
         7", "label a  x",
        "label a k v", "stat a",
    ]) => Answers(&[
        "invalid…", "invalid…", "invalid…", "invalid…", "invalid…", "version 1", "version 1 saved \
         size 0",
    ]);
    a_writer_that_failed_stays_failed: Script(&[
        "open w log", "write w 1048577", "write w 1", "finish w", "stat log", "open w log",
        "write w 0", "finish w",
    ]) => Answers(&[
        "open", "quota-exceeded chunk 1048576", "invalid…", "invalid…", "none", "open", "written",
        "version 1",
    ]);
    changes_between_open_and_finish_are_a_conflict: Script(&[
        "open w log", "save log 1", "finish w", "open w log", "restore log 1", "finish w",
        "fork log log", "stat log",
    ]) => Answers(&[
        "open", "version 1", "conflict 1", "open", "version 2", "conflict 2", "version 3",
        "version 3 saved size 1",
    ]);

    // What is no agent, or is built to cost.
    what_exports_nothing_is_refused: Made(|| wat::parse_str("(component)").expect("valid")) =>
        Refused("run");
    what_answers_something_else_is_refused: Whole(file!("whole_another_answer")) => Refused("run");
    what_imports_everything_is_refused: Whole(file!("whole_imports_everything")) =>
        Refused("imports acme:disk/files@1.0.0, which this host does not provide");
    components_importing_another_store_are_refused: Whole(file!("whole_another_types_store")) =>
        Refused("save");
    truncated_components_are_refused: Made(cut_off) => Refused("damaged");
    components_with_millions_of_globals_are_refused: Made(millions_of_globals) =>
        Refused("and the limit `instance-storage` is ");
    exponentially_nested_components_are_refused: Made(billions_of_components) =>
        Refused("definitions");
    what_is_nested_a_thousand_deep_is_refused: Made(nested_deeply) => Refused("");
    types_nested_without_end_are_refused: Made(nested_types) => Refused("nested");
    what_passes_components_about_is_refused: Made(passed_about) => Refused("passes");
    deeply_nested_blocks_are_refused: Made(nested_blocks) => Refused("nested-blocks");
    deeply_nested_loops_are_refused: Made(nested_loops) => Refused("nests more than 64 loops");
    ninety_thousand_functions_are_refused: Made(many_functions) => Refused("functions");
    fifty_thousand_unused_locals_are_refused: Made(unused_locals) => Refused("locals");
    calls_of_a_thousand_values_are_refused: Made(wide_calls) => Refused("parameters");
    wide_branch_tables_are_refused: Made(wide_branches) => Refused("branch targets");
    a_memory_that_threads_share_is_refused: Made(shared_memory) => Refused("threads");
}

fn cut_off() -> Vec<u8> {
    let text =
        include_str!("../../hostile/prelude.wat").replace("  ;; GUEST", file!("trap_in_start"));
    let mut whole = wat::parse_str(text).expect("valid");
    whole.truncate(whole.len() / 2);
    whole
}

/// A hundred instances of a hundred thousand globals: ten times that is 1.7 GB of the host, for one
/// run.
fn millions_of_globals() -> Vec<u8> {
    let globals = "(global i64 (i64.const 0))".repeat(100_000);
    let instances = "(core instance (instantiate $m))".repeat(99);
    let text = format!("(component (core module $m {globals}) {instances})");
    wat::parse_str(text).expect("valid")
}

/// Ten levels of components, each of which instantiates the one below a hundred times.
fn billions_of_components() -> Vec<u8> {
    let mut text =
        String::from("(component $c0 (core module $m) (core instance (instantiate $m)))");
    for level in 1..=9 {
        let below = level - 1;
        let instances = format!("(instance (instantiate $c{below}))").repeat(100);
        text.push_str(&format!(
            "(component $c{level} (alias outer $root $c{below} (component $c{below})) {instances})"
        ));
    }
    wat::parse_str(format!(
        "(component $root {text} (instance (instantiate $c9)))"
    ))
    .expect("valid")
}

fn nested_deeply() -> Vec<u8> {
    // The text format nests no deeper than its own parser; the bytes can.
    let mut inner = b"\0asm\x0d\0\x01\0".to_vec();
    for _ in 0..1000 {
        inner = [&b"\0asm\x0d\0\x01\0\x04"[..], &leb(inner.len()), &inner].concat();
    }
    inner
}

/// Types of instances in types of instances: the engine's reader calls itself for each.
fn nested_types() -> Vec<u8> {
    let mut types = vec![1];
    types.extend([0x42, 1, 1].repeat(500_000));
    types.extend([0x42, 0]);
    [&b"\0asm\x0d\0\x01\0\x07"[..], &leb(types.len()), &types].concat()
}

fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A component of one module with one function.
fn of_body(locals: &[u8], body: &[u8]) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&leb(bytes.len())[..], bytes].concat();
    let section = |id: u8, bytes: &[u8]| [&[id], &sized(bytes)[..]].concat();
    let body = sized(&[locals, body, &[0x0b]].concat());
    let module = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, &[1, 0x60, 0, 0]),
        section(3, &[1, 0]),
        section(10, &[&[1], &body[..]].concat()),
    ]
    .concat();
    [&b"\0asm\x0d\0\x01\0"[..], &section(1, &module)].concat()
}

fn nested_blocks() -> Vec<u8> {
    of_body(
        &[0],
        &[[2, 0x40].repeat(100_000), vec![0x0b; 100_000]].concat(),
    )
}

fn nested_loops() -> Vec<u8> {
    of_body(
        &[0],
        &[[3, 0x40].repeat(100_000), vec![0x0b; 100_000]].concat(),
    )
}

fn many_functions() -> Vec<u8> {
    let module = format!("(core module {})", "(func)".repeat(30_000));
    wat::parse_str(format!("(component {})", module.repeat(3))).expect("valid")
}

fn unused_locals() -> Vec<u8> {
    of_body(&[1, 0xd0, 0x86, 0x03, 0x7f], &[])
}

fn wide_calls() -> Vec<u8> {
    let wide = "i32 ".repeat(1000);
    let calls = "(call 0)".repeat(10_000);
    let text = format!("(func (param {wide}) (result {wide}) {calls} unreachable)");
    wat::parse_str(format!("(component (core module {text}))")).expect("valid")
}

fn wide_branches() -> Vec<u8> {
    let results = "i32 ".repeat(1000);
    let targets = "0 ".repeat(100_000);
    let text = format!("(func (result {results}) unreachable (br_table {targets} (i32.const 0)))");
    wat::parse_str(format!("(component (core module {text}))")).expect("valid")
}

fn shared_memory() -> Vec<u8> {
    wat::parse_str("(module (memory 1 1 shared))").expect("valid")
}

fn passed_about() -> Vec<u8> {
    let text = r#"(component $root
        (component $leaf)
        (component $twice (import "x" (component $x)) (instance (instantiate $x))
            (instance (instantiate $x)))
        (instance (instantiate $twice (with "x" (component $leaf)))))"#;
    wat::parse_str(text).expect("valid")
}

/// Fills the largest stack that a host may allow, until another thousand levels have no room. The
/// host's functions run on the same stack, and an overflow there would end the process.
#[test]
fn a_call_from_the_depth_of_the_largest_stack_works() {
    let mut limits = limits();
    limits.stack = 1 << 20;
    let host = AgentHost::builder().limits(limits).build().expect("a host");
    let dir = tempdir();
    let scope = scope(Arc::new(Local::new(dir.path())));
    let text = file!("recursion_into_the_host");
    assert!(text.contains("i32.const 4000"), "{text}");
    let deepest = (5..100_u32).find(|thousands| {
        let levels = format!("i32.const {thousands}000");
        let text = text.replace("i32.const 4000", &levels);
        let text = include_str!("../../hostile/prelude.wat").replace("  ;; GUEST", &text);
        let bytes = wat::parse_str(text).expect("valid");
        let answer = block_on(async {
            let agent = host.load(&bytes).await.expect("an agent");
            let ran = agent.run(SnapshotCtx::new(scope.clone()), &[]);
            ran.await.answer
        });
        match answer {
            Ok(answer) => {
                assert_eq!(answer, "done");
                false
            }
            Err(RunError::Trapped(why)) => {
                assert!(why.contains("limit `stack`"), "{why}");
                true
            }
            Err(error) => panic!("{thousands} thousand levels: {error}"),
        }
    });
    assert!(deepest.expect("the stack is full") > 8, "{deepest:?}");
}
