//! The compositor's word: `ext-idle-notify-v1`.
//!
//! Its notifications heed inhibitors: whoever watches a film is there. Each seat has a notification of its own, and
//! the owner is away when all of them say so.

use std::{io, path::Path, time::Duration};

use tokio::{io::Interest, net::UnixStream};
use wayland_client::{
    Connection, Dispatch, EventQueue, Proxy as _, QueueHandle,
    backend::WaylandError,
    protocol::{
        wl_callback::{self, WlCallback},
        wl_registry::{self, WlRegistry},
        wl_seat::{self, WlSeat},
    },
};
use wayland_protocols::ext::idle_notify::v1::client::{
    ext_idle_notification_v1::{self, ExtIdleNotificationV1},
    ext_idle_notifier_v1::{self, ExtIdleNotifierV1},
};

use super::seat::{GREETING_MS_MAX, Tell};

/// Seats of one compositor that are followed, at most.
const SEATS_MAX: usize = 16;

struct SeatOf {
    /// The compositor's number for it.
    name: u32,
    seat: WlSeat,
    notification: Option<ExtIdleNotificationV1>,
    is_idle: bool,
}

struct Compositor {
    after_ms: u32,
    notifier: Option<ExtIdleNotifierV1>,
    seats: Vec<SeatOf>,
    /// All that the compositor has at first was said.
    is_greeted: bool,
    tell: Tell,
}

impl Compositor {
    /// Asks for a notification for each seat that has none yet.
    fn ask(&mut self, queue: &QueueHandle<Self>) {
        let Some(notifier) = &self.notifier else {
            return;
        };
        for of in self.seats.iter_mut().filter(|of| of.notification.is_none()) {
            let name = of.name;
            let asked = notifier.get_idle_notification(self.after_ms, &of.seat, queue, name);
            of.notification = Some(asked);
        }
    }

    fn say(&self) {
        if self.is_greeted {
            let is_away = !self.seats.is_empty() && self.seats.iter().all(|of| of.is_idle);
            self.tell.is_away(is_away);
        }
    }
}

/// Follows a compositor until it is gone.
pub(super) async fn follow(socket: &Path, after: Duration, tell: Tell) -> io::Result<()> {
    let stream = std::os::unix::net::UnixStream::connect(socket)?;
    stream.set_nonblocking(true)?;
    let readable = UnixStream::from_std(stream.try_clone()?)?;
    let connection = Connection::from_socket(stream).map_err(io::Error::other)?;
    let mut queue = connection.new_event_queue();
    let handle = queue.handle();
    connection.display().get_registry(&handle, ());
    connection.display().sync(&handle, ());
    let mut compositor = Compositor {
        after_ms: u32::try_from(after.as_millis()).unwrap_or(u32::MAX),
        notifier: None,
        seats: Vec::new(),
        is_greeted: false,
        tell,
    };
    let greeted = async {
        while !compositor.is_greeted {
            turn(&mut queue, &mut compositor, &readable).await?;
        }
        io::Result::Ok(())
    };
    tokio::time::timeout(Duration::from_millis(GREETING_MS_MAX), greeted)
        .await
        .map_err(|_| io::Error::other("the compositor doesn't answer"))??;
    if compositor.notifier.is_none() {
        let source = compositor.tell.source();
        let why = format!("{source} doesn't speak ext-idle-notify-v1");
        return Err(io::Error::new(io::ErrorKind::Unsupported, why));
    }
    compositor.say();
    loop {
        turn(&mut queue, &mut compositor, &readable).await?;
    }
}

/// Sends what waits, takes in what has come, or waits until something comes.
async fn turn(
    queue: &mut EventQueue<Compositor>,
    compositor: &mut Compositor,
    readable: &UnixStream,
) -> io::Result<()> {
    let dispatched = queue
        .dispatch_pending(compositor)
        .map_err(io::Error::other)?;
    match queue.flush() {
        // What doesn't fit into the socket is sent the next time; so little is sent that this doesn't happen.
        Ok(()) => {}
        Err(WaylandError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(io::Error::other(error)),
    }
    if dispatched > 0 {
        return Ok(());
    }
    readable.readable().await?;
    let Some(guard) = queue.prepare_read() else {
        return Ok(());
    };
    let read = readable.try_io(Interest::READABLE, || match guard.read() {
        Ok(_) => Ok(()),
        Err(WaylandError::Io(error)) => Err(error),
        Err(error) => Err(io::Error::other(error)),
    });
    match read {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        read => read,
    }
}

impl Dispatch<WlRegistry, ()> for Compositor {
    fn event(
        state: &mut Self,
        registry: &WlRegistry,
        event: wl_registry::Event,
        (): &(),
        _: &Connection,
        queue: &QueueHandle<Self>,
    ) {
        match event {
            wl_registry::Event::Global {
                name, interface, ..
            } => {
                if interface == WlSeat::interface().name && state.seats.len() < SEATS_MAX {
                    state.seats.push(SeatOf {
                        name,
                        seat: registry.bind(name, 1, queue, ()),
                        notification: None,
                        is_idle: false,
                    });
                } else if interface == ExtIdleNotifierV1::interface().name {
                    state.notifier = Some(registry.bind(name, 1, queue, ()));
                }
                state.ask(queue);
                state.say();
            }
            wl_registry::Event::GlobalRemove { name } => {
                let gone = state.seats.extract_if(.., |of| of.name == name);
                for of in gone {
                    if let Some(notification) = of.notification {
                        notification.destroy();
                    }
                }
                state.say();
            }
            _ => {}
        }
    }
}

impl Dispatch<WlCallback, ()> for Compositor {
    fn event(
        state: &mut Self,
        _: &WlCallback,
        event: wl_callback::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        if let wl_callback::Event::Done { .. } = event {
            state.is_greeted = true;
        }
    }
}

impl Dispatch<ExtIdleNotificationV1, u32> for Compositor {
    fn event(
        state: &mut Self,
        _: &ExtIdleNotificationV1,
        event: ext_idle_notification_v1::Event,
        name: &u32,
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        let is_idle = match event {
            ext_idle_notification_v1::Event::Idled => true,
            ext_idle_notification_v1::Event::Resumed => false,
            _ => return,
        };
        if let Some(of) = state.seats.iter_mut().find(|of| of.name == *name) {
            of.is_idle = is_idle;
        }
        state.say();
    }
}

impl Dispatch<WlSeat, ()> for Compositor {
    fn event(
        _: &mut Self,
        _: &WlSeat,
        _: wl_seat::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        // Whether a seat has a pointer or a keyboard doesn't matter.
    }
}

impl Dispatch<ExtIdleNotifierV1, ()> for Compositor {
    fn event(
        _: &mut Self,
        _: &ExtIdleNotifierV1,
        _: ext_idle_notifier_v1::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
    }
}
