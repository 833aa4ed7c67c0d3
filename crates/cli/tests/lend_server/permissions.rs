//! What NATS lets a PC and a submitter do: the accounts as Nix renders them, by a real server.

use std::time::Duration;

use async_nats::{ConnectOptions, Event};
use secrecy::ExposeSecret as _;
use tokio::sync::mpsc;
use undercroft_lending::keys::UserKey;
use undercroft_testkit::{OrSkip as _, program};

use crate::site::Site;

/// How long NATS may take to say no; it takes a millisecond.
const NO_WITHIN: Duration = Duration::from_secs(20);

/// A client that says what NATS refuses it.
pub(crate) struct Client {
    pub(crate) client: async_nats::Client,
    said: mpsc::UnboundedReceiver<String>,
}

impl Client {
    pub(crate) async fn new(site: &Site, key: &UserKey) -> Self {
        let (say, said) = mpsc::unbounded_channel();
        let client = ConnectOptions::with_nkey(key.seed().expose_secret().to_owned())
            .add_root_certificates(site.nats.ca())
            .require_tls(true)
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    let _ = say.send(error.to_string());
                }
                std::future::ready(())
            })
            .connect(site.nats.url())
            .await
            .unwrap();
        Self { client, said }
    }

    /// What NATS says to what was just done; `None` where it lets it pass. Something that it always refuses is tried
    /// behind it, so that there is always something to hear.
    async fn refused(&mut self) -> Option<String> {
        self.client.publish("lend.never", "".into()).await.unwrap();
        self.client.flush().await.unwrap();
        let mut all = Vec::new();
        loop {
            let said = tokio::time::timeout(NO_WITHIN, self.said.recv())
                .await
                .unwrap()
                .unwrap();
            let is_last = said.contains("lend.never");
            if is_last {
                return all.into_iter().next();
            }
            all.push(said);
        }
    }
}

/// The subjects of a user's permissions, with stars and arrows filled in.
fn subjects(accounts: &serde_json::Value, key: &str, way: &str) -> Vec<String> {
    let users = accounts["LEND"]["users"].as_array().unwrap();
    let user = users.iter().find(|user| user["nkey"] == key).unwrap();
    let allow = user["permissions"][way]["allow"].as_array().unwrap();
    let allow = allow.iter().map(|subject| subject.as_str().unwrap());
    allow
        .map(|s| s.replace('>', "render-1.1").replace('*', "x"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reaches_a_subject_of_anybody_else() {
    let Some(site) = Site::new(&["desk", "couch"]) else {
        return;
    };
    let _server = site.server();
    let accounts = site.accounts.render();
    if program("nix-instantiate", "nix-bin").or_skip().is_some() {
        assert_eq!(
            site.accounts.by_nix(),
            accounts,
            "what these tests use is what Nix renders"
        );
    }
    let key = |name: &str| UserKey::read(&site.file(name)).unwrap();
    let everybody = [
        ("desk", key("desk/device.nk")),
        ("couch", key("couch/device.nk")),
        ("ci", key("ci.nk")),
        ("guest", key("guest.nk")),
    ];
    let not_theirs = [
        "$JS.API.INFO",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.MSG.GET.KV_lend-state",
        "$JS.API.DIRECT.GET.KV_lend-parts",
        "$JS.API.CONSUMER.CREATE.KV_lend-state",
        "$JS.API.STREAM.PURGE.KV_lend-state",
        "$JS.ACK.KV_lend-state.x.1.1.1.1.1",
        "$KV.lend-state.job.render-1",
        "$KV.lend-records.desk.0.x",
        "$SYS.REQ.SERVER.PING",
        "lend.want",
        "lend.assign.desk",
        "_INBOX.x",
        "_R_.x",
    ];
    let mut tried = 0;
    for (who, theirs) in &everybody {
        let mut client = Client::new(&site, theirs).await;
        for (other, others) in &everybody {
            let is_own = who == other;
            for subject in subjects(&accounts, &others.public().0, "publish") {
                client
                    .client
                    .publish(subject.clone(), "{}".into())
                    .await
                    .unwrap();
                let refused = client.refused().await;
                assert_eq!(
                    refused.is_none(),
                    is_own,
                    "{who} says on {subject}: {refused:?}"
                );
                tried += 1;
            }
            for subject in subjects(&accounts, &others.public().0, "subscribe") {
                let heard = client.client.subscribe(subject.clone()).await.unwrap();
                let refused = client.refused().await;
                assert_eq!(
                    refused.is_none(),
                    is_own,
                    "{who} hears {subject}: {refused:?}"
                );
                drop(heard);
                tried += 1;
            }
        }
        for subject in not_theirs {
            client.client.publish(subject, "{}".into()).await.unwrap();
            assert!(client.refused().await.is_some(), "{who} says on {subject}");
            let heard = client.client.subscribe(subject).await.unwrap();
            assert!(client.refused().await.is_some(), "{who} hears {subject}");
            drop(heard);
            tried += 2;
        }
        for subject in [
            ">",
            "lend.>",
            "lend.*.desk",
            "_INBOX_desk.>",
            "_INBOX.>",
            "$KV.>",
            "lend.submit.*",
        ] {
            if subject == "_INBOX_desk.>" && *who == "desk" {
                continue;
            }
            let heard = client.client.subscribe(subject).await.unwrap();
            assert!(client.refused().await.is_some(), "{who} hears {subject}");
            drop(heard);
            tried += 1;
        }
    }
    println!("{tried} subjects were tried");
    assert!(tried > 150);
}
