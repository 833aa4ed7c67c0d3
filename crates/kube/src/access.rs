//! The credentials of a cluster, from a server's kubeconfig.

use std::net::IpAddr;

use kube::config::{
    AuthInfo, Cluster, Config, Context, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext,
};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::{CONNECT_TIMEOUT, KubeError, REQUEST_TIMEOUT};

/// The largest kubeconfig that is read, in bytes; one with three certificates is a twentieth.
const KUBECONFIG_BYTES_MAX: usize = 256 * 1024;
/// The name of everything in the kubeconfig that is handed on.
const NAME: &str = "undercroft";

/// Who the cluster is, and who we are to it: in memory alone.
#[derive(Clone)]
pub struct Access {
    ca: String,
    user: AuthInfo,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("ca", &self.ca_fingerprint())
            .finish_non_exhaustive()
    }
}

impl Access {
    /// Takes the authority's certificate and the user's credentials out of a kubeconfig, and
    /// nothing else: not the server's address, which is the cluster's own loopback, and nothing
    /// that would run a program here, read a file here, go through a proxy or trust anybody.
    ///
    /// # Errors
    /// When it isn't a kubeconfig, or holds no credentials of its own.
    pub fn of_kubeconfig(text: &SecretString) -> Result<Self, KubeError> {
        let bad = |detail: &str| KubeError::Access {
            detail: detail.to_owned(),
        };
        let text = text.expose_secret();
        if text.len() > KUBECONFIG_BYTES_MAX {
            return Err(bad("the kubeconfig is far too large to be one"));
        }
        // The reader's message may quote what it read, and that may be a key.
        let config = Kubeconfig::from_yaml(text).map_err(|_| bad("it is no kubeconfig"))?;
        let wanted = config.current_context.as_deref();
        let context = config
            .contexts
            .iter()
            .find(|c| Some(c.name.as_str()) == wanted)
            .and_then(|c| c.context.as_ref())
            .ok_or_else(|| bad("the kubeconfig has no current context"))?;
        let cluster = config
            .clusters
            .iter()
            .find(|c| c.name == context.cluster)
            .and_then(|c| c.cluster.as_ref())
            .ok_or_else(|| bad("the kubeconfig lacks the cluster of its context"))?;
        let user = config
            .auth_infos
            .iter()
            .find(|u| Some(&u.name) == context.user.as_ref())
            .and_then(|u| u.auth_info.as_ref())
            .ok_or_else(|| bad("the kubeconfig lacks the user of its context"))?;
        let ca = cluster.certificate_authority_data.clone().ok_or_else(|| {
            bad("the kubeconfig holds no certificate of the cluster's authority in itself")
        })?;
        let kept = AuthInfo {
            client_certificate_data: user.client_certificate_data.clone(),
            client_key_data: user.client_key_data.clone(),
            token: user.token.clone(),
            ..AuthInfo::default()
        };
        let certificate = kept.client_certificate_data.is_some() && kept.client_key_data.is_some();
        if !certificate && kept.token.is_none() {
            return Err(bad(
                "the kubeconfig's user has neither a certificate with its key nor a token in the \
                 file itself; programs and files that it names aren't used",
            ));
        }
        Ok(Self { ca, user: kept })
    }

    /// SHA-256 of the cluster's authority as the kubeconfig has it: the same for every server of
    /// one cluster.
    pub fn ca_fingerprint(&self) -> String {
        let digest = Sha256::digest(self.ca.trim().as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn config(&self, address: IpAddr, port: u16) -> Result<Config, KubeError> {
        let host = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let kubeconfig = Kubeconfig {
            current_context: Some(NAME.to_owned()),
            clusters: vec![NamedCluster {
                name: NAME.to_owned(),
                cluster: Some(Cluster {
                    server: Some(format!("https://{host}:{port}")),
                    certificate_authority_data: Some(self.ca.clone()),
                    ..Cluster::default()
                }),
                ..NamedCluster::default()
            }],
            auth_infos: vec![NamedAuthInfo {
                name: NAME.to_owned(),
                auth_info: Some(self.user.clone()),
                ..NamedAuthInfo::default()
            }],
            contexts: vec![NamedContext {
                name: NAME.to_owned(),
                context: Some(Context {
                    cluster: NAME.to_owned(),
                    user: Some(NAME.to_owned()),
                    ..Context::default()
                }),
                ..NamedContext::default()
            }],
            ..Kubeconfig::default()
        };
        let mut config = Config::try_from(kubeconfig).map_err(|e| KubeError::Access {
            detail: super::error::chain(&e),
        })?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(REQUEST_TIMEOUT);
        config.write_timeout = Some(REQUEST_TIMEOUT);
        config.reset_reader_on_write = true;
        // Whoever waits has a limit of their own, and says what they wait for.
        config.default_retry = false;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(user: &str) -> SecretString {
        SecretString::from(format!(
            "apiVersion: v1
kind: Config
clusters:
- name: default
  cluster: {{server: 'https://127.0.0.1:6443', certificate-authority-data: Q0E=}}
contexts:
- name: default
  context: {{cluster: default, user: admin}}
current-context: default
users:
- name: admin
  user: {user}
"
        ))
    }

    #[test]
    fn only_what_the_file_itself_holds_is_taken() {
        let access = Access::of_kubeconfig(&kubeconfig("{token: hidden}")).unwrap();
        assert!(!format!("{access:?}").contains("hidden"));
        for user in [
            "{exec: {apiVersion: client.authentication.k8s.io/v1, command: touch}}",
            "{tokenFile: /etc/shadow}",
            "{client-certificate: /a, client-key: /b}",
            "{username: admin}",
            "{}",
        ] {
            let error = Access::of_kubeconfig(&kubeconfig(user)).unwrap_err();
            assert!(error.to_string().contains("neither"), "{user}: {error}");
        }
        let both = "{token: hidden, exec: {apiVersion: v1, command: touch}}";
        let access = Access::of_kubeconfig(&kubeconfig(both)).unwrap();
        assert!(access.user.exec.is_none());
    }

    #[test]
    fn a_broken_file_is_not_quoted() {
        let text = SecretString::from("token: [hidden".to_owned());
        let error = Access::of_kubeconfig(&text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hidden"));
    }
}
