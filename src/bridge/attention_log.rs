//! The log of what needs attention: a line when it begins or becomes graver, and one when it is over. PURE but for the lines.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::attention::{Finding, Severity};

/// What happens at one moment, where it is logged then, with more than is known here.
const LOGGED_WHERE_IT_HAPPENS: [&str; 13] = [
    "budget-closed",
    "clock-step",
    "copies-unwritable",
    "draining",
    "gateway-certificate",
    "gateway-name",
    "journal-unavailable",
    "no-links",
    "payments-contradicted",
    "shard-cordoned",
    "shard-failing",
    "shard-lost",
    "shard-unreachable",
];

/// What was told and is not over.
#[derive(Debug, Default)]
pub struct AttentionLog(BTreeMap<Key, Told>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    code: &'static str,
    instance: Option<String>,
    subject: Option<String>,
}

#[derive(Debug)]
struct Told {
    since: Instant,
    /// The gravest that it was.
    severity: Severity,
}

/// What is to be logged.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Begun(Finding),
    Over(Key, Duration),
}

impl AttentionLog {
    /// Logs what is new since the last findings.
    pub fn tell(&mut self, found: Vec<Finding>, now: Instant) {
        self.news(found, now).into_iter().for_each(report);
    }

    fn news(&mut self, found: Vec<Finding>, now: Instant) -> Vec<News> {
        let (mut news, mut before) = (Vec::new(), std::mem::take(&mut self.0));
        for one in found.into_iter().filter(|one| !LOGGED_WHERE_IT_HAPPENS.contains(&one.code)) {
            let Finding { code, instance, subject, severity, .. } = &one;
            let key = Key { code, instance: instance.clone(), subject: subject.clone() };
            let known = before.remove(&key);
            let told = Told {
                since: known.as_ref().map_or(now, |told| told.since),
                severity: known.as_ref().map_or(*severity, |told| told.severity.min(*severity)),
            };
            let is_news = known.is_none_or(|known| told.severity < known.severity);
            self.0.insert(key, told);
            news.extend(is_news.then_some(News::Begun(one)));
        }
        news.extend(before.into_iter().map(|(key, told)| News::Over(key, now.saturating_duration_since(told.since))));
        news
    }
}

fn report(news: News) {
    match news {
        News::Begun(Finding { code, severity, instance, subject, words, .. }) => match severity {
            Severity::Critical => tracing::error!(code, instance, subject, words, "needs attention"),
            Severity::Warning => tracing::warn!(code, instance, subject, words, "needs attention"),
            Severity::Info => tracing::info!(code, instance, subject, words, "needs attention"),
        },
        News::Over(Key { code, instance, subject }, lasted) => {
            tracing::info!(code, instance, subject, ?lasted, "no longer needs attention");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(code: &'static str, severity: Severity, instance: &str) -> Finding {
        let instance = Some(instance.to_owned());
        Finding { code, severity, instance, subject: None, words: String::new(), since_ms: None }
    }

    #[test]
    fn a_finding_is_told_when_it_begins_and_when_it_becomes_graver_and_when_it_is_over() {
        let (start, mut log) = (Instant::now(), AttentionLog::default());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let [warning, critical] =
            [Severity::Warning, Severity::Critical].map(|of| finding("sales-refused", of, "demo"));
        assert_eq!(log.news(vec![warning.clone()], at(0)), [News::Begun(warning.clone())]);
        assert_eq!(log.news(vec![warning.clone()], at(5)), []);
        assert_eq!(log.news(vec![critical.clone()], at(10)), [News::Begun(critical.clone())]);
        for severity in [&warning, &critical] {
            assert_eq!(log.news(vec![severity.clone()], at(15)), [], "it was as grave before");
        }
        let other = finding("sales-refused", Severity::Warning, "other");
        assert_eq!(log.news(vec![critical, other.clone()], at(20)), [News::Begun(other.clone())]);
        let key = Key { code: "sales-refused", instance: Some("demo".to_owned()), subject: None };
        assert_eq!(log.news(vec![other], at(30)), [News::Over(key, Duration::from_secs(30))]);
        assert_eq!(log.news(vec![warning.clone()], at(31)).first(), Some(&News::Begun(warning)), "it began anew");
    }

    #[test]
    fn what_is_logged_where_it_happens_is_not_logged_again() {
        let mut log = AttentionLog::default();
        let found = LOGGED_WHERE_IT_HAPPENS.map(|code| finding(code, Severity::Critical, "demo"));
        assert_eq!(log.news(found.to_vec(), Instant::now()), []);
        assert_eq!(log.news(Vec::new(), Instant::now()), []);
    }
}
