//! Lists products, sells one, repeats the sale, and handles an error, with a client generated from the bridge's OpenAPI
//! document.
//!
//! ```sh
//! pip install openapi-generator-cli # and a Java runtime
//! openapi-generator-cli generate --config generator.yaml --input-spec ../../../openapi/openapi.json --output generated
//! BRIDGE_URL=http://127.0.0.1:8080 BRIDGE_TOKEN=… cargo run
//! ```

use std::env;
use std::time::Duration;

use concertpos_bridge_client::apis::Error;
use concertpos_bridge_client::apis::catalogue_api::{get_license, list_products};
use concertpos_bridge_client::apis::configuration::Configuration;
use concertpos_bridge_client::apis::payments_api::{list_payments, pay_items};
use concertpos_bridge_client::models::{PayItem, PayItems, PaymentState, Problem, ProblemCode, SoldProduct, SpelledId};

const INSTANCE: &str = "demo";
const POINT_OF_SALE: i64 = 1;

/// A problem of the bridge, or a failure of the connection to it.
fn problem<T: std::fmt::Debug>(error: Error<T>) -> Result<Problem, Box<dyn std::error::Error>>
where
    Error<T>: std::error::Error + 'static,
{
    match error {
        Error::ResponseError(answer) => Ok(serde_json::from_str(&answer.content)?),
        other => Err(other.into()),
    }
}

/// Books a sale once: repeats with the same key while that is safe and may succeed.
async fn sell(
    bridge: &Configuration,
    key: &str,
    sale: &PayItems,
) -> Result<Result<PayItem, Problem>, Box<dyn std::error::Error>> {
    loop {
        let error = match pay_items(bridge, INSTANCE, POINT_OF_SALE, key, sale.clone(), None, None).await {
            Ok(reply) => return Ok(Ok(reply)),
            Err(error) => problem(error)?,
        };
        // The outcome is unknown until a late reply arrives or a person settles the payment. Stop repeating.
        if error.code == ProblemCode::PaymentOutcomeUnknown || !error.retryable {
            return Ok(Err(error));
        }
        let seconds = error.retry_after.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(1);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bridge = Configuration {
        base_path: env::var("BRIDGE_URL").unwrap_or_else(|_| "http://127.0.0.1:8080".to_owned()),
        bearer_access_token: Some(env::var("BRIDGE_TOKEN")?),
        ..Configuration::default()
    };

    let licence = get_license(&bridge, INSTANCE, None, None, None).await?.license;
    println!("licensed to {}", licence.name);
    let listed = list_products(&bridge, INSTANCE, POINT_OF_SALE, None, None, None, None).await?;
    for product in &listed.products {
        println!("{}  {}  {:.2}", product.id, product.product_name, product.price);
    }
    let first = listed.products.first().ok_or("nothing is sold there")?;

    let key = uuid::Uuid::new_v4().to_string();
    let of = |amount| PayItems::new(SpelledId::Integer(1), vec![SoldProduct::new(first.id, amount)]);
    let (sold, repeated) = (sell(&bridge, &key, &of(2)).await?, sell(&bridge, &key, &of(2)).await?);
    assert!(sold.is_ok() && sold == repeated, "{sold:?} {repeated:?}");
    let found = list_payments(&bridge, INSTANCE, Some(&key), None, None, None, None, None, None, None).await?;
    let states: Vec<_> = found.payments.iter().map(|payment| payment.state).collect();
    assert_eq!(states, [PaymentState::Booked]);
    println!("sold two of {}, once, although it was asked for twice", first.product_name);

    let mistake = sell(&bridge, &key, &of(3)).await?.expect_err("it is another sale");
    assert_eq!(mistake.code, ProblemCode::IdempotencyKeyReused);
    println!("another sale under its key: {} {}", mistake.status, mistake.code);
    Ok(())
}
