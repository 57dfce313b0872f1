//! What a target is limited to, as its files have it: two groups that are to be compared should have the same.

use std::{fs, path::Path};

/// Files of a cgroup that limit it (Documentation/admin-guide/cgroup-v2.rst, 6.18).
const FILES: [&str; 5] = ["memory.max", "memory.high", "cpu.max", "cpu.weight", "pids.max"];

/// What each says; a file that is not there is left out.
pub fn limits(dir: &Path) -> Vec<(String, String)> {
    let read = |name: &str| {
        let text = fs::read_to_string(dir.join(name)).ok()?;
        Some((name.to_owned(), text.trim().to_owned()))
    };
    FILES.into_iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_left_out() {
        let dir = std::env::temp_dir().join(format!("kchaos-limits-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("memory.max"), "max\n").unwrap();
        fs::write(dir.join("cpu.max"), "50000 100000\n").unwrap();
        let found = limits(&dir);
        fs::remove_dir_all(&dir).unwrap();
        let expected = [("memory.max", "max"), ("cpu.max", "50000 100000")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(limits(Path::new("/nonexistent")).is_empty());
    }
}
