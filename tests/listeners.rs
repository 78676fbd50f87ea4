//! Listeners of the real program who are cut off and come back, and whose bridge is restarted meanwhile.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use concertpos_simulator::{Config, Simulator};
use support::events::{Event, Stream};
use support::program::{Program, free_address};
use support::{KEY, eventually};

/// A bridge as a process of its own, over a gateway that delivers a broadcast on each shard within this time.
struct Place {
    gateway: Simulator,
    listen: String,
    folder: tempfile::TempDir,
    http: reqwest::Client,
}

impl Place {
    async fn new(jitter_ms: u64) -> Self {
        let gateway = Config { broadcast_jitter: Duration::from_millis(jitter_ms), ..Config::default() };
        let gateway = Simulator::start(gateway).await.unwrap();
        let (listen, folder) = (free_address(), tempfile::tempdir().unwrap());
        Self { gateway, listen, folder, http: reqwest::Client::new() }
    }

    /// Starts the program, and returns as soon as it has a link.
    async fn start(&self, settings: &[(&str, &str)]) -> Program {
        let journal = self.folder.path().to_str().unwrap();
        let program = Program::start_with(&self.listen, &self.gateway.url(), journal, settings);
        let ready = format!("http://{}/readyz?require=gateway", self.listen);
        let is_ready = async || self.http.get(&ready).send().await.is_ok_and(|answer| answer.status() == 200);
        eventually("it has a link", is_ready).await;
        program
    }

    /// Listens, after `id` where there is one.
    async fn listen(&self, id: Option<&str>) -> Stream {
        let request = self.http.get(format!("http://{}/v1/instances/demo/events", self.listen)).bearer_auth(KEY);
        let request = if let Some(id) = id { request.header("Last-Event-ID", id) } else { request };
        Stream::of(request.send().await.unwrap())
    }

    fn broadcast(&self, message: &str) -> usize {
        self.gateway.broadcast("demo", message, "{}").unwrap()
    }
}

/// The number behind the dash.
fn offset(id: &str) -> u64 {
    id.rsplit_once('-').unwrap().1.parse().unwrap()
}

/// Broadcasts texts for a while to a listener that is cut off again and again, and checks what it has heard.
async fn is_cut_off_and_resumes(place: &Place, count: usize) -> usize {
    let mut stream = place.listen(None).await;
    let begin = stream.next().await.id;
    let texts = |number: usize| format!("text {}", number - usize::from(number % 5 == 3));
    let broadcasts = async {
        for number in 0..count {
            assert!(place.broadcast(&texts(number)) > 0);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // What is held or late is decided by then: the skew is what this is about.
        tokio::time::sleep(Duration::from_secs(3)).await;
        place.broadcast("the end");
    };
    let listening = async {
        let (mut heard, mut last) = (Vec::<Event>::new(), begin.clone());
        loop {
            for _ in 0..fastrand::usize(1..60) {
                let event = stream.next().await;
                last.clone_from(&event.id);
                if event.name.is_empty() && event.message() == "the end" {
                    return heard;
                }
                heard.push(event);
            }
            drop(stream);
            stream = place.listen(Some(&last)).await;
            assert_eq!(stream.next().await.id, last, "ready tells where it begins");
        }
    };
    let (heard, ()) = tokio::join!(listening, broadcasts);
    let offsets: Vec<u64> = heard.iter().map(|event| offset(&event.id)).collect();
    let begin = offset(&begin);
    assert_eq!(offsets, (begin + 1..).take(heard.len()).collect::<Vec<_>>(), "no hole, no repeat");
    let told = heard.iter().filter(|event| event.name.is_empty());
    let (marked, unmarked): (Vec<&Event>, Vec<&Event>) = told.partition(|event| event.is_marked());
    let mut expected: Vec<String> = (0..count).map(texts).collect();
    let mut unmarked: Vec<String> = unmarked.into_iter().map(Event::message).collect();
    expected.sort();
    unmarked.sort();
    assert_eq!(unmarked, expected, "marked: {}", marked.len());
    marked.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_two_links_that_have_just_opened_whoever_is_cut_off_and_resumes_hears_each_broadcast_once() {
    let place = Place::new(50).await;
    let program = place.start(&[("BRIDGE_GATEWAY__MIN_LINKS", "2")]).await;
    let marked = is_cut_off_and_resumes(&place, 300).await;
    assert_eq!(marked, 0, "both were there all along, if not for long");
    program.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_two_links_that_differ_by_more_than_the_skew_a_late_copy_is_marked_whoever_resumes_meanwhile() {
    let place = Place::new(500).await;
    let program = place.start(&[("BRIDGE_GATEWAY__MIN_LINKS", "2"), ("BRIDGE_EVENTS__SKEW", "150ms")]).await;
    let marked = is_cut_off_and_resumes(&place, 300).await;
    assert!(marked > 0, "shards differ by more than the skew");
    program.stop();
}

/// The next broadcast, whatever else is told before it.
async fn next_broadcast(stream: &mut Stream) -> Event {
    loop {
        let event = stream.next().await;
        if event.name.is_empty() {
            return event;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_back_after_the_program_was_restarted_or_killed_hears_reset_and_goes_on_from_now() {
    let place = Place::new(0).await;
    // One link, which makes one entry of each broadcast at once.
    let settings = [("BRIDGE_GATEWAY__MIN_LINKS", "1"), ("BRIDGE_GATEWAY__MAX_LINKS", "1")];
    let mut program = place.start(&settings).await;
    for end in [Program::stop, Program::kill] {
        let mut stream = place.listen(None).await;
        stream.next().await;
        place.broadcast("before");
        let old = next_broadcast(&mut stream).await.id;
        drop(stream);
        end(program);
        program = place.start(&settings).await;
        // Until there is an entry of the same number: only the epoch tells them apart.
        let mut other = place.listen(None).await;
        let mut newest = other.next().await.id;
        while offset(&newest) < offset(&old) {
            place.broadcast("after");
            newest = next_broadcast(&mut other).await.id;
        }
        let mut stream = place.listen(Some(&old)).await;
        let reset = stream.next().await;
        assert_eq!((reset.name.as_str(), &reset.json()["id"]), ("reset", &reset.id.as_str().into()), "{old}");
        assert!(reset.retry_ms.is_some());
        let ready = stream.next().await;
        assert_eq!((ready.name.as_str(), ready.id.as_str()), ("ready", newest.as_str()));
        place.broadcast("from now");
        assert_eq!(next_broadcast(&mut stream).await.message(), "from now");
    }
    program.stop();
}
