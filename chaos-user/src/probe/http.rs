//! Requests over HTTP/1.1, on connections that are kept as clients keep theirs: a pool for each probe and target. A
//! connection that broke is not used again, and a request that a kept one lost is made once more on a fresh one: only
//! then does it say something of the target. No redirect is followed.

use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1::{SendRequest, handshake},
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::AbortHandle};

use super::{MAX_BODY_BYTES, plain};
use crate::experiment::probe::{HttpAsk, Statuses, Url};

/// Connections that are kept though nobody uses them.
const MAX_IDLE: usize = 64;
const AGENT: &str = concat!("kchaos/", env!("CARGO_PKG_VERSION"));

/// Asks one target the same again and again.
#[derive(Debug)]
pub(super) struct Client {
    ask: HttpAsk,
    headers: HeaderMap,
    address: SocketAddr,
    idle: Mutex<Vec<Connection>>,
}

#[derive(Debug)]
struct Connection {
    requests: SendRequest<Empty<Bytes>>,
    driver: AbortHandle,
}

/// Why there is no answer.
enum Lost {
    /// The connection had been closed meanwhile, or may have been: the target may not have seen the request.
    Stale,
    Failed(String),
}

impl Client {
    pub(super) fn new(ask: &HttpAsk, address: IpAddr) -> Self {
        let address = SocketAddr::new(address, ask.url.port);
        Self { headers: headers(ask, address), ask: ask.clone(), address, idle: Mutex::default() }
    }

    /// For a page in Prometheus' text format.
    pub(super) fn for_page(url: &Url, address: IpAddr) -> Self {
        let ask = HttpAsk {
            url: url.clone(),
            method: Method::GET,
            headers: vec![(
                header::ACCEPT,
                HeaderValue::from_static("text/plain;version=0.0.4;q=1,*/*;q=0.1"),
            )],
            status: Statuses::range(200, 200),
            body_has: None,
            fresh: false,
        };
        Self::new(&ask, address)
    }

    /// The body of a good answer.
    pub(super) async fn ask(&self) -> Result<Bytes, String> {
        let (connection, response) = self.response().await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await.map_err(|error| {
            match error.downcast_ref::<LengthLimitError>() {
                Some(_) => format!("the answer is longer than {MAX_BODY_BYTES} bytes"),
                None => innermost(error.as_ref()),
            }
        })?;
        self.keep(connection);
        if !self.ask.status.contains(status) {
            return Err(format!("status {status}"));
        }
        let body = body.to_bytes();
        match &self.ask.body_has {
            Some(text) if !String::from_utf8_lossy(&body).contains(text) => {
                Err(format!("status {status} without the text that it should have"))
            }
            _ => Ok(body),
        }
    }

    async fn response(&self) -> Result<(Connection, Response<Incoming>), String> {
        if let Some(mut kept) = self.kept() {
            match self.request(&mut kept).await {
                Ok(response) => return Ok((kept, response)),
                Err(Lost::Failed(why)) => return Err(why),
                // What closed this one has likely closed the others.
                Err(Lost::Stale) => self.pool().clear(),
            }
        }
        let mut fresh = Connection::open(self.address).await?;
        match self.request(&mut fresh).await {
            Ok(response) => Ok((fresh, response)),
            Err(Lost::Failed(why)) => Err(why),
            Err(Lost::Stale) => Err("connection closed before an answer".to_owned()),
        }
    }

    async fn request(&self, connection: &mut Connection) -> Result<Response<Incoming>, Lost> {
        connection.requests.ready().await.map_err(|_| Lost::Stale)?;
        let mut request = Request::new(Empty::new());
        *request.method_mut() = self.ask.method.clone();
        *request.uri_mut() = self.ask.url.path.clone().into();
        *request.headers_mut() = self.headers.clone();
        connection.requests.try_send_request(request).await.map_err(|mut error| {
            let unsent = error.take_message().is_some();
            let error = error.into_error();
            let closed =
                error.is_incomplete_message() || error.is_closed() || error.is_canceled() || is_reset(&error);
            // What may have been done already must not be done twice (RFC 9110, section 9.2.2).
            match unsent || (closed && self.ask.method.is_idempotent()) {
                true => Lost::Stale,
                false => Lost::Failed(innermost(&error)),
            }
        })
    }

    fn kept(&self) -> Option<Connection> {
        let mut idle = self.pool();
        idle.retain(|connection| !connection.requests.is_closed());
        idle.pop()
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.pool();
        if !self.ask.fresh && !connection.requests.is_closed() && idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    async fn open(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| plain(&error))?;
        stream.set_nodelay(true).map_err(|error| plain(&error))?;
        let (requests, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| innermost(&error))?;
        // What becomes of it is told to who waits for the answer.
        let driver = tokio::spawn(async { connection.await.unwrap_or_default() }).abort_handle();
        Ok(Self { requests, driver })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn headers(ask: &HttpAsk, address: SocketAddr) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    // The text of an address is always a header's value.
    if let Ok(host) = HeaderValue::from_str(&address.to_string()) {
        headers.insert(header::HOST, host);
    }
    if ask.fresh {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    for (name, value) in &ask.headers {
        headers.insert(name, value.clone());
    }
    headers
}

fn is_reset(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|error| {
        matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
    })
}

/// What is at the bottom of an error: `connection reset` rather than that there was one.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.downcast_ref::<io::Error>().map_or_else(|| innermost.to_string(), plain)
}
