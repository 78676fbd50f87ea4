//! Parameters of the path and the query.

use actix_web::HttpRequest;
use actix_web::web::Query;

use crate::http::problem::{Problem, table};

/// The one value of `name` in the query. Given twice it is refused: which was meant is not known.
pub fn query(request: &HttpRequest, name: &str) -> Result<Option<String>, Problem> {
    let mut given = pairs(request)?.into_iter().filter(|(key, _)| key == name).map(|(_, value)| value);
    match (given.next(), given.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => {
            Err(Problem::new(&table::INVALID_REQUEST).detail(format!("`{name}` is given twice in the query.")))
        }
    }
}

/// Names and values of the query.
pub fn pairs(request: &HttpRequest) -> Result<Vec<(String, String)>, Problem> {
    let pairs = Query::<Vec<(String, String)>>::from_query(request.query_string());
    pairs.map(Query::into_inner).map_err(|_| Problem::new(&table::INVALID_REQUEST).detail("The query is malformed."))
}

/// The router has decoded the segment but for `%25`, `%2B` and `%2F`, which stand in no name used here and so match
/// nothing.
#[must_use]
pub fn segment<'a>(request: &'a HttpRequest, name: &str) -> &'a str {
    request.match_info().get(name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_name_in_the_query_has_one_value_or_none() {
        let ask = |uri: &str| query(&TestRequest::with_uri(uri).to_http_request(), "reply");
        assert_eq!(ask("/?x=1").unwrap(), None);
        assert_eq!(ask("/?reply=a%20b").unwrap().as_deref(), Some("a b"));
        assert_eq!(ask("/?reply=a&reply=a").unwrap_err().entry().code, "invalid-request");
    }
}
