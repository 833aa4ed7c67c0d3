//! `undercroft secrets`: what people read, and that `sops` itself agrees.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use undercroft_testkit::{OrSkip as _, peer};

use crate::support::{Ran, Sandbox};

const INVENTORY: &str = r#"[fleet]
name = "cellar"

[network]
node_cidr = "10.0.0.0/24"
server_address = "10.0.0.2"

[network.overlay]
kind = "tailscale"

[kubernetes]
distribution = "k3s"
founder = "control-01"

[gitops]
repository = "https://git.example/fleet.git"
components = ["cilium", "grafana"]

[classes.control]
kind = "control"

[classes.box]
kind = "plain"
role = "agent"

[nodes.control-01]
class = "control"
macs = ["3c:ec:ef:10:00:01"]
address = "10.0.0.11"
disks = [{ serial = "S1" }]

[nodes.box-01]
class = "box"
macs = ["3c:ec:ef:10:00:02"]
address = "10.0.0.12"
disks = [{ serial = "S2" }]
"#;

pub(crate) fn fleet() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("undercroft.toml", INVENTORY);
    sandbox
}

fn editor(sandbox: &Sandbox, script: &str, file: &str) -> Ran {
    sandbox.write("editor.sh", &format!("#!/bin/sh\n{script}\n"));
    let path = sandbox.dir().join("editor.sh");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = sandbox.command(["secrets", "edit", file]);
    sandbox.finish(command.env("EDITOR", &path))
}

/// A text for a snapshot: keys are others each time.
fn masked(ran: &Ran) -> String {
    let text = ran.text();
    let mut parts = text.split("age1");
    let mut masked = parts.next().unwrap().to_owned();
    for part in parts {
        masked.push_str("[recipient]");
        masked.push_str(part.trim_start_matches(|c: char| c.is_ascii_alphanumeric()));
    }
    masked
}

#[test]
fn a_fleets_secrets_from_nothing() {
    let sandbox = fleet();
    let before = sandbox.run(["secrets", "check"]);
    assert_eq!(before.code, 65, "{}", before.text());
    insta::assert_snapshot!("secrets_check_before", before.text());
    let made = sandbox.run(["secrets", "init"]);
    assert_eq!(made.code, 0, "{}", made.text());
    insta::assert_snapshot!("secrets_init", masked(&made));
    let again = sandbox.run(["secrets", "init"]);
    insta::assert_snapshot!("secrets_init_again", again.text());
    insta::assert_snapshot!("secrets_list", sandbox.run(["secrets", "list"]).text());
    let good = sandbox.run(["secrets", "check"]);
    assert_eq!(good.code, 0, "{}", good.text());
    insta::assert_snapshot!("secrets_check", good.text());
    let rotated = sandbox.run(["secrets", "rotate", "k3s/tls/server-ca.crt"]);
    assert_eq!(rotated.code, 0);
    insta::assert_snapshot!("secrets_rotate", rotated.text());
}

#[test]
fn a_machine_that_goes_is_shut_out_by_name() {
    let sandbox = fleet();
    sandbox.run(["secrets", "init"]);
    let without = INVENTORY.split("[nodes.box-01]").next().unwrap();
    sandbox.write("undercroft.toml", without);
    let planned = sandbox.run(["secrets", "rekey", "--dry-run"]);
    assert_eq!(planned.code, 2, "{}", planned.text());
    let done = sandbox.run(["secrets", "rekey", "--yes"]);
    assert_eq!(done.code, 0, "{}", done.text());
    insta::assert_snapshot!("secrets_rekey", masked(&done));
    let again = sandbox.run(["secrets", "rekey"]);
    insta::assert_snapshot!("secrets_rekey_again", again.text());
}

#[test]
fn an_editor_sees_plain_text_in_memory_alone() {
    let sandbox = fleet();
    sandbox.run(["secrets", "init"]);
    let file = "secrets/operators.sops.yaml";
    let seen = sandbox.dir().join("seen");
    let changed = editor(
        &sandbox,
        &format!(
            "printf '%s' \"$1\" > {seen}; stat -c %a \"$1\" >> {seen}\nsed -i 's/admin_password: .*/admin_password: chosen/' \"$1\"\nprintf 'mine: also # here\\n' >> \"$1\"",
            seen = seen.display()
        ),
        file,
    );
    assert_eq!(changed.code, 0, "{}", changed.text());
    insta::assert_snapshot!("secrets_edit", changed.text());
    let seen = std::fs::read_to_string(seen).unwrap();
    assert!(
        seen.starts_with("/dev/shm/undercroft-secrets-") && seen.ends_with("600\n"),
        "{seen}"
    );
    let path = seen.trim_end_matches("600\n");
    assert!(!Path::new(path).exists(), "{path} is still there");
    let text = std::fs::read_to_string(sandbox.dir().join(file)).unwrap();
    assert!(!text.contains("chosen") && !text.contains("also") && text.contains("mine: ENC["));
    let nothing = editor(&sandbox, "true", file);
    assert_eq!(
        (nothing.code, nothing.out.as_str()),
        (0, "nothing was changed\n")
    );
    // A mistake changes nothing, and has its place.
    let before = std::fs::read(sandbox.dir().join(file)).unwrap();
    let wrong = editor(&sandbox, "printf 'mine: twice\\n' >> \"$1\"", file);
    assert_eq!(wrong.code, 65);
    insta::assert_snapshot!("secrets_edit_wrong", wrong.text());
    assert_eq!(std::fs::read(sandbox.dir().join(file)).unwrap(), before);
    let nowhere = editor(&sandbox, "true", "secrets/none.sops.yaml");
    insta::assert_snapshot!("secrets_edit_nowhere", nowhere.text());
}

#[test]
fn nothing_is_left_of_the_plain_text_when_the_program_is_ended() {
    let sandbox = fleet();
    sandbox.run(["secrets", "init"]);
    let file = "secrets/operators.sops.yaml";
    let before = std::fs::read(sandbox.dir().join(file)).unwrap();
    let (seen, ended) = (sandbox.dir().join("seen"), sandbox.dir().join("ended"));
    sandbox.write(
        "editor.sh",
        &format!(
            "#!/bin/sh\ntrap 'touch {}; exit 1' TERM\nprintf %s \"$1\" >{seen}.new; mv {seen}.new {seen}\nwhile :; do sleep 0.05; done\n",
            ended.display(),
            seen = seen.display(),
        ),
    );
    let path = sandbox.dir().join("editor.sh");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut child = sandbox
        .command(["secrets", "edit", file])
        .env("EDITOR", &path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while !seen.exists() {
        assert!(Instant::now() < until, "the editor doesn't run");
        std::thread::sleep(Duration::from_millis(10));
    }
    let plain = std::fs::read_to_string(&seen).unwrap();
    assert!(Path::new(&plain).exists());
    // What comes from the keyboard is the editor's own.
    let signal = |name: &str| {
        let ran = Command::new("kill")
            .args(["-s", name, &child.id().to_string()])
            .status();
        assert!(ran.unwrap().success());
    };
    signal("INT");
    signal("TERM");
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(ended.exists(), "the editor was left running");
    assert!(!Path::new(&plain).exists(), "{plain} is still there");
    assert_eq!(std::fs::read(sandbox.dir().join(file)).unwrap(), before);
}

#[test]
fn vim_leaves_nothing_behind_whatever_its_configuration() {
    let has_vim = Command::new("vi").arg("--version").output();
    if !has_vim.is_ok_and(|ran| String::from_utf8_lossy(&ran.stdout).starts_with("VIM")) {
        println!("SKIPPED: vi isn't vim here");
        return;
    }
    let sandbox = fleet();
    sandbox.run(["secrets", "init"]);
    let file = "secrets/operators.sops.yaml";
    let home = sandbox.dir().join("home-of-vim");
    std::fs::create_dir_all(home.join("kept")).unwrap();
    let kept = home.join("kept");
    sandbox.write(
        "home-of-vim/.vimrc",
        &format!(
            "set nocompatible undofile backup writebackup swapfile updatecount=1\nset undodir={0} backupdir={0} directory={0} viminfo='100,<50,n{0}/viminfo\n",
            kept.display()
        ),
    );
    // A line is yanked and another added, so that there is something for each of its files.
    sandbox.write(
        "script.vim",
        "normal ggyG\nnormal Gomine: from-vim-itself\nwrite\nnormal Goother: also-from-vim\nwrite\nquit\n",
    );
    let script = sandbox.dir().join("script.vim");
    let edit = |editor: String| {
        let mut command = sandbox.command(["secrets", "edit", file]);
        command
            .env("EDITOR", editor)
            .env("HOME", &home)
            .env("TERM", "dumb");
        sandbox.finish(&mut command)
    };
    let ran = edit(format!("vi -T dumb -S {}", script.display()));
    assert_eq!(ran.code, 0, "{}", ran.text());
    let list = sandbox.run(["secrets", "list"]).out;
    assert!(list.contains("mine") && list.contains("other"), "{list}");
    let left: Vec<_> = std::fs::read_dir(&kept).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    // The same without our arguments: the test can fail.
    let plain = sandbox.dir().join("plain");
    std::fs::write(&plain, "a: b\n").unwrap();
    let ran = Command::new("vi")
        .args(["-T", "dumb", "-S"])
        .args([&script, &plain])
        .env("HOME", &home)
        .env("TERM", "dumb")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(ran.success());
    assert!(std::fs::read_dir(&kept).unwrap().count() > 0);
}

#[test]
fn nothing_is_made_without_an_operators_identity() {
    let sandbox = Sandbox::new();
    let somebody = age::x25519::Identity::generate().to_public();
    sandbox.write(
        "undercroft.toml",
        &format!("{INVENTORY}\n[secrets]\noperators = [\"{somebody}\"]\n"),
    );
    let refused = sandbox.run(["secrets", "init"]);
    assert_eq!(refused.code, 1, "{}", refused.text());
    assert!(
        refused.err.contains("nothing was made") && refused.err.contains("--identity"),
        "{}",
        refused.err
    );
    assert!(!sandbox.dir().join("secrets").exists());
    assert!(!sandbox.dir().join(".sops.yaml").exists());
}

#[test]
fn a_machine_without_a_host_key_fails_the_check() {
    let sandbox = fleet();
    sandbox.run(["secrets", "init"]);
    let more = "\n[nodes.box-02]\nclass = \"box\"\nmacs = [\"3c:ec:ef:10:00:03\"]\naddress = \"10.0.0.13\"\ndisks = [{ serial = \"S3\" }]\n";
    sandbox.write("undercroft.toml", &format!("{INVENTORY}{more}"));
    let check = || {
        let ran = sandbox.run(["secrets", "check"]);
        (ran.code, ran.out)
    };
    let (code, said) = check();
    assert_eq!(code, 65, "{said}");
    assert!(
        said.contains("box-02 has no host key yet") && said.contains("undercroft secrets rekey"),
        "{said}"
    );
    assert_eq!(sandbox.run(["secrets", "init"]).code, 0);
    let (code, said) = check();
    assert_eq!(code, 65, "{said}");
    assert!(said.contains("box-02 can't open it"), "{said}");
    assert_eq!(sandbox.run(["secrets", "rekey", "--yes"]).code, 0);
    assert_eq!(check().0, 0);
}

#[test]
fn somebody_without_the_key_is_told_whom_to_ask() {
    let sandbox = fleet();
    sandbox.run(["secrets", "init"]);
    std::fs::remove_file(sandbox.dir().join(".undercroft/operator-identity.txt")).unwrap();
    let refused = sandbox.run(["secrets", "rotate", "grafana/admin_password"]);
    assert_eq!(refused.code, 1, "{}", refused.text());
    assert!(
        refused
            .err
            .contains("none of the identities at hand opens it"),
        "{}",
        refused.err
    );
    // CI has no key: it checks all that it can, with a warning.
    let json = sandbox.run(["secrets", "check", "--json"]);
    assert!(json.out.contains("\"locked\""), "{}", json.out);
}

#[test]
fn plain_text_in_the_repository_is_found() {
    let sandbox = fleet();
    sandbox.run(["secrets", "init"]);
    let key = [
        "-----BEGIN OPENSSH PRIV",
        "ATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n",
    ]
    .concat();
    sandbox.write("notes/key", &key);
    sandbox.write("secrets/plain.yaml", "password: hunter2\n");
    let found = sandbox.run(["secrets", "check"]);
    assert_eq!(found.code, 65);
    insta::assert_snapshot!("secrets_check_plain", found.text());
}

#[test]
fn sops_itself_edits_the_files_by_our_rules() {
    let Some(sops) = peer("sops").or_skip() else {
        return;
    };
    let sandbox = fleet();
    sandbox.run(["secrets", "init"]);
    // The editor of `sops edit`: it adds a secret.
    let added = editor(
        &sandbox,
        "sed -i 's/^grafana:/grafana:\\n    more: x/' \"$1\"",
        "secrets/none.sops.yaml",
    );
    assert_eq!(added.code, 64, "{}", added.text());
    let run = |args: &[&str]| {
        let output = Command::new(&sops)
            .args(args)
            .current_dir(sandbox.dir())
            .env(
                "SOPS_AGE_KEY_FILE",
                sandbox.dir().join(".undercroft/operator-identity.txt"),
            )
            .env("EDITOR", sandbox.dir().join("editor.sh"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    for file in ["servers", "agents", "operators"] {
        run(&["decrypt", &format!("secrets/{file}.sops.yaml")]);
    }
    let token = run(&[
        "decrypt",
        "--extract",
        "[\"k3s\"][\"server_token\"]",
        "secrets/servers.sops.yaml",
    ]);
    assert!(token.starts_with("K10") && token.contains("::server:") && !token.ends_with('\n'));
    let pem = run(&[
        "decrypt",
        "--extract",
        "[\"k3s\"][\"tls\"][\"server-ca.key\"]",
        "secrets/servers.sops.yaml",
    ]);
    assert!(
        pem.starts_with("-----BEGIN PRIVATE KEY-----\n") && pem.ends_with("-----\n"),
        "{pem:?}"
    );
    // It edits a file of ours, and makes one that isn't there yet by the rules in .sops.yaml.
    run(&["edit", "secrets/operators.sops.yaml"]);
    let list = sandbox.run(["secrets", "list"]);
    assert!(list.out.contains("grafana/more"), "{}", list.out);
    let mut given = Command::new(&sops)
        .args([
            "encrypt",
            "--filename-override",
            "secrets/overlay.sops.yaml",
            "--input-type",
            "yaml",
            "/dev/stdin",
        ])
        .current_dir(sandbox.dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    given
        .stdin
        .take()
        .unwrap()
        .write_all(b"tailscale:\n  auth_key: abc\n")
        .unwrap();
    let made = given.wait_with_output().unwrap();
    assert!(made.status.success());
    sandbox.write(
        "secrets/overlay.sops.yaml",
        &String::from_utf8(made.stdout).unwrap(),
    );
    // And `updatekeys` finds nothing to do, so that both agree on who can open what.
    run(&["updatekeys", "--yes", "secrets/servers.sops.yaml"]);
    let checked = sandbox.run(["secrets", "check"]);
    assert_eq!(checked.code, 0, "{}", checked.text());
}
