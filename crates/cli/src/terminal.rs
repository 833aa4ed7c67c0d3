//! A machine's serial console on the user's terminal.

use std::io::{self, IsTerminal as _};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::error::CliError;

/// What ends a console session: Ctrl-], as with telnet and virsh.
const ESCAPE: u8 = 0x1d;
/// How much is moved at a time, in bytes.
const CHUNK_BYTES: usize = 16 * 1024;

/// The terminal in raw mode, put back as it was at the end.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self(None));
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // There is nobody to tell if that fails.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Joins a console with the user's terminal until either ends.
pub(crate) async fn join<C: AsyncRead + AsyncWrite + Unpin>(
    mut console: C,
    watch_only: bool,
) -> Result<(), CliError> {
    let broken = |e: io::Error| CliError::failed("the console's connection broke").because(&e);
    let _raw = if watch_only {
        Raw(None)
    } else {
        Raw::enter().map_err(|e| CliError::failed("can't use this terminal").because(&e))?
    };
    let mut stdin = tokio::io::stdin();
    let mut stdout = tokio::io::stdout();
    let mut typed = vec![0; CHUNK_BYTES];
    let mut printed = vec![0; CHUNK_BYTES];
    let mut typing = !watch_only;
    loop {
        tokio::select! {
            read = console.read(&mut printed) => {
                let n = read.map_err(broken)?;
                let Some(bytes) = printed.get(..n).filter(|b| !b.is_empty()) else {
                    return Ok(());
                };
                stdout.write_all(bytes).await?;
                stdout.flush().await?;
            }
            read = stdin.read(&mut typed), if typing => {
                let n = read.map_err(|e| CliError::failed("can't read what is typed").because(&e))?;
                let Some(bytes) = typed.get(..n).filter(|b| !b.is_empty()) else {
                    typing = false;
                    continue;
                };
                let until = bytes.iter().position(|b| *b == ESCAPE);
                let send = bytes.get(..until.unwrap_or(n)).unwrap_or_default();
                console.write_all(send).await.map_err(broken)?;
                console.flush().await.map_err(broken)?;
                if until.is_some() {
                    return Ok(());
                }
            }
        }
    }
}
