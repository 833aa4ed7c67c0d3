//! HTTP clients, and who reports over it.

use super::*;

#[test]
fn http_clients_get_the_files() {
    in_namespace("http::http_clients_get_the_files", &["curl"], || {
        let site = Site::new();
        with_servers(
            site.config(Mode::Proxy),
            table(BootIntent::Install),
            |netboot| {
                let mut events = netboot.events();
                let base = "http://10.77.0.1:8080";
                let kernel = format!("{base}/artifacts/x86_64-linux/kernel");
                let got = site.file("got");
                let got_text = got.to_str().unwrap();

                curl(&["-o", got_text, &kernel]);
                assert!(std::fs::read(&got).unwrap() == site.content);
                curl(&["-r", "1000000-1999999", "-o", got_text, &kernel]);
                assert!(std::fs::read(&got).unwrap() == site.content[1_000_000..2_000_000]);
                std::fs::write(&got, &site.content[..1_234_567]).unwrap();
                curl(&["-C", "-", "-o", got_text, &kernel]);
                assert!(std::fs::read(&got).unwrap() == site.content, "resumed");
                let behind = curl(&[
                    "-r",
                    "9999999-",
                    "-w",
                    "%{http_code}",
                    "-o",
                    "/dev/null",
                    &kernel,
                ]);
                assert_eq!(behind, "416");
                let head = curl(&["-I", &kernel]);
                assert!(head.contains("Content-Length: 3000001\r\n"), "{head}");
                assert!(head.contains("Accept-Ranges: bytes\r\n"), "{head}");

                // One connection for all of these, the missing one included.
                let urls = [kernel.as_str(), &format!("{base}/nothing"), &kernel];
                let report = "%{num_connects} %{http_code}\n";
                let mut arguments = vec!["-w", report];
                for url in &urls {
                    arguments.extend(["-o", "/dev/null", url]);
                }
                assert_eq!(curl(&arguments), "1 200\n0 404\n0 200\n");

                let script = curl(&[&format!("{base}/boot.ipxe?mac=52-54-00-00-00-01&arch=7")]);
                assert!(
                    script.contains("undercroft.node=gpu-01 undercroft.token=")
                        && script.contains(" undercroft.mode=install "),
                    "{script}"
                );
                let name = NodeName::new("gpu-01").unwrap();
                assert_eq!(
                    netboot.set_intent(&name, BootIntent::Local).unwrap(),
                    BootIntent::Install
                );
                let script = curl(&[&format!("{base}/boot.ipxe?mac=52-54-00-00-00-01&arch=7")]);
                assert!(
                    script.contains("boots its disk") && script.ends_with("exit 1\n"),
                    "{script}"
                );
                assert_eq!(
                    curl(&[&format!("{base}/v1/authorized_keys")]),
                    "ssh-ed25519 AAAA operator\n"
                );
                netboot.set_authorized_keys("ssh-ed25519 BBBB other\n");
                assert_eq!(
                    curl(&[&format!("{base}/v1/authorized_keys")]),
                    "ssh-ed25519 BBBB other\n"
                );

                report_in(&site, netboot, base, &mut events);
                at_once(&kernel, &site.content);
            },
        );
    });
}

/// A report of gpu-01, from that address and with that token.
fn report_of(address: &str, token: &str) -> String {
    format!(
        r#"{{"version":1,"nonce":"00112233445566778899aabbccddeeff","uuid":null,
        "macs":["52:54:00:00:00:01"],"address":"{address}","boot_id":"b",
        "host_key":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI",
        "fingerprint":"SHA256:abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG",
        "system":"x86_64-linux","firmware":"uefi","memory_mb":1024,"installer":"t",
        "token":"{token}","disks":[]}}"#
    )
}

fn report_in(
    site: &Site,
    netboot: &Netboot,
    base: &str,
    events: &mut tokio::sync::broadcast::Receiver<NetbootEvent>,
) {
    let name = NodeName::new("gpu-01").unwrap();
    netboot.set_intent(&name, BootIntent::Install).unwrap();
    // The client has the machine's planned address beside its own.
    let planned = Ipv4Addr::new(10, 77, 0, 11);
    in_netns(
        "client",
        "ip",
        &["addr", "add", "10.77.0.11/24", "dev", "eth0"],
    );
    let own = planned.to_string();
    let other = CLIENT.to_string();
    let ask = |from: &str| {
        let url = format!("{base}/boot.ipxe?mac=52-54-00-00-00-01&arch=7");
        curl(&["--interface", from, &url])
    };
    let script = ask(&own);
    let of_script = |key: &str| {
        let mut words = script.split_whitespace();
        let value = words.find_map(|word| word.strip_prefix(key)).unwrap();
        value.to_owned()
    };
    let (token, word) = (
        of_script("undercroft.token="),
        of_script("undercroft.word="),
    );
    let served = await_event(events, |e| matches!(e.kind, EventKind::ScriptServed { .. }));
    assert_eq!(served.kind, EventKind::ScriptServed { word: word.clone() });
    // A second one for the same boot is odd, and both askers are named.
    assert_ne!(ask(&other), script);
    let odd = await_event(events, |e| matches!(e.kind, EventKind::ScriptOdd { .. }));
    assert_eq!((odd.node, odd.address), (Some(name.clone()), Some(CLIENT)));
    let EventKind::ScriptOdd {
        planned: should,
        first,
        first_word,
        ..
    } = odd.kind
    else {
        unreachable!()
    };
    assert_eq!((should, first), (Some(planned), Some(planned)));
    assert_eq!(first_word, Some(word));

    let url = format!("{base}/v1/report");
    let none = "0".repeat(48);
    for (from, address, token, status) in [
        (&own, "8.8.8.8", &token, 400),
        (&own, "127.0.0.1", &token, 400),
        (&own, "0.0.0.0", &token, 400),
        (&own, "224.0.0.1", &token, 400),
        (&own, "10.77.0.1", &token, 400),
        (&own, "10.77.0.66", &token, 403),
        (&other, own.as_str(), &token, 403),
        (&other, other.as_str(), &token, 403),
        (&own, own.as_str(), &none, 403),
    ] {
        let json = report_of(address, token);
        let status_too = ["-w", " %{http_code}", "--interface", from];
        let answer = curl(&[&status_too[..], &["--data-binary", &json, &url]].concat());
        assert!(
            answer.ends_with(&format!(" {status}")),
            "{address}: {answer}"
        );
        let told = await_event(events, |e| {
            matches!(
                e.kind,
                EventKind::ReportRefused { .. } | EventKind::Report { .. }
            )
        });
        assert_eq!(
            told.address,
            Some(from.parse().unwrap()),
            "the sender is named"
        );
        assert_eq!(told.node.as_ref(), Some(&name));
        let EventKind::ReportRefused { claimed, .. } = told.kind else {
            panic!("{address} was believed");
        };
        assert_eq!(claimed, Some(address.parse().unwrap()));
    }
    assert_eq!(
        curl(&[
            "--interface",
            &own,
            "--data-binary",
            &report_of(&own, &token),
            &url
        ]),
        "reported\n"
    );
    let told = await_event(events, |e| matches!(e.kind, EventKind::Report { .. }));
    assert_eq!(told.node.unwrap().as_str(), "gpu-01");
    assert_eq!(
        told.address,
        Some(planned),
        "the sender's own address is kept"
    );

    assert!(curl(&["--data-binary", "{}", &url]).contains("missing field"));
    let big = site.file("big");
    std::fs::write(&big, vec![b' '; 70_000]).unwrap();
    let data = format!("@{}", big.display());
    let code = curl(&[
        "-w",
        "%{http_code}",
        "-o",
        "/dev/null",
        "--data-binary",
        &data,
        &url,
    ]);
    assert!(code.starts_with("413"), "{code}");
    let code = curl(&[
        "-w",
        "%{http_code}",
        "-o",
        "/dev/null",
        "-X",
        "DELETE",
        &url,
    ]);
    assert_eq!(code, "405");
}

/// Sixteen clients at once each get the whole file.
fn at_once(url: &str, content: &[u8]) {
    let all: Vec<_> = (0..16)
        .map(|_| {
            let url = url.to_owned();
            std::thread::spawn(move || in_netns("client", "curl", &["-sS", &url]).stdout)
        })
        .collect();
    for one in all {
        assert!(one.join().unwrap() == content);
    }
}
