//! Files of versions that are damaged, forged or in the way.

use super::*;

/// A store with two versions of `bot/memory`, of which a test replaces the newer.
struct Pair {
    dir: TempDir,
    states: [Vec<u8>; 2],
}

impl Pair {
    fn new() -> Self {
        Self::of([b"one".to_vec(), b"two".to_vec()])
    }

    fn of(states: [Vec<u8>; 2]) -> Self {
        let dir = tempdir();
        for state in &states {
            put(dir.path(), "bot/memory", state);
        }
        Self { dir, states }
    }

    fn path(&self, version: u64) -> PathBuf {
        let file = version_file(version);
        self.dir.path().join("bot/~/memory").join(file)
    }

    fn bytes(&self, version: u64) -> Vec<u8> {
        fs::read(self.path(version)).expect("is there")
    }

    /// Puts `bytes` in place of version 2, which must be refused with a message that names the
    /// file, and must stand in the way of nothing else. Returns what `cat` printed before it met
    /// the damage.
    fn refuses(&self, bytes: &[u8], hint: &str) -> Vec<u8> {
        let dir = self.dir.path();
        fs::write(self.path(2), bytes).expect("writes");
        let output = run(dir, &["cat", "bot/memory"]);
        let said = refused(&output, 6);
        let file = "bot/~/memory/9999999997-0000000002.gz";
        assert!(said.contains(file) && said.contains(hint), "{said}");
        refused(&run(dir, &["restore", "bot/memory@2"]), 6);
        let old = run(dir, &["cat", "bot/memory@1"]);
        assert!(old.status.success() && old.stdout == self.states[0]);
        output.stdout
    }

    /// Checks that `bytes` are refused, and that none of them is printed, where the damage can be
    /// seen before that.
    fn refuses_all(&self, bytes: &[u8]) {
        assert_eq!(self.refuses(bytes, "restore an older version"), b"");
    }

    /// An older version can be brought back, above what cannot be read.
    fn recovers(&self) {
        let dir = self.dir.path();
        let restored = run_ok(dir, &["restore", "bot/memory@1"]);
        assert!(restored.starts_with("restored bot/memory@3"), "{restored}");
        assert!(run(dir, &["cat", "bot/memory"]).stdout == self.states[0]);
    }
}

/// Two states of 2.5 MiB that do not compress: three blocks each, of the same lengths.
fn long_pair() -> Pair {
    let noise = |mut x: u64| -> Vec<u8> {
        let next = std::iter::repeat_with(|| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        });
        next.take(5 << 19).collect()
    };
    Pair::of([noise(0x9e37_79b9_7f4a_7c15), noise(0x2545_f491_4f6c_dd1d)])
}

#[test]
fn a_file_that_was_cut_off_is_corrupt() {
    let pair = Pair::new();
    let golden = pair.bytes(2);
    for len in [
        1,
        9,
        10,
        20,
        golden.len() / 2,
        golden.len() - 10,
        golden.len() - 1,
    ] {
        pair.refuses_all(&golden[..len]);
    }
    pair.recovers();
}

#[test]
fn a_file_with_more_behind_it_is_corrupt() {
    let pair = Pair::new();
    let golden = pair.bytes(2);
    for more in [&b"\n"[..], &[0; 4096], &pair.bytes(1), &golden] {
        pair.refuses_all(&[&golden, more].concat());
    }
    pair.recovers();
}

#[test]
fn an_empty_file_is_corrupt() {
    let pair = Pair::new();
    pair.refuses_all(b"");
    pair.recovers();
}

#[test]
fn zeros_where_a_disk_lost_what_was_written_are_corrupt() {
    let pair = Pair::new();
    let golden = pair.bytes(2);
    pair.refuses_all(&vec![0; golden.len()]);
    for half in [0..golden.len() / 2, golden.len() / 2..golden.len()] {
        let mut bytes = golden.clone();
        bytes[half].fill(0);
        pair.refuses_all(&bytes);
    }
    pair.recovers();
}

#[test]
fn a_lost_page_of_a_long_state_is_found_before_it_is_printed() {
    let pair = long_pair();
    let mut bytes = pair.bytes(2);
    bytes[(3 << 19)..][..4096].fill(0);
    let printed = pair.refuses(&bytes, "restore an older version");
    assert!(printed.len() <= 1 << 20 && pair.states[1].starts_with(&printed));
    pair.recovers();
}

#[test]
fn a_file_of_someone_else_is_corrupt() {
    let pair = Pair::new();
    let plain_gzip = Command::new("gzip").args(["-c"]).arg(pair.path(2)).output();
    // The smallest picture there is: one grey point.
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0\x3a\x7e\x9b\x55\0\0\0\nIDAT\
        \x78\xda\x63\x60\0\0\0\x02\0\x01\xe5\x27\xde\xfc\0\0\0\0IEND\xae\x42\x60\x82";
    let many_lines = "a line of text\n".repeat(100_000);
    for foreign in [
        &plain_gzip.expect("gzip starts").stdout,
        &png[..],
        b"{\"turns\":[]}\n",
        many_lines.as_bytes(),
    ] {
        pair.refuses_all(foreign);
    }
    pair.recovers();
}

#[test]
fn a_splice_of_two_versions_is_corrupt() {
    let pair = long_pair();
    let one = pair.bytes(1);
    let two = pair.bytes(2);
    let half = one.len() / 2;
    pair.refuses_all(&[&one[..half], &two[half..]].concat());
    let misplaced = "was saved as bot/memory@1";
    assert_eq!(
        pair.refuses(&[&two[..half], &one[half..]].concat(), misplaced),
        b""
    );
    // One whole state with the trailer of the other.
    let at_one = member(&one);
    let at_two = member(&two);
    assert_eq!(at_one, at_two, "what follows is about equal lengths");
    pair.refuses_all(&[&one[..at_one], &two[at_two..]].concat());
    // A whole trailer, whose first block alone is right.
    let spliced = [&two[..half], &one[half..at_one], &two[at_two..]].concat();
    let printed = pair.refuses(&spliced, "restore an older version");
    assert!(printed.len() <= 1 << 20 && pair.states[1].starts_with(&printed));
    pair.recovers();
}

#[test]
fn a_later_format_is_left_for_a_later_persist() {
    let pair = Pair::new();
    let golden = pair.bytes(2);
    // The kind and the format lie before the magic and the ten bytes that end every file.
    for (back, value) in [(20, 2_u16), (20, 999), (22, 9)] {
        let mut later = golden.clone();
        let at = later.len() - back;
        later[at..][..2].copy_from_slice(&value.to_le_bytes());
        seal(&mut later);
        assert_eq!(
            pair.refuses(&later, "hint: use a newer version of Persist"),
            b""
        );
        let listed = run(pair.dir.path(), &["ls"]);
        assert!(refused(&listed, 6).contains("hint: use a newer version of Persist"));
        assert!(pair.bytes(2) == later, "it is left as it is");
    }
    pair.recovers();
}

#[test]
fn a_size_that_a_file_only_claims_is_never_allocated() {
    let pair = Pair::new();
    // An intact trailer that lists many blocks of one byte each, and says that they hold a MiB
    // each.
    for blocks in [900, 50_000] {
        let claim = claim(&pair.bytes(2), blocks);
        fs::write(pair.path(2), claim).expect("writes");
        for command in [
            "cat bot/memory",
            "restore bot/memory@2",
            "show bot/memory@1",
        ] {
            let limited = format!(
                "ulimit -v 600000; exec {} {command}",
                persist(pair.dir.path()).get_program().display()
            );
            let output = Command::new("bash")
                .args(["-c", &limited])
                .env("PERSIST_LOCAL_PATH", pair.dir.path())
                .output()
                .expect("bash starts");
            let said = text(&output.stderr);
            let code = output.status.code();
            assert!(
                matches!(
                    (command, code),
                    ("show bot/memory@1", Some(0)) | (_, Some(6 | 8))
                ),
                "{command}: {code:?} {said}"
            );
        }
        let scope = scope(Arc::new(Local::new(pair.dir.path())));
        let error = block_on(scope.load("memory", None)).expect_err("a claim");
        assert!(
            matches!(error, Error::Corrupt { .. } | Error::TooLarge { .. }),
            "{error}"
        );
    }
    pair.recovers();
}

#[test]
fn a_misplaced_file_is_refused_by_every_command_that_reads_it() {
    let pair = Pair::new();
    let dir = pair.dir.path();
    let one = pair.bytes(1);
    let two = pair.bytes(2);
    fs::write(pair.path(1), &two).expect("writes");
    fs::write(pair.path(2), &one).expect("writes");
    for (version, other) in [(1, 2), (2, 1)] {
        let address = format!("bot/memory@{version}");
        for args in [
            &["cat", &address][..],
            &["show", &address],
            &["verify", &address],
            &["restore", &address],
            &["fork", &address, "bot/fork"],
            &["diff", &address, "bot/memory@1"],
        ] {
            let said = refused(&run(dir, args), 6);
            let named = format!("was saved as bot/memory@{other}");
            assert!(said.contains(&named), "{args:?}: {said}");
        }
    }
    let checked = run(dir, &["check"]);
    refused(&checked, 6);
    let found = text(&checked.stdout);
    assert_eq!(found.matches("misplaced").count(), 1, "{found}");
    assert!(found.contains("bot/memory (2 versions"), "{found}");
    refused(&run(dir, &["ls"]), 6);
    refused(&run(dir, &["history", "bot/memory"]), 6);
    // Another agent, another session, another name.
    for place in ["other/~/memory", "bot/monday/memory", "bot/~/notes"] {
        let place = dir.join(place);
        fs::create_dir_all(&place).expect("makes");
        fs::write(place.join("9999999998-0000000001.gz"), &one).expect("writes");
    }
    for address in ["other/memory", "bot/monday/memory", "bot/notes"] {
        let said = refused(&run(dir, &["cat", address]), 6);
        assert!(said.contains("was saved as bot/memory@1"), "{said}");
        // Saving goes on above it.
        put(dir, address, b"next");
        assert_eq!(run_ok(dir, &["cat", address]), "next");
    }
    // Moved back, everything is as it was.
    fs::write(pair.path(1), &one).expect("writes");
    fs::write(pair.path(2), &two).expect("writes");
    assert_eq!(run_ok(dir, &["cat", "bot/memory"]), "two");
}

#[test]
fn repair_adopts_a_directory_that_was_renamed_and_removes_nothing() {
    let dir = tempdir();
    let dir = dir.path();
    for state in ["one", "two"] {
        put(dir, "bot/memory", state.as_bytes());
    }
    put(dir, "bot/monday/notes", b"notes");
    fs::rename(dir.join("bot"), dir.join("bot2")).expect("renames");
    refused(&run(dir, &["cat", "bot2/memory"]), 6);
    let adopted = run_ok(dir, &["repair", "bot2", "--adopt"]);
    assert!(adopted.contains("adopted bot2/memory@3, which was saved as bot/memory@2"));
    assert_eq!(run_ok(dir, &["cat", "bot2/memory"]), "two");
    assert_eq!(run_ok(dir, &["cat", "bot2/monday/notes"]), "notes");
    let shown = run_ok(dir, &["show", "bot2/memory"]);
    assert!(
        shown.contains("persist.adopted-from=bot/memory@2"),
        "{shown}"
    );
    // An older version, too; and all files are still there.
    run_ok(dir, &["repair", "bot2/memory@1", "--adopt"]);
    assert_eq!(run_ok(dir, &["cat", "bot2/memory"]), "one");
    assert_eq!(version_files(dir).len(), 6);
    // A second time there is nothing to do, or to adopt.
    assert_eq!(run_ok(dir, &["repair", "bot2", "--adopt"]), "");
    run_fails(dir, &["repair", "bot2/memory@4", "--adopt"], 2);
    // Without --adopt, it says that the older versions stay where they are.
    run_fails(dir, &["repair", "bot2/memory"], 6);
    run_fails(dir, &["repair", "bot2/memory@1"], 2);
}

/// Bytes of the footer, with which every file ends: see the page of the format.
const FOOTER: usize = 86;
/// Offset of the footer's payload.
const PAYLOAD: usize = FOOTER - 70;

/// Returns the offset where the trailer begins, as the footer says.
fn member(file: &[u8]) -> usize {
    let at = file.len() - FOOTER + PAYLOAD + 8;
    u64::from_le_bytes(file[at..][..8].try_into().expect("8 bytes")) as usize
}

/// Makes the checksum of the trailer fit what it is now.
fn seal(file: &mut [u8]) {
    let at = file.len() - FOOTER + PAYLOAD + 16;
    let sum = Sha256::new()
        .chain_update(&file[member(file)..at])
        .chain_update(&file[at + 32..])
        .finalize();
    file[at..][..32].copy_from_slice(&sum);
}

/// A sealed file of `blocks` bytes of state, which says that it holds as many MiB.
fn claim(golden: &[u8], blocks: usize) -> Vec<u8> {
    let footer = &golden[golden.len() - FOOTER..];
    let trailer = &golden[member(golden)..golden.len() - FOOTER];
    let len = u32::from_le_bytes(trailer[16..20].try_into().expect("4 bytes")) as usize;
    let metadata = text(&trailer[20..][..len]);
    let size = format!("\"size\":{}", blocks << 20);
    let metadata = metadata.replace("\"size\":3", &size);
    let mut payload = (metadata.len() as u32).to_le_bytes().to_vec();
    payload.extend(metadata.bytes());
    for _ in 0..blocks {
        payload.extend([1, 0, 0, 0]);
        payload.extend([0; 16]);
    }

    let mut file = golden[..10].to_vec();
    file.resize(10 + blocks, 0);
    file.extend(&golden[member(golden) - 10..member(golden)]);
    let at = file.len() as u64;
    for piece in payload.chunks(65_000) {
        let extra = piece.len() as u16 + 4;
        let len = piece.len() as u16;
        file.extend(&trailer[..10]);
        file.extend(extra.to_le_bytes());
        file.extend(b"PT");
        file.extend(len.to_le_bytes());
        file.extend(piece);
        file.extend(&trailer[trailer.len() - 10..]);
    }
    file.extend(footer);
    let whole = file.len() as u64;
    let payload = file.len() - FOOTER + PAYLOAD;
    file[payload..][..8].copy_from_slice(&whole.to_le_bytes());
    file[payload + 8..][..8].copy_from_slice(&at.to_le_bytes());
    seal(&mut file);
    file
}

#[test]
fn messages_from_foreign_files_are_one_escaped_line() {
    let pair = Pair::new();
    let other = tempdir();
    let dir = pair.dir.path();
    let mut forged = pair.bytes(2);
    let at = member(&forged);
    for (old, new) in [("\"bot\"", "\"a\\n\""), ("\"memory\"", "\"\\u001b\"")] {
        assert_eq!(old.len(), new.len());
        let found = forged[at..]
            .windows(old.len())
            .position(|part| part == old.as_bytes());
        let found = at + found.expect("it says where it belongs");
        forged[found..][..new.len()].copy_from_slice(new.as_bytes());
    }
    seal(&mut forged);
    fs::write(pair.path(2), forged).expect("writes");
    let checked = run(dir, &["check"]);
    let found = text(&checked.stdout).to_owned();
    let lines: Vec<_> = found.lines().collect();
    assert!(
        lines.len() == 2 && lines[1].starts_with("checked "),
        "{found:?}"
    );
    for args in [
        &["check"][..],
        &["ls"],
        &["history", "bot/memory"],
        &["show", "bot/memory"],
        &["diff", "bot/memory"],
        &["verify", "bot/memory"],
        &["export", "-"],
        &[
            "copy",
            "--create",
            &format!("file://{}", dir.display()),
            &format!("file://{}", other.path().join("copy").display()),
        ],
    ] {
        let output = run(dir, args);
        let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
        for (n, said) in said.iter().enumerate() {
            let is_archive = args[0] == "export" && n == 0;
            if is_archive {
                continue;
            }
            assert!(!said.contains('\u{1b}'), "{args:?}: {said:?}");
            // Behind the line break comes a slash.
            let begins = said.lines().any(|line| line.starts_with('/'));
            assert!(!begins, "{args:?}: {said}");
        }
    }
}
