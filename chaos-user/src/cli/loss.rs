//! The options of `kchaos inject loss`; what they mean is decided where specs are parsed.

use anyhow::anyhow;
use clap::Args;

use crate::fault::{Fault, flags::LossText};

/// Lose packets: they disappear on the way, neither end is told
#[derive(Debug, Args)]
pub struct LossArgs {
    /// Share of packets lost in the long run: 5, 0.1%, 1e-7%
    #[arg(long, value_name = "PERCENT")]
    percent: Option<String>,
    /// With --percent: how much a loss makes the next one likelier (bursts)
    #[arg(long, value_name = "PERCENT")]
    correlation: Option<String>,
    /// Gilbert–Elliott model, as in tc-netem(8)
    #[arg(long, value_name = "P[,R[,1-H[,1-K]]]")]
    gemodel: Option<String>,
    /// Four-state model, as in tc-netem(8)
    #[arg(long, value_name = "P13[,P31[,P32[,P23[,P14]]]]")]
    state: Option<String>,
    /// Each N-th packet
    #[arg(long, value_name = "N")]
    every: Option<String>,
    /// egress (default), ingress or both, seen from the target
    #[arg(long)]
    direction: Option<String>,
    /// Only tcp, udp or icmp
    #[arg(long)]
    protocol: Option<String>,
    /// Only packets to or from these peers
    #[arg(long, value_name = "ADDRESS|CIDR", value_delimiter = ',')]
    peers: Vec<String>,
    /// Only these ports of the peer
    #[arg(long, value_name = "PORT|FIRST-LAST", value_delimiter = ',')]
    ports: Vec<String>,
    /// Only these ports of the target itself
    #[arg(long, value_name = "PORT|FIRST-LAST", value_delimiter = ',')]
    local_ports: Vec<String>,
    /// Never these, whatever the rest says: 10.0.0.1, 10.0.0.0/8, :22, 10.0.0.1:443
    #[arg(long, value_name = "ADDRESS|CIDR|:PORTS", value_delimiter = ',')]
    allow: Vec<String>,
    /// Only these matching packets, counted from 1 for each target
    #[arg(long, value_name = "FIRST[..LAST][+STEP]")]
    when: Option<String>,
    /// Most packets lost, altogether
    #[arg(long, value_name = "N")]
    max: Option<String>,
    /// Most packets lost in a second, altogether
    #[arg(long, value_name = "N/s")]
    rate: Option<String>,
    /// Same packets in the same order, same losses
    #[arg(long, value_name = "N")]
    seed: Option<String>,
}

impl LossArgs {
    /// The fault, checked.
    pub fn fault(&self) -> anyhow::Result<Fault> {
        let text = LossText {
            percent: self.percent.clone(),
            correlation: self.correlation.clone(),
            gemodel: self.gemodel.clone(),
            state: self.state.clone(),
            every: self.every.clone(),
            direction: self.direction.clone(),
            protocol: self.protocol.clone(),
            peers: self.peers.clone(),
            ports: self.ports.clone(),
            local_ports: self.local_ports.clone(),
            allow: self.allow.clone(),
            when: self.when.clone(),
            max: self.max.clone(),
            rate: self.rate.clone(),
            seed: self.seed.clone(),
        };
        let loss = text.build().map_err(|error| anyhow!("{}: {}", error.option(), error.problem))?;
        Ok(Fault::Loss(loss))
    }
}
