//! Which answer a request gets: a pure function of the request and the boot decision.

use undercroft_model::MacAddr;

use crate::arch::ClientArch;
use crate::decision::{BootAction, BootDecision, BootProtocol, BootRequest, Site, decide};
use crate::http::MAX_REPORT_BYTES;
use crate::http::head::{Method, RequestHead};
use crate::table::BootTable;
use crate::token::Token;

/// What a request is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// A text.
    Text(String),
    /// The file that is served under this name.
    File(String),
    /// The public keys that installers let in.
    AuthorizedKeys,
    /// An installer's report, whose body is to be read.
    Report,
    /// An error, with a line for people.
    Error(u16, &'static str),
}

/// Says what a request is answered with. `sender` is the Ethernet address that DHCP packets have
/// shown the sender's address to belong to.
///
/// The decision comes along where one was taken, for the events. `mint` makes the token for a
/// script; it is asked only where a script may be the answer.
pub fn route(
    table: &BootTable,
    site: &Site,
    head: &RequestHead,
    sender: Option<MacAddr>,
    mint: impl FnOnce(&BootRequest<'_>) -> Option<Token>,
) -> (Route, Option<(BootDecision, Option<Token>)>) {
    let allowed = |good: bool, route: Route| {
        if good {
            (route, None)
        } else {
            (Route::Error(405, "the method is not allowed here"), None)
        }
    };
    let is_get = matches!(head.method, Method::Get | Method::Head);
    match head.path.as_str() {
        "/v1/report" if head.body_bytes > MAX_REPORT_BYTES => {
            (Route::Error(413, "a report has at most 64 KiB"), None)
        }
        "/v1/report" => allowed(head.method == Method::Post, Route::Report),
        "/v1/authorized_keys" => allowed(is_get, Route::AuthorizedKeys),
        _ if !is_get => allowed(false, Route::Report),
        path => {
            let Ok(request) = boot_request(head, path, sender) else {
                return (Route::Error(400, "mac, uuid or arch can't be read"), None);
            };
            let token = (path == "/boot.ipxe").then(|| mint(&request)).flatten();
            let request = BootRequest {
                token: token.as_ref(),
                ..request
            };
            let decision = decide(table, site, &request);
            let route = match &decision.action {
                BootAction::Text(text) => Route::Text(text.clone()),
                BootAction::Serve(name) => Route::File(name.clone()),
                _ => Route::Error(404, "there is no such file"),
            };
            (route, Some((decision, token)))
        }
    }
}

fn boot_request<'a>(
    head: &'a RequestHead,
    path: &'a str,
    sender: Option<MacAddr>,
) -> Result<BootRequest<'a>, ()> {
    let value = |key: &str| {
        head.query
            .iter()
            .find(|(k, v)| k == key && !v.is_empty())
            .map(|(_, v)| v.as_str())
    };
    let mac = value("mac").map(str::parse).transpose().map_err(|_| ())?;
    Ok(BootRequest {
        mac: mac.or(sender),
        uuid: value("uuid").map(str::parse).transpose().map_err(|_| ())?,
        arch: value("arch")
            .map(|text| text.parse().map(ClientArch))
            .transpose()
            .map_err(|_| ())?,
        path: Some(path.trim_start_matches('/')),
        ..BootRequest::new(BootProtocol::Http)
    })
}
