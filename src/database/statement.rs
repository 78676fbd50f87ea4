//! One statement with its parameters.

use std::borrow::Cow;
use std::fmt;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

/// What a statement returned.
pub type Rows = Vec<Row>;

/// A statement, with the value and the type of each of its parameters: told beforehand, they cost no round trip.
pub struct Statement {
    text: Cow<'static, str>,
    parameters: Vec<(Box<dyn ToSql + Send + Sync>, Type)>,
}

impl Statement {
    #[must_use]
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into(), parameters: Vec::new() }
    }

    /// Gives the next parameter.
    #[must_use]
    pub fn bind(mut self, value: impl ToSql + Send + Sync + 'static, of_type: Type) -> Self {
        self.parameters.push((Box::new(value), of_type));
        self
    }

    #[must_use]
    pub fn text(self, value: impl Into<String>) -> Self {
        self.bind(value.into(), Type::TEXT)
    }

    #[must_use]
    pub fn bigint(self, value: i64) -> Self {
        self.bind(value, Type::INT8)
    }

    #[must_use]
    pub fn uuid(self, value: uuid::Uuid) -> Self {
        self.bind(value, Type::UUID)
    }

    pub(super) async fn run(&self, client: &Client) -> Result<Rows, tokio_postgres::Error> {
        let parameters: Vec<(&(dyn ToSql + Sync), Type)> =
            self.parameters.iter().map(|(value, of_type)| (&**value as &(dyn ToSql + Sync), of_type.clone())).collect();
        client.query_typed(&self.text, &parameters).await
    }
}

/// Without its values: they may be a caller's.
impl fmt::Debug for Statement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Statement").field(&self.text).finish()
    }
}
