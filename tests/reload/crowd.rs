//! Two hundred instances under load, of which every other one comes, goes or changes: the rest notices nothing.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use concertpos_simulator::Simulator;
use futures_util::future::join_all;
use reqwest::Client;

use super::*;
use crate::support::program::{Program, free_address};

/// Instances that stay, and as many of each other kind: half of `STAY` are added, removed and changed.
const STAY: usize = 100;
const EACH: usize = STAY / 2;

/// Reloads on the way out, and as many on the way back.
const STEPS: usize = 10;

/// Callers that read at once, each from instances of its own.
const READERS: usize = 5;

/// More than the noise of an allocator, and half of what the instances that came and went take.
const MOST_GROWTH_KIB: u64 = 8192;

/// The gateway, the program over it, and the file that it rereads.
struct Crowd {
    gateway: Simulator,
    program: Program,
    http: Client,
    url: String,
    folder: tempfile::TempDir,
}

/// What is configured after so many steps: names with slugs and keys.
fn configured(step: usize) -> Vec<(String, String, String)> {
    let done = EACH * step / STEPS;
    let plain = |name: String| (name.clone(), name.clone(), key_of(&name));
    let stay = (0..STAY).map(|number| plain(format!("stay{number}")));
    let leave = (done..EACH).map(|number| plain(format!("leave{number}")));
    let come = (0..done).map(|number| plain(format!("come{number}")));
    let change = (0..EACH).map(|number| {
        let (name, changed) = (format!("change{number}"), number < done);
        match number % 2 {
            0 if changed => (name.clone(), format!("{name}-moved"), key_of(&format!("{name}-moved"))),
            1 if changed => (name.clone(), name.clone(), format!("{}-renewed", key_of(&name))),
            _ => plain(name),
        }
    });
    stay.chain(leave).chain(come).chain(change).collect()
}

fn file(step: usize) -> String {
    let digests = ["shop", OPERATOR].map(support::sha256_hex);
    let instances = configured(step).into_iter().map(|(name, slug, key)| {
        format!("[instances.{name}]\nslug = \"{slug}\"\napi_key = \"{key}\"\naccept_gateway_key = false\n")
    });
    let token = |name: &str, digest: &str, scopes: &str| {
        format!(
            "[auth.tokens.{name}]\nsha256 = [\"{digest}\"]\ninstances = [\"*\"]\nscopes = [{scopes}]\n\
             max_in_flight = 100000\nper_second = 100000\n"
        )
    };
    let shop = token("shop", &digests[0], "\"read\", \"pay\", \"events\"");
    let operator = token("operator", &digests[1], "\"operate\", \"read\"");
    format!("[events]\nheartbeat = \"1h\"\n[gateway]\nmax_links = 2\n{shop}{operator}{}", instances.collect::<String>())
}

impl Crowd {
    async fn start() -> Self {
        let mut slugs: Vec<String> = (0..EACH).map(|number| format!("change{number}-moved")).collect();
        slugs.extend([0, STEPS].into_iter().flat_map(configured).map(|(name, ..)| name));
        slugs.sort();
        slugs.dedup();
        let slugs: Vec<_> = slugs.iter().map(String::as_str).collect();
        let gateway = Simulator::start(gateway(&slugs)).await.unwrap();
        let (folder, listen) = (tempfile::tempdir().unwrap(), free_address());
        let path = folder.path().join("bridge.toml");
        std::fs::write(&path, file(0)).unwrap();
        let journal = folder.path().join("journal");
        let program = Program::start_configured(&path, &listen, &gateway.url(), journal.to_str().unwrap());
        let crowd = Self { gateway, program, http: Client::new(), url: format!("http://{listen}"), folder };
        eventually("it listens", async || {
            crowd.http.get(format!("{}/livez", crowd.url)).send().await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        crowd.until_linked().await;
        crowd
    }

    async fn status(&self) -> Value {
        self.get("/v1/bridge", OPERATOR).await.json().await.unwrap()
    }

    /// Waits until the gateway has no connection but those of the instances that are served, which all have theirs.
    async fn until_linked(&self) {
        eventually("the links are those of the instances that are served", async || {
            let status = self.status().await;
            let served = status["instances"].as_array().unwrap().iter();
            served.clone().all(|one| links_of(one).count() >= 2) && self.gateway.counts().open() == count_links(&status)
        })
        .await;
    }

    async fn get(&self, path: &str, token: &str) -> reqwest::Response {
        self.http.get(format!("{}{path}", self.url)).bearer_auth(token).send().await.unwrap()
    }

    /// Has the file of this step taken into force, and waits until it is.
    async fn reload(&self, step: usize) {
        for (name, slug, key) in configured(step) {
            if name == slug {
                self.gateway.replace_api_key(&slug, &key).unwrap();
            }
        }
        let next = self.folder.path().join("bridge.toml");
        std::fs::write(&next, file(step)).unwrap();
        self.program.hang_up();
        let mut wanted: Vec<_> =
            configured(step).into_iter().map(|(name, ..)| name).chain(["demo".to_owned()]).collect();
        wanted.sort();
        let wanted = json!({ "instances": wanted });
        eventually("the step is in force", async || {
            self.get("/v1/instances", OPERATOR).await.json::<Value>().await.unwrap() == wanted
        })
        .await;
    }

    /// The links of those that stay.
    async fn links_that_stay(&self) -> Vec<String> {
        let status = self.status().await;
        let mut links = Vec::new();
        for one in status["instances"].as_array().unwrap() {
            let name = one["instance"].as_str().unwrap();
            for shard in one["shards"].as_array().unwrap().iter().filter(|_| name.starts_with("stay")) {
                let each = shard["links"].as_array().unwrap().iter();
                links.extend(each.map(|link| format!("{name} {} {}", shard["shard"], link["link"])));
            }
        }
        links
    }

    async fn tasks(&self) -> u64 {
        let metrics = self.get("/metrics", OPERATOR).await.text().await.unwrap();
        let line = metrics.lines().find_map(|line| line.strip_prefix("concertpos_bridge_tasks "));
        line.unwrap().parse().unwrap()
    }

    /// Out to the last step and back to the first.
    async fn there_and_back(&self, mut after_each: impl AsyncFnMut()) {
        for step in (1..=STEPS).chain((0..STEPS).rev()) {
            self.reload(step).await;
            after_each().await;
        }
        self.until_linked().await;
    }

    /// The same, while callers read from all that stay.
    async fn under_load(&self, answers: &AtomicUsize, after_each: impl AsyncFnMut()) {
        let stop = AtomicBool::new(false);
        let reload = async {
            self.there_and_back(after_each).await;
            stop.store(true, Ordering::Relaxed);
        };
        tokio::join!(reload, join_all((0..READERS).map(|reader| self.load(reader, &stop, answers))));
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(Path::new("/proc").join(self.program.id().to_string()).join("status"));
        let line =
            status.unwrap().lines().find_map(|line| Some(line.strip_prefix("VmRSS:")?.trim().to_owned())).unwrap();
        line.trim_end_matches(" kB").parse().unwrap()
    }

    /// Reads from all that stay until `stop`; how many answers there were. Any that is not 200 fails.
    async fn load(&self, reader: usize, stop: &AtomicBool, answers: &AtomicUsize) {
        let own = || (0..STAY).filter(move |number| number % READERS == reader);
        while !stop.load(Ordering::Relaxed) {
            for number in own() {
                let path = if answers.load(Ordering::Relaxed).is_multiple_of(3) { UNCACHED } else { "/config" };
                let answer = self.get(&format!("/v1/instances/stay{number}{path}"), "shop").await;
                assert_eq!(answer.status(), 200, "stay{number}{path}: {}", answer.text().await.unwrap());
                answers.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_of_two_hundred_instances_come_go_and_change_and_the_others_see_no_fault_and_nothing_is_left_behind() {
    let crowd = Crowd::start().await;
    let open = (0..STAY).map(|number| crowd.http.get(format!("{}/v1/instances/stay{number}/events", crowd.url)));
    let mut streams: Vec<_> = join_all(open.map(|open| open.bearer_auth("shop").send()))
        .await
        .into_iter()
        .map(|it| Stream::of(it.unwrap()))
        .collect();
    let mut heard = Vec::new();
    for stream in &mut streams {
        heard.push(offset(&stream.next().await.id));
    }
    let answers = AtomicUsize::new(0);
    // The first time fills what an allocator and a client keep.
    crowd.under_load(&answers, async || {}).await;
    let (links, tasks, memory) = (crowd.links_that_stay().await, crowd.tasks().await, crowd.resident_kib());
    answers.store(0, Ordering::Relaxed);
    let mut round = 0;
    crowd
        .under_load(&answers, async || {
            round += 1;
            for number in 0..STAY {
                crowd.gateway.broadcast(&format!("stay{number}"), &format!("r{round}"), "{}").unwrap();
            }
            for (stream, last) in streams.iter_mut().zip(&mut heard) {
                let event = stream.next().await;
                assert_eq!((event.message(), offset(&event.id)), (format!("r{round}"), *last + 1));
                *last += 1;
            }
        })
        .await;

    assert!(answers.load(Ordering::Relaxed) > STAY * STEPS, "{answers:?} answers");
    assert_eq!(crowd.links_that_stay().await, links, "no link was closed or opened");
    eventually(&format!("as many tasks as before: {tasks}"), async || {
        crowd.tasks().await <= tasks + 2 * READERS as u64
    })
    .await;
    for (name, ..) in configured(0) {
        assert_eq!(crowd.get(&format!("/v1/instances/{name}{UNCACHED}"), "shop").await.status(), 200, "{name}");
    }
    let mut grown = crowd.resident_kib().saturating_sub(memory);
    eprintln!("{answers:?} answers, {tasks} tasks, {memory} KiB and {grown} more");
    // An allocator comes to rest; what is left behind grows each time.
    for _ in 0..3 {
        if grown < MOST_GROWTH_KIB {
            break;
        }
        let before = crowd.resident_kib();
        crowd.under_load(&answers, async || {}).await;
        grown = crowd.resident_kib().saturating_sub(before);
        eprintln!("{before} KiB and {grown} more");
    }
    assert!(grown < MOST_GROWTH_KIB, "{grown} KiB more each time, {memory} at first");
    crowd.program.stop();
}
