//! Which answer a request gets: a pure function of the request and the boot decision.

use undercroft_model::MacAddr;

use crate::arch::ClientArch;
use crate::decision::{BootAction, BootDecision, BootProtocol, BootRequest, decide};
use crate::http::MAX_REPORT_BYTES;
use crate::http::head::{Method, RequestHead};
use crate::site::Site;
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use undercroft_model::{NodeName, System};

    use super::*;
    use crate::http::head::parse_head;
    use crate::table::{BootIntent, BootMachine, UnknownPolicy};
    use crate::token::TokenKey;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
    const UUID: &str = "7d4b1c1e-8f4e-4a53-9c34-0d7a3e1b2c3d";

    /// What the request in that line is answered with, and whether a token was asked for.
    fn ask(line: &str, more: &str, sender: Option<MacAddr>) -> (Route, bool) {
        let name = NodeName::new("local").unwrap();
        let machine = BootMachine {
            uuid: Some(UUID.parse().unwrap()),
            ..BootMachine::new(name, vec![MAC], System::X86_64Linux, BootIntent::Local)
        };
        let table = BootTable::new([machine], UnknownPolicy::Discover).unwrap();
        let site = Site {
            address: [10, 0, 0, 1].into(),
            http_port: 8080,
            installers: BTreeMap::new(),
            ipxe: BTreeSet::new(),
            artifacts: BTreeSet::from(["x86_64-linux/kernel".to_owned()]),
        };
        let text = format!("{line} HTTP/1.1\r\nHost: h\r\n{more}\r\n");
        let head = parse_head(text.as_bytes()).unwrap().unwrap();
        let mut minted = false;
        let mint = |_: &BootRequest<'_>| {
            minted = true;
            let subject = crate::token::Subject::Mac(MAC);
            let asker = [10, 0, 0, 9].into();
            TokenKey([7; 32]).mint(&subject, asker, 0).ok()
        };
        (route(&table, &site, &head, sender, mint).0, minted)
    }

    fn status(route: &Route) -> u16 {
        match route {
            Route::Error(status, _) => *status,
            _ => 200,
        }
    }

    #[test]
    fn each_path_takes_its_methods_alone() {
        for (line, more, want) in [
            ("GET /v1/authorized_keys", "", 200),
            ("HEAD /v1/authorized_keys", "", 200),
            ("POST /v1/authorized_keys", "Content-Length: 0\r\n", 405),
            ("POST /v1/report", "Content-Length: 65536\r\n", 200),
            ("POST /v1/report", "Content-Length: 65537\r\n", 413),
            ("POST /v1/report", "Content-Length: 65538\r\n", 413),
            ("GET /v1/report", "", 405),
            ("GET /artifacts/x86_64-linux/kernel", "", 200),
            ("HEAD /artifacts/x86_64-linux/kernel", "", 200),
            (
                "POST /artifacts/x86_64-linux/kernel",
                "Content-Length: 0\r\n",
                405,
            ),
            ("PUT /boot.ipxe", "Content-Length: 0\r\n", 405),
            ("GET /artifacts/x86_64-linux/other", "", 404),
            ("GET /", "", 404),
            ("GET /boot.ipxe?mac=x", "", 400),
            ("GET /boot.ipxe?uuid=x", "", 400),
            ("GET /boot.ipxe?arch=x", "", 400),
            ("GET /boot.ipxe?mac=&uuid=&arch=", "", 200),
        ] {
            let (route, _) = ask(line, more, None);
            assert_eq!(status(&route), want, "{line} {more}: {route:?}");
        }
        assert_eq!(
            ask("GET /v1/authorized_keys", "", None).0,
            Route::AuthorizedKeys
        );
        assert_eq!(
            ask("POST /v1/report", "Content-Length: 1\r\n", None).0,
            Route::Report
        );
        let file = Route::File("x86_64-linux/kernel".to_owned());
        assert_eq!(ask("GET /artifacts/x86_64-linux/kernel", "", None).0, file);
    }

    #[test]
    fn a_machine_is_known_by_what_it_says_and_else_by_its_sender() {
        let text = |line: &str, sender| match ask(line, "", sender) {
            (Route::Text(text), _) => text,
            (other, _) => panic!("{line}: {other:?}"),
        };
        let known = |text: &str| text.contains("boots its disk");
        let stranger = Some(MacAddr([0x52, 0x54, 0, 0, 0, 9]));
        for (line, sender, is_known) in [
            ("GET /boot.ipxe", None, false),
            ("GET /boot.ipxe", stranger, false),
            ("GET /boot.ipxe", Some(MAC), true),
            ("GET /boot.ipxe?mac=52-54-00-00-00-01", None, true),
            ("GET /boot.ipxe?mac=52-54-00-00-00-01", stranger, true),
            ("GET /boot.ipxe?mac=52-54-00-00-00-09", Some(MAC), false),
            ("GET /boot.ipxe?mac=&mac=52-54-00-00-00-01", None, true),
            ("GET /boot.ipxe?other=52-54-00-00-00-01", None, false),
        ] {
            let text = text(line, sender);
            assert_eq!(known(&text), is_known, "{line}: {text}");
        }
        // The UUID counts too: with a card that is no node's, it is a conflict.
        let line = format!("GET /boot.ipxe?mac=52-54-00-00-00-09&uuid={UUID}");
        assert_ne!(
            text(&line, None),
            text("GET /boot.ipxe?mac=52-54-00-00-00-09", None)
        );
        // UEFI goes on to its next entry, a BIOS needs to be told of the disk.
        let of_arch = |arch| {
            text(
                &format!("GET /boot.ipxe?mac=52-54-00-00-00-01&arch={arch}"),
                None,
            )
        };
        assert!(of_arch(7).ends_with("exit 1\n"), "{}", of_arch(7));
        assert_ne!(of_arch(7), of_arch(0));
        // A token is made for scripts alone.
        assert!(ask("GET /boot.ipxe", "", None).1);
        assert!(!ask("GET /artifacts/x86_64-linux/kernel", "", None).1);
    }
}
