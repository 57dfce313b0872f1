//! What a system call costs in a tight loop while calls of somebody are judged: of the target's own, and of others. By
//! each mechanism that the kernel has; beside strace and a supervisor by seccomp.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use kchaos::{
    experiment::hypothesis::Metric,
    fault::{
        mechanism::Mechanism,
        plan::{Options, Plan},
    },
    kernel::{RawPlace, probe::Hooked},
};

use super::{
    BenchCgroup,
    calling::{self, ALONE, Call, SUPERVISED},
    iperf::while_injecting,
    median,
};

const ROUNDS: usize = 7;

/// The entry point of [`Call::GetPriority`].
const SYSCALL: &str =
    if cfg!(target_arch = "aarch64") { "__arm64_sys_getpriority" } else { "__x64_sys_getpriority" };

/// Each mechanism, a call that it meets, and where; a kprobe stands where fmod_ret does.
const MECHANISMS: [(Mechanism, Call, Option<RawPlace<'static>>); 4] = [
    (Mechanism::Lsm, Call::Open, Some(RawPlace::Lsm("file_open"))),
    (Mechanism::FmodRetSecurity, Call::Open, Some(RawPlace::ModifyReturn("security_file_open"))),
    (Mechanism::FmodRetSyscall, Call::GetPriority, Some(RawPlace::ModifyReturn(SYSCALL))),
    (Mechanism::Kprobe, Call::GetPriority, None),
];

/// No cgroup's id.
const NOBODY: u64 = 0;

/// Nanoseconds, for each call.
type Costs = [f64; Call::ALL.len()];

/// What is there while the loop runs.
enum Beside {
    Nothing,
    /// An injection that never hits.
    Kchaos(Box<Plan>),
    /// A program that compares a cgroup's id with a constant, and no more: what the kernel takes for having one there.
    Bare(RawPlace<'static>),
    /// The loop is strace's child.
    Strace(&'static [&'static str]),
    Supervisor,
}

struct Case {
    name: String,
    beside: Beside,
    /// Whether the loop is in the target cgroup.
    inside: bool,
    /// The calls that are met.
    met: Vec<Call>,
    costs: Vec<Costs>,
}

impl Case {
    fn new(name: impl Into<String>, beside: Beside, inside: bool, met: &[Call]) -> Self {
        Self { name: name.into(), beside, inside, met: met.to_vec(), costs: Vec::new() }
    }

    fn measure(&self, cgroup: &BenchCgroup) -> anyhow::Result<Costs> {
        match &self.beside {
            Beside::Nothing => run(cgroup, &[], ALONE),
            Beside::Kchaos(plan) => while_injecting(plan, || run(cgroup, &[], ALONE)),
            Beside::Bare(at) => {
                let _hooked = Hooked::at(*at, None, false, NOBODY, 0)?;
                run(cgroup, &[], ALONE)
            }
            Beside::Strace(words) => run(cgroup, words, ALONE),
            Beside::Supervisor => run(cgroup, &[], SUPERVISED),
        }
    }
}

/// The largest `when` that strace 6.1 takes: more calls than a loop makes under it.
const STRACE: [&str; 8] = [
    "strace",
    "-f",
    "-o",
    "/dev/null",
    "-e",
    "trace=getpriority,openat",
    "-e",
    "inject=getpriority,openat:error=EIO:when=65535",
];
const STRACE_SECCOMP: [&str; 9] =
    [STRACE[0], STRACE[1], "--seccomp-bpf", STRACE[2], STRACE[3], STRACE[4], STRACE[5], STRACE[6], STRACE[7]];

/// Runs all cases and prints them against nothing.
pub fn bench() -> anyhow::Result<()> {
    let (target, elsewhere) = (BenchCgroup::new("judged")?, BenchCgroup::new("beside")?);
    let mut cases = cases(&target)?;
    for _ in 0..ROUNDS {
        for case in &mut cases {
            let cgroup = if case.inside { &target } else { &elsewhere };
            let costs = case.measure(cgroup).with_context(|| case.name.clone())?;
            case.costs.push(costs);
        }
    }
    print(&cases);
    Ok(())
}

fn cases(target: &BenchCgroup) -> anyhow::Result<Vec<Case>> {
    let mut cases = vec![Case::new("nothing", Beside::Nothing, false, &[])];
    let mut counted = None;
    for (mechanism, call, at) in MECHANISMS {
        let Some(plan) = never(target, mechanism, call, None)? else { continue };
        let plan = || Beside::Kchaos(Box::new(plan.clone()));
        if let Some(at) = at {
            cases.push(Case::new(
                format!("a bare program where {mechanism} is"),
                Beside::Bare(at),
                false,
                &[call],
            ));
        }
        cases.push(Case::new(format!("{mechanism}, not a target"), plan(), false, &[call]));
        cases.push(Case::new(format!("{mechanism}, target at 0 %"), plan(), true, &[call]));
        counted = counted.or(Some((mechanism, call)));
    }
    if let Some((mechanism, call)) = counted
        && let Some(plan) = never(target, mechanism, call, Some(vec![Metric::Syscalls]))?
    {
        let plan = || Beside::Kchaos(Box::new(plan.clone()));
        let name = |who| format!("{mechanism}, {who}, all calls counted");
        cases.push(Case::new(name("not a target"), plan(), false, &[call]));
        cases.push(Case::new(name("target at 0 %"), plan(), true, &[call]));
    }
    let met = [Call::GetPriority, Call::Open];
    cases.push(Case::new("strace, seccomp-bpf off", Beside::Strace(&STRACE), false, &met));
    cases.push(Case::new("strace --seccomp-bpf", Beside::Strace(&STRACE_SECCOMP), false, &met));
    cases.push(Case::new("a supervisor by seccomp", Beside::Supervisor, false, &met));
    Ok(cases)
}

/// A plan that meets a call and never hits; `None` where this kernel has no such way.
fn never(
    target: &BenchCgroup,
    mechanism: Mechanism,
    call: Call,
    gates: Option<Vec<Metric>>,
) -> anyhow::Result<Option<Plan>> {
    let parameters = [("syscalls", call.name()), ("error", "EACCES"), ("percent", "0%")];
    let options = Options { forced: Some(mechanism), gates, ..Options::default() };
    target.plan_calls("errno", &parameters, &options)
}

/// Has a child make calls in this cgroup, behind these words.
fn run(cgroup: &BenchCgroup, front: &[&str], how: &str) -> anyhow::Result<Costs> {
    let own = std::env::current_exe()?.display().to_string();
    let dir = cgroup.dir.display().to_string();
    let words: Vec<&str> = front.iter().copied().chain([&own[..], calling::VERB, &dir, how]).collect();
    let mut command = Command::new(words[0]);
    let output = command.args(&words[1..]).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| words[0].to_owned())?;
    ensure!(output.status.success(), "{}: {}", words[0], output.status);
    calling::read(&output.stdout)
}

fn print(cases: &[Case]) {
    println!(
        "ns per call in a tight loop ({ROUNDS} rounds), medians of the fastest turn; ratios to nothing in the same round; * is met"
    );
    let heads = Call::ALL.map(|call| format!("{:>26}", call.name()));
    println!("  {:<46}{}", "", heads.concat());
    let nothing = &cases[0].costs;
    for case in cases {
        let columns = (0..Call::ALL.len()).map(|place| {
            let ns: Vec<f64> = case.costs.iter().map(|costs| costs[place]).collect();
            let ratios: Vec<f64> = ns.iter().zip(nothing).map(|(ns, nothing)| ns / nothing[place]).collect();
            let met = if case.met.contains(&Call::ALL[place]) { '*' } else { ' ' };
            format!("{:>12.0} ratio {:>6.2} {met}", median(&ns), median(&ratios))
        });
        println!("  {:<46}{}", case.name, columns.collect::<String>());
    }
}
