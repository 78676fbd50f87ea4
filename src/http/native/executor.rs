//! Executes one command of a native connection, by the same use cases as REST.
//!
//! Reads come from the cache, a sale goes through the journal under a key made for it, an unknown command is sent once.
//! Unlike REST, unknown fields are ignored, numbers may be strings, and an error is one word. Nothing is sent before the
//! caller is authenticated and the parameters are valid.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::error::ErrorReply;
use super::frame::{Request, spelled};
use crate::bridge::{Bridge, CacheDirectives, Error, Instance};
use crate::http::auth::{Caller, Scope};
use crate::http::request::integer;
use crate::http::request::sale;
use crate::journal;
use crate::protocol::command::{self, Parameter, ParameterKind};
use crate::protocol::{Body, Command, Kind, Parameters, Spec};

#[derive(Debug)]
pub(super) struct Executor {
    pub(super) bridge: Bridge,
    pub(super) instance: Arc<str>,
    pub(super) caller: Caller,
    /// When the answer is due.
    pub(super) deadline: Instant,
}

/// The event's name and its parameters.
pub(super) type Reply = (Cow<'static, str>, Body);

/// The scope that a command needs.
pub(super) fn scope_of(name: &str) -> Scope {
    match command::find(name).map_or(Kind::Raw, |spec| spec.kind) {
        Kind::Read => Scope::Read,
        Kind::Upsert => Scope::Devices,
        Kind::Payment => Scope::Pay,
        Kind::Raw => Scope::Raw,
    }
}

impl Executor {
    /// Executes a command whose caller has its scope.
    pub(super) async fn execute(self, request: Request) -> Result<Reply, ErrorReply> {
        let Request { command: name, parameters, .. } = request;
        let Some(spec) = command::find(&name) else { return self.raw(name, parameters).await };
        let reply = match spec.kind {
            Kind::Payment => self.pay(spec, parameters).await,
            Kind::Upsert => self.ask(spec, require(spec, parameters)?).await,
            Kind::Read if spec.retention.is_none() => self.ask(spec, require(spec, parameters)?).await,
            Kind::Read | Kind::Raw => self.read(spec, &parameters).await,
        };
        reply.map(|body| (Cow::Borrowed(spec.reply_event), body))
    }

    fn instance(&self, spec: &'static Spec) -> Result<Arc<Instance>, ErrorReply> {
        self.bridge.instance(&self.instance).map_err(|error| self.error_reply(error, spec))
    }

    async fn read(&self, spec: &'static Spec, given: &Parameters) -> Result<Body, ErrorReply> {
        let parameters = of_read(spec, given)?;
        let turn = self.caller.name();
        let served = self.instance(spec)?.read(spec, parameters, turn, CacheDirectives::default(), self.deadline).await;
        served.map(|served| served.copy.body.clone()).map_err(|error| self.error_reply(error, spec))
    }

    async fn ask(&self, spec: &'static Spec, parameters: Parameters) -> Result<Body, ErrorReply> {
        let command = Command::known(spec, parameters);
        let reply = self.instance(spec)?.ask(command, self.caller.name(), self.deadline).await;
        reply.map_err(|error| self.error_reply(error, spec))
    }

    /// Each frame is a sale of its own, as at the gateway: the protocol has no idempotency key.
    async fn pay(&self, spec: &'static Spec, parameters: Parameters) -> Result<Body, ErrorReply> {
        let sale = sale(&parameters)?;
        let sold = sale.products.len();
        let key = journal::Key::of_till(&self.instance, self.caller.name());
        let command = Command::known(spec, parameters);
        let paid = self.instance(spec)?.pay(key, sale, command, self.deadline).await;
        let paid = paid.map_err(|error| self.error_reply(error, spec))?;
        Ok(paid.record.reply().cloned().unwrap_or_else(|| Body::items(sold)))
    }

    async fn raw(&self, name: String, parameters: Parameters) -> Result<Reply, ErrorReply> {
        let command = Command::raw(name.clone(), None, parameters);
        let sent = match self.bridge.instance(&self.instance) {
            Ok(instance) => instance.send_once(command, self.caller.name(), self.deadline).await,
            Err(unknown) => Err(unknown),
        };
        match sent {
            Ok(body) => Ok((Cow::Owned(name), body)),
            Err(error) => Err(ErrorReply::of(error, &name, Kind::Raw)),
        }
    }

    fn error_reply(&self, error: Error, spec: &Spec) -> ErrorReply {
        if let Error::Violation(reason) = &error {
            tracing::warn!(instance = &*self.instance, command = spec.name, %reason, "the gateway's answer was not understood");
        }
        ErrorReply::of(error, spec.name, spec.kind)
    }
}

/// A parameter that is present and not `null`.
fn given<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a RawValue> {
    parameters.get(name).filter(|value| value.get() != "null")
}

/// An error if a required parameter is missing. The gateway would refuse such a command too, and charge points for it.
fn require(spec: &Spec, parameters: Parameters) -> Result<Parameters, ErrorReply> {
    let mut required = spec.parameters.iter().filter(|parameter| parameter.required);
    match required.find(|parameter| given(&parameters, parameter.name).is_none()) {
        Some(missing) => Err(ErrorReply::missing(missing.name)),
        None => Ok(parameters),
    }
}

pub(super) fn pos_id(parameters: &Parameters) -> Result<i64, ErrorReply> {
    let pos_id = given(parameters, "POSID").and_then(|value| integer::of_json(value.get()).ok());
    pos_id.ok_or_else(|| ErrorReply::missing("POSID"))
}

/// The parameters of a read in the form of its cache key: a till's `"1"` and a REST caller's `1` share a copy, and
/// parameters that do not change the reply are left out.
fn of_read(spec: &Spec, given_by_till: &Parameters) -> Result<Parameters, ErrorReply> {
    let mut parameters = Parameters::default();
    for Parameter { name, kind, required, .. } in spec.parameters {
        let Some(value) = given(given_by_till, name) else {
            if *required {
                return Err(ErrorReply::missing(name));
            }
            continue;
        };
        let number = || integer::of_json(value.get()).map_err(|_| ErrorReply::missing(name));
        parameters = match kind {
            ParameterKind::Id => parameters.with(name, &number()?),
            ParameterKind::Count => match number()? {
                0 => return Err(ErrorReply::missing(name)),
                count => parameters.with(name, &count),
            },
            ParameterKind::Secret => parameters.with(name, &spelled(value).ok_or(ErrorReply::PASSWORD)?),
            ParameterKind::Any => parameters.with(name, &value),
        };
    }
    Ok(parameters)
}

/// What is sold, or the first parameter that is wrong. The parameters themselves go to the gateway as they came.
fn sale(parameters: &Parameters) -> Result<journal::Sale, ErrorReply> {
    sale::read(pos_id(parameters)?, parameters).map_err(|faults| {
        let of_method = faults.iter().any(|fault| fault.pointer == "/PaymentMethod");
        ErrorReply::missing(if of_method { "PaymentMethod" } else { "Products" })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(json: &str) -> Parameters {
        Parameters::parse(json.as_bytes()).unwrap()
    }

    fn asked(spec: &Spec, json: &str) -> String {
        match of_read(spec, &parameters(json)) {
            Ok(parameters) => serde_json::to_string(&parameters).unwrap(),
            Err(refusal) => refusal.error.into_owned(),
        }
    }

    #[test]
    fn each_kind_of_command_has_its_scope() {
        for (name, scope) in [
            ("listpos", Scope::Read),
            ("verifyauth", Scope::Read),
            ("payitems", Scope::Pay),
            ("registerdevice", Scope::Devices),
            ("newthing", Scope::Raw),
        ] {
            assert_eq!(scope_of(name), scope, "{name}");
        }
    }

    #[test]
    fn every_spelling_of_a_question_is_one_question() {
        for spelling in
            [r#"{"POSID":1,"posPassword":null}"#, r#"{"POSID":"1"}"#, r#"{"note":"x","POSID":1.0,"Limit":5}"#]
        {
            assert_eq!(asked(&command::LISTPRODUCTS, spelling), r#"{"POSID":1}"#, "{spelling}");
        }
        for spelling in [r#"{"POSID":7,"posPassword":12}"#, r#"{"posPassword":"12","POSID":"7"}"#] {
            assert_eq!(asked(&command::LISTPM, spelling), r#"{"POSID":7,"posPassword":"12"}"#);
        }
        assert_eq!(asked(&command::LISTTRANSACTIONS, r#"{"POSID":1,"Limit":"5"}"#), r#"{"POSID":1,"Limit":5}"#);
        assert_eq!(asked(&command::GETCONFIG, r#"{"POSID":1}"#), "{}");
    }

    #[test]
    fn a_read_that_does_not_say_what_it_is_about_is_refused() {
        for lacking in ["{}", r#"{"POSID":null}"#, r#"{"POSID":"bar"}"#, r#"{"POSID":-1}"#, r#"{"POSID":[1]}"#] {
            assert_eq!(asked(&command::LISTPRODUCTS, lacking), "missing_parameter_POSID", "{lacking}");
        }
        assert_eq!(asked(&command::LISTPM, r#"{"POSID":1,"posPassword":{}}"#), "invalid_password");
        assert_eq!(asked(&command::LISTTRANSACTIONS, r#"{"POSID":1,"Limit":0}"#), "missing_parameter_Limit");
    }

    #[test]
    fn a_till_s_sale_is_what_has_an_amount() {
        let till = r#"{"POSID":"3","PaymentMethod":"2","posPassword":null,"Products":[
            {"ID":1,"ProductName":"Beer","Price":4.50,"Amount":2,"Deposit":1},{"ID":"2","Amount":0,"Price":3}]}"#;
        let sale = sale(&parameters(till)).unwrap();
        assert_eq!((sale.pos_id, sale.payment_method.as_str(), sale.products), (3, "2", vec![(1, 2)]));
    }

    #[test]
    fn what_is_no_sale_is_refused_by_the_parameter_that_is_wrong() {
        let refused = |json: &str| sale(&parameters(json)).unwrap_err().error.into_owned();
        assert_eq!(refused(r#"{"Products":[{"ID":1,"Amount":1}]}"#), "missing_parameter_POSID");
        assert_eq!(refused(r#"{"POSID":1,"Products":[]}"#), "missing_parameter_PaymentMethod");
        for products in ["", r#","Products":[]"#, r#","Products":[{"ID":1,"Amount":-1}]"#, r#","Products":7"#] {
            assert_eq!(refused(&format!(r#"{{"POSID":1,"PaymentMethod":1{products}}}"#)), "missing_parameter_Products");
        }
    }

    #[test]
    fn a_parameter_of_null_is_missing() {
        assert_eq!(
            require(&command::REGISTERDEVICE, parameters(r#"{"UUID":null}"#)).unwrap_err(),
            ErrorReply::missing("UUID")
        );
        assert!(require(&command::REGISTERDEVICE, parameters(r#"{"UUID":"x","workplace":null}"#)).is_ok());
    }
}
