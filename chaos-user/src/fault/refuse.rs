//! Calls on sockets fail, with an error of one's choice.

use std::fmt;

use chaos_common::{
    names::program,
    net::{Direction, hook},
};

use super::{
    Fault, Limits, Pattern,
    capability::Capabilities,
    catalogue::{FaultEntry, Parameter, list, value},
    clause::Clauses,
    course,
    filter::{self, NetFilter, Protocol},
    limits,
    mechanism::{Mechanism, choose},
    net::Hook,
    pattern,
    plan::{Options, Parameters, PlanError, PlannedRule, Way, rule},
    text::{FieldError, Given},
};
use crate::units::{self, BadValue, Errno, parse_flag};

/// For the catalogue.
pub const ENTRY: FaultEntry = FaultEntry {
    name: "refuse",
    summary: "connecting, binding, sending and the like fail with an error",
    parameters: &[
        PARAMETERS,
        pattern::PARAMETERS,
        filter::PARAMETERS,
        limits::PARAMETERS,
        &[course::PULSE_PARAMETER],
    ],
    build,
    command: "kchaos inject refuse --error ETIMEDOUT --ports 5432 --on docker:web --for 30s",
    yaml: "- refuse:\n    calls: connect\n    error: ETIMEDOUT\n    ports: 5432\n    percent: 20%\n",
};

const PARAMETERS: &[Parameter] = &[
    list(
        "calls",
        "connect|bind|sendmsg|socket|setsockopt|getsockopt, …",
        "connect",
        "which calls fail; sendmsg is UDP's, where it names a peer",
    ),
    value("error", "ERRNO", "ECONNREFUSED", "what they fail with, by its name in errno(3)"),
    value("any", "true|false", "false", "errors too that these calls never give"),
];

/// Calls on sockets fail.
#[derive(Clone, Debug, PartialEq)]
pub struct RefuseFault {
    /// Which, each once.
    pub calls: Vec<SocketCall>,
    /// With what.
    pub error: Errno,
    /// Which of a sequence.
    pub pattern: Pattern,
    /// Which at all.
    pub filter: NetFilter,
    /// How often.
    pub limits: Limits,
}

/// A call on a socket of IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketCall {
    /// connect(2), and sendto(2) with MSG_FASTOPEN.
    Connect,
    /// bind(2).
    Bind,
    /// sendto(2), sendmsg(2) and sendmmsg(2) of UDP, where they name a peer.
    Sendmsg,
    /// socket(2).
    Socket,
    /// setsockopt(2).
    Setsockopt,
    /// getsockopt(2).
    Getsockopt,
}

impl SocketCall {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Connect, Self::Bind, Self::Sendmsg, Self::Socket, Self::Setsockopt, Self::Getsockopt];

    /// As users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Bind => "bind",
            Self::Sendmsg => "sendmsg",
            Self::Socket => "socket",
            Self::Setsockopt => "setsockopt",
            Self::Getsockopt => "getsockopt",
        }
    }

    /// The programs that meet it.
    const fn hooks(self) -> &'static [Hook] {
        macro_rules! hooks {
            ($index:ident: $($program:ident),+) => {
                &[$(Hook { program: program::$program, index: hook::$index }),+]
            };
        }
        match self {
            Self::Connect => hooks!(REFUSE_CONNECT: REFUSE_CONNECT4, REFUSE_CONNECT6),
            Self::Bind => hooks!(REFUSE_BIND: REFUSE_BIND4, REFUSE_BIND6),
            Self::Sendmsg => hooks!(REFUSE_SENDMSG: REFUSE_SENDMSG4, REFUSE_SENDMSG6),
            Self::Socket => hooks!(REFUSE_SOCKET: REFUSE_SOCKET),
            Self::Setsockopt => hooks!(REFUSE_SETSOCKOPT: REFUSE_SETSOCKOPT),
            Self::Getsockopt => hooks!(REFUSE_GETSOCKOPT: REFUSE_GETSOCKOPT),
        }
    }

    /// The ways to its hooks. A call goes no direction; what it would have sent goes out.
    pub fn ways(self) -> impl Iterator<Item = Way> {
        let (direction, mechanism) = (Direction::Egress, Mechanism::CgroupSock);
        self.hooks().iter().map(move |hook| Way { direction, mechanism, hook: *hook })
    }

    /// What it fails with in real life: the errors of connect(2), bind(2), sendto(2), socket(2) and setsockopt(2)
    /// of Linux and of POSIX.1-2024 that a socket of IP can give, and those of ip(7), udp(7), raw(7) and socket(7).
    pub(super) const fn plausible(self) -> &'static [&'static str] {
        match self {
            Self::Connect => &[
                "ECONNREFUSED",
                "ETIMEDOUT",
                "ENETUNREACH",
                "EHOSTUNREACH",
                "ECONNRESET",
                "EACCES",
                "EPERM",
                "EADDRINUSE",
                "EADDRNOTAVAIL",
                "EAFNOSUPPORT",
                "EAGAIN",
                "EALREADY",
                "EBADF",
                "EFAULT",
                "EINPROGRESS",
                "EINTR",
                "EINVAL",
                "EISCONN",
                "ENETDOWN",
                "ENOBUFS",
                "ENOTSOCK",
                "EOPNOTSUPP",
                "EPROTOTYPE",
            ],
            Self::Bind => &[
                "EADDRINUSE",
                "EADDRNOTAVAIL",
                "EACCES",
                "EAFNOSUPPORT",
                "EBADF",
                "EFAULT",
                "EINVAL",
                "EISCONN",
                "ENOBUFS",
                "ENOMEM",
                "ENOTSOCK",
                "EOPNOTSUPP",
            ],
            Self::Sendmsg => &[
                "ENOBUFS",
                "ENETUNREACH",
                "EHOSTUNREACH",
                "EPERM",
                "ECONNREFUSED",
                "EACCES",
                "EAFNOSUPPORT",
                "EAGAIN",
                "EALREADY",
                "EBADF",
                "ECONNRESET",
                "EDESTADDRREQ",
                "EFAULT",
                "EINTR",
                "EINVAL",
                "EIO",
                "EISCONN",
                "EMSGSIZE",
                "ENETDOWN",
                "ENOMEM",
                "ENOTCONN",
                "ENOTSOCK",
                "EOPNOTSUPP",
                "EPIPE",
            ],
            Self::Socket => &[
                "EMFILE",
                "ENFILE",
                "ENOBUFS",
                "ENOMEM",
                "EACCES",
                "EPERM",
                "EAFNOSUPPORT",
                "EINVAL",
                "EPROTONOSUPPORT",
                "EPROTOTYPE",
            ],
            Self::Setsockopt => &[
                "ENOPROTOOPT",
                "EPERM",
                "EINVAL",
                "ENOBUFS",
                "ENOMEM",
                "EBADF",
                "EDOM",
                "EFAULT",
                "EISCONN",
                "ENOTSOCK",
            ],
            Self::Getsockopt => {
                &["ENOPROTOOPT", "EACCES", "EINVAL", "ENOBUFS", "EBADF", "EFAULT", "ENOTSOCK"]
            }
        }
    }
}

fn build(given: &Given) -> Result<Fault, FieldError> {
    let mut calls = Vec::new();
    for call in given.each("calls", str::parse::<SocketCall>)? {
        if !calls.contains(&call) {
            calls.push(call);
        }
    }
    if calls.is_empty() {
        calls.push(SocketCall::Connect);
    }
    let fault = RefuseFault {
        error: error(given, &calls)?,
        pattern: Pattern::build(given, Some(Pattern::ALL))?,
        filter: NetFilter::build(given)?,
        limits: Limits::build(given)?,
        calls,
    };
    fault.filter_can_match()?;
    Ok(Fault::Refuse(fault))
}

/// An error that an application has never met from a call shows nothing about how it takes the call's failure.
fn error(given: &Given, calls: &[SocketCall]) -> Result<Errno, FieldError> {
    let error = given.optional("error", str::parse::<Errno>)?.unwrap_or(Errno::CONNECTION_REFUSED);
    if given.optional("any", parse_flag)? == Some(true) {
        return Ok(error);
    }
    let gives = |call: &SocketCall, name| call.plausible().contains(&name);
    let Some(call) = calls.iter().find(|call| !gives(call, error.name())) else { return Ok(error) };
    let all_give =
        call.plausible().iter().copied().filter(|name| calls.iter().all(|call| gives(call, *name)));
    let why = BadValue::new(
        format!("{call} never fails with {error}"),
        format!("write another, such as {}, or add `any: true`", units::list(all_give.take(4))),
    );
    Err(FieldError::new("error", why))
}

impl RefuseFault {
    /// What is asked of a call must be something that the call has: a filter that could not match would make a
    /// fault that never fires, and an allow-list that could not match would spare nobody.
    fn filter_can_match(&self) -> Result<(), FieldError> {
        let NetFilter { protocol, peers, ports, local_ports, allow, .. } = &self.filter;
        let has = |call| self.calls.contains(&call);
        let allowed_peers = allow.iter().any(|allow| allow.peer.is_some());
        let refused = if has(SocketCall::Socket) && !local_ports.is_empty() {
            Some(("local_ports", "a socket that is being made has no port"))
        } else if has(SocketCall::Socket) && !allow.is_empty() {
            Some(("allow", "a socket that is being made has neither peer nor port"))
        } else if has(SocketCall::Socket) || has(SocketCall::Bind) {
            match (peers.is_empty(), ports.is_empty(), allowed_peers) {
                (false, _, _) => Some(("peers", "bind and socket have no peer")),
                (_, false, _) => Some(("ports", "bind and socket have no peer")),
                (_, _, true) => Some(("allow", "bind and socket have no peer")),
                _ => None,
            }
        } else {
            None
        };
        let tcp_or_icmp = matches!(protocol, Some(Protocol::Tcp | Protocol::Icmp));
        match refused {
            Some((field, what)) => {
                let right = "leave it out, or make a fault of its own for the other calls";
                Err(FieldError::new(field, BadValue::new(what, right)))
            }
            None if has(SocketCall::Sendmsg) && tcp_or_icmp => {
                let why = BadValue::new("sendmsg is met for UDP alone", "write `udp`, or leave sendmsg out");
                Err(FieldError::new("protocol", why))
            }
            None => Ok(()),
        }
    }

    /// Every call at its own hooks, at the target's cgroup.
    pub fn plan(
        &self,
        capabilities: &Capabilities,
        options: &Options,
        clauses: &mut Clauses,
    ) -> Result<PlannedRule, PlanError> {
        choose(&[Mechanism::CgroupSock], &self.label(), capabilities, options.forced)?;
        let rule = rule(&self.pattern, &self.limits, clauses.add(&self.filter)?, options);
        Ok(PlannedRule {
            ways: self.calls.iter().flat_map(|call| call.ways()).collect(),
            parameters: Parameters::Refuse { errno: self.error.number() },
            fault: Fault::Refuse(self.clone()),
            rule,
            queues: Vec::new(),
            ourselves: None,
            calls: Vec::new(),
            unmet: Vec::new(),
        })
    }

    /// What reports call it: `refuse connect`.
    pub fn label(&self) -> String {
        let calls: Vec<&str> = self.calls.iter().map(|call| call.name()).collect();
        format!("refuse {}", calls.join("+"))
    }
}

impl fmt::Display for RefuseFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} {}", self.label(), self.error, self.pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::capability::Capability;

    fn given(values: &[(&'static str, &str)]) -> Given {
        values.iter().fold(Given::new(&ENTRY), |given, (name, value)| given.with(name, value))
    }

    fn fault(values: &[(&'static str, &str)]) -> RefuseFault {
        let Ok(Fault::Refuse(fault)) = build(&given(values)) else { panic!("{values:?}") };
        fault
    }

    fn refusal(values: &[(&'static str, &str)]) -> String {
        build(&given(values)).unwrap_err().to_string()
    }

    #[test]
    fn without_anything_every_connection_is_refused() {
        let fault = fault(&[]);
        assert_eq!(fault.calls, [SocketCall::Connect]);
        assert_eq!((fault.error.name(), fault.pattern), ("ECONNREFUSED", Pattern::ALL));
        assert_eq!(fault.to_string(), "refuse connect with ECONNREFUSED 100%");
    }

    #[test]
    fn several_calls_with_one_error() {
        let calls = [("calls", "setsockopt"), ("calls", "getsockopt"), ("calls", "setsockopt")];
        let fault = fault(&[&calls[..], &[("error", "ENOPROTOOPT"), ("percent", "5")]].concat());
        assert_eq!(fault.label(), "refuse setsockopt+getsockopt");
    }

    #[test]
    fn every_plausible_error_exists_and_is_accepted() {
        for call in SocketCall::ALL {
            for name in call.plausible() {
                assert_eq!(fault(&[("calls", call.name()), ("error", name)]).error.name(), *name);
            }
        }
    }

    #[test]
    fn implausible_errors_have_to_be_insisted_on() {
        let message = refusal(&[("calls", "bind")]);
        assert!(message.starts_with("error: bind never fails with ECONNREFUSED"), "{message}");
        assert!(message.contains("`EADDRINUSE`") && message.contains("`any: true`"), "{message}");
        let insisted = fault(&[("calls", "bind"), ("error", "ECONNREFUSED"), ("any", "true")]);
        assert_eq!(insisted.error.name(), "ECONNREFUSED");
        assert!(refusal(&[("calls", "bind"), ("any", "false")]).starts_with("error: bind never"));
    }

    #[test]
    fn filters_that_cannot_match_are_refused() {
        const BIND: &[(&str, &str)] = &[("calls", "bind"), ("error", "EADDRINUSE")];
        const SOCKET: &[(&str, &str)] = &[("calls", "socket"), ("error", "EMFILE")];
        const SENDMSG: &[(&str, &str)] = &[("calls", "sendmsg"), ("calls", "connect")];
        for (call, filter, part) in [
            (BIND, ("peers", "10.0.0.0/8"), "peers: bind and socket have no peer"),
            (BIND, ("ports", "80"), "ports: bind and socket"),
            (BIND, ("allow", "10.0.0.1:80"), "allow: bind and socket"),
            (SOCKET, ("local_ports", "80"), "local_ports: a socket that is being made"),
            (SOCKET, ("allow", ":22"), "allow: a socket that is being made"),
            (SENDMSG, ("protocol", "tcp"), "protocol: sendmsg is met for UDP alone"),
            (&[("protocol", "icmp")], ("ports", "80"), "ports: ICMP has no ports"),
        ] {
            let message = refusal(&[call, &[filter]].concat());
            assert!(message.starts_with(part), "{message}");
        }
        assert_eq!(fault(&[BIND, &[("local_ports", "80"), ("allow", ":22")]].concat()).filter.allow.len(), 1);
        assert!(fault(&[SOCKET, &[("protocol", "tcp")]].concat()).filter.protocol.is_some());
    }

    #[test]
    fn each_call_has_its_hooks_and_a_kernel_without_them_says_so() {
        let values = [("calls", "connect"), ("calls", "socket"), ("error", "EACCES"), ("protocol", "tcp")];
        let fault = fault(&values);
        let plan = |capabilities: &Capabilities| {
            fault.plan(capabilities, &Options::default(), &mut Clauses::default())
        };
        let planned = plan(&Capabilities::all_but(&[])).unwrap();
        let programs: Vec<_> = planned.ways.iter().map(|way| way.hook.program).collect();
        assert_eq!(programs, [program::REFUSE_CONNECT4, program::REFUSE_CONNECT6, program::REFUSE_SOCKET]);
        assert_eq!(planned.mechanisms().collect::<Vec<_>>(), [Mechanism::CgroupSock]);
        assert_eq!((planned.rule.match_clauses, planned.parameters), (1, Parameters::Refuse { errno: 13 }));
        let error = plan(&Capabilities::all_but(&[Capability::SockAddr])).unwrap_err().to_string();
        assert!(error.contains("refuse connect+socket: cgroup-sock needs sock_addr (Linux 6.1"), "{error}");
    }
}
