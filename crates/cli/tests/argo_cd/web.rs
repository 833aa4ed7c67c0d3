//! A web server on loopback: charts as files, and git repositories for those who know the
//! password, by git's own `http-backend`.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Component, Path},
    process::{Command, Stdio},
    thread,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

/// Who may read the repository.
pub(crate) const USER: &str = "argo-cd";
/// Their password.
pub(crate) const PASSWORD: &str = "a-password-of-the-test";
/// The most bytes of a request's body: what a client says that it has and wants.
const BODY_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A request as far as it is looked at.
struct Request {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut words = line.split_whitespace();
        let (method, target) = (words.next()?.to_owned(), words.next()?);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut request = Self {
            method,
            path,
            query,
            headers,
            body: Vec::new(),
        };
        let length: u64 = request
            .header("content-length")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        reader
            .take(length.min(BODY_BYTES_MAX))
            .read_to_end(&mut request.body)
            .ok()?;
        Some(request)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Serves `charts/` and `git/` of a folder until the process ends. Returns the port.
pub(crate) fn serve(root: &Path) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let root = root.to_path_buf();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let root = root.clone();
            thread::spawn(move || {
                if let Some(request) = Request::read(&stream) {
                    // A client that has gone away has no use for the answer.
                    let _ = (&stream).write_all(&answer(&request, &root));
                }
            });
        }
    });
    port
}

fn answer(request: &Request, root: &Path) -> Vec<u8> {
    if request.path.starts_with("/git/") {
        let known = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
        if request.header("authorization") != Some(&format!("Basic {known}")) {
            let head = "WWW-Authenticate: Basic realm=\"git\"\r\n";
            return response("401 Unauthorized", head, b"");
        }
        return git(request, root);
    }
    let relative = Path::new(request.path.trim_start_matches('/'));
    let inside = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    match fs::read(root.join(relative)) {
        Ok(bytes) if inside && relative.starts_with("charts") => response("200 OK", "", &bytes),
        _ => response("404 Not Found", "", b""),
    }
}

fn git(request: &Request, root: &Path) -> Vec<u8> {
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root.join("git"))
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", request.path.trim_start_matches("/git"))
        .env("QUERY_STRING", &request.query)
        .env("REQUEST_METHOD", &request.method)
        .env("REMOTE_USER", USER)
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env("CONTENT_TYPE", request.header("content-type").unwrap_or(""))
        .env(
            "HTTP_CONTENT_ENCODING",
            request.header("content-encoding").unwrap_or(""),
        )
        .env("GIT_PROTOCOL", request.header("git-protocol").unwrap_or(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It may end without having read all.
    let _ = child.stdin.take().unwrap().write_all(&request.body);
    let output = child.wait_with_output().unwrap().stdout;
    let blank = output.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let Some(end) = blank else {
        return response("500 Internal Server Error", "", b"");
    };
    let (head, body) = output.split_at(end + 4);
    let head = String::from_utf8_lossy(head.strip_suffix(b"\r\n").unwrap()).into_owned();
    let (status, others): (Vec<&str>, Vec<&str>) = head
        .split_inclusive("\r\n")
        .partition(|line| line.starts_with("Status: "));
    let status = status
        .first()
        .map_or("200 OK", |line| line.trim_start_matches("Status: ").trim());
    response(status, &others.concat(), body)
}

fn response(status: &str, head: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Where a chart repository of the inventory's lock file is found on this server.
pub(crate) fn mirror(url: &str) -> String {
    let (_, rest) = url.split_once("://").unwrap();
    rest.replace('/', "-")
}
