//! Signatures that anybody could forge, and nobody in here does by mistake.

use undercroft_lend::{
    DeviceName, Digest,
    consent::{Keys, PublicKey, Sign, Signature, Signer, Verify},
};

/// The two keys of a device.
#[derive(Debug, Clone)]
pub(crate) struct TestKeys(pub(crate) Keys);

impl TestKeys {
    pub(crate) fn of(name: &DeviceName) -> Self {
        Self(Keys {
            owner: PublicKey(format!("owner of {name}")),
            device: PublicKey(format!("device {name}")),
        })
    }
}

fn signature(key: &PublicKey, bytes: &[u8]) -> Signature {
    let signed = [key.0.as_bytes(), bytes].concat();
    Signature(Digest::of(&signed).to_string())
}

impl Sign for TestKeys {
    fn sign(&self, signer: Signer, bytes: &[u8]) -> Signature {
        let key = match signer {
            Signer::Owner => &self.0.owner,
            Signer::Device => &self.0.device,
        };
        signature(key, bytes)
    }
}

/// Checks what [`TestKeys`] signs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TestVerify;

impl Verify for TestVerify {
    fn holds(&self, key: &PublicKey, bytes: &[u8], found: &Signature) -> bool {
        signature(key, bytes) == *found
    }
}

impl Verify for TestKeys {
    fn holds(&self, key: &PublicKey, bytes: &[u8], found: &Signature) -> bool {
        TestVerify.holds(key, bytes, found)
    }
}
