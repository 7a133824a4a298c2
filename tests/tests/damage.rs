//! Damage to a real batch's files: what a crash can leave is cut, kept aside and told, and the
//! batch goes on; everything else stops every command and is not touched.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;
use supervisor_tests::world::{Ran, World};

/// Places that the ordinary suite tries of each sweep; `DAMAGE_SWEEP=1` tries every one.
const PLACES: usize = 10;
/// What a disk writes at once: the smallest and the usual.
const BLOCKS: [usize; 2] = [512, 4096];
/// Three tasks, the last after the others; each notes that it ran.
const BATCH: &str = "version: 1\nname: small\nisolation: none\ntasks:\n\
    - {id: a, run: 'echo a >> ran'}\n- {id: b, run: 'echo b >> ran', depends_on: [a]}\n\
    - {id: c, run: 'echo c >> ran', depends_on: [b]}\n";

/// A finished batch, to be damaged and put back.
struct Victim {
    world: World,
    dir: PathBuf,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

/// Every regular file below a folder. The sockets of bridges hold no bytes.
fn picture(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the batch") {
            let entry = entry.expect("an entry of the batch");
            let (path, kind) = (
                entry.path(),
                entry.file_type().expect("the kind of an entry"),
            );
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let bytes = fs::read(&path).expect("a file of the batch");
                files.insert(path, bytes);
            }
        }
    }
    files
}

impl Victim {
    fn new() -> Self {
        let world = World::new();
        world.write("batch.yml", BATCH);
        world.supervisor(&["run"]).ok();
        let dir = world.batch_dir().expect("there is a batch");
        let files = picture(&dir);
        Self { world, dir, files }
    }

    fn journal(&self) -> PathBuf {
        self.dir.join("journal/000001.jsonl")
    }

    fn good(&self) -> &[u8] {
        &self.files[&self.journal()]
    }

    /// Every file as it was.
    fn heal(&self) {
        for path in picture(&self.dir).into_keys() {
            if !self.files.contains_key(&path) {
                fs::remove_file(&path).expect("a file that came later");
            }
        }
        for (path, bytes) in &self.files {
            fs::write(path, bytes).expect("a file of the batch");
        }
    }

    /// Where each commit group lies in the journal.
    fn groups(&self) -> Vec<Range<usize>> {
        let mut groups: Vec<(u64, Range<usize>)> = Vec::new();
        let mut at = 0;
        for line in self.good().split_inclusive(|byte| *byte == b'\n') {
            let record: Value = serde_json::from_slice(line).expect("a record");
            let group = record["group"].as_u64().expect("a group");
            let end = at + line.len();
            match groups.last_mut().filter(|(last, _)| *last == group) {
                Some((_, range)) => range.end = end,
                None => groups.push((group, at..end)),
            }
            at = end;
        }
        groups.into_iter().map(|(_, range)| range).collect()
    }

    fn last_group(&self) -> Range<usize> {
        self.groups().pop().expect("there is a group")
    }

    /// The batch with this journal goes on, and says what was cut, if anything was.
    fn goes_on(&self, journal: &[u8], what: &str) {
        self.heal();
        fs::write(self.journal(), journal).expect("the damage");
        let begin = self.last_group().start;
        let torn = journal.len() - begin;
        let seen = self.world.supervisor(&["verify"]);
        assert_eq!(seen.code, Some(0), "{what}: {}", seen.stderr);
        assert_eq!(
            torn > 0,
            seen.stdout.contains(&format!("torn tail: {torn} bytes"))
        );
        assert_eq!(
            fs::read(self.journal()).expect("the journal"),
            journal,
            "{what}"
        );

        let ran = self.world.supervisor(&["run"]);
        let told = format!("{what}:\n{}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.code, Some(0), "{told}");
        let cut = format!("cut {torn} bytes of an unfinished write at byte {begin}");
        assert_eq!(told.contains(&cut), torn > 0, "{told}");
        let kept: Vec<Vec<u8>> = picture(&self.dir.join("journal"))
            .into_iter()
            .filter(|(path, _)| path.extension().is_some_and(|end| end == "bin"))
            .map(|(_, bytes)| bytes)
            .collect();
        let expected: Vec<&[u8]> = (torn > 0)
            .then_some(&journal[begin..])
            .into_iter()
            .collect();
        assert_eq!(kept, expected, "{told}");
        let status = self.world.status();
        assert_eq!(status["batch"]["state"], "done", "{told}");
        assert_eq!(status["batch"]["counts"]["done"], 3, "{told}");
        self.world.supervisor(&["verify"]).ok();
        let new = fs::read(self.journal()).expect("the journal");
        assert_eq!(
            new[..begin],
            self.good()[..begin],
            "what was whole is as it was"
        );
    }

    /// Nothing can be done with the batch as it is now, and nothing of it is touched.
    fn stops_everything(&self, what: &str) {
        let before = picture(&self.dir);
        // Not `ps`: that nothing of the batch lives is proven without its journal.
        let commands: [&[&str]; 8] = [
            &["run"],
            &["run", "--retry-failed"],
            &["verify"],
            &["status"],
            &["status", "--json"],
            &["explain", "a"],
            &["logs", "a"],
            &["retry", "a"],
        ];
        for command in commands {
            let Ran {
                code,
                stdout,
                stderr,
            } = self.world.supervisor(command);
            assert_eq!(code, Some(9), "{what}: {command:?}: {stdout}{stderr}");
            assert!(
                stderr.contains("journal") || stderr.contains("checkpoint"),
                "{stderr}"
            );
            let after = picture(&self.dir);
            let touched = |path: &&PathBuf| before.get(*path) != after.get(*path);
            let names = before.keys().chain(after.keys()).filter(touched);
            let names: Vec<&PathBuf> = names.collect();
            assert!(names.is_empty(), "{what}: {command:?} touched {names:?}");
        }
    }
}

/// All of these places, or so many of them, the first and the last always.
fn some<T: Clone>(places: Vec<T>) -> Vec<T> {
    if std::env::var_os("DAMAGE_SWEEP").is_some() || places.len() <= PLACES {
        return places;
    }
    let last = places.len() - 1;
    (0..PLACES)
        .map(|number| places[number * last / (PLACES - 1)].clone())
        .collect()
}

#[test]
fn a_journal_that_ends_anywhere_in_its_last_group_is_cut_and_goes_on() {
    let victim = Victim::new();
    let group = victim.last_group();
    for end in some(group.collect()) {
        let what = format!("cut at byte {end}");
        victim.goes_on(&victim.good()[..end], &what);
    }
}

#[test]
fn a_last_group_of_which_any_block_never_landed_is_cut_and_goes_on() {
    let victim = Victim::new();
    let group = victim.last_group();
    let len = victim.good().len();
    for (size, fill) in BLOCKS
        .into_iter()
        .flat_map(|size| [(size, 0), (size, b'#')])
    {
        let blocks: Vec<usize> = (group.start / size..len.div_ceil(size)).collect();
        for block in some(blocks).into_iter().take(4) {
            let mut journal = victim.good().to_owned();
            // What an earlier sync made durable stays: a disk writes a block wholly or not at all.
            let lost = (block * size).max(group.start)..((block + 1) * size).min(len);
            journal[lost].fill(fill);
            let what = format!("block {block} of {size} bytes lost");
            victim.goes_on(&journal, &what);
        }
    }
}

#[test]
fn damage_that_no_crash_leaves_stops_everything_and_nothing_is_touched() {
    let victim = Victim::new();
    let journal = victim.journal();
    let write = |bytes: &[u8]| fs::write(&journal, bytes).expect("the damage");
    let last = victim.last_group().start;
    for at in some((0..last).collect()).into_iter().step_by(3) {
        victim.heal();
        let mut bytes = victim.good().to_owned();
        bytes[at] ^= 0x10;
        write(&bytes);
        victim.stops_everything(&format!("byte {at} flipped"));
    }
    let text = String::from_utf8(victim.good().to_owned()).expect("JSON is text");
    victim.heal();
    write(text.replacen("{\"v\":1", "{\"v\":2", 1).as_bytes());
    victim.stops_everything("the first record of a newer version");
    let (head, tail) = text.split_at(last);
    victim.heal();
    write(format!("{head}{}", tail.replace("{\"v\":1", "{\"v\":2")).as_bytes());
    victim.stops_everything("the last group of a newer version");
    victim.heal();
    write(b"");
    victim.stops_everything("an empty journal");
    victim.heal();
    fs::remove_file(&journal).expect("the journal");
    victim.stops_everything("no journal");
    victim.heal();
    fs::remove_dir_all(victim.dir.join("journal")).expect("the journal");
    victim.stops_everything("no folder of the journal");
    fs::create_dir(victim.dir.join("journal")).expect("a folder");
    for garbage in [
        &b""[..],
        b"\0\0\0\0",
        b"{}\n",
        b"{\"v\":9,\"crc\":\"00000000\"}\n",
    ] {
        victim.heal();
        fs::write(victim.dir.join("checkpoint.json"), garbage).expect("the damage");
        victim.stops_everything("a garbage checkpoint");
    }
    victim.heal();
    victim.world.supervisor(&["verify"]).ok();
}

/// Its journal is long enough for a checkpoint at its end.
#[test]
fn a_checkpoint_at_the_end_does_not_forbid_that_the_last_group_is_cut() {
    let world = World::new();
    let batch = format!(
        "version: 1\nname: long\nisolation: none\ntasks:\n\
         - {{id: 'm-{{{{ item }}}}', run: 'true', foreach: {{items: [{}]}}}}\n\
         - {{id: last, run: 'echo last >> ran', depends_on: ['m-*']}}\n",
        (0..150)
            .map(|n| n.to_string())
            .collect::<Vec<_>>()
            .join(", ")
    );
    world.write(
        "batch.yml",
        &batch.replace("'m-{{ item }}'", "\"m-{{ item }}\""),
    );
    world.supervisor(&["run"]).ok();
    let dir = world.batch_dir().expect("there is a batch");
    assert!(dir.join("checkpoint.json").is_file(), "the story needs one");
    let journal = dir.join("journal/000001.jsonl");
    let bytes = fs::read(&journal).expect("the journal");
    fs::write(&journal, &bytes[..bytes.len() - 9]).expect("the damage");
    world.supervisor(&["verify"]).ok();
    let ran = world.supervisor(&["run"]).ok();
    assert!(
        ran.stdout.contains("bytes of an unfinished write"),
        "{}",
        ran.stdout
    );
    assert_eq!(world.status()["batch"]["state"], "done");
    assert_eq!(world.read("ran"), "last\n", "its result was durable");
}
