//! Settings of the HTTP server.

use std::time::Duration;

use ipnet::IpNet;

use super::native::NativeConfig;
use crate::broadcasts;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Every answer but a stream comes within it.
    pub deadline: Duration,
    /// The largest body taken, in bytes.
    pub max_body: usize,
    /// The address callers know the bridge by, without a slash at its end; makes links in answers absolute.
    pub public_url: Option<String>,
    /// The origins of web pages that may call; none turns CORS off.
    pub cors_origins: Vec<String>,
    /// The proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How long a stopping server waits for requests in progress.
    pub shutdown_grace: Duration,
    /// How long a stream of events may be silent before it says that it is alive.
    pub heartbeat: Duration,
    /// How long a caller may take nothing of what is written to it before the system gives its connection up.
    pub untaken: Duration,
    /// Whether metrics tell instances apart.
    pub instance_label: bool,
    /// The gateway's own protocol, spoken downstream.
    pub native: NativeConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(15),
            // A sale of every product of a point of sale is a hundredth of it.
            max_body: 1024 * 1024,
            public_url: None,
            cors_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            shutdown_grace: Duration::from_secs(20),
            heartbeat: broadcasts::Config::default().heartbeat,
            // Longer than any network pauses, and not so long that callers who never read could gather.
            untaken: Duration::from_secs(30),
            instance_label: true,
            native: NativeConfig::default(),
        }
    }
}
