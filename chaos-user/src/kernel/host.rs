//! What the host says about itself: read, not tried, to explain what was tried.

use std::fs;

use serde::Serialize;

use super::probe::ACTIVE_LSMS;
use crate::target::Hierarchy;

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// What the host says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Host {
    /// Controllers of the cgroup v2 hierarchy.
    pub cgroup_controllers: Vec<String>,
    /// Active security modules, if they are shown.
    pub security_modules: Option<Vec<String>>,
    /// What the kernel is locked down to, if it has that and shows it.
    pub lockdown: Option<String>,
}

impl Host {
    /// Reads it.
    pub fn read(hierarchy: Option<&Hierarchy>) -> Self {
        let controllers = hierarchy.map(|hierarchy| hierarchy.mount().join("cgroup.controllers"));
        let controllers = controllers.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        Self {
            cgroup_controllers: controllers.split_whitespace().map(str::to_owned).collect(),
            security_modules: fs::read_to_string(ACTIVE_LSMS).ok().map(|text| modules(&text)),
            lockdown: fs::read_to_string(LOCKDOWN).ok().and_then(|text| chosen(&text)),
        }
    }
}

/// `capability,landlock,bpf`.
pub(crate) fn modules(text: &str) -> Vec<String> {
    text.trim().split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// `integrity` of `none [integrity] confidentiality`.
pub(crate) fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_shows() {
        assert_eq!(modules("capability,landlock,bpf\n"), ["capability", "landlock", "bpf"]);
        assert!(modules("").is_empty());
        assert_eq!(chosen("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
        assert_eq!(chosen("none"), None);
    }
}
