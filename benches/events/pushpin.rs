//! pushpin, where it is installed, with an origin that lets everybody hold a stream: what others need for the same.

use std::path::Path;
use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::resident_kib;
use crate::support::{Running, free_address};

/// Its processes, begun by one, and the one through which it asks origins.
pub(crate) struct Pushpin {
    process: Running,
    _zurl: Running,
    pub(crate) address: String,
    publish: String,
}

impl Pushpin {
    /// Starts it with its files in `folder`, and nothing that would slow it down; none where it is not installed.
    pub(crate) async fn start(folder: &Path) -> Option<Self> {
        let there = |file: &str| Path::new(file).exists();
        if !there("/usr/bin/pushpin") || !there("/usr/bin/zurl") || !there("/usr/lib/pushpin/internal.conf") {
            return None;
        }
        let [address, origin, publish, push, sub, control] = [(); 6].map(|()| free_address());
        let port = |address: &str| address.rsplit_once(':').unwrap().1.to_owned();
        let configuration = format!(
            "[global]\ninclude=/usr/lib/pushpin/internal.conf\nrundir={folder}\nipc_prefix=bench-\nport_offset=0\n\
             [runner]\nservices=condure,pushpin-proxy,pushpin-handler\nhttp_port={http}\nlogdir={folder}\nlog_level=0\n\
             client_buffer_size=8192\nclient_maxconn=20000\ncondure_bin=condure\n\
             [proxy]\nroutesfile=routes\nzurl_out_specs=ipc://{folder}/zurl-in\n\
             zurl_out_stream_specs=ipc://{folder}/zurl-in-stream\nzurl_in_specs=ipc://{folder}/zurl-out\n\
             [handler]\npush_in_spec=tcp://{push}\npush_in_sub_specs=tcp://{sub}\npush_in_http_addr=127.0.0.1\n\
             push_in_http_port={publish}\npush_in_http_max_headers_size=10000\npush_in_http_max_body_size=1000000\n\
             stats_spec=ipc://{folder}/stats\ncommand_spec=tcp://{control}\nmessage_rate=10000000\n\
             message_hwm=10000000\nmessage_wait=5000\nid_cache_ttl=60\nconnection_subscription_max=20\n",
            folder = folder.display(),
            http = port(&address),
            publish = port(&publish),
        );
        std::fs::write(folder.join("pushpin.conf"), configuration).unwrap();
        std::fs::write(folder.join("routes"), format!("* {origin}\n")).unwrap();
        let zurl = format!(
            "[General]\nin_spec=ipc://{folder}/zurl-in\nin_stream_spec=ipc://{folder}/zurl-in-stream\n\
             out_spec=ipc://{folder}/zurl-out\nin_req_spec=ipc://{folder}/zurl-req\ndefpolicy=allow\n\
             max_open_requests=20000\nbuffer_size=200000\ntimeout=600\nin_hwm=1000\nout_hwm=1000\n",
            folder = folder.display(),
        );
        std::fs::write(folder.join("zurl.conf"), zurl).unwrap();
        let mut command = Command::new("zurl");
        let zurl = Running::start(command.arg(format!("--config={}", folder.join("zurl.conf").display())));
        tokio::spawn(be_origin(TcpListener::bind(origin).await.unwrap()));
        let mut command = Command::new("pushpin");
        let process = Running::start(command.arg(format!("--config={}", folder.join("pushpin.conf").display())));
        while TcpStream::connect(&address).await.is_err() || TcpStream::connect(&publish).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        Some(Self { process, _zurl: zurl, address, publish })
    }

    /// Publishes a block to all.
    pub(crate) async fn publish(&self, http: &reqwest::Client, block: &str) {
        let item = serde_json::json!({"channel": "all", "formats": {"http-stream": {"content": block}}});
        let body = serde_json::json!({"items": [item]}).to_string();
        let answer = http.post(format!("http://{}/publish/", self.publish)).body(body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    /// What its processes hold together.
    pub(crate) fn resident_kib(&self) -> f64 {
        let children = format!("/proc/{id}/task/{id}/children", id = self.process.id());
        let children = std::fs::read_to_string(children).unwrap();
        children.split_whitespace().map(|id| resident_kib(id.parse().unwrap())).sum()
    }
}

/// Tells whoever asks to hold a stream open on the one channel.
async fn be_origin(listener: TcpListener) {
    let begin = "event: ready\ndata: {}\n\n";
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ngrip-hold: stream\r\ngrip-channel: all\r\n\
         content-length: {}\r\n\r\n{begin}",
        begin.len()
    );
    while let Ok((mut socket, _)) = listener.accept().await {
        let answer = answer.clone();
        tokio::spawn(async move {
            let (mut buffer, mut asked) = ([0; 4096], Vec::new());
            while let Ok(taken @ 1..) = socket.read(&mut buffer).await {
                asked.extend_from_slice(&buffer[..taken]);
                if asked.ends_with(b"\r\n\r\n") {
                    asked.clear();
                    let _ = socket.write_all(answer.as_bytes()).await;
                }
            }
        });
    }
}
