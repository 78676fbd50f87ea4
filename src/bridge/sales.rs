//! How the sales of one instance ended that callers asked for, since the start and within the last minute.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::error::Error;
use super::pay::{Paid, Unpaid};
use crate::protocol::Meaning;
use crate::telemetry::metrics::Families;
use crate::telemetry::recent::Recent;

/// How one ended. Those that are refused have the codes of their problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SaleOutcome {
    Booked,
    /// Booked before.
    Replayed,
    Unknown,
    /// The caller's fault, such as a wrong password or a key that was used for another sale.
    Rejected,
    RateLimited,
    Unavailable,
    Overloaded,
    ShuttingDown,
    JournalUnavailable,
    KeyRefused,
    LicenseRefused,
    GatewayError,
}

const COUNT: usize = 12;

impl SaleOutcome {
    const ALL: [(Self, &'static str); COUNT] = [
        (Self::Booked, "booked"),
        (Self::Replayed, "replayed"),
        (Self::Unknown, "payment-outcome-unknown"),
        (Self::Rejected, "rejected"),
        (Self::RateLimited, "rate-limited"),
        (Self::Unavailable, "gateway-unavailable"),
        (Self::Overloaded, "overloaded"),
        (Self::ShuttingDown, "shutting-down"),
        (Self::JournalUnavailable, "journal-unavailable"),
        (Self::KeyRefused, "gateway-credentials-rejected"),
        (Self::LicenseRefused, "license-invalid"),
        (Self::GatewayError, "gateway-error"),
    ];

    fn of(outcome: Result<&Paid, &Error>) -> Self {
        match outcome {
            Ok(Paid { replayed, .. }) => {
                if *replayed {
                    Self::Replayed
                } else {
                    Self::Booked
                }
            }
            Err(Error::OutcomeUnknown { .. }) => Self::Unknown,
            Err(Error::RateLimited { .. }) => Self::RateLimited,
            Err(Error::Unavailable { .. } | Error::Lost { .. } | Error::Timeout) => Self::Unavailable,
            Err(Error::Overloaded { .. }) => Self::Overloaded,
            Err(Error::ShuttingDown { .. } | Error::NotOwner { .. }) => Self::ShuttingDown,
            Err(Error::JournalUnavailable { .. }) => Self::JournalUnavailable,
            Err(Error::Violation(_)) => Self::GatewayError,
            Err(Error::Refused(error)) => match error.meaning() {
                Meaning::Credentials => Self::KeyRefused,
                Meaning::License => Self::LicenseRefused,
                Meaning::PosPassword | Meaning::MissingParameter => Self::Rejected,
                _ => Self::GatewayError,
            },
            Err(
                Error::UnknownInstance
                | Error::NotCached
                | Error::PaymentInProgress { .. }
                | Error::KeyReused
                | Error::UnknownPayment
                | Error::Unsettled(_),
            ) => Self::Rejected,
        }
    }

    /// Whether a customer could not buy, and it was not the caller's fault.
    fn is_refusal(self) -> bool {
        !matches!(self, Self::Booked | Self::Replayed | Self::Unknown | Self::Rejected)
    }
}

/// The sales of one instance.
#[derive(Debug, Default)]
pub struct Sales {
    ended: [Counter; COUNT],
    recent: Recent<COUNT>,
}

/// The sales of the last minute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecentSales {
    pub booked: u64,
    /// Not sold, and not for a fault of the caller.
    pub refused: u64,
    pub unknown: u64,
    /// Why most of them were refused, as the code of a problem.
    pub refused_as: Option<&'static str>,
}

impl Sales {
    pub(super) fn ended(&self, asked: Result<&Paid, &Unpaid>, now: Instant) {
        let outcome = match asked {
            Ok(paid) => SaleOutcome::of(Ok(paid)),
            Err(Unpaid::Failed(error)) => SaleOutcome::of(Err(error)),
            Err(Unpaid::UnderWay(_)) => SaleOutcome::Rejected,
        };
        if let Some(counter) = self.ended.get(outcome as usize) {
            counter.inc();
        }
        self.recent.note(now, SaleOutcome::ALL.map(|(other, _)| other == outcome));
    }

    pub(super) fn last_minute(&self, now: Instant) -> RecentSales {
        let mut sales = RecentSales::default();
        let mut most = 0;
        for ((outcome, name), count) in SaleOutcome::ALL.into_iter().zip(self.recent.last_minute(now)) {
            match outcome {
                SaleOutcome::Booked => sales.booked = count,
                SaleOutcome::Unknown => sales.unknown = count,
                _ if outcome.is_refusal() => {
                    sales.refused += count;
                    if count > most {
                        (most, sales.refused_as) = (count, Some(name));
                    }
                }
                _ => {}
            }
        }
        sales
    }
}

/// Shows the sales of each instance, each outcome from its first on.
pub fn encode(page: &mut DescriptorEncoder<'_>, instances: &[(&str, &Sales)]) -> fmt::Result {
    let mut family = page.counter("sales", "Sales that callers asked for, by outcome.")?;
    for (instance, sales) in instances {
        for ((_, outcome), counter) in
            SaleOutcome::ALL.iter().zip(&sales.ended).filter(|(_, counter)| counter.get() > 0)
        {
            counter.encode(family.encode_family(&[("pos_instance", *instance), ("outcome", *outcome)])?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::GatewayError;

    #[test]
    fn an_outcome_is_counted_under_its_own_name() {
        for (index, (outcome, _)) in SaleOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
    }

    #[test]
    fn what_was_refused_for_no_fault_of_the_caller_is_counted_with_its_main_reason_for_a_minute() {
        let (sales, now) = (Sales::default(), Instant::now());
        let retry_after = Duration::from_secs(1);
        let refused = |word: &str| Error::Refused(GatewayError::word(word));
        for error in [
            Error::RateLimited { retry_after, gateway: None },
            Error::JournalUnavailable { retry_after },
            Error::RateLimited { retry_after, gateway: None },
            refused("invalid_password"),
            Error::KeyReused,
            Error::OutcomeUnknown { gateway: None, payment: None },
        ] {
            sales.ended(Err(&error.into()), now);
        }
        let expected = RecentSales { booked: 0, refused: 3, unknown: 1, refused_as: Some("rate-limited") };
        assert_eq!(sales.last_minute(now), expected);
        for _ in 0..3 {
            sales.ended(Err(&refused("api_key_mismatch").into()), now);
        }
        assert_eq!(sales.last_minute(now).refused_as, Some("gateway-credentials-rejected"));
        assert_eq!(sales.last_minute(now + Duration::from_secs(70)), RecentSales::default());
    }
}
