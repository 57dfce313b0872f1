//! Other people's programs on the same device keep seeing what they would see: everything that is not lost.

use anyhow::ensure;
use chaos_common::net::Direction;

use crate::{
    Test,
    controller::{self, exit},
    flow::Flow,
    foreign::{At, Foreign},
    lab::{Cgroup, Lab, OUTSIDE},
    net::numbers::Numbers,
    snapshot::{Snapshot, left_by},
    tests,
    victim::Victim,
};

const PACKETS: u64 = 2_000;
/// Neighbour discovery, multicast reports and the like come by as well.
const OTHERS: u64 = 30;

pub fn tests() -> Vec<Test> {
    tests![
        TCX: tcx_program_that_came_before_sees_what_is_not_lost;
        CLSACT: clsact_filter_sees_what_a_clsact_injection_does_not_lose;
        CLSACT on one kernel: clsact_filter_that_came_before_survives_sigkill_and_sweep, clsact_filters_see_what_is_corrupted_and_each_copy,
            clsact_injections_on_one_device_end_each_for_itself,
            clsact_filter_that_came_later_survives_the_rollback;
        TCX on one kernel: clsact_filter_sees_what_a_tcx_injection_does_not_lose,
            tcx_programs_see_what_is_corrupted_and_each_copy, tcx_program_that_came_later_sees_what_is_not_lost
    ]
}

/// The first to end leaves the other's filter in force, and the last takes the qdisc with it.
fn clsact_injections_on_one_device_end_each_for_itself() -> anyhow::Result<()> {
    let (lab, one, other) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
    let (of_one, of_other) = (Victim::start(&lab, &one)?, Victim::start(&lab, &other)?);
    let (mut first, mut second) = (Flow::new(&lab, &of_one)?, Flow::new(&lab, &of_other)?);
    let before = Snapshot::take(&lab, &[&one, &other])?;
    let inject = |cgroup: &Cgroup| {
        let arguments = format!("loss --percent 100 --mechanism clsact-egress --on {}", cgroup.target());
        controller::inject(&arguments)
    };
    let (of_first, of_second) = (inject(&one)?, inject(&other)?);
    first.is_shut("while both are injected")?;
    second.is_shut("while both are injected")?;
    of_first.interrupt()?.ensure_code(exit::OK)?;
    first.is_open("after the first has ended")?;
    second.is_shut("after the first has ended")?;
    let pid = of_second.pid();
    of_second.interrupt()?.ensure_code(exit::OK)?;
    second.is_open("after both have ended")?;
    before.ensure_restored(&lab, &[&one, &other], pid)
}

type Attach = fn(&mut Foreign, &Lab) -> anyhow::Result<()>;

fn tcx(foreign: &mut Foreign, lab: &Lab) -> anyhow::Result<()> {
    foreign.attach_tcx(&lab.inside)
}

fn clsact(foreign: &mut Foreign, lab: &Lab) -> anyhow::Result<()> {
    foreign.attach_clsact(&lab.inside)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    Before,
    Later,
}

/// Somebody else's program sees all packets before and after, and during loss those that are not lost.
fn sees_what_is_not_lost(attach: Attach, came: Came, mechanism: &str) -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    let mut foreign = Foreign::counting()?;
    let mut saw_all = |foreign: &Foreign, expect_loss: bool| {
        let seen = foreign.seen()?;
        let arrived = PACKETS - flow.lost(PACKETS)?;
        let seen = foreign.seen()? - seen;
        ensure!(
            (arrived..arrived + OTHERS).contains(&seen),
            "{arrived} packets were passed, {seen} were seen"
        );
        ensure!((arrived < PACKETS) == expect_loss, "{arrived} of {PACKETS} packets arrived");
        Ok(())
    };
    if came == Came::Before {
        attach(&mut foreign, &lab)?;
        saw_all(&foreign, false)?;
    }
    let arguments = format!("loss --percent 30 --mechanism {mechanism} --on {}", cgroup.target());
    let kchaos = controller::inject(&arguments)?;
    if came == Came::Later {
        attach(&mut foreign, &lab)?;
    }
    saw_all(&foreign, true)?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    saw_all(&foreign, false)
}

fn tcx_program_that_came_before_sees_what_is_not_lost() -> anyhow::Result<()> {
    sees_what_is_not_lost(tcx, Came::Before, "tcx-egress")
}

fn tcx_program_that_came_later_sees_what_is_not_lost() -> anyhow::Result<()> {
    sees_what_is_not_lost(tcx, Came::Later, "tcx-egress")
}

fn clsact_filter_sees_what_a_tcx_injection_does_not_lose() -> anyhow::Result<()> {
    sees_what_is_not_lost(clsact, Came::Before, "tcx-egress")
}

fn clsact_filter_sees_what_a_clsact_injection_does_not_lose() -> anyhow::Result<()> {
    sees_what_is_not_lost(clsact, Came::Before, "clsact-egress")
}

/// It hangs on the qdisc that was made for ours, which therefore stays.
fn clsact_filter_that_came_later_survives_the_rollback() -> anyhow::Result<()> {
    sees_what_is_not_lost(clsact, Came::Later, "clsact-egress")
}

fn clsact_filter_that_came_before_survives_sigkill_and_sweep() -> anyhow::Result<()> {
    let _alone = controller::sweeps();
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::new(&lab, &victim)?;
    let mut foreign = Foreign::counting()?;
    foreign.attach_clsact(&lab.inside)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let arguments = format!("loss --percent 100 --mechanism clsact-egress --on {}", cgroup.target());
    let kchaos = controller::inject(&arguments)?;
    flow.is_shut("during")?;
    let pid = kchaos.pid();
    kchaos.kill()?;
    // Either of them undoes it: the watchdog is on its way, and sweep need not know.
    controller::run("sweep")?.ensure_code(exit::OK)?;
    ensure!(left_by(pid)?.is_empty(), "a journal is left");
    before.ensure_restored(&lab, &[&cgroup], pid)?;
    let seen = foreign.seen()?;
    flow.is_open("after")?;
    ensure!(foreign.seen()? >= seen + 200, "the filter is there, but sees nothing");
    Ok(())
}

fn tcx_programs_see_what_is_corrupted_and_each_copy() -> anyhow::Result<()> {
    see_everything_that_goes_on(At::Tcx, ["tcx-egress", "tcx-ingress"])
}

fn clsact_filters_see_what_is_corrupted_and_each_copy() -> anyhow::Result<()> {
    see_everything_that_goes_on(At::Clsact, ["clsact-egress", "clsact-ingress"])
}

/// Somebody else's program behind ours sees as many packets as arrive, either way.
fn see_everything_that_goes_on(at: At, mechanisms: [&str; 2]) -> anyhow::Result<()> {
    const PACKETS: u64 = 500;
    let ways = [(Direction::Egress, "egress"), (Direction::Ingress, "ingress")];
    for ((way, name), mechanism) in ways.into_iter().zip(mechanisms) {
        for (fault, times) in [("corrupt", 1), ("duplicate --copies 2", 3)] {
            let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
            let victim = Victim::start(&lab, &cgroup)?;
            let mut numbers = Numbers::new(&lab, &victim, OUTSIDE)?;
            let arguments = format!(
                "{fault} --percent 100 --direction {name} --mechanism {mechanism} --on {}",
                cgroup.target()
            );
            let kchaos = controller::inject(&arguments)?;
            let mut foreign = Foreign::counting()?;
            foreign.attach_behind(at, &lab.inside, way)?;
            let arrived = numbers.arrived(way, PACKETS)?.len() as u64;
            let seen = foreign.seen()?;
            kchaos.interrupt()?.ensure_code(exit::OK)?;
            ensure!(arrived == times * PACKETS, "{fault} {name}: {arrived} of {PACKETS} packets arrived");
            ensure!(
                (arrived..arrived + OTHERS).contains(&seen),
                "{fault} {name}: {arrived} packets were passed, {seen} were seen"
            );
        }
    }
    Ok(())
}
