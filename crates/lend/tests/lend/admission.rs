//! Submissions that are, and aren't, jobs that can be lent.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use undercroft_lend::{
    Digest, Tenant,
    job::{Job, Label, NotLent, Rules, Runtime, SUBMISSION_BYTES_MAX, admit, read_submission},
};
use undercroft_model::inventory::Sensitivity;

fn rules() -> Rules {
    Rules {
        tenants: ["build", "test"].map(|t| t.parse().unwrap()).into(),
        runtimes: BTreeSet::from([Runtime::Wasm, Runtime::Nix]),
        max_sensitivity: Sensitivity::Internal,
        wall_s_max: 3600,
        attempts_max: 5,
    }
}

fn submission() -> Value {
    json!({
        "id": "shard-7",
        "tenant": "build",
        "runtime": "wasm",
        "artefact": Digest::of(b"public program"),
        "inputs": { "data": Digest::of(b"public data") },
        "limits": { "cpu_percent": 100, "memory_mb": 256, "disk_mb": 64, "wall_s": 60 },
        "sensitivity": "public",
    })
}

fn label(digest: &Digest) -> Option<Label> {
    [
        (&b"public program"[..], Label::Public),
        (b"public data", Label::Public),
        (b"internal data", Label::Internal),
        (b"secret data", Label::Secret),
    ]
    .into_iter()
    .find_map(|(bytes, label)| (Digest::of(bytes) == *digest).then_some(label))
}

fn judged(change: impl FnOnce(&mut Value), rules: &Rules) -> Result<Job, NotLent> {
    let mut value = submission();
    change(&mut value);
    let submission = read_submission(value.to_string().as_bytes())?;
    admit(
        submission,
        &"build".parse::<Tenant>().unwrap(),
        rules,
        label,
    )
}

fn refusal(change: impl FnOnce(&mut Value)) -> String {
    judged(change, &rules()).unwrap_err().to_string()
}

#[test]
fn what_is_public_through_and_through_is_a_job() {
    let job = judged(|_| {}, &rules()).unwrap();
    assert_eq!(job.sensitivity, Sensitivity::Public);
    assert_eq!((job.attempts, job.loss_s), (5, 60));
}

#[test]
fn the_most_sensitive_input_decides_whatever_is_stated() {
    let internal = |s: &mut Value| s["inputs"]["more"] = json!(Digest::of(b"internal data"));
    let job = judged(internal, &rules()).unwrap();
    assert_eq!(job.sensitivity, Sensitivity::Internal);
    let only_public = Rules {
        max_sensitivity: Sensitivity::Public,
        ..rules()
    };
    assert_eq!(
        judged(internal, &only_public).unwrap_err().to_string(),
        "the job is internal, and `lending.max_sensitivity` is public"
    );
}

#[test]
fn secret_work_is_never_lent() {
    let said = [
        refusal(|s| s["inputs"]["key"] = json!(Digest::of(b"secret data"))),
        refusal(|s| s["inputs"]["key"] = json!(Digest::of(b"of nobody knows where"))),
        refusal(|s| s["artefact"] = json!(Digest::of(b"secret data"))),
        refusal(|s| s["sensitivity"] = json!("secret")),
        refusal(|s| s["sensitivity"] = json!("Public")),
        refusal(|s| {
            s.as_object_mut().unwrap().remove("sensitivity");
        }),
    ];
    for text in said {
        assert!(text.contains("secret"), "{text}");
    }
}

#[test]
fn what_can_t_be_is_refused_with_its_reason() {
    let said = [
        (
            refusal(|s| s["tenant"] = json!("test")),
            "build may not submit work for test",
        ),
        (
            refusal(|s| s["runtime"] = json!("process")),
            "Process is none of `lending.runtimes`",
        ),
        (
            refusal(|s| s["limits"]["wall_s"] = json!(3601)),
            "limits.wall_s is 3601, and may be 1 to 3600",
        ),
        (
            refusal(|s| s["limits"]["memory_mb"] = json!(0)),
            "limits.memory_mb is 0, and may be 16 to 16777216",
        ),
        (
            refusal(|s| s["attempts"] = json!(6)),
            "attempts is 6, and may be 1 to 5",
        ),
        (
            refusal(|s| s["inputs"]["../x"] = json!(Digest::of(b"public data"))),
            "\"../x\" is no name for an input",
        ),
        (
            refusal(|s| s["inputs"][".."] = json!(Digest::of(b"public data"))),
            "\"..\" is no name for an input",
        ),
        (
            refusal(|s| s["volumes"] = json!(["/"])),
            "unknown field `volumes`",
        ),
        (
            refusal(|s| s["artefact"] = json!("latest")),
            "\"latest\" is not a digest",
        ),
        (
            refusal(|s| s["id"] = json!("a.b")),
            "\"a.b\" is not a DNS label",
        ),
        (
            refusal(|s| s["arguments"] = json!(vec!["x"; 257])),
            "the number of arguments is 257, and may be 0 to 256",
        ),
    ];
    for (text, expected) in said {
        assert!(text.contains(expected), "{text}");
    }
    let large = vec![b' '; SUBMISSION_BYTES_MAX + 1];
    assert_eq!(
        read_submission(&large),
        Err(NotLent::TooLarge { bytes: large.len() })
    );
}
