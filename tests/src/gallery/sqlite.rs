//! A database that is a library: its shell, for which each call that fails is an error of a statement.

use std::path::PathBuf;

use anyhow::{Context, ensure};

use super::{Scene, ensure_complains, ensure_says, shown};
use crate::{Test, clients::Done, lab::Cgroup, tests};

pub fn tests() -> Vec<Test> {
    tests![
        SQLITE on one kernel: sqlite_rolls_back_on_a_full_disk, sqlite_rolls_back_when_writing_fails,
            sqlite_takes_what_follows_a_failure_by_itself, sqlite_does_not_open_what_cannot_be_read;
        SQLITE_SYSCALL on one kernel: sqlite_rolls_back_when_syncing_fails
    ]
}

/// A database with one row.
struct Database {
    scene: Scene,
    file: PathBuf,
}

/// A transaction that makes two rows, by somebody who goes on whatever is said.
const TWO_ROWS: &str = "begin;\ninsert into t values (2);\ninsert into t values (3);\ncommit;\n";
/// The rows that others have made.
const WITHOUT: &str = "1\n4\n10";
const COUNT: &str = "select count(*) from t;\n";

impl Database {
    fn new() -> anyhow::Result<Self> {
        let scene = Scene::new()?;
        let database = Self { file: scene.below("db")?.join("a.db"), scene };
        database.says(
            &database.scene.cgroup,
            "create table t (x);\ninsert into t values (1);\n",
            "",
            "before",
        )?;
        database.says(&database.scene.cgroup, COUNT, "1", "before")?;
        Ok(database)
    }

    fn sql(&self, cgroup: &Cgroup, input: &str) -> anyhow::Result<Done> {
        let file = self.file.to_str().context("a file's name")?;
        self.scene.ask(cgroup, &["sqlite3", "-batch", file], input)
    }

    fn says(&self, cgroup: &Cgroup, input: &str, text: &str, when: &str) -> anyhow::Result<()> {
        ensure_says(&self.sql(cgroup, input)?, text, when)
    }

    /// During, `work` says what is complained about, and somebody beside adds a row to the same file. Afterwards, one can
    /// be added, and these are there and no others.
    fn during(&self, fault: &str, rows: &str, work: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let (scene, folder) = (&self.scene, self.file.parent().context("a folder")?.display());
        let fault = scene.inject(&format!("{fault} --paths {folder}/"))?;
        work()?;
        self.says(&scene.beside, "insert into t values (10);\n", "", "beside, during")?;
        fault.end()?;
        let after = "insert into t values (4);\nselect x from t order by x;\npragma integrity_check;\n";
        self.says(&scene.cgroup, after, &format!("{rows}\nok"), "after")
    }

    /// A transaction that fails so leaves nothing, not even within its own connection.
    fn rolls_back(&self, fault: &str, words: &[&str]) -> anyhow::Result<()> {
        self.during(fault, WITHOUT, || {
            let done = self.sql(&self.scene.cgroup, &(TWO_ROWS.to_owned() + COUNT))?;
            ensure!(done.code != Some(0), "{fault}: it has noticed nothing");
            ensure!(done.output.trim() == "1", "{fault}: rows are there: {}", done.output);
            ensure_complains(&done, words)
        })
    }
}

fn sqlite_rolls_back_on_a_full_disk() -> anyhow::Result<()> {
    Database::new()?.rolls_back("disk --is full", &["database or disk is full (13)"])
}

fn sqlite_rolls_back_when_writing_fails() -> anyhow::Result<()> {
    let fault = "errno --syscalls write,pwrite64 --error EIO";
    Database::new()?.rolls_back(fault, &["disk I/O error (10)"])
}

fn sqlite_rolls_back_when_syncing_fails() -> anyhow::Result<()> {
    let fault = "errno --syscalls fsync,fdatasync --error EIO";
    Database::new()?.rolls_back(fault, &["disk I/O error (10)"])
}

/// The first row's failure has ended the transaction, so the second row is one by itself.
fn sqlite_takes_what_follows_a_failure_by_itself() -> anyhow::Result<()> {
    let database = Database::new()?;
    let fault = "errno --syscalls write,pwrite64 --error ENOSPC --max 1";
    database.during(fault, "1\n3\n4\n10", || {
        let done = database.sql(&database.scene.cgroup, &(TWO_ROWS.to_owned() + COUNT))?;
        ensure!(done.output.trim() == "2", "not one of two: {}", shown(&done));
        let words = ["line 2: database or disk is full (13)", "cannot commit - no transaction is active"];
        ensure_complains(&done, &words)
    })
}

fn sqlite_does_not_open_what_cannot_be_read() -> anyhow::Result<()> {
    let database = Database::new()?;
    database.during("errno --syscalls read,pread64 --error EIO", WITHOUT, || {
        let done = database.sql(&database.scene.cgroup, COUNT)?;
        ensure!(done.code != Some(0) && done.output.is_empty(), "it has read: {}", done.output);
        ensure_complains(&done, &["disk I/O error"])
    })
}
