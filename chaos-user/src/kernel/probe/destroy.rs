//! Destroying a connection, tried on one that was made for it.

use std::{
    io::{self, Read},
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::Duration,
};

use super::{device::not_loaded, scratch};
use crate::kernel::sock_diag::SockDiag;

/// How long the two ends may take to hear of it.
const WITHIN: Duration = Duration::from_secs(2);

/// Whether it works here; says what else there is to know.
pub fn sock_destroy() -> Result<Option<String>, String> {
    match not_loaded("tcp_diag") {
        Some(note) => Ok(Some(note)),
        None => destroys_connections().map(|()| None),
    }
}

/// Makes a connection of a network namespace's with itself, destroys one end, and looks whether both have heard.
pub fn destroys_connections() -> Result<(), String> {
    let lo = scratch::lo()?;
    let said = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let (ours, theirs) = lo.netns.run(connection).and_then(|pair| pair).map_err(said("a connection"))?;
    let door = SockDiag::open(&lo.netns).map_err(said("sock_diag"))?;
    let all = door.connections().map_err(said("listing connections"))?;
    let local = ours.local_addr().map_err(said("its address"))?;
    let found = all.iter().find(|connection| connection.ends.local == local);
    let found = found.ok_or("sock_diag does not list a connection with its cgroup")?;
    match door.destroy(found) {
        Ok(true) => {}
        Ok(false) => return Err("sock_diag lists a connection and does not find it".into()),
        Err(error) => return Err(format!("SOCK_DESTROY: {error}")),
    }
    hears(ours, io::ErrorKind::ConnectionAborted)?;
    hears(theirs, io::ErrorKind::ConnectionReset)
}

fn connection() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let ours = TcpStream::connect_timeout(&listener.local_addr()?, WITHIN)?;
    let (theirs, _) = listener.accept()?;
    Ok((ours, theirs))
}

fn hears(mut end: TcpStream, expected: io::ErrorKind) -> Result<(), String> {
    let heard = end.set_read_timeout(Some(WITHIN)).and_then(|()| end.read(&mut [0]));
    match heard {
        Err(error) if error.kind() == expected => Ok(()),
        Err(error) => Err(format!("an end of a destroyed connection hears `{error}`")),
        Ok(_) => Err("an end of a destroyed connection hears nothing".into()),
    }
}
