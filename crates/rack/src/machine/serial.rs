//! What a machine prints: kept in a bounded log, scanned, and passed on to open consoles.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use tokio::sync::broadcast;

use super::super::console::ConsoleScanner;
use super::super::state::MachineDir;

/// How long a serial log grows before it is set aside, in bytes. One older log is kept.
pub(crate) const SERIAL_LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The most history that an opening console gets, in bytes.
pub(crate) const HISTORY_BYTES_MAX: u64 = 1024 * 1024;
/// How many pieces of output an open console may lag behind before it is closed.
const CONSOLE_BACKLOG_PIECES: usize = 1024;

/// The output of one machine.
#[derive(Debug)]
pub(crate) struct SerialOutput {
    dir: MachineDir,
    log: Option<File>,
    log_bytes: u64,
    log_bytes_max: u64,
    failing: bool,
    live: broadcast::Sender<Arc<[u8]>>,
    pub(crate) scanner: ConsoleScanner,
}

impl SerialOutput {
    pub(crate) fn new(dir: MachineDir) -> Self {
        let log_bytes = dir.serial_log().metadata().map_or(0, |m| m.len());
        Self {
            dir,
            log: None,
            log_bytes,
            log_bytes_max: SERIAL_LOG_BYTES_MAX,
            failing: false,
            live: broadcast::Sender::new(CONSOLE_BACKLOG_PIECES),
            scanner: ConsoleScanner::new(),
        }
    }

    /// Takes a piece of output. A log that can't be written (a full disk) is said once, and
    /// stops neither the scan nor the consoles.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        self.scanner.feed(bytes);
        // Nobody may be listening, which is no error.
        let _ = self.live.send(bytes.into());
        match self.append(bytes) {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.log = None;
                if !self.failing {
                    eprintln!("cannot write {}: {error}", self.dir.serial_log().display());
                }
                self.failing = true;
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.log_bytes + bytes.len() as u64 > self.log_bytes_max && self.log_bytes > 0 {
            self.log = None;
            std::fs::rename(self.dir.serial_log(), self.dir.serial_log_old())?;
            self.log_bytes = 0;
        }
        let log = match &mut self.log {
            Some(log) => log,
            none => {
                let path = self.dir.serial_log();
                none.insert(OpenOptions::new().create(true).append(true).open(path)?)
            }
        };
        log.write_all(bytes)?;
        self.log_bytes += bytes.len() as u64;
        Ok(())
    }

    /// The end of what was printed, and what will be: together without a gap.
    pub(crate) fn subscribe(
        &self,
        history_bytes: u64,
    ) -> (Vec<u8>, broadcast::Receiver<Arc<[u8]>>) {
        (
            self.history(history_bytes.min(HISTORY_BYTES_MAX))
                .unwrap_or_default(),
            self.live.subscribe(),
        )
    }

    fn history(&self, limit_bytes: u64) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.dir.serial_log())?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(limit_bytes)))?;
        let mut bytes = Vec::new();
        file.take(limit_bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use undercroft_model::NodeName;

    use super::super::super::state::StateDir;
    use super::*;

    #[test]
    fn the_log_is_bounded_and_consoles_miss_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(temp.path())
            .unwrap()
            .machine(&NodeName::new("a").unwrap());
        std::fs::create_dir_all(dir.root()).unwrap();
        let mut output = SerialOutput::new(dir.clone());
        output.log_bytes_max = 100;
        for _ in 0..10 {
            output.take(&[b'x'; 30]);
        }
        output.take(b"end");
        assert!(dir.serial_log().metadata().unwrap().len() <= 100);
        assert!(dir.serial_log_old().metadata().unwrap().len() <= 100);
        let (history, mut live) = output.subscribe(5);
        assert_eq!(history, b"xxend");
        output.take(b"more");
        assert_eq!(&*live.try_recv().unwrap(), b"more");
    }
}
