//! Time that goes on while the machine sleeps: a lease that ran out in the meantime is over at the moment of waking.

use std::io;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::net::unix::pipe;
use undercroft_model::Now;
use undercroft_process::clock::wall_ms_now;

/// Milliseconds since the machine was started, with its sleep.
pub(crate) fn mono_ms_now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let ms = |n: i64| u64::try_from(n).unwrap_or(0);
    ms(now.tv_sec)
        .saturating_mul(1000)
        .saturating_add(ms(now.tv_nsec) / 1_000_000)
}

/// Both clocks at this moment.
pub(crate) fn now() -> Now {
    Now {
        mono_ms: mono_ms_now(),
        wall_ms: wall_ms_now(),
    }
}

/// A timer by [`mono_ms_now`]. tokio's own stand still while the machine sleeps. The kernel's timer is read as a
/// pipe is.
#[derive(Debug)]
pub(crate) struct Timer(pipe::Receiver);

impl Timer {
    /// One that isn't set.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let fd = timerfd_create(TimerfdClockId::Boottime, flags)?;
        Ok(Self(pipe::Receiver::from_owned_fd_unchecked(fd)?))
    }

    /// Waits until a moment has come.
    pub(crate) async fn until(&self, mono_ms: u64) -> io::Result<()> {
        // A moment of 0 would take the timer back.
        let at_ms = i64::try_from(mono_ms.max(1)).unwrap_or(i64::MAX);
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let spec = Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: at_ms / 1000,
                tv_nsec: (at_ms % 1000) * 1_000_000,
            },
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &spec)?;
        loop {
            if mono_ms_now() >= mono_ms {
                return Ok(());
            }
            self.0.readable().await?;
            let mut expirations = [0; 8];
            match self.0.try_read(&mut expirations) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_timer_waits_for_its_moment_and_can_be_set_again() {
        let timer = Timer::new().unwrap();
        for _ in 0..3 {
            let at = mono_ms_now() + 20;
            timer.until(at).await.unwrap();
            assert!(mono_ms_now() >= at);
        }
        timer.until(0).await.unwrap();
        let late = tokio::time::timeout(
            std::time::Duration::from_millis(50),
            timer.until(u64::MAX / 2),
        );
        assert!(late.await.is_err());
    }
}
