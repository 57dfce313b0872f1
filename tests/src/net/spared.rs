//! What is spared by default, and only by default.

use std::{fs, io, net::IpAddr, net::Ipv4Addr};

use anyhow::{Context, ensure};
use futures_util::TryStreamExt;
use kchaos::target::{Netns, netns::with_netlink};
use rtnetlink::{RouteMessageBuilder, packet_route::address::AddressAttribute};
use tempfile::TempDir;

use crate::{
    Test,
    controller::{self, exit},
    flow::Flow,
    lab::{Cgroup, ELSEWHERE, Lab, OUTSIDE},
    snapshot::Snapshot,
    tests,
    victim::Victim,
};

const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

pub fn tests() -> Vec<Test> {
    tests![
        EGRESS on one kernel: loss_of_nothing_but_what_is_spared_is_refused, plan_lists_what_is_spared,
            loss_spares_by_default_what_must_be_reachable
    ]
}

/// Everything the victim sends elsewhere goes through `OUTSIDE`, which also has these addresses.
fn route_everything(lab: &Lab, addresses: &[IpAddr]) -> anyhow::Result<()> {
    let IpAddr::V4(gateway) = OUTSIDE else { unreachable!("an address in IPv4") };
    lab.inside.run(|| {
        with_netlink(async |handle| {
            let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
            handle.route().add(default).execute().await.map_err(io::Error::other)
        })
    })??;
    lab.outside.run(|| {
        with_netlink(async |handle| {
            for address in addresses {
                // 1 is lo in every network namespace. Whoever sends to a broadcast address needs leave.
                let mut request = handle.address().add(1, *address, 32);
                request
                    .message_mut()
                    .attributes
                    .retain(|attribute| !matches!(attribute, AddressAttribute::Broadcast(_)));
                request.execute().await.map_err(io::Error::other)?;
            }
            Ok(())
        })
    })??;
    Ok(())
}

/// An address at which others reach this machine, if it has one: in the lab's guests there is none.
fn address_of_the_node() -> anyhow::Result<Option<IpAddr>> {
    let node = Netns::of_process(1).or_else(|_| Netns::current())?;
    let addresses: Vec<_> = node.run(|| {
        with_netlink(async |handle| {
            handle.address().get().execute().try_collect().await.map_err(io::Error::other)
        })
    })??;
    Ok(addresses.iter().flat_map(|message| &message.attributes).find_map(|attribute| match attribute {
        AddressAttribute::Local(address @ IpAddr::V4(v4)) if !v4.is_loopback() => Some(*address),
        _ => None,
    }))
}

fn loss_spares_by_default_what_must_be_reachable() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    let node = address_of_the_node()?;
    let addresses: Vec<IpAddr> = [METADATA].into_iter().chain(node).collect();
    route_everything(&lab, &addresses)?;
    let victim = Victim::start(&lab, &cgroup)?;
    let to = |address| Flow::to(&lab, &victim, address);
    let (mut plain, mut api) = (to(ELSEWHERE)?, to(ELSEWHERE)?);
    let mut spared = vec![
        ("the gateway", to(OUTSIDE)?),
        ("the metadata service", to(METADATA)?),
        ("ssh", { Flow::from_port(&lab, &victim, ELSEWHERE, 22)? }),
    ];
    if let Some(node) = node {
        spared.push(("the node", to(node)?));
    }
    let environment = [
        ("KUBERNETES_SERVICE_HOST", ELSEWHERE.to_string()),
        ("KUBERNETES_SERVICE_PORT", api.port()?.to_string()),
    ];
    let target = cgroup.target();
    let all_open = |spared: &mut Vec<(&str, Flow<'_>)>, when: &str| {
        spared.iter_mut().try_for_each(|(what, flow)| flow.is_open(&format!("{what}, {when}")))
    };
    all_open(&mut spared, "before")?;

    let kchaos = controller::inject_with(&environment, &format!("loss --percent 100 --on {target}"))?;
    all_open(&mut spared, "during")?;
    api.is_open("the API server, during")?;
    plain.is_shut("what is not spared")?;
    let ended = kchaos.interrupt()?;
    ended.ensure_code(exit::OK)?;
    let filtered = ended.outcome("filtered")?;
    ensure!(filtered >= 200 * (spared.len() as u64 + 1), "only {filtered} were counted as filtered out");

    let arguments = format!("loss --percent 100 --allow-defaults false --on {target}");
    let kchaos = controller::inject_with(&environment, &arguments)?;
    spared.iter_mut().try_for_each(|(what, flow)| flow.is_shut(what))?;
    api.is_shut("the API server")?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    all_open(&mut spared, "after")?;
    plain.is_open("after")
}

/// Nothing is attached, and the way to insist is named; asked for among others, it is said to be spared.
fn loss_of_nothing_but_what_is_spared_is_refused() -> anyhow::Result<()> {
    let (lab, cgroup) = (Lab::new()?, Cgroup::new()?);
    route_everything(&lab, &[])?;
    let victim = Victim::start(&lab, &cgroup)?;
    let mut flow = Flow::from_port(&lab, &victim, OUTSIDE, 22)?;
    let before = Snapshot::take(&lab, &[&cgroup])?;
    let target = cgroup.target();
    for (filter, what) in
        [("--local-ports 22".into(), ":22 (ssh)"), (format!("--peers {OUTSIDE}"), "default gateway")]
    {
        let refused = controller::run(&format!("inject loss --percent 100 {filter} --on {target}"))?;
        refused.ensure_refused(&["spared by default", what, "--allow-defaults false"])?;
    }
    ensure!(before == Snapshot::take(&lab, &[&cgroup])?, "something was attached");

    let arguments = format!("loss --percent 100 --local-ports 22,7001 --on {target}");
    let ended = controller::inject(&arguments)?.interrupt()?;
    ensure!(ended.said.contains("note: loss asks for :22 (ssh), which is spared"), "{}", ended.said);

    let arguments = format!("loss --percent 100 --local-ports 22 --allow-defaults false --on {target}");
    let kchaos = controller::inject(&arguments)?;
    flow.is_shut("what was insisted on")?;
    kchaos.interrupt()?.ensure_code(exit::OK)?;
    flow.is_open("after")
}

fn plan_lists_what_is_spared() -> anyhow::Result<()> {
    let (lab, control, experiment) = (Lab::new()?, Cgroup::new()?, Cgroup::new()?);
    route_everything(&lab, &[])?;
    let _victims = [Victim::start(&lab, &control)?, Victim::start(&lab, &experiment)?];
    let folder = TempDir::new()?;
    let path = folder.path().join("spec.yaml");
    let plan = |fault: &str| -> anyhow::Result<String> {
        let (control, experiment) = (control.target(), experiment.target());
        let text = format!(
            "version: 1\nname: kchaos-test\ngroups: {{ control: '{control}', experiment: '{experiment}' }}\n\
             steady_state: {{ gates: [{{ metric: net.tx_bytes, decrease: 10% }}] }}\nfaults: [{{ loss: {fault} }}]\n"
        );
        fs::write(&path, text)?;
        let ended = controller::run(&format!("plan {}", path.display()))?;
        ended.ensure_code(exit::OK).context("planning")?;
        Ok(ended.output)
    };
    let shown = plan("{ percent: 5%, ports: [22, 80], pulse: { delay: 5s, active: 1s, dormant: 2s } }")?;
    for words in [
        "ssh                   :22\n",
        "metadata service      169.254.169.254, fd00:ec2::254\n",
        &format!("default gateway       {OUTSIDE}\n"),
        "note: loss asks for :22 (ssh), which is spared by default",
        "off for 5s, then by turns on for 1s and off for 2s",
    ] {
        ensure!(shown.contains(words), "no `{words}` in: {shown}");
    }
    let insisting = plan("{ ramp: { from: 0%, to: 20%, over: 1m }, allow_defaults: false }")?;
    ensure!(!insisting.contains("spared"), "{insisting}");
    ensure!(insisting.contains("loss 0% to 20% over 1m egress by "), "{insisting}");
    Ok(())
}
