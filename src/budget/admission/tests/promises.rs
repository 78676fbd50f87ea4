//! What a denied caller was told to come back for is there when it comes, whatever is renewed meanwhile.

use std::collections::VecDeque;

use super::*;

const SECOND: u64 = 1_000_000;

fn refresh(points: u64, deadline: Tick) -> PointsRequest<'static> {
    ask(Class::Refresh { staleness: Duration::from_secs(1) }, points, deadline)
}

/// Points that are granted, to a command that ends at once.
fn taken(admission: &mut Admission, now: Tick, request: PointsRequest<'_>) {
    let grant = granted(admission.enter(now, request));
    admission.ended(now, grant, true);
}

#[test]
fn every_ask_of_a_token_that_was_denied_gets_what_it_was_promised_one_after_the_other() {
    let mut admission = spent();
    for _ in 0..4 {
        assert_eq!(denied(&admission.enter(Tick(0), read(25, Tick(0)))), HOLD);
    }
    for late in 0..4 {
        let now = Tick(HOLD + late);
        let wait = denied(&admission.enter(now, refresh(25, now)));
        assert!(wait > 0, "told to come back at once");
        taken(&mut admission, now, read(25, now));
    }
    let now = Tick(2 * HOLD);
    taken(&mut admission, now, refresh(25, now));
}

#[test]
fn nothing_is_kept_for_one_who_does_not_come_once_the_grace_is_over() {
    let grace = HOLD;
    let mut admission = spent();
    for _ in 0..40 {
        denied(&admission.enter(Tick(0), read(25, Tick(0))));
    }
    let last = Tick(HOLD + grace - 1);
    denied(&admission.enter(last, refresh(25, last)));
    let rank = waits(admission.enter(last, refresh(25, last.after(9 * HOLD))));
    assert_eq!(admission.check(last, rank), Check::AgainAt(last.after(1)));
    assert!(matches!(admission.check(last.after(1), rank), Check::Decided(Resolution::Granted(_))));
}

#[test]
fn before_they_are_due_points_go_to_a_refresh_only_where_they_are_not_missed_then() {
    let mut admission = admission();
    taken(&mut admission, Tick(0), ask(Class::Payment, 60, Tick(0)));
    assert_eq!(denied(&admission.enter(Tick(1), read(80, Tick(1)))), HOLD - 1);
    denied(&admission.enter(Tick(2), refresh(21, Tick(2))));
    taken(&mut admission, Tick(2), refresh(20, Tick(2)));
    denied(&admission.enter(Tick(3), refresh(1, Tick(3))));
    taken(&mut admission, Tick(HOLD), read(80, Tick(HOLD)));
}

#[test]
fn a_payment_and_another_caller_are_granted_what_is_kept_from_refreshes() {
    let mut admission = admission();
    taken(&mut admission, Tick(0), ask(Class::Payment, 60, Tick(0)));
    denied(&admission.enter(Tick(1), read(80, Tick(1))));
    denied(&admission.enter(Tick(2), refresh(30, Tick(2))));
    taken(&mut admission, Tick(2), ask(Class::Payment, 20, Tick(2)));
    taken(&mut admission, Tick(2), ask(Class::Caller("b"), 20, Tick(2)));
}

#[test]
fn the_first_command_after_a_closing_is_not_a_refresh_where_it_was_promised() {
    let mut admission = admission();
    admission.close_until(Tick(0), Tick(10));
    assert_eq!(denied(&admission.enter(Tick(1), read(20, Tick(1)))), 9);
    denied(&admission.enter(Tick(10), refresh(20, Tick(10))));
    taken(&mut admission, Tick(10), read(20, Tick(10)));
    taken(&mut admission, Tick(10), refresh(20, Tick(10)));
}

/// One window at which renewals ask at every moment, some of which wait and some not, and callers now and then.
struct Renewed {
    admission: Admission,
    now: Tick,
    /// What renewals cost, in turns.
    prices: VecDeque<u64>,
    in_flight: InFlight,
    waiting: Vec<Rank>,
    renewals: u64,
}

impl Renewed {
    fn new(prices: &[u64], latency: u64) -> Self {
        Self {
            admission: Admission::new(Window::new(LONG_HOLD)),
            now: Tick(SECOND),
            prices: prices.iter().copied().collect(),
            in_flight: InFlight::new(latency),
            waiting: Vec::new(),
            renewals: 0,
        }
    }

    fn send(&mut self, grant: Grant) {
        self.in_flight.send(self.now, grant);
    }

    fn renew(&mut self, verdict: Resolution) {
        match verdict {
            Resolution::Granted(grant) => {
                self.renewals += 1;
                self.send(grant);
            }
            Resolution::Denied { wait } => assert!(wait > 0, "told to come back at once"),
        }
    }

    fn step(&mut self) {
        self.now = self.now.after(STEP);
        self.in_flight.end_due(self.now, &mut self.admission);
        for rank in std::mem::take(&mut self.waiting) {
            match self.admission.check(self.now, rank) {
                Check::AgainAt(_) => self.waiting.push(rank),
                Check::Decided(verdict) => self.renew(verdict),
            }
        }
        for patience in [0, PATIENCE] {
            let Some(price) = self.prices.pop_front() else { return };
            self.prices.push_back(price);
            if self.waiting.len() < 8 {
                match self.admission.enter(self.now, refresh(price, self.now.after(patience))) {
                    Entered::Waits(rank, _) => self.waiting.push(rank),
                    Entered::Decided(verdict) => self.renew(verdict),
                }
            }
        }
    }

    fn pass(&mut self, until: Tick) {
        while self.now < until {
            self.step();
        }
    }

    /// A caller asks, and waits for the points as long as any and then for the answer. What it is told where it is denied.
    fn ask(&mut self, token: &'static str, points: u64) -> Result<(), u64> {
        let entered = self.admission.enter(self.now, ask(Class::Caller(token), points, self.now.after(PATIENCE)));
        let verdict = match entered {
            Entered::Decided(verdict) => verdict,
            Entered::Waits(rank, _) => loop {
                self.step();
                if let Check::Decided(verdict) = self.admission.check(self.now, rank) {
                    break verdict;
                }
            },
        };
        match verdict {
            Resolution::Denied { wait } => Err(wait),
            Resolution::Granted(grant) => {
                self.send(grant);
                self.pass(self.now.after(self.in_flight.latency));
                Ok(())
            }
        }
    }

    /// Who of those that come, each at its instant, is served. All wait beside each other.
    fn come_back(&mut self, pages: &[(Tick, Page)]) -> Vec<bool> {
        let (mut left, mut waiting, mut served) = (pages.iter().enumerate(), Vec::new(), vec![false; pages.len()]);
        let mut next = left.next();
        while next.is_some() || !waiting.is_empty() {
            while let Some((place, (due, page))) = next.filter(|(_, (due, _))| *due <= self.now) {
                let class = Class::Caller(page.token);
                match self.admission.enter(self.now, ask(class, page.points, due.after(PATIENCE))) {
                    Entered::Waits(rank, _) => waiting.push((place, rank)),
                    Entered::Decided(verdict) => served[place] = self.is_served(verdict),
                }
                next = left.next();
            }
            self.step();
            for (place, rank) in std::mem::take(&mut waiting) {
                match self.admission.check(self.now, rank) {
                    Check::AgainAt(_) => waiting.push((place, rank)),
                    Check::Decided(verdict) => served[place] = self.is_served(verdict),
                }
            }
        }
        served
    }

    fn is_served(&mut self, verdict: Resolution) -> bool {
        match verdict {
            Resolution::Granted(grant) => {
                self.send(grant);
                true
            }
            Resolution::Denied { .. } => false,
        }
    }

    /// When a caller comes back that was told so in whole seconds.
    fn told(&self, wait: u64, on_the_way: u64) -> Tick {
        self.now.after(wait.div_ceil(SECOND) * SECOND + on_the_way)
    }
}

const TOKENS: [&str; 4] = ["a", "b", "c", "d"];

/// Points spent before callers come.
#[derive(Debug, Clone, Copy)]
struct Purchase {
    /// By whom; by a payment where it is none.
    token: Option<&'static str>,
    points: u64,
    pause: u64,
}

fn purchase() -> impl Strategy<Value = Purchase> {
    let token = prop::option::of(prop::sample::select(&TOKENS));
    (token, 1..=60_u64, 0..LONG_HOLD / 2).prop_map(|(token, points, pause)| Purchase { token, points, pause })
}

/// One caller's only page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Page {
    token: &'static str,
    points: u64,
    on_the_way: u64,
}

fn page() -> impl Strategy<Value = Page> {
    let token = prop::sample::select(&TOKENS);
    (token, 1..=100_u64, 0..700_000_u64).prop_map(|(token, points, on_the_way)| Page { token, points, on_the_way })
}

/// Who of those that were denied is served when it comes back, each once.
fn served(spent: &[Purchase], pages: &[Page], renewals: &[u64]) -> Vec<bool> {
    let mut window = Renewed::new(&[], 0);
    for &Purchase { token, points, pause } in spent {
        window.now = window.now.after(pause);
        let class = token.map_or(Class::Payment, Class::Caller);
        if let Some(grant) = window.admission.grant_now(window.now, class, Price { points, limit: CAPACITY }) {
            window.admission.ended(window.now, grant, true);
        }
    }
    let mut denied = Vec::new();
    for page in pages {
        if let Err(wait) = window.ask(page.token, page.points) {
            denied.push((window.told(wait, page.on_the_way), *page));
        }
    }
    denied.sort_unstable();
    window.prices = renewals.iter().copied().collect();
    window.come_back(&denied)
}

fn spent_by_payments(spent: &[(u64, u64)]) -> Vec<Purchase> {
    spent.iter().map(|&(points, pause)| Purchase { token: None, points, pause }).collect()
}

fn pages_of(pages: &[(&'static str, u64, u64)]) -> Vec<Page> {
    pages.iter().map(|&(token, points, on_the_way)| Page { token, points, on_the_way }).collect()
}

#[test]
fn who_is_expected_first_and_comes_last_finds_its_points_whatever_was_renewed() {
    let (spent, pages) = (spent_by_payments(&[(15, 0), (43, 1)]), pages_of(&[("a", 67, 267_265), ("b", 43, 0)]));
    assert_eq!(served(&spent, &pages, &[]), served(&spent, &pages, &[1]));
}

#[test]
fn whoever_has_to_leave_points_to_a_token_that_was_given_less_finds_its_own_besides() {
    let (spent, pages) = (spent_by_payments(&[(59, 0)]), pages_of(&[("a", 17, 0), ("c", 25, 0), ("c", 25, 1)]));
    assert_eq!(served(&spent, &pages, &[]), [true, true]);
    assert_eq!(served(&spent, &pages, &[2]), [true, true]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// It asks for one page at a time, and for none sooner than it was told. Whatever comes free is its own until it has all.
    #[test]
    fn who_asks_for_one_page_after_the_other_gets_all_that_comes_free_whatever_is_renewed(
        points in prop::sample::select(&[10_u64, 20, 25, 50, 100]),
        pages in 1..13_u64,
        latency in 0..400_000_u64,
        before in 0..3 * LONG_HOLD,
        on_the_way in 0..700_000_u64,
    ) {
        let mut window = Renewed::new(&[points], latency);
        window.pass(Tick(before));
        let mut cold: BTreeSet<(Tick, u64, u64)> = (0..pages).map(|page| (window.now, page, 0)).collect();
        let mut refused_most = 0;
        let began = window.now;
        while let Some((due, page, refused)) = cold.pop_first() {
            window.pass(due);
            if let Err(wait) = window.ask("poller", points) {
                cold.insert((window.told(wait, on_the_way), page, refused + 1));
                refused_most = refused_most.max(refused + 1);
            }
        }
        // What was in flight, the rounding, and the way there and back make a window longer for it.
        let windows = pages.div_ceil(CAPACITY / points);
        let most = (windows + 1) * (LONG_HOLD + 5 * SECOND);
        let took = began.until(window.now);
        prop_assert!(took <= most, "{} s of {}; one refused {refused_most} times", took / SECOND, most / SECOND);
        // And then renewals go on.
        let renewals = window.renewals;
        window.pass(window.now.after(2 * LONG_HOLD));
        prop_assert!(window.renewals > renewals);
    }

    #[test]
    fn who_comes_back_when_it_was_told_is_served_whatever_was_renewed_at_whatever_price(
        prices in prop::collection::vec(1..=100_u64, 1..5),
        points in 1..=100_u64,
        latency in 0..400_000_u64,
        visits in prop::collection::vec((0..2 * LONG_HOLD, 0..700_000_u64), 1..6),
    ) {
        let mut window = Renewed::new(&prices, latency);
        for (pause, on_the_way) in visits {
            window.pass(window.now.after(pause));
            if let Err(wait) = window.ask("caller", points) {
                window.pass(window.told(wait, on_the_way));
                prop_assert_eq!(window.ask("caller", points), Ok(()), "told {} at first", wait);
            }
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn of_many_who_were_denied_none_is_denied_again_for_the_sake_of_a_renewal(
        spent in prop::collection::vec(purchase(), 1..8),
        pages in prop::collection::vec(page(), 1..5),
        renewals in prop::collection::vec(1..=100_u64, 1..5),
    ) {
        let without = served(&spent, &pages, &[]);
        let with = served(&spent, &pages, &renewals);
        prop_assert_eq!(without, with);
    }
}
