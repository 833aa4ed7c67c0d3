//! An inventory in which every key can mean something, and how one key of it is changed.

/// One key a line, each table under a header of its own.
pub(crate) const BASE: &str = r#"
[fleet]
name = "cellar"

[fleet.limits]

[fleet.retries]

[fleet.timeouts]

[network]
node_cidr = "10.20.0.0/22"
server_address = "10.20.0.2"
gateway = "10.20.0.1"

[network.dhcp_range]
first = "10.20.1.100"
last = "10.20.1.200"

[network.overlay]
kind = "headscale"
server_url = "https://headscale.cellar.example"
server_node = "phones-01"
base_domain = "net.cellar.example"

[kubernetes]
distribution = "k3s"
founder = "control-01"
version = "1.34"
virtual_ip = "10.20.0.10"
api_endpoint = "k8s.cellar.example"
load_balancer_cidrs = ["10.20.3.0/24"]

[gitops]
repository = "https://git.cellar.example/fleet.git"
ingress_domain = "apps.cellar.example"

[secrets]

[lending]
enabled = true
nats_url = "tls://nats.cellar.example:4222"
tenants = ["research"]

[classes.control]
kind = "control"
layout = "ext4"

[classes.control.longhorn]
partition_gb = 100

[classes.gpu]
kind = "gpu"
layout = "ext4"

[classes.gpu.gpu]
model = "rtx-4090"
count = 2
sharing = "time-slicing"
replicas = 4

[classes.gpu.longhorn]
reserved_percent = 15

[classes.gpu.power]
kind = "command"
on = ["./bmc", "on"]
off = ["./bmc", "off"]
status = ["./bmc", "status"]

[classes.gpu.netboot]

[classes.mig]
kind = "gpu"
layout = "ext4"

[classes.mig.gpu]
model = "a100-80gb"
sharing = "mig"
mig_config = "all-1g.10gb"

[classes.wake]
kind = "plain"
layout = "ext4"
role = "none"

[classes.wake.power]
kind = "wake-on-lan"

[classes.phones]
kind = "phone-host"
layout = "ext4"

[classes.pi4]
kind = "pi"
role = "agent"
hats = ["hailo-8"]

[nodes.control-01]
class = "control"
macs = ["3c:ec:ef:10:00:01"]
address = "10.20.0.11"
disks = [{ serial = "A1" }]

[nodes.control-02]
class = "control"
macs = ["3c:ec:ef:10:00:02"]
address = "10.20.0.12"
disks = [{ serial = "A2" }]

[nodes.control-03]
class = "control"
macs = ["3c:ec:ef:10:00:03"]
address = "10.20.0.13"
disks = [{ serial = "A3" }]

[nodes.gpu-01]
class = "gpu"
macs = ["3c:ec:ef:10:00:04"]
address = "10.20.1.1"
disks = [{ serial = "A4" }, { serial = "B4", role = "longhorn", size_gb = 1000 }]

[nodes.mig-01]
class = "mig"
macs = ["3c:ec:ef:10:00:05"]
address = "10.20.1.2"
disks = [{ serial = "A5" }]

[nodes.mig-01.gpu]
model = "a100-80gb"
sharing = "time-slicing"
replicas = 2

[nodes.mig-01.power]
kind = "command"
on = ["./bmc", "on"]
off = ["./bmc", "off"]
status = ["./bmc", "status"]

[nodes.wake-01]
class = "wake"
macs = ["3c:ec:ef:10:00:06"]
address = "10.20.1.3"
disks = [{ serial = "A6" }]

[nodes.phones-01]
class = "phones"
macs = ["3c:ec:ef:10:00:07"]
address = "10.20.2.1"
disks = [{ serial = "A7" }]
phones = [{ slot = 1, serial = "R5CC9B0DZWC", model = "galaxy-s21" }]

[nodes.pi-01]
class = "pi4"
macs = ["dc:a6:32:10:00:08"]
address = "10.20.2.2"
disks = [{ serial = "0x2acee729" }]

[users.ada]
full_name = "Ada Nkemelu"
role = "admin"
ssh_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINuvWn0nmJ6m+unLeY5zMS8Mi5lauPAD9m1z/tDnbzOc ada@basement.example"]

[pcs.desk]
os = "linux"
system = "x86_64-linux"
users = ["ada"]

[pcs.desk.lend]
enabled = true
"#;

/// The inventory with `key = value` in the table of a header, in place of what it has there.
pub(crate) fn with(text: &str, header: &str, key: &str, value: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let line = format!("{key} = {value}");
    let title = format!("[{header}]");
    let Some(start) = lines.iter().position(|l| *l == title) else {
        lines.extend([title, line]);
        return lines.join("\n") + "\n";
    };
    let end = lines[start + 1..]
        .iter()
        .position(|l| l.starts_with('['))
        .map_or(lines.len(), |n| start + 1 + n);
    let own = format!("{key} = ");
    let old = (start + 1..end).find(|n| lines[*n].starts_with(&own));
    match (old, value) {
        (Some(old), "") => {
            lines.remove(old);
        }
        (Some(old), _) => lines[old] = line,
        (None, _) => lines.insert(start + 1, line),
    }
    lines.join("\n") + "\n"
}
