//! What a payment's body says is sold.
//!
//! The body goes to the gateway exactly as it was spelled; what is read here decides only whether it may go at all.
//! All faults are found at once and pointed at.

use std::collections::{BTreeMap, HashMap};

use serde_json::value::RawValue;

use crate::http::problem::FieldError;
use crate::http::request::integer;
use crate::journal::Sale;
use crate::protocol::Parameters;

/// Products of one sale. A till sends its whole list, and a festival's is some hundred long; a record is kept of each.
pub const MAX_PRODUCTS: usize = 1000;

/// Faults told at once. More of them have one cause in the caller's program.
const MAX_FAULTS: usize = 100;

/// Reads what is sold at a point of sale out of the body of a payment, or says everything that is wrong with it. Products
/// without an amount are left out.
pub fn read(pos_id: i64, body: &Parameters) -> Result<Sale, Vec<FieldError>> {
    let mut faults = Vec::new();
    let payment_method = whole(body, "PaymentMethod", "", &mut faults);
    let amounts = amounts(body, &mut faults);
    match payment_method {
        Some(payment_method) if faults.is_empty() => {
            let products = amounts.into_iter().collect();
            Ok(Sale { pos_id, payment_method: payment_method.to_string(), products })
        }
        _ => {
            faults.truncate(MAX_FAULTS);
            Err(faults)
        }
    }
}

fn amounts(body: &Parameters, faults: &mut Vec<FieldError>) -> BTreeMap<i64, u64> {
    let mut amounts = BTreeMap::new();
    let Some(products) = body.get("Products") else {
        faults.push(FieldError::new("/Products", "is missing"));
        return amounts;
    };
    let Ok(products) = serde_json::from_str::<Vec<Box<RawValue>>>(products.get()) else {
        faults.push(FieldError::new("/Products", "must be an array of products"));
        return amounts;
    };
    if products.len() > MAX_PRODUCTS {
        faults.push(FieldError::new("/Products", format!("must not hold more than {MAX_PRODUCTS} products")));
        return amounts;
    }
    let before = faults.len();
    let mut first_seen = HashMap::new();
    for (index, product) in products.iter().enumerate() {
        let pointer = format!("/Products/{index}");
        let Some((id, amount)) = product_of(product, &pointer, faults) else { continue };
        if let Some(first) = first_seen.insert(id, index) {
            faults.push(FieldError::new(format!("{pointer}/ID"), format!("is the product of /Products/{first} again")));
        }
        if let Ok(amount @ 1..) = u64::try_from(amount) {
            amounts.insert(id, amount);
        }
    }
    if amounts.is_empty() && faults.len() == before {
        faults.push(FieldError::new("/Products", "must hold at least one product with an Amount above 0"));
    }
    amounts
}

fn product_of(product: &RawValue, pointer: &str, faults: &mut Vec<FieldError>) -> Option<(i64, i64)> {
    if !product.get().starts_with('{') {
        faults.push(FieldError::new(pointer, "must be an object with `ID` and `Amount`"));
        return None;
    }
    match Parameters::parse(product.get().as_bytes()) {
        Ok(members) => {
            let id = whole(&members, "ID", pointer, faults);
            let amount = whole(&members, "Amount", pointer, faults);
            id.zip(amount)
        }
        Err(error) => {
            faults.push(FieldError::new(pointer, format!("is no product: {error}")));
            None
        }
    }
}

/// The whole number `name` of an object at `pointer`.
fn whole(members: &Parameters, name: &str, pointer: &str, faults: &mut Vec<FieldError>) -> Option<i64> {
    let read = match members.get(name) {
        Some(value) => integer::of_json(value.get()).map_err(|why| why.to_string()),
        None => Err("is missing".to_owned()),
    };
    read.map_err(|detail| faults.push(FieldError::new(format!("{pointer}/{name}"), detail))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Sale, Vec<FieldError>> {
        super::read(3, &Parameters::parse(body.as_bytes()).unwrap())
    }

    fn pointers(body: &str) -> Vec<String> {
        read(body).unwrap_err().into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn only_what_has_an_amount_is_sold_and_spelling_does_not_matter() {
        let plain = read(r#"{"PaymentMethod":1,"Products":[{"ID":1,"Amount":2}]}"#).unwrap();
        assert_eq!(plain, Sale { pos_id: 3, payment_method: "1".into(), products: vec![(1, 2)] });
        let till = r#"{"PaymentMethod":"1","note":"x","Products":[
            {"ID":"1","Amount":2.0,"ProductName":"Beer","Price":3.50},{"ID":2,"Amount":0}]}"#;
        assert_eq!(read(till).unwrap(), plain);
    }

    #[test]
    fn every_fault_is_pointed_at() {
        let body = r#"{"Products":[{"ID":1,"Amount":-1},{"Amount":1.5},{"ID":1,"Amount":1},7,{"ID":3,"Amount":"x"}]}"#;
        let expected = [
            "/PaymentMethod",
            "/Products/0/Amount",
            "/Products/1/ID",
            "/Products/1/Amount",
            "/Products/3",
            "/Products/4/Amount",
        ];
        assert_eq!(pointers(body), expected);
    }

    #[test]
    fn a_product_given_twice_is_refused_even_without_an_amount() {
        let body = r#"{"PaymentMethod":1,"Products":[{"ID":7,"Amount":0},{"ID":8,"Amount":1},{"ID":"7","Amount":2}]}"#;
        assert_eq!(pointers(body), ["/Products/2/ID"]);
    }

    #[test]
    fn a_name_given_twice_in_a_product_is_refused() {
        let body = r#"{"PaymentMethod":1,"Products":[{"ID":7,"Amount":1,"Amount":9}]}"#;
        let faults = read(body).unwrap_err();
        assert_eq!(faults[0].pointer, "/Products/0");
        assert!(faults[0].detail.contains("`Amount` is given twice"), "{faults:?}");
    }

    #[test]
    fn a_sale_has_a_sane_size_and_so_has_what_is_told_about_its_faults() {
        let body = |count: usize, product: &str| {
            format!(r#"{{"PaymentMethod":1,"Products":[{}]}}"#, vec![product; count].join(","))
        };
        assert_eq!(pointers(&body(MAX_PRODUCTS + 1, r#"{"ID":1,"Amount":1}"#)), ["/Products"]);
        assert_eq!(pointers(&body(MAX_PRODUCTS, "7")).len(), MAX_FAULTS);
        let most: Vec<_> = (0..MAX_PRODUCTS).map(|id| format!(r#"{{"ID":{id},"Amount":1}}"#)).collect();
        let most = format!(r#"{{"PaymentMethod":1,"Products":[{}]}}"#, most.join(","));
        assert_eq!(read(&most).unwrap().products.len(), MAX_PRODUCTS);
    }

    #[test]
    fn a_sale_of_nothing_is_refused() {
        for products in ["", r#","Products":[]"#, r#","Products":{}"#, r#","Products":[{"ID":1,"Amount":0}]"#] {
            assert_eq!(pointers(&format!(r#"{{"PaymentMethod":1{products}}}"#)), ["/Products"], "{products}");
        }
    }
}
