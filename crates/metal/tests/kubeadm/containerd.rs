//! What kubeadm asks a container runtime: answered as by one that is ready and has every image, and
//! whose pods are those of [`crate::kubelet`].

use std::{fs, path::Path};

use h2::server::{self, SendResponse};
use tokio::net::{UnixListener, UnixStream};

use crate::kubelet;

/// Where the machines' files say that containerd listens.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// Answers until the machine goes down.
pub(crate) async fn run() {
    fs::create_dir_all(Path::new(SOCKET).parent().unwrap()).unwrap();
    let listener = UnixListener::bind(SOCKET).unwrap();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        tokio::spawn(serve(socket));
    }
}

/// A connection breaks when its client ends, and that is all that can go wrong here.
async fn serve(socket: UnixStream) -> Option<()> {
    let mut connection = server::handshake(socket).await.ok()?;
    while let Some(call) = connection.accept().await {
        let (request, mut response) = call.ok()?;
        // The body comes while the connection is polled on.
        tokio::spawn(async move {
            let (head, mut body) = request.into_parts();
            let mut asked = Vec::new();
            while let Some(Ok(part)) = body.data().await {
                asked.extend_from_slice(&part);
            }
            let method = head.uri.path().rsplit('/').next().unwrap_or_default();
            answer(&mut response, &message(method, &asked))
        });
    }
    Some(())
}

fn answer(response: &mut SendResponse<bytes::Bytes>, message: &[u8]) -> Option<()> {
    let head = http::Response::builder().header("content-type", "application/grpc");
    let mut stream = response.send_response(head.body(()).ok()?, false).ok()?;
    // gRPC's frame: not compressed, and the length in four bytes.
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).ok()?.to_be_bytes());
    frame.extend(message);
    stream.send_data(frame.into(), false).ok()?;
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    stream.send_trailers(trailers).ok()
}

/// The answers of `runtime.v1` (k8s.io/cri-api, pkg/apis/runtime/v1/api.proto).
fn message(method: &str, asked: &[u8]) -> Vec<u8> {
    match method {
        "ListPodSandbox" => kubelet::pods()
            .iter()
            .flat_map(|name| field(1, &field(1, name.as_bytes())))
            .collect(),
        "StopPodSandbox" => {
            // Behind the frame, the field and its length.
            kubelet::end_pod(std::str::from_utf8(&asked[7..]).unwrap());
            Vec::new()
        }
        "Version" => [
            field(1, b"0.1.0"),
            field(2, b"a test's"),
            field(3, b"1.0.0"),
            field(4, b"v1"),
        ]
        .concat(),
        "Status" => {
            let ready = |kind: &[u8]| field(1, &[field(1, kind), vec![2 << 3, 1]].concat());
            let conditions = [ready(b"RuntimeReady"), ready(b"NetworkReady")].concat();
            field(1, &conditions)
        }
        // systemd's cgroups are the first of the enumeration, which isn't written.
        "RuntimeConfig" => field(1, b""),
        // With a size, without which an image counts as not there.
        "ImageStatus" => field(
            1,
            &[field(1, b"sha256:of-a-test"), vec![4 << 3, 1]].concat(),
        ),
        _ => Vec::new(),
    }
}

/// A field of a protobuf message with bytes of less than 128.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap();
    assert!(length < 128);
    let mut field = vec![number << 3 | 2, length];
    field.extend(bytes);
    field
}
