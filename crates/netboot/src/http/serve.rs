//! HTTP's sockets.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::decision::{BootDecision, BootRequest, Subject};
use crate::event::{DropReason, EventKind, Service};
use crate::http::date::imf_fixdate;
use crate::http::head::{Method, Part, RequestHead, parse_head};
use crate::http::limits::{Limits, SLOW_WINDOW, SLOWEST_BYTES};
use crate::http::report::{check_report, parse_report};
use crate::http::route::{Route, route};
use crate::http::{IDLE_MS, MAX_HEAD_BYTES, REQUEST_MS, STALL_MS};
use crate::server::places::{Place, Places, Standing};
use crate::server::shared::{About, Shared};
use crate::token::Token;

/// How much of a file the kernel is asked to send at once, in bytes: enough to fill any socket
/// buffer, and little enough that other connections get their turn.
const SENDFILE_BYTES: usize = 1 << 20;
/// How long to wait after the system has refused a connection, as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How much a read makes room for, in bytes.
const READ_BYTES: usize = 4 << 10;

pub(crate) async fn serve(
    listener: TcpListener,
    places: Arc<Places>,
    shared: Arc<Shared>,
    mut stop: tokio::sync::watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let limits = Arc::new(Limits::default());
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok((stream, peer)) => match peer.ip() {
                IpAddr::V4(peer) => (stream, peer),
                IpAddr::V6(_) => continue,
            },
            Err(_) => {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = match places.enter(peer) {
            Ok(entered) => {
                if let Some(greedy) = entered.evicted {
                    shared.crowded(Service::Http, greedy, places.count(greedy));
                }
                entered.place
            }
            Err(_) => {
                let about = shared.about_address(peer);
                shared.drop_packet(&about, Service::Http, DropReason::TooMany);
                shared.crowded(Service::Http, peer, places.count(peer));
                continue;
            }
        };
        // A head and a short body leave in one packet anyhow; without this, the last part of a
        // file would wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        let connection = Connection {
            stream,
            peer,
            shared: shared.clone(),
            limits: limits.clone(),
            buffer: Vec::new(),
            served: false,
            place,
        };
        let leave = connection.place.leave();
        connections.spawn(async move {
            tokio::select! {
                () = leave.notified() => {}
                () = connection.run() => {}
            }
        });
    }
}

struct Connection {
    stream: TcpStream,
    peer: Ipv4Addr,
    shared: Arc<Shared>,
    limits: Arc<Limits>,
    /// What the client has sent and nobody has read yet.
    buffer: Vec<u8>,
    /// A request was answered already.
    served: bool,
    /// Its place among all connections.
    place: Place,
}

/// The body of an answer.
enum Body {
    Text(Vec<u8>, &'static str),
    File {
        file: Arc<File>,
        offset: u64,
        bytes: u64,
    },
}

struct Answer {
    status: u16,
    body: Body,
    extra: String,
    keep_alive: bool,
}

impl Answer {
    fn text(status: u16, text: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            body: Body::Text(text.into(), "text/plain; charset=utf-8"),
            extra: String::new(),
            keep_alive: true,
        }
    }

    fn bytes(&self) -> u64 {
        match &self.body {
            Body::Text(text, _) => text.len() as u64,
            Body::File { bytes, .. } => *bytes,
        }
    }
}

impl Connection {
    async fn run(mut self) {
        loop {
            let head = match self.read_head().await {
                Ok(Some(head)) => head,
                // The client is done, or took too long to ask for more.
                Ok(None) => return,
                Err((reason, status, why)) => {
                    let about = self.shared.about_address(self.peer);
                    self.shared.drop_packet(&about, Service::Http, reason);
                    let mut answer = Answer::text(status, format!("{why}\n"));
                    answer.keep_alive = false;
                    let _ = self.send(&answer, false).await;
                    self.linger().await;
                    return;
                }
            };
            let keep = head.keep_alive;
            if !self.answer(head).await || !keep {
                self.linger().await;
                return;
            }
        }
    }

    /// Reads on until a whole head is there. `None` when the client leaves or idles.
    async fn read_head(&mut self) -> Result<Option<RequestHead>, (DropReason, u16, String)> {
        // A connection that has not asked for anything yet is worth less patience than one that
        // was served.
        let mut deadline = Instant::now() + Duration::from_millis(IDLE_MS);
        let mut begun = !self.buffer.is_empty();
        if self.served {
            self.place.sign(Standing::Idle);
        }
        if begun || !self.served {
            deadline = Instant::now() + Duration::from_millis(REQUEST_MS);
        }
        loop {
            match parse_head(&self.buffer) {
                Ok(Some(head)) => {
                    self.buffer.drain(..head.head_bytes.min(self.buffer.len()));
                    self.served = true;
                    self.place.sign(Standing::AtWork);
                    return Ok(Some(head));
                }
                Ok(None) => {}
                Err(error) => {
                    let reason = match error.status() {
                        431 => DropReason::Oversized,
                        _ => DropReason::Malformed,
                    };
                    return Err((reason, error.status(), error.to_string()));
                }
            }
            match tokio::time::timeout_at(deadline, self.read_more()).await {
                Ok(Ok(0)) if self.buffer.is_empty() => return Ok(None),
                Ok(Ok(0)) => {
                    return Err((DropReason::Truncated, 400, "the request is cut off".into()));
                }
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Ok(None),
                Err(_) if !begun => return Ok(None),
                Err(_) => {
                    return Err((DropReason::TooSlow, 408, "the request took too long".into()));
                }
            }
            if !begun {
                begun = true;
                deadline = Instant::now() + Duration::from_millis(REQUEST_MS);
            }
        }
    }

    /// Reads what is there into the buffer, which never grows past a head and a report.
    async fn read_more(&mut self) -> io::Result<usize> {
        loop {
            self.stream.readable().await?;
            let len = self.buffer.len();
            self.buffer.resize(len + READ_BYTES, 0);
            let room = self.buffer.get_mut(len..).unwrap_or_default();
            let read = self.stream.try_read(room);
            self.buffer
                .truncate(len + read.as_ref().copied().unwrap_or(0));
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    /// Answers a request. `false` when the connection can't be kept.
    async fn answer(&mut self, head: RequestHead) -> bool {
        let began = Instant::now();
        let mut about = self.shared.about_address(self.peer);
        let (route, decided) = {
            let table = self.shared.table();
            let mint = |request: &BootRequest<'_>| self.shared.mint(&table, request, self.peer);
            route(&table, &self.shared.site, &head, about.mac, mint)
        };
        let (decision, token) = match decided {
            Some((decision, token)) => (Some(decision), token),
            None => (None, None),
        };
        // Who asks in a machine's name from another address is not that machine as far as can be
        // told, and its requests are none of the machine's story.
        if let Some(node) = decision.as_ref().and_then(|d| d.subject.node())
            && self.shared.may_be_at(node, self.peer)
        {
            about.node = Some(node.clone());
        }
        self.note_request(&head, &about, decision.as_ref(), token.as_ref());
        let mut body_left = head.body_bytes;
        let mut answer = match route {
            Route::Text(text) => Answer::text(200, text),
            Route::AuthorizedKeys => Answer::text(200, self.shared.authorized_keys().as_bytes()),
            Route::Error(status, why) => Answer::text(status, format!("{why}\n")),
            Route::File(name) => self.file(&name, &head),
            Route::Report => {
                let answer = self.report(&head, &about).await;
                body_left = 0;
                answer
            }
        };
        // A body that nobody asked for is not read: the connection ends instead.
        answer.keep_alive &= head.keep_alive && body_left == 0;
        if answer.status == 405 {
            answer.extra.push_str("Allow: GET, HEAD, POST\r\n");
        }
        let sent = self.send(&answer, head.method == Method::Head).await;
        let path = head.target;
        let whole = sent.is_ok();
        let event = match sent {
            Ok(bytes) => EventKind::HttpDone {
                path,
                status: answer.status,
                bytes,
                duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            },
            Err((bytes, reason)) => EventKind::HttpAborted {
                path,
                bytes,
                reason,
            },
        };
        self.shared.tell(&about, event);
        whole && answer.keep_alive
    }

    /// Tells of a request, and of what was decided about who asks.
    fn note_request(
        &self,
        head: &RequestHead,
        about: &About,
        decision: Option<&BootDecision>,
        token: Option<&Token>,
    ) {
        let request = EventKind::HttpRequest {
            method: head.method.name().to_owned(),
            path: head.target.clone(),
        };
        self.shared.tell(about, request);
        let Some(decision) = decision else {
            return;
        };
        if let Subject::Conflict(conflict) = &decision.subject {
            let reason = conflict.to_string();
            self.shared.tell(about, EventKind::Quarantined { reason });
        }
        if let Some(token) = token
            && decision.is_installers_script()
            && head.method == Method::Get
        {
            self.shared.script_served(about, decision, token);
        }
    }

    fn file(&self, name: &str, head: &RequestHead) -> Answer {
        let opened = self.shared.artifacts.file(name).map(|file| {
            let bytes = file.metadata()?.len();
            io::Result::Ok((file, bytes))
        });
        let (file, total) = match opened {
            Some(Ok(opened)) => opened,
            Some(Err(error)) => return Answer::text(500, format!("{name}: {error}\n")),
            None => return Answer::text(404, "there is no such file\n"),
        };
        let part = head.range.map_or(Part::Whole, |range| range.of(total));
        let (status, offset, bytes, range) = match part {
            Part::Whole => (200, 0, total, String::new()),
            Part::Slice { offset, bytes } => {
                let last = offset.saturating_add(bytes).saturating_sub(1);
                let range = format!("Content-Range: bytes {offset}-{last}/{total}\r\n");
                (206, offset, bytes, range)
            }
            Part::Unsatisfiable => {
                let mut answer = Answer::text(416, "the range is behind the file's end\n");
                answer.extra = format!("Content-Range: bytes */{total}\r\n");
                return answer;
            }
        };
        Answer {
            status,
            body: Body::File {
                file,
                offset,
                bytes,
            },
            extra: format!("Accept-Ranges: bytes\r\n{range}"),
            keep_alive: true,
        }
    }

    /// Reads an installer's report, and passes it on where it can be the machine's.
    async fn report(&mut self, head: &RequestHead, about: &About) -> Answer {
        let body = match self.read_body(head).await {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let parsed = parse_report(&body);
        // A machine's own reports are counted by its token, so that a flood under its address
        // doesn't use up what it may send.
        let token = parsed.as_ref().ok().and_then(|r| r.token.clone());
        if !self.limits.allow_report(self.peer, token) {
            let mut answer = Answer::text(429, "too many reports; wait a minute\n");
            answer.extra = "Retry-After: 60\r\n".into();
            self.shared
                .drop_packet(about, Service::Http, DropReason::TooMany);
            return answer;
        }
        let report = match parsed {
            Ok(report) => report,
            Err(error) => {
                self.shared
                    .drop_packet(about, Service::Http, DropReason::Malformed);
                return Answer::text(400, format!("{error}\n"));
            }
        };
        let mut about = About {
            uuid: report.uuid,
            mac: about.mac.or(report.macs.first().copied()),
            ..about.clone()
        };
        let checked = {
            let table = self.shared.table();
            check_report(&report, self.peer, &table, &self.shared.report_rules)
        };
        match checked {
            Ok(claim) => {
                about.node.clone_from(&claim.node);
                self.shared.boot_ended(claim.node.as_ref(), &report.macs);
                let report = Box::new(report);
                self.shared.tell(&about, EventKind::Report { report });
                Answer::text(200, "reported\n")
            }
            Err((node, refusal)) => {
                let planned = {
                    let table = self.shared.table();
                    node.as_ref()
                        .and_then(|name| table.get(name))
                        .and_then(|machine| machine.address)
                };
                about.node = node;
                let reason = refusal.to_string();
                let claimed = Some(report.address);
                self.shared.tell(
                    &about,
                    EventKind::ReportRefused {
                        claimed,
                        planned,
                        reason,
                    },
                );
                Answer::text(
                    refusal.status(),
                    format!("the report is refused: {refusal}\n"),
                )
            }
        }
    }

    async fn read_body(&mut self, head: &RequestHead) -> Result<Vec<u8>, Answer> {
        let bytes = usize::try_from(head.body_bytes).unwrap_or(usize::MAX);
        let closing = |status, why: &str| {
            let mut answer = Answer::text(status, format!("{why}\n"));
            answer.keep_alive = false;
            answer
        };
        if head.expects_continue && self.buffer.len() < bytes {
            let sent = self
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n", SendFlags::empty())
                .await;
            sent.map_err(|_| closing(400, "the connection broke"))?;
        }
        let deadline = Instant::now() + Duration::from_millis(REQUEST_MS);
        while self.buffer.len() < bytes {
            match tokio::time::timeout_at(deadline, self.read_more()).await {
                Ok(Ok(0) | Err(_)) => return Err(closing(400, "the report is cut off")),
                Ok(Ok(_)) => {}
                Err(_) => return Err(closing(408, "the report took too long")),
            }
        }
        Ok(self.buffer.drain(..bytes).collect())
    }

    /// Sends an answer. Returns the bytes of the body that were sent; on failure too, with why.
    async fn send(&mut self, answer: &Answer, head_only: bool) -> Result<u64, (u64, String)> {
        let kind = match &answer.body {
            Body::Text(_, kind) => kind,
            Body::File { .. } => "application/octet-stream",
        };
        let head = format!(
            "HTTP/1.1 {} {}\r\nDate: {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{}\
             Connection: {}\r\n\r\n",
            answer.status,
            reason_phrase(answer.status),
            imf_fixdate(self.shared.clock.now_ms() / 1000),
            answer.bytes(),
            answer.extra,
            if answer.keep_alive {
                "keep-alive"
            } else {
                "close"
            },
        );
        let failed = |error: io::Error| (0, error.to_string());
        let mut packet = head.into_bytes();
        match &answer.body {
            Body::Text(text, _) => {
                if !head_only {
                    packet.extend_from_slice(text);
                }
                self.write_all(&packet, SendFlags::empty())
                    .await
                    .map_err(failed)?;
                Ok(if head_only { 0 } else { text.len() as u64 })
            }
            Body::File {
                file,
                offset,
                bytes,
            } => {
                let more = if head_only || *bytes == 0 {
                    SendFlags::empty()
                } else {
                    SendFlags::MORE
                };
                self.write_all(&packet, more).await.map_err(failed)?;
                if head_only {
                    return Ok(0);
                }
                self.send_file(file, *offset, *bytes).await
            }
        }
    }

    /// Has the kernel send a part of a file, so that none of it comes into our memory.
    async fn send_file(&self, file: &File, offset: u64, bytes: u64) -> Result<u64, (u64, String)> {
        let mut at = offset;
        let end = offset.saturating_add(bytes);
        let (mut since, mut from) = (Instant::now(), at);
        while at < end {
            if since.elapsed() >= SLOW_WINDOW {
                if at - from < SLOWEST_BYTES {
                    let window_s = SLOW_WINDOW.as_secs();
                    let why =
                        format!("the client took under {SLOWEST_BYTES} bytes in {window_s} s");
                    return Err((at - offset, why));
                }
                (since, from) = (Instant::now(), at);
                self.place.sign(Standing::AtWork);
            }
            let want = usize::try_from(end - at)
                .unwrap_or(usize::MAX)
                .min(SENDFILE_BYTES);
            let mut next = at;
            let step = self.stream.async_io(Interest::WRITABLE, || {
                rustix::fs::sendfile(&self.stream, file, Some(&mut next), want)
                    .map_err(io::Error::from)
            });
            let sent = match timeout(Duration::from_millis(STALL_MS), step).await {
                Ok(Ok(0)) => Err("the file became shorter while it was sent".to_owned()),
                Ok(Ok(sent)) => Ok(sent as u64),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("the client took nothing for {} s", STALL_MS / 1000)),
            };
            match sent {
                Ok(sent) => at += sent,
                Err(why) => return Err((at - offset, why)),
            }
        }
        Ok(bytes)
    }

    async fn write_all(&self, mut bytes: &[u8], flags: SendFlags) -> io::Result<()> {
        while !bytes.is_empty() {
            let step = self.stream.async_io(Interest::WRITABLE, || {
                rustix::net::send(&self.stream, bytes, flags | SendFlags::NOSIGNAL)
                    .map_err(io::Error::from)
            });
            let sent = timeout(Duration::from_millis(STALL_MS), step)
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// Closes in an orderly way: what the client still sends is read and thrown away for a
    /// moment, for a close with unread data would reset the connection, and the client might
    /// lose the answer (RFC 9112, section 9.6).
    async fn linger(&mut self) {
        if rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write).is_err() {
            return;
        }
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut thrown_bytes = 0;
        while thrown_bytes < MAX_HEAD_BYTES * 16 {
            self.buffer.clear();
            match tokio::time::timeout_at(deadline, self.read_more()).await {
                Ok(Ok(read)) if read > 0 => thrown_bytes += read,
                _ => return,
            }
        }
    }
}

fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9110, section 15, and RFC 6585.
    #[test]
    fn every_status_has_its_words() {
        for (status, words) in [
            (200, "OK"),
            (206, "Partial Content"),
            (400, "Bad Request"),
            (403, "Forbidden"),
            (404, "Not Found"),
            (405, "Method Not Allowed"),
            (408, "Request Timeout"),
            (409, "Conflict"),
            (411, "Length Required"),
            (413, "Content Too Large"),
            (416, "Range Not Satisfiable"),
            (417, "Expectation Failed"),
            (429, "Too Many Requests"),
            (431, "Request Header Fields Too Large"),
            (500, "Internal Server Error"),
        ] {
            assert_eq!(reason_phrase(status), words, "{status}");
        }
    }
}
