//! The keys of encrypted disks.

use std::{ops::RangeInclusive, sync::Arc};

use undercroft_metal::world::EncryptionKeySource;
use undercroft_model::{
    Action, Failure, FailureKind, NodeName, Plan, advice::Advice, inventory::Layout,
};
use undercroft_secrets::{ExposeSecret as _, SecretsError, Vault, keys::IdentitySource};

use crate::settings::Settings;

/// The lengths of a passphrase that ZFS takes, in bytes (zfs-load-key(8), Encryption).
const ZFS_PASSPHRASE_BYTES: RangeInclusive<usize> = 8..=512;

/// Why the key of a machine's encrypted disks can't be had.
#[derive(Debug, thiserror::Error)]
pub enum DiskKeyError {
    /// The fleet's secrets can't be read.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// A machine's disks are to be encrypted, and there is no key to do it with.
    #[error("{node}'s disks are to be encrypted, and the fleet's secrets have no {secret}")]
    Missing {
        /// The machine.
        node: NodeName,
        /// The secret's name.
        secret: String,
    },
    /// A machine's disks can't be encrypted with the key that the secrets hold.
    #[error("{secret} of the fleet's secrets can't be {node}'s passphrase: {detail}")]
    Bad {
        /// The machine.
        node: NodeName,
        /// The secret's name.
        secret: String,
        /// Why not.
        detail: String,
    },
}

impl Advice for DiskKeyError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Secrets(_) | Self::Missing { .. } => "`undercroft secrets init` makes what is missing, and `undercroft secrets check` says what is wrong. Or name a key of your own with --disk-encryption-keys.".to_owned(),
            Self::Bad { secret, .. } => format!(
                "`undercroft secrets rotate {secret}` makes one, as long as the disk isn't encrypted yet."
            ),
        })
    }
}

/// The keys of the encrypted disks that a plan lays out, each found to be there before any disk is wiped. `None`
/// where the command line names the keys, or the fleet's secrets don't hold them.
pub(crate) fn disk_keys(
    settings: &Settings,
    plan: &Plan,
) -> Result<Option<EncryptionKeySource>, DiskKeyError> {
    let inventory = &settings.inventory;
    let encrypted = plan.steps.iter().filter(|step| {
        matches!(
            &step.action,
            Action::Partition {
                layout: Layout::ZfsEncrypted,
                ..
            }
        )
    });
    let encrypted: Vec<&NodeName> = encrypted.map(|step| &step.node).collect();
    if encrypted.is_empty() || !settings.options.disk_keys.is_empty() {
        return Ok(None);
    }
    let source = IdentitySource::usual(&settings.state_dir, settings.identity_files.clone());
    let vault = Vault::open(&settings.repository, inventory, source)?;
    source_of(vault, &encrypted).map(Some)
}

/// A source of the keys of encrypted disks, once each of them was found to be there and good.
fn source_of(vault: Vault, nodes: &[&NodeName]) -> Result<EncryptionKeySource, DiskKeyError> {
    for node in nodes {
        let secret = format!("disks/{node}");
        let node = (*node).clone();
        let Some(key) = vault.get(&secret)? else {
            return Err(DiskKeyError::Missing { node, secret });
        };
        let bytes = key.expose_secret().len();
        let detail = if !ZFS_PASSPHRASE_BYTES.contains(&bytes) {
            format!(
                "it has {bytes} bytes, and ZFS takes {} to {}",
                ZFS_PASSPHRASE_BYTES.start(),
                ZFS_PASSPHRASE_BYTES.end()
            )
        } else if key.expose_secret().contains(['\n', '\r', '\0']) {
            // ZFS reads the first line of the file, and the console takes no second one.
            "it has several lines".to_owned()
        } else {
            continue;
        };
        return Err(DiskKeyError::Bad {
            node,
            secret,
            detail,
        });
    }
    Ok(Arc::new(move |node| {
        let refused = |detail: String| Failure::new(FailureKind::Permanent, detail);
        let key = vault.get(&format!("disks/{node}"));
        key.map_err(|e| refused(e.to_string()))?
            .ok_or_else(|| refused(format!("the fleet's secrets have no disks/{node}")))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use undercroft_secrets::SecretString;

    const NOW_S: u64 = 1_795_397_506;

    fn vault(dir: &std::path::Path) -> Vault {
        let text = r#"
[fleet]
name = "cellar"
[network]
node_cidr = "10.0.0.0/24"
server_address = "10.0.0.2"
[classes.box]
kind = "plain"
layout = "zfs-encrypted"
[nodes.box-01]
class = "box"
macs = ["3c:ec:ef:10:00:01"]
address = "10.0.0.11"
disks = [{ serial = "S1" }]
"#;
        let parsed = undercroft_model::inventory::parse("undercroft.toml", text.as_bytes());
        let source = IdentitySource {
            state_dir: dir.join(".undercroft"),
            identity_files: vec![],
            well_known: false,
        };
        Vault::open(dir, &parsed.inventory.unwrap(), source).unwrap()
    }

    #[test]
    fn a_disks_key_is_there_and_good_before_anything_is_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let node = NodeName::new("box-01").unwrap();
        let refused = || {
            let error = source_of(vault(dir.path()), &[&node]).err().unwrap();
            format!("{error}\n{}", error.hint().unwrap())
        };
        assert!(refused().starts_with(
            "box-01's disks are to be encrypted, and the fleet's secrets have no disks/box-01\n"
        ));
        vault(dir.path()).init(NOW_S).unwrap();
        let source = source_of(vault(dir.path()), &[&node]).unwrap();
        let made = vault(dir.path()).get("disks/box-01").unwrap().unwrap();
        assert_eq!(source(&node).unwrap().expose_secret(), made.expose_secret());
        for (bad, why) in [
            ("1234567", "it has 7 bytes, and ZFS takes 8 to 512"),
            ("12345678\n12345678", "it has several lines"),
        ] {
            let given = Some(SecretString::from(bad));
            vault(dir.path())
                .rotate("disks/box-01", given, NOW_S)
                .unwrap();
            let said = refused();
            assert!(said.contains(why) && !said.contains(bad), "{said}");
        }
    }
}
