//! Replicas prove to each other that they know the secret, before anything is told or read.

use std::path::Path;

use concertpos_bridge::internals::cluster::config::Tls;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::replicas::{Plan, Replicas};
use crate::support::{KEY, eventually, problem};

#[tokio::test(flavor = "multi_thread")]
async fn another_secret_is_refused_and_nothing_is_told() {
    let plans = vec![Plan::owner(), Plan { secret: "another", ..Plan::other() }];
    let replicas = Replicas::begin(concertpos_simulator::Config::default(), plans).await;
    let refused = problem(replicas.other().sale("k").send().await.unwrap()).await;
    assert_eq!((refused.status, refused.code.as_str()), (503, "instance-unavailable"), "nothing was sent");
    assert!(replicas.other().metric("forwarding_unproved_total").await > 0);
    assert!(replicas.owner().metric("forwarding_received_total{proved=\"false\"}").await > 0);
    assert_eq!(replicas.owner().metric("forwarding_received_total{proved=\"true\"}").await, 0);
    assert_eq!(replicas.gateway.counts().command("payitems").received, 0);
}

/// What comes back for these bytes, until the connection is closed.
async fn told(replicas: &Replicas, bytes: &str) -> String {
    let mut socket = TcpStream::connect(replicas.owner().cluster).await.unwrap();
    socket.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_proof_is_refused_before_its_body_is_read() {
    let replicas = Replicas::pair().await;
    for proof in ["", "bridge-forwarded: 1\r\n", "bridge-forwarded: 1 1 00 1 1 1 127.0.0.1 a b 00\r\n"] {
        for (method, rest) in [("GET", "\r\n"), ("POST", "content-length: 100000\r\n\r\n")] {
            // Of the body nothing is sent, so that an answer shows that nothing of it was waited for.
            let path = "/v1/instances/demo/points-of-sale/1/payments";
            let head = format!("{method} {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\n{proof}{rest}");
            let answer = told(&replicas, &head).await;
            assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
            assert!(answer.contains("connection: close"), "{answer}");
        }
    }
    for path in ["/", "/livez", "/metrics", "/v1/bridge", "/cluster/greeting"] {
        let answer = told(&replicas, &format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{path}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_cannot_pose_as_a_replica() {
    let replicas = Replicas::pair().await;
    eventually("the owner has a link", async || replicas.owner().get("/version").await.status() == 200).await;
    for replica in &replicas.all {
        let forged = replica.request(reqwest::Method::GET, "/version").header("bridge-forwarded", "1 served - 00");
        let answer = forged.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(!answer.headers().contains_key("bridge-forwarded"), "callers see nothing of it");
    }
}

/// A certificate authority, and files with a certificate of it for loopback.
fn files(folder: &Path, name: &str, ca: &CertifiedIssuer<'_, KeyPair>) -> Tls {
    let key = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, ca).unwrap();
    let write = |kind: &str, text: &str| {
        let path = folder.join(format!("{name}-{kind}.pem"));
        std::fs::write(&path, text).unwrap();
        path
    };
    Tls {
        certificate: write("certificate", &certificate.pem()),
        key: write("key", &key.serialize_pem()),
        ca: write("ca", &ca.pem()),
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_both_sides_show_a_certificate_of_the_authority() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, foreign) = (authority(), authority());
    let tls = |name: &str, ca| Some(files(folder.path(), name, ca));
    let plans = vec![
        Plan { tls: tls("owner", &ours), ..Plan::owner() },
        Plan { tls: tls("other", &ours), ..Plan::other() },
        Plan { tls: tls("foreign", &foreign), ..Plan::other() },
        Plan::other(),
    ];
    let replicas = Replicas::begin(concertpos_simulator::Config::default(), plans).await;
    eventually("the owner has a link", async || replicas.owner().get("/version").await.status() == 200).await;
    assert_eq!(replicas.other().sale("k").send().await.unwrap().status(), 201);
    for stranger in &replicas.all[2..] {
        let refused = problem(stranger.get("/version").await).await;
        assert_eq!((refused.status, refused.code.as_str()), (503, "instance-unavailable"));
    }
    assert_eq!(replicas.owner().metric("forwarding_received_total{proved=\"false\"}").await, 0, "no head was read");
}
