use std::collections::BTreeMap;

use parking_lot::Mutex;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;
use tokio::time::Instant;

use super::super::{Ask, Class, Config, CounterScope, Permit};
use super::*;

const HOLD: Duration = Duration::from_millis(30_500);
const HOUR_MS: i64 = 3_600_000;

/// A machine whose clocks move when told.
#[derive(Debug, Clone)]
struct Machine(Arc<Mutex<Moment>>);

impl Machine {
    fn new() -> Self {
        let moment = Moment { boot_id: Some("one".into()), boot_ms: 50_000, wall_ms: 1_800_000_000_000 };
        Self(Arc::new(Mutex::new(moment)))
    }

    fn now(&self) -> Moment {
        self.0.lock().clone()
    }

    fn run(&self, ms: u64) {
        let mut moment = self.0.lock();
        moment.boot_ms += ms;
        moment.wall_ms += i64::try_from(ms).unwrap();
    }

    fn set_wall(&self, by_ms: i64) {
        self.0.lock().wall_ms += by_ms;
    }

    fn start_again(&self, boot_id: Option<&str>) {
        let mut moment = self.0.lock();
        (moment.boot_id, moment.boot_ms) = (boot_id.map(Arc::from), 9);
    }

    fn clocks(&self) -> Clocks {
        let machine = self.clone();
        Clocks { now: Arc::new(move || machine.now()) }
    }
}

fn ledgers_in(scope: CounterScope) -> BTreeMap<String, Ledger> {
    BTreeMap::from([("demo".to_owned(), Ledger::new(Config { scope, ..Config::default() }))])
}

fn ledgers() -> BTreeMap<String, Ledger> {
    ledgers_in(CounterScope::Command)
}

fn used(ledgers: &BTreeMap<String, Ledger>, command: &str) -> u64 {
    let status = ledgers["demo"].status();
    status.into_iter().find(|window| window.command == command).map_or(0, |window| window.used_points)
}

async fn permit(ledgers: &BTreeMap<String, Ledger>, command: &str) -> Permit {
    let ask = Ask { command, class: Class::Caller("shop"), deadline: Instant::now() };
    ledgers["demo"].acquire(ask).await.unwrap()
}

async fn spend(ledgers: &BTreeMap<String, Ledger>, command: &str) {
    permit(ledgers, command).await.answered();
}

async fn denied_for(ledgers: &BTreeMap<String, Ledger>, command: &str) -> Option<Duration> {
    let class = if command == "payitems" { Class::Payment } else { Class::Caller("shop") };
    let ask = Ask { command, class, deadline: Instant::now() };
    ledgers["demo"].acquire(ask).await.err().map(|denied| denied.retry_after)
}

/// The table that holds these ledgers.
fn table(ledgers: &BTreeMap<String, Ledger>) -> Ledgers {
    let table = Ledgers::new(Config::default());
    for (instance, ledger) in ledgers {
        table.insert(instance, ledger);
    }
    table
}

fn writer(folder: &TempDir, machine: &Machine, ledgers: &BTreeMap<String, Ledger>) -> Writer {
    Writer {
        file: SnapshotFile::open(folder.path()).unwrap(),
        ledgers: table(ledgers),
        clocks: machine.clocks(),
        drift: Drift::default(),
        last: None,
        failing: false,
    }
}

/// What the next start counts, where the journal tells of payments that ended at these dates.
fn next_in(
    scope: CounterScope,
    folder: &TempDir,
    machine: &Machine,
    sent: &[i64],
) -> (Found, BTreeMap<String, Ledger>) {
    let next = ledgers_in(scope);
    let read = SnapshotFile::open(folder.path()).unwrap().read();
    let sent_since = |since_ms| {
        let sent = sent.iter().filter(|at_ms| **at_ms >= since_ms);
        Some(sent.map(|at_ms| Sent { instance: "demo".to_owned(), at_ms: *at_ms }).collect())
    };
    let (found, _) = count(read, &table(&next), &machine.now(), sent_since);
    (found, next)
}

fn next(folder: &TempDir, machine: &Machine, sent: &[i64]) -> (Found, BTreeMap<String, Ledger>) {
    next_in(CounterScope::Command, folder, machine, sent)
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test(start_paused = true)]
async fn after_an_orderly_end_the_next_start_counts_exactly_what_was_spent() {
    let (folder, machine, first) = (folder(), Machine::new(), ledgers());
    let unwritten = permit(&first, "getconfig").await;
    drop(unwritten);
    spend(&first, "getconfig").await;
    spend(&first, "a_raw_one").await;
    let mut flying = permit(&first, "listpm").await;
    flying.written();
    first["demo"].closed_by_gateway("payitems", Some(Duration::from_secs(7)));
    writer(&folder, &machine, &first).save(true, false).unwrap();
    machine.run(2_000);
    // The journal knows of payments too, and they are not counted twice.
    let (found, second) = next(&folder, &machine, &[machine.now().wall_ms]);
    assert_eq!(found, Found::Counted);
    let points = ["getconfig", "listpm", "a_raw_one", "payitems"].map(|command| used(&second, command));
    assert_eq!(points, [25, 20, 10, 0]);
    assert_eq!(denied_for(&second, "payitems").await, Some(Duration::from_secs(5)));
    drop(flying);
}

#[tokio::test(start_paused = true)]
async fn after_any_other_end_all_but_the_payments_count_as_full_for_one_window() {
    let (folder, machine, first) = (folder(), Machine::new(), ledgers());
    spend(&first, "getconfig").await;
    first["demo"].closed_by_gateway("payitems", Some(Duration::from_secs(7)));
    writer(&folder, &machine, &first).save(false, false).unwrap();
    machine.run(1_000);
    let wall_ms = machine.now().wall_ms;
    let (found, second) = next(&folder, &machine, &[wall_ms - 40_000, wall_ms - 20_000, wall_ms - 20_000, wall_ms]);
    assert_eq!(found, Found::Incomplete);
    for command in ["getconfig", "version", "a_raw_one"] {
        assert_eq!(denied_for(&second, command).await, Some(HOLD), "{command}");
    }
    assert_eq!(used(&second, "payitems"), 3, "exactly those of this window");
    assert_eq!(denied_for(&second, "payitems").await, Some(Duration::from_secs(6)), "what was closed stays closed");
    tokio::time::advance(Duration::from_millis(10_500)).await;
    assert_eq!(used(&second, "payitems"), 1, "each lapses at its own time");
    tokio::time::advance(Duration::from_secs(20)).await;
    for command in ["getconfig", "a_raw_one", "payitems"] {
        assert_eq!(denied_for(&second, command).await, None, "{command}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_all_share_one_window_an_end_out_of_order_leaves_the_reserve_to_payments() {
    let (folder, machine, first) = (folder(), Machine::new(), ledgers_in(CounterScope::Instance));
    writer(&folder, &machine, &first).save(false, false).unwrap();
    let wall_ms = machine.now().wall_ms;
    for (sent, expected) in [(0, 80), (5, 85), (25, 100)] {
        let (found, second) = next_in(CounterScope::Instance, &folder, &machine, &vec![wall_ms; sent]);
        assert_eq!((found, used(&second, "*")), (Found::Incomplete, expected), "{sent} payments");
        assert!(denied_for(&second, "getconfig").await.is_some());
        assert_eq!(denied_for(&second, "payitems").await.is_none(), expected < 100);
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_away_is_told_by_the_machine_and_by_the_wall_clock_only_over_its_start() {
    let away = async |change: &dyn Fn(&Machine)| {
        let (folder, machine, first) = (folder(), Machine::new(), ledgers());
        spend(&first, "getconfig").await;
        writer(&folder, &machine, &first).save(true, false).unwrap();
        change(&machine);
        let (found, second) = next(&folder, &machine, &[]);
        (found, used(&second, "getconfig"))
    };
    let counted = |points| (Found::Counted, points);
    assert_eq!(away(&|machine| machine.run(30_499)).await, counted(25));
    assert_eq!(away(&|machine| machine.run(30_500)).await, counted(0));
    assert_eq!(away(&|machine| machine.set_wall(HOUR_MS)).await, counted(25), "a clock set forward frees nothing");
    let back = |machine: &Machine| {
        machine.set_wall(-HOUR_MS);
        machine.run(30_500);
    };
    assert_eq!(away(&back).await, counted(0), "nor does one set back hold anything");
    let restarted = |by_ms: i64| {
        move |machine: &Machine| {
            machine.start_again(Some("two"));
            machine.set_wall(by_ms);
        }
    };
    assert_eq!(away(&restarted(30_499)).await, counted(25));
    assert_eq!(away(&restarted(30_500)).await, counted(0));
    assert_eq!(away(&restarted(-HOUR_MS)).await, counted(25));
    assert_eq!(away(&|machine| machine.start_again(None)).await, (Found::WithoutBootId, 100));
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_set_meanwhile_makes_no_payment_older_than_it_is() {
    let (folder, machine, first) = (folder(), Machine::new(), ledgers());
    let mut writer = writer(&folder, &machine, &first);
    writer.save(false, false).unwrap();
    let sent = machine.now().wall_ms;
    machine.run(10_000);
    // Set forward while nothing runs: the time since the payment is known all the same, to the millisecond.
    machine.set_wall(HOUR_MS);
    let (_, second) = next(&folder, &machine, &[sent]);
    assert_eq!(used(&second, "payitems"), 1);
    tokio::time::advance(Duration::from_millis(20_500)).await;
    assert_eq!(used(&second, "payitems"), 0);
    // Set back while the program runs: what was sent before looks younger, and never older.
    machine.set_wall(-2 * HOUR_MS);
    writer.save(false, false).unwrap();
    let (_, third) = next(&folder, &machine, &[sent, machine.now().wall_ms]);
    assert_eq!(used(&third, "payitems"), 2);
    // Set forward while the program runs, and noted though nothing is spent.
    machine.run(700_000);
    machine.set_wall(3 * HOUR_MS);
    writer.save(false, false).unwrap();
    let (_, fourth) = next(&folder, &machine, &[machine.now().wall_ms - 1_000]);
    assert_eq!(used(&fourth, "payitems"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_first_start_has_spent_what_the_journal_says_and_an_unreadable_file_everything_else() {
    let (folder, machine) = (folder(), Machine::new());
    let (found, first) = next(&folder, &machine, &[machine.now().wall_ms]);
    assert_eq!((found, used(&first, "payitems"), used(&first, "getconfig")), (Found::Absent, 1, 0));
    for content in ["", "{\n", r#"{"saved":{"version":2,"written_at_ms":1,"instances":{}}}"#, r#"{"version":4}"#] {
        fs::write(folder.path().join(NAME), content).unwrap();
        let (found, next) = next(&folder, &machine, &[machine.now().wall_ms]);
        assert!(matches!(found, Found::Unreadable(_)), "{content}");
        assert_eq!((used(&next, "payitems"), used(&next, "getconfig")), (1, 100), "{content}");
    }
    let next = ledgers();
    let (found, _) = count(Ok(None), &table(&next), &machine.now(), |_| None);
    assert_eq!((found, used(&next, "payitems")), (Found::Absent, 100), "payments that nobody knows of may be any");
}

#[tokio::test(start_paused = true)]
async fn a_record_of_another_scope_counts_as_an_end_out_of_order() {
    let (folder, machine, first) = (folder(), Machine::new(), ledgers());
    spend(&first, "getconfig").await;
    writer(&folder, &machine, &first).save(true, false).unwrap();
    let (found, second) = next_in(CounterScope::Instance, &folder, &machine, &[]);
    assert_eq!((found, used(&second, "*")), (Found::Incomplete, 80));
}

#[tokio::test]
async fn the_thread_writes_while_something_is_spent_and_only_the_stop_makes_the_end_an_orderly_one() {
    let (folder, machine, first) = (folder(), Machine::new(), ledgers());
    let path = folder.path().join(NAME);
    let read = || fs::read_to_string(&path).unwrap_or_default();
    let (found, keeper) = begin(folder.path(), table(&first), machine.clocks(), |_| Some(Vec::new())).unwrap();
    assert_eq!(found, Found::Absent);
    assert!(read().contains(r#""clean":false"#), "from the start on");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    spend(&first, "getconfig").await;
    while !read().contains(r#""ended":[[25,"#) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(next(&folder, &machine, &[]).0, Found::Incomplete);
    spend(&first, "listpm").await;
    keeper.keep(async {}).await;
    let (found, second) = next(&folder, &machine, &[]);
    assert_eq!((found, used(&second, "getconfig"), used(&second, "listpm")), (Found::Counted, 25, 20));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was left beside the file");
    // A start that is killed at once has ended the order.
    let (found, _keeper) = begin(folder.path(), table(&ledgers()), machine.clocks(), |_| Some(Vec::new())).unwrap();
    assert_eq!(found, Found::Counted);
    assert_eq!(next(&folder, &machine, &[]).0, Found::Incomplete);
}

#[tokio::test]
async fn a_disk_that_fails_stops_nobody_and_never_passes_an_old_end_for_this_one() {
    let (folder, machine, first) = (folder(), Machine::new(), ledgers());
    let mut writer = writer(&folder, &machine, &first);
    writer.save(true, false).unwrap();
    fs::create_dir(folder.path().join(UNFINISHED)).unwrap();
    writer.begin();
    spend(&first, "getconfig").await;
    assert!(writer.save(false, false).is_err());
    assert!(matches!(next(&folder, &machine, &[]).0, Found::Unreadable(_)));
    fs::remove_dir(folder.path().join(UNFINISHED)).unwrap();
    writer.save(true, false).unwrap();
    let (found, second) = next(&folder, &machine, &[]);
    assert_eq!((found, used(&second, "getconfig")), (Found::Counted, 25));
}

#[tokio::test(start_paused = true)]
async fn what_an_instance_spent_that_is_not_configured_any_more_waits_for_its_return() {
    let (folder, machine, mut first) = (folder(), Machine::new(), ledgers());
    first.insert("fest".to_owned(), Ledger::new(Config::default()));
    let ask = Ask { command: "getconfig", class: Class::Caller("shop"), deadline: Instant::now() };
    first["fest"].acquire(ask).await.unwrap().answered();
    writer(&folder, &machine, &first).save(true, false).unwrap();
    let left = |ledger: &Ledger| ledger.budget("getconfig").remaining;
    let read = || SnapshotFile::open(folder.path()).unwrap().read();

    let next = table(&ledgers());
    assert_eq!(count(read(), &next, &machine.now(), |_| None).0, Found::Counted);
    assert_eq!(left(&next.of("fest", "Fest.2026")), 3, "under its name, whatever the gateway calls it");
    assert_eq!(left(&next.of("new", "new")), 4);

    writer(&folder, &machine, &first).save(false, false).unwrap();
    let next = table(&ledgers());
    assert_eq!(count(read(), &next, &machine.now(), |_| Some(Vec::new())).0, Found::Incomplete);
    let [fest, unheard_of] = ["fest", "new"].map(|name| next.of(name, name));
    assert_eq!([left(&fest), left(&unheard_of)], [0, 0], "what the last second held is not known");
    tokio::time::advance(HOLD).await;
    assert_eq!([left(&fest), left(&unheard_of), left(&next.of("later", "later"))], [4, 4, 4]);
}

#[test]
fn a_folder_that_is_moved_away_is_followed_and_nothing_is_made_in_its_place() {
    let (outer, machine) = (folder(), Machine::new());
    let (old, new) = (outer.path().join("journal"), outer.path().join("moved"));
    fs::create_dir(&old).unwrap();
    let file = SnapshotFile::open(&old).unwrap();
    let (drift, last) = (Drift::default(), None);
    let mut writer = Writer { file, ledgers: table(&ledgers()), clocks: machine.clocks(), drift, last, failing: false };
    fs::rename(&old, &new).unwrap();
    writer.save(false, false).unwrap();
    assert!(!old.exists() && new.join(NAME).exists());
    fs::remove_dir_all(&new).unwrap();
    assert!(writer.save(true, false).is_err());
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 0);
}

#[test]
fn this_machine_says_which_start_it_is_of_and_its_clocks_run() {
    let clocks = Clocks::of_the_machine();
    let since_start = || u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap();
    let (before, first, later, after) = (since_start(), (clocks.now)(), (clocks.now)(), since_start());
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!((first.boot_id.as_deref(), &first.boot_id), (Some(boot_id.trim()), &later.boot_id));
    assert!(later.boot_ms >= first.boot_ms && first.wall_ms > 1_700_000_000_000);
    assert!(before <= first.boot_ms / 1000 && later.boot_ms / 1000 <= after, "{first:?} {later:?}");
}
