//! The folder of a demonstration: keys, certificates, an inventory, a policy, and two jobs.

use std::{net::TcpListener, path::Path};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;
use undercroft_folder::confined::{Confined, Modes};
use undercroft_lending::{device_keys::OwnKeys, keys::UserKey};
use zeroize::Zeroizing;

use crate::{error::CliError, project::INVENTORY_FILE};

/// The server's key.
pub(super) const SERVER_KEY_FILE: &str = "server.nk";
/// The authority that signed NATS' certificate.
pub(super) const CA_FILE: &str = "ca.crt";
/// NATS' certificate and its key.
pub(super) const CERT_FILES: [&str; 2] = ["tls.crt", "tls.key"];
/// The key of whoever brings work.
const SUBMITTER_KEY_FILE: &str = "you.nk";
/// The PC's policy.
const POLICY_FILE: &str = "desk.json";
/// The folder with the PC's keys, ledger and jobs.
const STATE_FOLDER: &str = "desk";

/// What is the same in each.
const FILES: [(&str, &[u8]); 5] = [
    (
        "first-job.toml",
        include_bytes!("../../../../templates/lend/first-job.toml"),
    ),
    (
        "first-job.txt",
        include_bytes!("../../../../templates/lend/first-job.txt"),
    ),
    (
        "capitals.wasm",
        include_bytes!("../../../../templates/lend/capitals.wasm"),
    ),
    (
        "endless-job.toml",
        include_bytes!("../../../../templates/lend/endless-job.toml"),
    ),
    (
        "endless.wasm",
        include_bytes!("../../../../templates/lend/endless.wasm"),
    ),
];

/// Makes what isn't there yet. What is there stays as it is.
pub(super) fn prepare(dir: &Path) -> Result<(), CliError> {
    std::fs::create_dir_all(dir).map_err(|e| CliError::file("make the folder", dir, &e))?;
    let dir = dir
        .canonicalize()
        .map_err(|e| CliError::file("use", dir, &e))?;
    let folder = Confined::new(&dir);
    let is_there = |name: &str| {
        let kind = folder.kind(name);
        kind.map(|kind| kind.is_some())
            .map_err(|e| CliError::from(&e))
    };
    let write = |name: &str, bytes: &[u8], modes: Modes| match is_there(name)? {
        true => Ok(()),
        false => folder
            .write_new(name, bytes, modes)
            .map_err(|e| CliError::from(&e)),
    };
    if is_there(INVENTORY_FILE)? && !is_there(SERVER_KEY_FILE)? {
        return Err(
            CliError::input(format!("{} is another fleet's folder", dir.display()))
                .hint("Name another one; nothing was changed there."),
        );
    }
    if !is_there(CA_FILE)? {
        certificates(|name, bytes| write(name, bytes, Modes::PRIVATE))
            .map_err(|e| CliError::failed("can't make certificates").because(&e))??;
    }
    for (name, bytes) in FILES {
        write(name, bytes, Modes::PUBLIC)?;
    }
    let public = |name: &str| {
        let made = UserKey::read_or_make(&dir.join(name));
        made.map(|(key, _)| key.public().0)
            .map_err(|e| CliError::from(&e))
    };
    let (server, submitter) = (public(SERVER_KEY_FILE)?, public(SUBMITTER_KEY_FILE)?);
    let state = dir.join(STATE_FOLDER);
    let pc = OwnKeys::read_or_make(&Confined::new(&state)).map_err(|e| CliError::from(&e))?;
    let pc = pc.public();
    let port = free_port()?;
    let policy = policy(port, &dir, &state);
    write(POLICY_FILE, policy.as_bytes(), Modes::PUBLIC)?;
    // The inventory comes last: without it the same command can simply be given again.
    let mut inventory = include_str!("../../../../templates/lend/undercroft.toml").to_owned();
    for (mark, value) in [
        ("@PORT@", port.to_string().as_str()),
        ("@SERVER@", &server),
        ("@SUBMITTER@", &submitter),
        ("@SYSTEM@", &format!("{}-linux", std::env::consts::ARCH)),
        ("@DEVICE@", &pc.device.0),
        ("@OWNER@", &pc.owner.0),
    ] {
        inventory = inventory.replace(mark, value);
    }
    write(INVENTORY_FILE, inventory.as_bytes(), Modes::PUBLIC)
}

/// What the PC lends. Its owner tries it out, so that it works while they are there.
fn policy(port: u16, dir: &Path, state: &Path) -> String {
    let policy = json!({
        "version": 1, "fleet": "demo", "device": "desk", "class": "pc", "owner": "you",
        "natsUrl": format!("tls://localhost:{port}"), "caFile": dir.join(CA_FILE), "stateDirectory": state,
        "runtimes": ["wasm", "process"], "tenants": ["demo"], "maxSensitivity": "public",
        "slots": 1, "cpuPercent": 50, "memoryMb": 512, "diskMb": 128, "jobWallS": 3600,
        "heartbeatS": 2, "pauseS": 60,
        "when": { "idleAfterS": 1, "hasSeat": false, "mainsOnly": false },
    });
    format!("{policy:#}\n")
}

/// A port of the loopback interface that nobody listens on now.
fn free_port() -> Result<u16, CliError> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = listener.map_err(|e| CliError::failed("no port is free").because(&e))?;
    Ok(address.port())
}

/// An authority that signs one certificate, and is forgotten.
fn certificates<E>(
    write: impl Fn(&str, &[u8]) -> Result<(), E>,
) -> Result<Result<(), E>, rcgen::Error> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.distinguished_name
        .push(DnType::CommonName, "a demonstration of lending");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let key = KeyPair::generate()?;
    let cert = CertificateParams::new(vec!["localhost".to_owned()])?;
    let cert = cert.signed_by(&key, &Issuer::new(ca, ca_key))?.pem();
    let key = Zeroizing::new(key.serialize_pem());
    let [cert_file, key_file] = CERT_FILES;
    let files = [
        (key_file, key.as_bytes()),
        (cert_file, cert.as_bytes()),
        (CA_FILE, ca_pem.as_bytes()),
    ];
    Ok(files
        .iter()
        .try_for_each(|(name, bytes)| write(name, bytes)))
}
