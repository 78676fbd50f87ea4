//! One request and what came of it, held against what every answer must keep to: it is documented for its operation, it
//! says what it is, and it comes in time.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use tokio::time::Instant;

use crate::stage::{DEADLINE, Life};

/// On top of the deadline, for a machine that has better things to do. What hangs takes longer.
const SLACK: Duration = Duration::from_secs(10);

/// The document of the bridge's own making.
const DOCUMENT: &str = include_str!("../../openapi/openapi.json");

/// An answer that came whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// The problem's code; empty where it is none.
    pub(crate) code: String,
}

/// What a caller needs to ask and to judge.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    pub(crate) http: Client,
    /// `http://…` of the bridge, or of the proxy before it.
    pub(crate) base: String,
    /// The bridge's life where nothing is in between that could be to blame for a broken answer.
    pub(crate) direct: Option<Life>,
}

impl Asking {
    pub(crate) fn new(base: String, direct: Option<Life>) -> Self {
        // A connection that the bridge is about to close for its idleness is not used again.
        let http = Client::builder().timeout(DEADLINE + SLACK).pool_idle_timeout(Duration::from_secs(1));
        Self { http: http.build().unwrap(), base, direct }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/v1/instances/demo{path}", self.base)
    }

    /// Sends a request. Nothing where no whole answer came, for which the bridge must not be to blame.
    pub(crate) async fn send(&self, request: RequestBuilder, operation: &str) -> Option<Answer> {
        let (life, asked) = (self.direct.as_ref().map(Life::now), Instant::now());
        let answer = async {
            let response = request.send().await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Ok::<_, reqwest::Error>((status, headers, response.text().await?))
        };
        match answer.await {
            Ok((status, headers, body)) => {
                let took = asked.elapsed();
                assert!(
                    self.direct.is_none() || took <= DEADLINE + SLACK,
                    "{operation} took {took:?}: {status} {body}"
                );
                Some(judged(operation, status, headers, body))
            }
            Err(error) => {
                let lived_on = life.is_some_and(|life| life % 2 == 1) && life == self.direct.as_ref().map(Life::now);
                // Where nobody listens, the bridge is still starting.
                assert!(
                    !lived_on || error.is_connect(),
                    "{operation} was not answered by a bridge that lives: {error:?}"
                );
                None
            }
        }
    }
}

fn judged(operation: &str, status: u16, headers: HeaderMap, body: String) -> Answer {
    let mut code = String::new();
    if status >= 400 {
        assert_eq!(headers["content-type"], "application/problem+json", "{operation}: {status} {body}");
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["status"], status, "{body}");
        assert_eq!(problem["request_id"], headers["x-request-id"].to_str().unwrap(), "{body}");
        problem["code"].as_str().unwrap().clone_into(&mut code);
    }
    let documented = documented(operation, status);
    let is_documented = documented.as_ref().is_some_and(|text| code.is_empty() || text.contains(&format!("`{code}`")));
    assert!(is_documented && status != 500, "{operation} is not said to answer {status} {code}: {body}");
    Answer { status, headers, body, code }
}

/// What the document says of a status of an operation.
fn documented(operation: &str, status: u16) -> Option<String> {
    static PARSED: OnceLock<Value> = OnceLock::new();
    let document = PARSED.get_or_init(|| serde_json::from_str(DOCUMENT).unwrap());
    let operations = document["paths"].as_object()?.values().flat_map(|path| path.as_object().unwrap().values());
    let found = operations.into_iter().find(|known| known["operationId"] == operation).expect("an operation");
    found["responses"][status.to_string()]["description"].as_str().map(str::to_owned)
}
