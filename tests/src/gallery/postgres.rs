//! A database that does not trust a disk on which fsync has failed once.

use std::{
    fs,
    os::unix::fs::chown,
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, ensure};

use super::{Scene, ensure_complains, ensure_logged, ensure_says, shown};
use crate::{
    Test,
    clients::{Done, Server, find},
    lab::{Cgroup, within},
    tests,
};

pub fn tests() -> Vec<Test> {
    tests![
        POSTGRES on one kernel: postgres_panics_when_fsync_fails
    ]
}

/// Where Debian has the versions of PostgreSQL.
const VERSIONS: &str = "/usr/lib/postgresql";
/// It refuses to be root: nobody's user and group.
const NOBODY: u32 = 65534;

/// Where the programs of the newest PostgreSQL are, or of the one in the path.
pub fn folder() -> anyhow::Result<PathBuf> {
    let versions = fs::read_dir(VERSIONS).into_iter().flatten().flatten().map(|entry| entry.path());
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.filter(|path| path.join("bin/initdb").is_file()).max_by_key(number);
    match newest {
        Some(version) => Ok(version.join("bin")),
        None => Ok(find("initdb")?.parent().context("a folder")?.to_owned()),
    }
}

/// A database of our own.
struct Cluster<'a> {
    scene: &'a Scene,
    /// Has its files, its socket and its log.
    folder: PathBuf,
}

impl<'a> Cluster<'a> {
    /// A new one, with a table of one row.
    fn new(scene: &'a Scene, name: &str) -> anyhow::Result<Self> {
        let cluster = Self { scene, folder: scene.below(name)? };
        chown(scene.folder.path(), Some(NOBODY), Some(NOBODY))?;
        chown(&cluster.folder, Some(NOBODY), Some(NOBODY))?;
        let begun = Instant::now();
        let mut initdb = as_nobody("initdb")?;
        initdb.args(["--no-sync", "--locale=C", "--auth=trust", "--username=postgres"]);
        initdb.args(["--wal-segsize=1", "--pgdata"]).arg(cluster.data());
        let mut bounded = Command::new("timeout");
        bounded.arg("150").arg(initdb.get_program()).args(initdb.get_args());
        let output = within(&scene.beside.dir, &bounded).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        println!("initdb takes {:?}", begun.elapsed());
        Ok(cluster)
    }

    /// The same once more.
    fn copy(&self, name: &str) -> anyhow::Result<Self> {
        let copy = Self { scene: self.scene, folder: self.scene.folder.path().join(name) };
        let copied = Command::new("cp").arg("-a").args([&self.folder, &copy.folder]).status()?;
        ensure!(copied.success(), "cp: {copied}");
        Ok(copy)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Has it run, as small as can be, with these settings.
    fn start(&self, cgroup: &Cgroup, settings: &[&str]) -> anyhow::Result<Server> {
        let begun = Instant::now();
        let small = ["autovacuum=off", "max_connections=8", "shared_buffers=4MB", "listen_addresses="];
        // What these would leave behind if it were killed.
        let own = ["dynamic_shared_memory_type=mmap"];
        let mut postgres = as_nobody("postgres")?;
        postgres.arg("-D").arg(self.data()).arg("-k").arg(&self.folder);
        for setting in small.iter().chain(&own).chain(settings) {
            postgres.args(["-c", setting]);
        }
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"ulimit -c 0; exec unshare --ipc "$@" 2>> "$0""#]).arg(self.log());
        shell.arg(postgres.get_program()).args(postgres.get_args());
        let server = self.scene.serve(cgroup, shell)?.answers(|| self.is_ready())?;
        println!("postgres begins within {:?}", begun.elapsed());
        Ok(server)
    }

    fn is_ready(&self) -> anyhow::Result<bool> {
        let mut ready = Command::new(folder()?.join("pg_isready"));
        Ok(ready.args(["--quiet", "--username=postgres", "-h"]).arg(&self.folder).status()?.success())
    }

    fn sql(&self, sql: &str) -> anyhow::Result<Done> {
        let psql = folder()?.join("psql");
        let (psql, host) = (psql.to_str().context("a name")?, self.folder.to_str().context("a name")?);
        let words = [psql, "-X", "-At", "-h", host, "-U", "postgres", "-c", sql];
        self.scene.ask(&self.scene.beside, &words, "")
    }

    fn says(&self, sql: &str, text: &str, when: &str) -> anyhow::Result<()> {
        ensure_says(&self.sql(sql)?, text, when)
    }
}

/// One of its programs.
fn as_nobody(program: &str) -> anyhow::Result<Command> {
    let nobody = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"]);
    command.arg(folder()?.join(program));
    Ok(command)
}

const FSYNC: &str = "errno --syscalls fsync,fdatasync --error EIO --paths";

/// As its documentation says of `data_sync_retry`. What was committed is there when it is started again.
fn postgres_panics_when_fsync_fails() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let hurt = Cluster::new(&scene, "hurt")?;
    let spared = hurt.copy("spared")?;
    let _spared = spared.start(&scene.beside, &[])?;
    spared.says("create table t (x int)", "CREATE TABLE", "beside, before")?;
    panics_when_its_files_do_not_sync(&hurt, &spared)?;
    panics_when_its_log_does_not_sync(&hurt, &spared)?;
    goes_on_if_told_to_retry(&hurt)
}

/// A checkpoint fails, then its recovery, so that it ends.
fn panics_when_its_files_do_not_sync(hurt: &Cluster, spared: &Cluster) -> anyhow::Result<()> {
    let server = hurt.start(&hurt.scene.cgroup, &[])?;
    hurt.says("create table t (x int)", "CREATE TABLE", "before")?;
    hurt.says("insert into t values (1)", "INSERT 0 1", "before")?;
    hurt.says("checkpoint", "CHECKPOINT", "before")?;
    let fault = hurt.scene.inject(&format!("{FSYNC} {}/base/", hurt.data().display()))?;
    hurt.says("insert into t values (2)", "INSERT 0 1", "during")?;
    ensure_complains(&hurt.sql("checkpoint")?, &["server closed the connection unexpectedly"])?;
    let status = server.ended()?;
    println!("postgres: {status}");
    ensure!(status.code() == Some(1), "{status}");
    spared.says("insert into t values (2)", "INSERT 0 1", "beside, during")?;
    fault.end()?;
    let logged = [
        "PANIC:  could not fsync file \"base/",
        "was terminated by signal 6: Aborted",
        "all server processes terminated; reinitializing",
        "shutting down due to startup process failure",
        "database system is shut down",
    ];
    ensure_logged("postgres", &hurt.log(), &logged)
}

/// A commit fails. Its row may be there or not: nobody was told that it is.
fn panics_when_its_log_does_not_sync(hurt: &Cluster, spared: &Cluster) -> anyhow::Result<()> {
    let server = hurt.start(&hurt.scene.cgroup, &[])?;
    hurt.says("select x from t order by x", "1\n2", "started again")?;
    let fault = hurt.scene.inject(&format!("{FSYNC} {}/", hurt.scene.folder.path().display()))?;
    let done = hurt.sql("insert into t values (3)")?;
    ensure!(done.code != Some(0), "{}", shown(&done));
    ensure_complains(&done, &["PANIC:  could not fdatasync file", "Input/output error"])?;
    let status = server.ended()?;
    println!("postgres: {status}");
    ensure!(status.code() == Some(1), "{status}");
    spared.says("insert into t values (3)", "INSERT 0 1", "beside, during")?;
    spared.says("checkpoint", "CHECKPOINT", "beside, during")?;
    fault.end()?;
    ensure_logged("postgres", &hurt.log(), &["PANIC:  could not fdatasync file"])
}

/// Told to trust a disk that has failed to sync, it reports the error and tries again.
fn goes_on_if_told_to_retry(hurt: &Cluster) -> anyhow::Result<()> {
    let server = hurt.start(&hurt.scene.cgroup, &["data_sync_retry=on"])?;
    let rows = hurt.sql("select x from t order by x")?;
    ensure!(rows.code == Some(0) && rows.output.starts_with("1\n2\n"), "{}", shown(&rows));
    let fault = hurt.scene.inject(&format!("{FSYNC} {}/base/", hurt.data().display()))?;
    hurt.says("insert into t values (4)", "INSERT 0 1", "during")?;
    let done = hurt.sql("checkpoint")?;
    ensure!(done.code != Some(0), "{}", shown(&done));
    ensure_complains(&done, &["ERROR:  checkpoint request failed"])?;
    hurt.says("insert into t values (5)", "INSERT 0 1", "during")?;
    fault.end()?;
    hurt.says("checkpoint", "CHECKPOINT", "after")?;
    hurt.says("select x from t where x > 3 order by x", "4\n5", "after")?;
    ensure_logged("postgres", &hurt.log(), &["ERROR:  could not fsync file \"base/"])?;
    let status = server.stop()?;
    ensure!(status.success(), "{status}");
    Ok(())
}
