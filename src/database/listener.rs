//! Notifications of the database. They are hints: any of them may be late or never come.
//!
//! Behind a pooler that gives each transaction another connection none comes. So each new connection first notifies itself.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_postgres::AsyncMessage;

use super::config::Config;
use super::error::{Error, explained};

/// How long a server may take to be connected to, and to deliver the notification of the connection itself.
const LIMIT: Duration = Duration::from_secs(2);

/// Between attempts: after a fault, and where notifications do not come at all.
const AGAIN: Duration = Duration::from_secs(1);
const AFTER_SILENCE: Duration = Duration::from_mins(1);

/// What a connection says to itself.
const TEST: &str = "test";

enum Over {
    Lost(Error),
    /// Its own notification did not come.
    Silent,
}

/// Calls `told` with the payload of each notification on `channel`, on a connection that is opened again after a fault. Runs until
/// it is dropped.
pub async fn listen(config: &Config, channel: &str, told: impl Fn(&str)) {
    let (mut server, mut is_said) = (0, false);
    loop {
        let again = match follow(config, server, channel, &told).await {
            Over::Lost(why) => {
                tracing::debug!(%why, "notifications of the database are not heard at the moment");
                AGAIN
            }
            Over::Silent => {
                if !is_said {
                    tracing::info!(
                        "notifications of the database do not come, as behind a pooler: changes of owner are seen a second later"
                    );
                }
                is_said = true;
                AFTER_SILENCE
            }
        };
        server = server.wrapping_add(1);
        sleep(again).await;
    }
}

async fn follow(config: &Config, server: usize, channel: &str, told: &impl Fn(&str)) -> Over {
    let none = || Over::Lost(Error::Unreachable("no server is known".into()));
    let Some((place, tls)) = config.server(server, "hints") else { return none() };
    let (client, mut connection) = match timeout(LIMIT, place.connect(tls)).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => return Over::Lost(Error::Unreachable(explained(&error))),
        Err(_) => return Over::Lost(Error::Late),
    };
    let listen = format!("LISTEN {channel}; SELECT pg_notify('{channel}', '{TEST}')");
    let mut asked = pin!(client.batch_execute(&listen));
    let (mut has_begun, mut is_heard) = (false, false);
    let mut silence = pin!(sleep(LIMIT));
    loop {
        tokio::select! {
            message = poll_fn(|context| connection.poll_message(context)) => match message {
                Some(Ok(AsyncMessage::Notification(notification))) if notification.payload() == TEST => is_heard = true,
                Some(Ok(AsyncMessage::Notification(notification))) => told(notification.payload()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Over::Lost(Error::Unreachable(explained(&error))),
                None => return Over::Lost(Error::Unreachable("it closed the connection".into())),
            },
            ended = &mut asked, if !has_begun => match ended {
                Ok(()) => has_begun = true,
                Err(error) => return Over::Lost(error.into()),
            },
            () = &mut silence, if !is_heard => return if has_begun { Over::Silent } else { Over::Lost(Error::Late) },
        }
    }
}
