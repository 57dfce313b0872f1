//! `docker:NAME|ID`: the cgroup of a container's first process, asked of the daemon over its socket.

use bollard::{Docker, errors::Error};

use super::{Cgroup, Hierarchy, Target, TargetError, pid};

/// Resolves a container; says what it was made of, too. `DOCKER_HOST` names another socket, as for the docker client.
pub async fn resolve(
    hierarchy: &Hierarchy,
    target: &Target,
    name: &str,
) -> Result<(Cgroup, Option<String>), TargetError> {
    let Found { pid, image } =
        find(name).await.map_err(|reason| TargetError::Docker { name: name.into(), reason })?;
    Ok((pid::resolve(hierarchy, target, pid)?, image))
}

/// What the daemon says of a container.
struct Found {
    /// Its first process.
    pid: i32,
    /// Its image as it was asked for, such as `redis:7`.
    image: Option<String>,
}

async fn find(name: &str) -> Result<Found, String> {
    let docker = connect().map_err(|error| format!("no connection to the Docker daemon: {error}"))?;
    // An older daemon refuses what it takes for a newer client.
    let docker = docker.negotiate_version().await.map_err(explain)?;
    let container = docker.inspect_container(name, None).await.map_err(explain)?;
    let state = container.state.ok_or("the daemon says nothing of its state")?;
    match state.pid {
        Some(pid) if pid > 0 && state.running == Some(true) => {
            Ok(Found { pid: pid as i32, image: container.config.and_then(|config| config.image) })
        }
        _ => Err("the container is not running".into()),
    }
}

fn connect() -> Result<Docker, Error> {
    const TIMEOUT_S: u64 = 10;
    match std::env::var("DOCKER_HOST") {
        Ok(host) if host.starts_with("unix://") => {
            Docker::connect_with_unix(&host, TIMEOUT_S, bollard::API_DEFAULT_VERSION)
        }
        _ => Docker::connect_with_unix_defaults(),
    }
}

fn explain(error: Error) -> String {
    match error {
        Error::DockerResponseServerError { status_code: 404, .. } => "there is no such container".into(),
        Error::DockerResponseServerError { message, .. } => message,
        other => format!("no answer from the Docker daemon: {other}"),
    }
}
