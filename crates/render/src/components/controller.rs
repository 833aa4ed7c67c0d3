//! What watches the controller: `undercroft serve`, outside of the cluster, from where Prometheus asks it for its
//! numbers; rules that say when somebody should look; and a dashboard.

use serde_json::{Value, json};

use super::common::{MONITORING, late_kind};
use crate::{Context, ManifestObject};

/// The job that its numbers are kept under.
const JOB: &str = "undercroft-controller";
/// How long a round may take that carries no plan out before somebody should look, in seconds: the longest rest
/// after failures is 15 minutes, and a build of all systems takes its time.
const GOOD_ROUND_S_MAX: u32 = 2 * 3600;

/// Where the controller gives its numbers; `None` where it isn't to, or the tree is a PC's.
fn target(cx: &Context<'_>) -> Option<String> {
    let network = &cx.inventory.network;
    let port = network.metrics_port.filter(|_| !cx.is_dev())?;
    Some(format!("{}:{port}", network.server_address))
}

/// The numbers that Prometheus asks for, and the rules over them.
pub(super) fn watched(cx: &Context<'_>) -> Vec<ManifestObject> {
    let Some(target) = target(cx) else {
        return Vec::new();
    };
    let scrape = json!({
        "apiVersion": "monitoring.coreos.com/v1alpha1",
        "kind": "ScrapeConfig",
        "metadata": { "name": JOB, "namespace": MONITORING, "annotations": late_kind() },
        "spec": {
            "staticConfigs": [{
                "targets": [target],
                "labels": { "job": JOB, "fleet": cx.inventory.fleet.name },
            }],
        },
    });
    let rules = json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": { "name": JOB, "namespace": MONITORING, "annotations": late_kind() },
        "spec": { "groups": [{ "name": JOB, "rules": rules() }] },
    });
    vec![
        ManifestObject::new("controller.yaml", scrape)
            .comment("The controller, `undercroft serve`, which runs outside of the cluster."),
        ManifestObject::new("controller.yaml", rules)
            .comment("When somebody should look at the controller, or at what it waits for."),
    ]
}

/// The dashboard, as Grafana's sidecar finds it in any namespace by its label.
pub(super) fn dashboard(cx: &Context<'_>) -> Option<ManifestObject> {
    target(cx)?;
    // Printing it can't fail, and the plain form is the fallback.
    let board = board();
    let text = serde_json::to_string_pretty(&board).unwrap_or_else(|_| board.to_string());
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "undercroft-controller-dashboard",
            "namespace": MONITORING,
            "labels": { "grafana_dashboard": "1" },
        },
        "data": { "undercroft-controller.json": text },
    });
    Some(ManifestObject::new("dashboards.yaml", object))
}

/// A rule: its name, its condition, for how long it must hold, how urgent it is, and what it says.
fn rule(alert: &str, expr: &str, minutes: u32, severity: &str, say: [&str; 2]) -> Value {
    let [summary, description] = say;
    json!({
        "alert": alert,
        "expr": expr,
        "for": format!("{minutes}m"),
        "labels": { "severity": severity },
        "annotations": { "summary": summary, "description": description },
    })
}

fn rules() -> Vec<Value> {
    let silent = format!(
        "undercroft_serve_since_good_round_seconds > {GOOD_ROUND_S_MAX} unless on(instance) undercroft_serve_course{{course=\"working\"}} == 1"
    );
    let mut rules = vec![
        rule(
            "UndercroftControllerDown",
            &format!("absent(up{{job=\"{JOB}\"}} == 1)"),
            10,
            "critical",
            [
                "Undercroft's controller gives no numbers.",
                "Nothing is mended or installed while it is away. On its machine: `systemctl status undercroft-controller`.",
            ],
        ),
        rule(
            "UndercroftRoundStuck",
            "undercroft_serve_wedged == 1",
            5,
            "critical",
            [
                "A round of Undercroft's controller is stuck.",
                "It gives no sign of life. Where systemd watches it, it is started anew; its journal says what was begun: `undercroft events`.",
            ],
        ),
        rule(
            "UndercroftRoundsFail",
            "undercroft_serve_failures_in_a_row >= 3",
            5,
            "warning",
            [
                "Undercroft's rounds can't be done.",
                "{{ $value }} in a row; `systemctl status undercroft-controller` has the reason in one sentence.",
            ],
        ),
        rule(
            "UndercroftNoGoodRound",
            &silent,
            5,
            "warning",
            [
                "Undercroft's controller hasn't looked at the fleet for hours.",
                "The latest round that was done ended {{ $value | humanizeDuration }} ago, and no plan is carried out.",
            ],
        ),
    ];
    rules.extend(of_machines());
    rules
}

/// Rules of what the controller can't do by itself.
fn of_machines() -> Vec<Value> {
    vec![
        rule(
            "UndercroftMachinesWait",
            "undercroft_serve_waiting{reason!~\"approval|next-try|not-looked-at\"} > 0",
            30,
            "warning",
            [
                "{{ $value }} machines wait for somebody: {{ $labels.reason }}.",
                "`undercroft plan` says which, why, and what comes next.",
            ],
        ),
        rule(
            "UndercroftApprovalWaits",
            "undercroft_serve_waiting{reason=\"approval\"} > 0",
            10,
            "info",
            [
                "{{ $value }} installers wait for an approval.",
                "Compare with the machine's screen, then `undercroft approve NODE FINGERPRINT`.",
            ],
        ),
        rule(
            "UndercroftBuildsFail",
            "undercroft_serve_builds_failing > 0",
            30,
            "warning",
            [
                "The systems of {{ $value }} machines can't be built.",
                "They stay as they are. `undercroft plan` says why.",
            ],
        ),
        rule(
            "UndercroftAlarm",
            "sum by (instance, kind) (undercroft_serve_alarms) > 0",
            0,
            "warning",
            [
                "Somebody may be at work on the boot network: {{ $labels.kind }}.",
                "{{ $value }} senders within a day; `undercroft doctor` names them.",
            ],
        ),
        rule(
            "UndercroftFault",
            "increase(undercroft_serve_faults_total[1h]) > 0",
            0,
            "critical",
            [
                "Undercroft's engine broke a promise of its own.",
                "It is a bug: please report it, with `undercroft events --json`.",
            ],
        ),
    ]
}

/// A panel of the dashboard: its title, what it draws, in which unit, and where it stands.
struct Panel {
    title: &'static str,
    kind: &'static str,
    expr: &'static str,
    legend: &'static str,
    unit: &'static str,
    /// Left edge, top edge, width and height, in Grafana's grid of 24 columns.
    at: [u32; 4],
}

const PANELS: [Panel; 10] = [
    Panel {
        title: "What it is about",
        kind: "stat",
        expr: "undercroft_serve_course == 1",
        legend: "{{course}}",
        unit: "none",
        at: [0, 0, 6, 5],
    },
    Panel {
        title: "Since the latest round that was done",
        kind: "stat",
        expr: "undercroft_serve_since_good_round_seconds",
        legend: "",
        unit: "s",
        at: [6, 0, 6, 5],
    },
    Panel {
        title: "Rounds that failed, in a row",
        kind: "stat",
        expr: "undercroft_serve_failures_in_a_row",
        legend: "",
        unit: "none",
        at: [12, 0, 6, 5],
    },
    Panel {
        title: "Systems that can't be built",
        kind: "stat",
        expr: "undercroft_serve_builds_failing",
        legend: "",
        unit: "none",
        at: [18, 0, 6, 5],
    },
    Panel {
        title: "Machines, by state",
        kind: "timeseries",
        expr: "undercroft_serve_machines",
        legend: "{{state}}",
        unit: "none",
        at: [0, 5, 12, 9],
    },
    Panel {
        title: "Machines that wait, by reason",
        kind: "timeseries",
        expr: "undercroft_serve_waiting > 0",
        legend: "{{reason}}",
        unit: "none",
        at: [12, 5, 12, 9],
    },
    Panel {
        title: "Rounds an hour, by outcome",
        kind: "timeseries",
        expr: "increase(undercroft_serve_rounds_total[1h])",
        legend: "{{outcome}}",
        unit: "none",
        at: [0, 14, 8, 8],
    },
    Panel {
        title: "Builds that failed, an hour",
        kind: "timeseries",
        expr: "increase(undercroft_serve_builds_failed_total[1h])",
        legend: "",
        unit: "none",
        at: [8, 14, 8, 8],
    },
    Panel {
        title: "Alarms of the boot network within a day, by kind",
        kind: "timeseries",
        expr: "undercroft_serve_alarms",
        legend: "{{kind}}",
        unit: "none",
        at: [16, 14, 8, 8],
    },
    Panel {
        title: "The journal",
        kind: "timeseries",
        expr: "undercroft_serve_journal_bytes",
        legend: "",
        unit: "bytes",
        at: [0, 22, 24, 6],
    },
];

fn board() -> Value {
    let source = json!({ "type": "prometheus", "uid": "prometheus" });
    let panels: Vec<Value> = PANELS
        .iter()
        .zip(1_u32..)
        .map(|(panel, id)| {
            let [x, y, w, h] = panel.at;
            json!({
                "id": id,
                "title": panel.title,
                "type": panel.kind,
                "datasource": source,
                "gridPos": { "x": x, "y": y, "w": w, "h": h },
                "fieldConfig": { "defaults": { "unit": panel.unit }, "overrides": [] },
                "targets": [{
                    "refId": "A",
                    "datasource": source,
                    "expr": panel.expr,
                    "legendFormat": panel.legend,
                }],
            })
        })
        .collect();
    json!({
        "uid": JOB,
        "title": "Undercroft's controller",
        "tags": ["undercroft"],
        "schemaVersion": 39,
        "timezone": "",
        "editable": true,
        "refresh": "1m",
        "time": { "from": "now-24h", "to": "now" },
        "templating": { "list": [] },
        "annotations": { "list": [] },
        "panels": panels,
    })
}
