//! Targets as users write them: `cgroup:/path`, `pid:N`, `docker:NAME|ID`.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
    str::FromStr,
};

use super::Target;
use crate::units::{BadValue, list, nearest, quoted};

/// What can be targeted.
const SUPPORTED: [&str; 3] = ["cgroup", "docker", "pid"];
/// What other tools can target, and so what users will try.
const NOT_YET: [&str; 7] = ["unit", "systemd", "podman", "containerd", "pod", "k8s", "netns"];
/// The highest process id a kernel hands out (include/linux/threads.h, PID_MAX_LIMIT, 6.18).
const MAX_PID: i32 = 4 * 1024 * 1024;
/// The longest path that the kernel takes (include/uapi/linux/limits.h, PATH_MAX).
const MAX_PATH_BYTES: usize = 4096;
/// Longer than any container name.
const MAX_NAME_BYTES: usize = 255;
/// Where the hierarchy is usually mounted.
const CGROUP_MOUNT: &str = "/sys/fs/cgroup";

impl FromStr for Target {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text.trim().split_once(':') {
            Some(("cgroup", path)) => cgroup(text, path).map(Self::Cgroup),
            Some(("pid", number)) => pid(text, number).map(Self::Pid),
            Some(("docker", name)) => container(text, name).map(Self::Docker),
            Some((prefix, rest)) => Err(unknown_prefix(text, prefix, rest)),
            None => Err(no_prefix(text.trim())),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(path) => {
                let path = path.to_string_lossy();
                // Blanks at the very end of a target are taken for a slip.
                let end = if path.ends_with(char::is_whitespace) { "/" } else { "" };
                write!(f, "cgroup:{path}{end}")
            }
            Self::Pid(pid) => write!(f, "pid:{pid}"),
            Self::Docker(name) => write!(f, "docker:{name}"),
        }
    }
}

/// A path in the hierarchy, normalised so that `/a`, `/a/` and `//a` are the same target.
fn cgroup(text: &str, path: &str) -> Result<PathBuf, BadValue> {
    let refuse = |why: &str, right: String| Err(BadValue::new(format!("{} {why}", quoted(text)), right));
    if !path.starts_with('/') {
        return refuse("is not an absolute path", format!("write {}", quoted(&format!("cgroup:/{path}"))));
    }
    if path.len() > MAX_PATH_BYTES || path.contains('\0') {
        return refuse("is no path that a kernel takes", "write the path of an existing cgroup".to_owned());
    }
    if let Ok(inside) = Path::new(path).strip_prefix(CGROUP_MOUNT) {
        let right = format!("cgroup:/{}", inside.display());
        return refuse(
            "begins with the mount point",
            format!("write it from the hierarchy's root: {}", quoted(&right)),
        );
    }
    let mut normal = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => normal.push(name),
            _ => return refuse("contains `..`", "write the path without it".to_owned()),
        }
    }
    Ok(normal)
}

fn pid(text: &str, number: &str) -> Result<i32, BadValue> {
    number.trim().parse::<i32>().ok().filter(|pid| (1..=MAX_PID).contains(pid)).ok_or_else(|| {
        BadValue::new(
            format!("{} does not name a process", quoted(text)),
            format!("write a number from 1 to {MAX_PID}, such as `pid:1234`"),
        )
    })
}

/// A container's name or id, as dockerd allows them (`[a-zA-Z0-9][a-zA-Z0-9_.-]*`).
fn container(text: &str, name: &str) -> Result<String, BadValue> {
    if let Some(bare) = name.strip_prefix('/') {
        return Err(BadValue::new(
            format!("{} has a `/` in front of the name", quoted(text)),
            format!("write {}", quoted(&format!("docker:{bare}"))),
        ));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins_well && name.len() <= MAX_NAME_BYTES && name.chars().all(allowed) {
        return Ok(name.to_owned());
    }
    Err(BadValue::new(
        format!("{} does not name a container", quoted(text)),
        "write a name or an id as `docker ps` shows it, such as `docker:web`",
    ))
}

fn unknown_prefix(text: &str, prefix: &str, rest: &str) -> BadValue {
    let supported = format!("{} are", list(SUPPORTED));
    if NOT_YET.contains(&prefix) {
        return BadValue::new(
            format!("{}: `{prefix}:` targets are not supported yet", quoted(text)),
            format!("{supported}; a cgroup's path works for anything that runs in one"),
        );
    }
    let right = match nearest(prefix, SUPPORTED) {
        Some(near) => format!("did you mean {}?", quoted(&format!("{near}:{rest}"))),
        None => format!("{supported} known"),
    };
    BadValue::new(format!("{} begins with no known kind of target", quoted(text)), right)
}

fn no_prefix(text: &str) -> BadValue {
    let prefix = if text.starts_with('/') {
        "cgroup"
    } else if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        "pid"
    } else {
        "docker"
    };
    let guess = if text.is_empty() { "docker:web".to_owned() } else { format!("{prefix}:{text}") };
    BadValue::new(
        format!("{} does not say what kind of target it is", quoted(text)),
        format!("write {} if that is what you mean ({} are known)", quoted(&guess), list(SUPPORTED)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Target, BadValue> {
        text.parse()
    }

    #[test]
    fn targets_read_back() {
        for text in [
            "cgroup:/kchaos-test/web",
            "cgroup:/",
            "cgroup:/a /",
            "pid:1234",
            "docker:web",
            "docker:3f2a9c0d1e4b",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn one_cgroup_has_one_spelling() {
        for same in ["cgroup:/a/b", "cgroup:/a/b/", "cgroup://a//b", "cgroup:/a/./b", " cgroup:/a/b "] {
            assert_eq!(parse(same).unwrap().to_string(), "cgroup:/a/b", "{same}");
        }
    }

    #[test]
    fn refusals_say_what_would_be_right() {
        for (text, part) in [
            ("web", "write `docker:web`"),
            ("1234", "write `pid:1234`"),
            ("/system.slice/x", "write `cgroup:/system.slice/x`"),
            ("", "write `docker:web`"),
            ("cgroup:a/b", "write `cgroup:/a/b`"),
            ("cgroup:/a/../b", "without it"),
            ("cgroup:/sys/fs/cgroup/a", "`cgroup:/a`"),
            ("pid:0", "does not name a process"),
            ("pid:-5", "does not name a process"),
            ("pid:self", "does not name a process"),
            ("docker:", "does not name a container"),
            ("docker:/web", "write `docker:web`"),
            ("docker:a b", "does not name a container"),
            ("unit:nginx.service", "not supported yet"),
            ("pod:ns/name", "not supported yet"),
            ("dokcer:web", "did you mean `docker:web`?"),
            ("http://x", "no known kind of target"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
