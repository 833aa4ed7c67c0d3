//! QEMU's monitor protocol (QEMU's `docs/interop/qmp-spec.rst`), as much of it as the rack needs.

use serde_json::{Value, json};

/// The longest line that is taken from QEMU, in bytes.
pub(crate) const QMP_LINE_BYTES_MAX: u64 = 1024 * 1024;

/// A line from QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// The reply to the command with this id, or QEMU's words if it failed.
    Reply {
        id: u64,
        result: Result<Value, String>,
    },
    /// The guest shut down, restarted or panicked; or QEMU was told to.
    Shutdown(ShutdownCause),
    /// QEMU stopped the guest because the host's disk is full, and says on which of its disks.
    DiskFull { device: String },
    /// The guest stands still; why, `query-status` says.
    Stopped,
    /// The guest goes on.
    Resumed,
    /// The greeting, and all else.
    Other,
}

/// Who caused a shutdown (`ShutdownCause` in QEMU's `qapi/run-state.json`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShutdownCause {
    GuestReset,
    GuestShutdown,
    GuestPanic,
    /// QEMU or its operator.
    Host,
}

/// Reads a line; any bytes give a message.
pub(crate) fn parse(line: &[u8]) -> Message {
    let Ok(value) = serde_json::from_slice::<Value>(line) else {
        return Message::Other;
    };
    if let Some(id) = value.get("id").and_then(Value::as_u64) {
        let result = match value.get("error") {
            None => Ok(value.get("return").cloned().unwrap_or_default()),
            Some(error) => Err(text(error, "desc")),
        };
        return Message::Reply { id, result };
    }
    let data = value.get("data").cloned().unwrap_or_default();
    match value.get("event").and_then(Value::as_str) {
        Some("SHUTDOWN") => Message::Shutdown(match text(&data, "reason").as_str() {
            "guest-reset" => ShutdownCause::GuestReset,
            "guest-shutdown" => ShutdownCause::GuestShutdown,
            "guest-panic" => ShutdownCause::GuestPanic,
            _ => ShutdownCause::Host,
        }),
        Some("BLOCK_IO_ERROR") if data.get("nospace").and_then(Value::as_bool) == Some(true) => {
            Message::DiskFull {
                device: text(&data, "device"),
            }
        }
        Some("STOP") => Message::Stopped,
        Some("RESUME") => Message::Resumed,
        _ => Message::Other,
    }
}

fn text(value: &Value, key: &str) -> String {
    value
        .get(key)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// A command as a line.
pub(crate) fn command(id: u64, name: &str, arguments: Option<Value>) -> Vec<u8> {
    let mut command = json!({ "execute": name, "id": id });
    if let (Some(arguments), Some(fields)) = (arguments, command.as_object_mut()) {
        fields.insert("arguments".into(), arguments);
    }
    let mut line = command.to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_that_qemu_sends_are_understood() {
        for (line, message) in [
            (
                r#"{"return": {}, "id": 7}"#,
                Message::Reply {
                    id: 7,
                    result: Ok(json!({})),
                },
            ),
            (
                r#"{"return": {"status": "internal-error", "running": false}, "id": 9}"#,
                Message::Reply {
                    id: 9,
                    result: Ok(json!({ "status": "internal-error", "running": false })),
                },
            ),
            (r#"{"timestamp": {}, "event": "STOP"}"#, Message::Stopped),
            (
                r#"{"id": 8, "error": {"class": "DeviceNotFound", "desc": "Device 'x' not found"}}"#,
                Message::Reply {
                    id: 8,
                    result: Err("Device 'x' not found".into()),
                },
            ),
            (
                r#"{"timestamp": {}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#,
                Message::Shutdown(ShutdownCause::GuestReset),
            ),
            (
                r#"{"event": "BLOCK_IO_ERROR", "data": {"device": "disk0", "nospace": true}}"#,
                Message::DiskFull {
                    device: "disk0".into(),
                },
            ),
            (
                r#"{"event": "BLOCK_IO_ERROR", "data": {"nospace": false}}"#,
                Message::Other,
            ),
            (r#"{"QMP": {"version": {}}}"#, Message::Other),
            ("nonsense", Message::Other),
        ] {
            assert_eq!(parse(line.as_bytes()), message, "{line}");
        }
        let line = command(3, "set_link", Some(json!({ "name": "nic0", "up": false })));
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["arguments"]["name"], "nic0");
        assert_eq!(value["id"], 3);
        assert_eq!(line.last(), Some(&b'\n'));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
