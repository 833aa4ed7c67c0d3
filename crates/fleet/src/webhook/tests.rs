//! Notices posted to a real web server that is slow, refuses, drips and goes away.

use std::{
    cell::RefCell,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    sync::{Mutex, mpsc},
};

use undercroft_model::document::read;
use undercroft_planner::Rounds;

use super::*;
use crate::standing::Course;

const SECRET: &str = "T0SECRETB0SECRET";
/// How long one try takes at most here: long for a loopback interface, and short for a test.
const TRY: Duration = Duration::from_millis(400);

/// What the server does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// Takes the notice.
    Takes,
    /// Closes the connection without a word.
    Closes,
    /// Answers with this status.
    Answers(&'static str),
    /// Reads, and says nothing.
    IsSilent,
    /// Answers a byte at a time, for ever.
    Drips,
    /// Answers with a head without an end.
    Floods,
}

/// A request: its head and its body.
type Request = (String, String);

fn request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
            let length = head.lines().find_map(|line| {
                line.to_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            });
            let body = at + 4;
            if bytes.len() >= body + length.unwrap_or(0) {
                let body = String::from_utf8(bytes[body..].to_vec()).unwrap();
                return Some((head, body));
            }
        }
        match stream.read(&mut chunk) {
            Ok(read) if read > 0 => bytes.extend_from_slice(&chunk[..read]),
            _ => return None,
        }
    }
}

/// A server that does these with its first connections, and then goes on with the last.
fn server(does: &'static [Does]) -> (SocketAddr, mpsc::Receiver<(Does, Request)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel();
    let tell = Arc::new(Mutex::new(tell));
    std::thread::spawn(move || {
        for n in 0.. {
            let Ok((mut stream, _)) = listener.accept() else {
                return;
            };
            let does = *does.get(n).or(does.last()).unwrap();
            let tell = Arc::clone(&tell);
            std::thread::spawn(move || {
                if does == Does::Closes {
                    return;
                }
                let Some(request) = request(&mut stream) else {
                    return;
                };
                let _ = tell.lock().unwrap().send((does, request));
                answer(does, &mut stream);
            });
        }
    });
    (at, told)
}

fn answer(does: Does, stream: &mut TcpStream) {
    let status = match does {
        Does::Takes => "204 No Content",
        Does::Answers(status) => status,
        Does::IsSilent => {
            // Until the other end has had enough.
            let _ = stream.read(&mut [0]);
            return;
        }
        Does::Drips => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX-Drip: ");
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(TRY / 10);
            }
            return;
        }
        Does::Floods => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
            while stream.write_all(&[b'x'; 4096]).is_ok() {}
            return;
        }
        Does::Closes => return,
    };
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nLocation: /elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
}

fn webhook(at: SocketAddr, path: &str) -> Webhook {
    let url = format!("http://{at}{path}");
    let secret = SecretString::from(SECRET.to_owned());
    Webhook(Arc::new(Poster::within(&url, Some(secret), TRY).unwrap()))
}

fn fails(board: &Board, why: &str) {
    let mut rounds = Rounds::new(60_000);
    rounds.over(0, Some(why));
    board.over(&rounds, Some(why));
}

fn is_well(board: &Board) {
    board.change(|standing| {
        standing.course = Course::Well;
        standing.sentence = "everything is as it should be".to_owned();
    });
}

/// Tells until so many notices were taken, and gives them with all that was asked, and what was said.
async fn told(
    webhook: Webhook,
    board: Arc<Board>,
    asked: &mpsc::Receiver<(Does, Request)>,
    notices: usize,
    mut meanwhile: impl FnMut(usize),
) -> (Vec<Request>, Vec<(Does, Request)>, Vec<String>) {
    let said = Rc::new(RefCell::new(Vec::new()));
    let saying = Rc::clone(&said);
    let telling = webhook.tell("cellar".to_owned(), board, move |text| {
        saying.borrow_mut().push(text.to_owned());
    });
    let (mut taken, mut all) = (Vec::new(), Vec::new());
    let looking = async {
        while taken.len() < notices {
            tokio::time::sleep(Duration::from_millis(100)).await;
            for (does, request) in asked.try_iter() {
                if does == Does::Takes {
                    taken.push(request.clone());
                    meanwhile(taken.len());
                }
                all.push((does, request));
            }
        }
        // What came of the last is told by then.
        tokio::time::sleep(Duration::from_secs(60)).await;
    };
    tokio::select! {
        () = telling => {}
        () = looking => {}
    }
    let said = said.borrow().clone();
    (taken, all, said)
}

#[tokio::test(start_paused = true)]
async fn a_notice_reaches_a_server_that_first_does_all_it_can_not_to_take_it() {
    const DOES: &[Does] = &[
        Does::Closes,
        Does::Answers("500 Internal Server Error"),
        Does::Answers("302 Found"),
        Does::IsSilent,
        Does::Drips,
        Does::Floods,
        Does::Takes,
    ];
    let (at, asked) = server(DOES);
    let board = Arc::new(Board::default());
    fails(&board, "no route to the builder");
    let hook = webhook(at, "/services/{secret}?x=1");
    let shown = format!("{hook:?}");
    let well = Arc::clone(&board);
    let (taken, all, said) = told(hook, board, &asked, 2, |_| is_well(&well)).await;

    let notices: Vec<Notice> = taken.iter().map(|(_, body)| read(body).unwrap()).collect();
    assert_eq!(notices.len(), 2, "each was taken once");
    assert_eq!(notices[0].fleet, "cellar");
    assert_eq!(
        (notices[0].before, notices[0].course),
        (Course::Starting, Course::Failing)
    );
    assert_eq!(
        notices[0].sentence,
        "a round could not be done: no route to the builder"
    );
    assert_eq!(
        (notices[1].before, notices[1].course),
        (Course::Failing, Course::Well)
    );
    assert_eq!(notices[0].missed, 0);
    // Every try was whole, to the same place, and nobody was sent elsewhere.
    for (does, (head, body)) in &all {
        let first = head.lines().next().unwrap();
        assert_eq!(
            first,
            format!("POST /services/{SECRET}?x=1 HTTP/1.1"),
            "{does:?}"
        );
        assert!(read::<Notice>(body).is_ok(), "{does:?}: {body}");
        assert!(!head.to_lowercase().contains("authorization"), "{head}");
    }
    assert_eq!(
        all.len(),
        DOES.len(),
        "but for the one that was closed, and one more"
    );
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("takes no notices: 127.0.0.1 "), "{said:?}");
    assert_eq!(said[1], "the webhook takes notices again");
    assert!(
        !format!("{shown}{said:?}").contains(SECRET),
        "{shown}{said:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_secret_without_a_place_in_the_url_is_a_bearers_token() {
    let (at, asked) = server(&[Does::Takes]);
    let board = Arc::new(Board::default());
    fails(&board, "no route");
    let (taken, _, said) = told(webhook(at, "/x"), board, &asked, 1, |_| {}).await;
    let head = &taken[0].0;
    assert!(head.starts_with("POST /x HTTP/1.1\r\n"), "{head}");
    let bearer = format!("authorization: bearer {}", SECRET.to_lowercase());
    assert!(
        head.to_lowercase().lines().any(|line| line == bearer),
        "{head}"
    );
    assert!(said.is_empty(), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_takes_is_given_up_and_counted_and_holds_up_nothing() {
    // The first notice is never taken; a hundred more come meanwhile.
    const DOES: &[Does] = &[Does::IsSilent, Does::Takes];
    let (at, asked) = server(DOES);
    let board = Arc::new(Board::default());
    fails(&board, "no route");
    let changing = Arc::clone(&board);
    let flapping = tokio::spawn(async move {
        for n in 0..100 {
            match n % 2 {
                0 => is_well(&changing),
                _ => fails(&changing, "no route"),
            }
            // As long as a moment: the one that is posted isn't waited for.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
    });
    let (taken, _, _) = told(webhook(at, "/{secret}"), board, &asked, QUEUE_MAX, |_| {}).await;
    flapping.await.unwrap();
    let notices: Vec<Notice> = taken.iter().map(|(_, body)| read(body).unwrap()).collect();
    assert_eq!(notices.len(), QUEUE_MAX, "no more than there is room for");
    let missed: u64 = notices.iter().map(|notice| notice.missed).sum();
    assert_eq!(
        missed + notices.len() as u64,
        101,
        "each is there or counted"
    );
}

#[tokio::test(start_paused = true)]
async fn a_notice_is_posted_so_often_and_not_for_ever() {
    let mut queue = Queue::default();
    let told = {
        let board = Board::default();
        fails(&board, "no route");
        board.told()
    };
    let before = Course::Starting;
    queue.add("cellar", news::New { before, told });
    let began = Instant::now();
    let mut said = 0;
    for tries in 1..=TRIES_MAX {
        tokio::time::advance(queue.due().unwrap()).await;
        let host = "hooks.example".to_owned();
        said += usize::from(queue.done(Ok(Err(PostError::Slow { host }))).is_some());
        assert_eq!(queue.notices.is_empty(), tries == TRIES_MAX);
    }
    assert_eq!((said, queue.missed, queue.due()), (1, 1, None));
    // 2, 4, 8 … 128 s.
    assert_eq!(began.elapsed(), Duration::from_secs(254));
}
