//! What `cargo xtask fuzz` runs on made-up input: every parser of text that kchaos does not write itself, and what must
//! hold of its answer, whatever the text. A broken rule is a panic. The unit tests run the same on its seeds and on what
//! becomes of them when they are damaged.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use crate::{
    experiment::{
        hypothesis::Metric,
        parse::{MAX_SPEC_BYTES, MAX_TARGETS, parse},
    },
    fault::{
        filter::Allow,
        syscall::{
            Errors, SyscallSet,
            filter::{Comm, FdKind, PathPattern, Tgid, Users},
            ladder::Forged,
        },
    },
    import::chaos_toolkit,
    kernel::{host, journal, sweep},
    probe,
    steady::{cgroupfs, probe::Scraped},
    target::{Target, proc},
    units::{
        BadValue, CountRate, MAX_DURATION, NameSuffix, Occurrences, Offsets, Percent, Ports, parse_address,
        parse_confidence, parse_count, parse_duration, parse_margin, parse_network, parse_seed, parse_up_to,
        show_duration, show_margin, show_network,
    },
};

/// A spec file.
pub fn spec(text: &str) {
    match parse(text) {
        Ok(spec) => {
            assert!(text.len() <= MAX_SPEC_BYTES);
            assert!((2..=MAX_TARGETS).contains(&(spec.control.len() + spec.experiment.len())));
            assert!(!spec.gates.is_empty() && !spec.faults.is_empty());
            assert!(spec.max_duration <= MAX_DURATION && (0.8..1.0).contains(&spec.confidence));
            spec.control.iter().chain(&spec.experiment).for_each(reads_back);
        }
        Err(error) => harmless(&error.to_string()),
    }
}

/// Values as they stand in specs and on the command line.
pub fn values(text: &str) {
    both_ways(text, str::parse::<Ports>, ToString::to_string);
    both_ways(text, str::parse::<Allow>, ToString::to_string);
    both_ways(text, str::parse::<Percent>, ToString::to_string);
    both_ways(text, str::parse::<CountRate>, ToString::to_string);
    both_ways(text, str::parse::<Occurrences>, ToString::to_string);
    both_ways(text, str::parse::<Offsets>, ToString::to_string);
    both_ways(text, |text| parse_up_to(text, 64), ToString::to_string);
    both_ways(text, str::parse::<NameSuffix>, ToString::to_string);
    both_ways(text, parse_address, ToString::to_string);
    both_ways(text, parse_network, |network| show_network(*network));
    both_ways(text, parse_duration, |duration| show_duration(*duration));
    both_ways(text, |text| parse_count(text, "write 1"), ToString::to_string);
    both_ways(text, parse_seed, ToString::to_string);
    for metric in Metric::ALL {
        both_ways(text, |text| parse_margin(text, metric), |margin| show_margin(*margin, metric));
    }
    if let Some(confidence) = understood(text, parse_confidence) {
        assert!((0.8..1.0).contains(&confidence));
    }
}

/// Which system calls, and what they fail with. By itself, as there are hundreds of names to compare with.
pub fn calls(text: &str) {
    both_ways(text, str::parse::<SyscallSet>, ToString::to_string);
    both_ways(text, str::parse::<Errors>, ToString::to_string);
    both_ways(text, str::parse::<PathPattern>, ToString::to_string);
    both_ways(text, str::parse::<FdKind>, ToString::to_string);
    both_ways(text, str::parse::<Comm>, ToString::to_string);
    both_ways(text, str::parse::<Users>, ToString::to_string);
    both_ways(text, str::parse::<Tgid>, ToString::to_string);
    both_ways(text, str::parse::<Forged>, ToString::to_string);
}

/// A target.
pub fn target(text: &str) {
    if let Some(target) = understood(text, str::parse::<Target>) {
        reads_back(&target);
    }
}

/// Files of /proc, whose paths are somebody else's.
pub fn proc(bytes: &[u8]) {
    if let Some(mount) = proc::cgroup2_mount(bytes) {
        assert!(mount.as_os_str().len() <= bytes.len());
    }
    if let Some(path) = proc::cgroup2_path(bytes) {
        assert!(!path.to_string_lossy().contains('\n'));
    }
}

/// A journal, which another version of kchaos may have written.
pub fn journal(bytes: &[u8]) {
    let Ok(entry) = journal::parse(bytes) else { return };
    let written = serde_json::to_vec(&entry).expect("plain data");
    assert_eq!(journal::parse(&written).expect("what we write"), entry);
    entry.residue.iter().for_each(|residue| drop(sweep::command(residue, None)));
}

/// Files of a cgroup.
pub fn cgroup(text: &str) {
    for key in ["anon", "usage_usec", "oom_kill"] {
        if let Some(value) = cgroupfs::keyed(text, key) {
            assert!(text.contains(&format!("{key} ")) && text.contains(&value.to_string()));
        }
    }
    let stalls = cgroupfs::stalls(text);
    let totals = [stalls.some_us, stalls.full_us].into_iter().flatten();
    totals.for_each(|total| assert!(text.contains("total=") && text.contains(&total.to_string())));
    if cgroupfs::io(text).is_some_and(|io| io != cgroupfs::Io::default()) {
        assert!(["rbytes=", "wbytes=", "rios=", "wios="].iter().any(|key| text.contains(key)));
    }
    if let Some(number) = cgroupfs::number(text) {
        assert!(text.contains(&number.to_string()));
    }
}

/// A page that a target says of itself.
pub fn exposition(text: &str) {
    match probe::read_exposition(text, &BTreeSet::new()) {
        Ok(series) => {
            assert!(series.len() <= probe::MAX_SERIES);
            assert!(series.keys().all(|name| text.contains(name.as_str())));
            let written = serde_json::to_string(&series).expect("plain data");
            let read: BTreeMap<String, Scraped> = serde_json::from_str(&written).expect("what we write");
            assert_eq!(read, series, "no number is infinite, and none is lost");
        }
        Err(why) => harmless(&why),
    }
}

/// An experiment of Chaos Toolkit.
pub fn chaos_toolkit(text: &str) {
    match chaos_toolkit::import(text) {
        Ok(imported) => {
            harmless(&imported.spec);
            imported.left_out.iter().for_each(|line| assert!(!line.contains(char::is_control)));
            if imported.probes == 0 {
                return;
            }
            // As a user would complete it, and with a gate that needs no probe.
            let spec = imported.spec.replace("\n#: ", "\n");
            let (before, rest) = spec.split_once("\n  checks: ").expect("checks");
            let (_, after) = rest.split_once("\n\n# What should go wrong").expect("faults");
            let spec = format!("{before}\n  gates: [{{ metric: syscalls, within: 10% }}]\n#{after}");
            match parse(&spec) {
                Ok(spec) => assert_eq!(spec.probes.len(), imported.probes),
                Err(error) => panic!("{error}\n{spec}"),
            }
        }
        Err(error) => harmless(&error.to_string()),
    }
}

/// What the host shows of its security.
pub fn host(text: &str) {
    assert!(host::modules(text).iter().all(|module| !module.is_empty() && !module.contains(',')));
    if let Some(level) = host::chosen(text) {
        assert!(!level.contains(']'));
    }
}

/// What is read is shown as something that reads the same.
fn both_ways<T: PartialEq + Debug>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, BadValue>,
    show: impl Fn(&T) -> String,
) {
    if let Some(value) = understood(text, &parse) {
        let shown = show(&value);
        assert_eq!(parse(&shown).as_ref(), Ok(&value), "{text:?} is shown as {shown:?}");
    }
}

fn reads_back(target: &Target) {
    assert_eq!(target.to_string().parse::<Target>().as_ref(), Ok(target));
}

fn understood<T>(text: &str, parse: impl Fn(&str) -> Result<T, BadValue>) -> Option<T> {
    parse(text).inspect_err(|error| harmless(&error.to_string())).ok()
}

/// Messages go to terminals, which control characters would rewrite.
fn harmless(message: &str) {
    assert!(!message.chars().any(|c| c.is_control() && c != '\n'), "{message:?}");
}

#[cfg(test)]
mod tests {
    use chaos_common::random;
    use std::{fs, path::Path};

    /// How many damaged seeds each target is shown.
    const INPUTS: u64 = 1_500;
    const SEED: u64 = 0x6b63_6861_6f73;
    /// What parsers go by.
    const PIECES: [&str; 24] = [
        "",
        "0",
        "-1",
        "1e999",
        "18446744073709551616",
        "%",
        ",",
        ":",
        "/",
        "..",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "'",
        "\n",
        "\n  ",
        "\0",
        "\t",
        "\u{1b}[31m",
        "é",
        "- ",
        "#",
    ];

    /// Draws one after the other, the same each time.
    struct Draws(u64);

    impl Draws {
        fn below(&mut self, bound: usize) -> usize {
            self.0 += 1;
            random::draw(SEED, 0, self.0) as usize % bound.max(1)
        }
    }

    /// All files of these folders of the repository.
    fn seeds(folders: &[&str]) -> Vec<Vec<u8>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut seeds: Vec<_> = folders
            .iter()
            .flat_map(|folder| fs::read_dir(root.join(folder)).expect("a folder of seeds"))
            .map(|entry| fs::read(entry.expect("an entry").path()).expect("a seed"))
            .collect();
        assert!(!seeds.is_empty());
        seeds.sort();
        seeds
    }

    /// Puts something in the place of a stretch of it: a piece, a stretch of another seed, a flipped bit.
    fn damage(seed: &mut Vec<u8>, other: &[u8], draws: &mut Draws) {
        let from = draws.below(seed.len() + 1);
        let to = (from + draws.below(9)).min(seed.len());
        let (begin, length) = (draws.below(other.len()), draws.below(40));
        let instead = match draws.below(4) {
            0 => other[begin..(begin + length).min(other.len())].to_vec(),
            1 => seed[from..to].iter().map(|byte| byte ^ (1 << draws.below(8))).collect(),
            2 => Vec::new(),
            _ => PIECES[draws.below(PIECES.len())].as_bytes().to_vec(),
        };
        seed.splice(from..to, instead);
    }

    fn bytes(folders: &[&str], target: fn(&[u8])) {
        let (seeds, mut draws) = (seeds(folders), Draws(0));
        seeds.iter().for_each(|seed| target(seed));
        for _ in 0..INPUTS {
            let mut input = seeds[draws.below(seeds.len())].clone();
            for _ in 0..=draws.below(3) {
                damage(&mut input, &seeds[draws.below(seeds.len())], &mut draws);
            }
            target(&input);
        }
    }

    macro_rules! on_damaged_seeds {
        ($($target:ident: $($folder:literal),+;)+) => { $(
            #[test]
            fn $target() {
                bytes(&[$($folder),+], |input| on_damaged_seeds!(@call $target input));
            }
        )+ };
        (@call proc $input:ident) => { super::proc($input) };
        (@call journal $input:ident) => { super::journal($input) };
        (@call $target:ident $input:ident) => { super::$target(&String::from_utf8_lossy($input)) };
    }

    on_damaged_seeds! {
        spec: "examples", "chaos-user/tests/specs/bad";
        values: "fuzz/corpus/values";
        calls: "fuzz/corpus/calls";
        target: "fuzz/corpus/target";
        proc: "fuzz/corpus/proc";
        journal: "fuzz/corpus/journal";
        cgroup: "fuzz/corpus/cgroup";
        exposition: "fuzz/corpus/exposition";
        chaos_toolkit: "fuzz/corpus/chaos_toolkit";
        host: "fuzz/corpus/host";
    }
}
