//! `token new`: makes a caller token. The token is printed once and kept nowhere; the configuration holds its digest.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::common::print;
use crate::http::auth::{EVERY_INSTANCE, Scope};

/// 256 bits: nobody guesses it, and a plain SHA-256 of it is safe to keep.
const RANDOM_BYTES: usize = 32;

/// Caller tokens.
#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Make a token, print it once, and the configuration lines that hold only its SHA-256
    New(New),
}

/// Flags of `token new`.
#[derive(Debug, Args)]
pub(super) struct New {
    /// Name of the token: stays the same while its secret is rotated, and with it the caller's payments
    #[arg(long, value_name = "N", value_parser = name)]
    name: String,
    /// Instances it may use, comma-separated; * for all there are
    #[arg(long, value_name = "NAMES", value_delimiter = ',', required = true, value_parser = instance)]
    instances: Vec<String>,
    /// What it may do, comma-separated: read, pay, devices, events, raw, operate
    #[arg(long, value_name = "SCOPES", value_delimiter = ',', default_value = "read", value_parser = scope)]
    scopes: Vec<Scope>,
    /// Print one JSON object: name, token, sha256, instances, scopes
    #[arg(long)]
    json: bool,
}

pub(super) fn run(token: Token) -> anyhow::Result<ExitCode> {
    let Token::New(New { name, instances, scopes, json }) = token;
    let secret = random()?;
    let digest = digest(&secret);
    if json {
        let scopes: Vec<_> = scopes.iter().map(|scope| scope.name()).collect();
        let made = serde_json::json!({
            "name": name, "token": secret, "sha256": digest, "instances": instances, "scopes": scopes,
        });
        print(&format!("{made}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let quoted = |names: Vec<&str>| names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    println!("The token, shown this once:\n\n  {secret}\n\nThe configuration:\n");
    println!("[auth.tokens.{name}]");
    println!("sha256 = [\"{digest}\"]");
    println!("instances = [{}]", quoted(instances.iter().map(String::as_str).collect()));
    println!("scopes = [{}]", quoted(scopes.iter().map(|scope| scope.name()).collect()));
    Ok(ExitCode::SUCCESS)
}

/// A fresh token.
pub(super) fn random() -> anyhow::Result<String> {
    let mut bytes = [0; RANDOM_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(format!("cpb_{}", HEXLOWER.encode(&bytes)))
}

/// What the configuration holds of a token.
pub(super) fn digest(token: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(token.as_bytes()))
}

fn name(text: &str) -> Result<String, String> {
    let fits =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b));
    if fits { Ok(text.to_owned()) } else { Err("use a-z, 0-9, - and _".to_owned()) }
}

fn instance(text: &str) -> Result<String, String> {
    if text == EVERY_INSTANCE { Ok(text.to_owned()) } else { name(text) }
}

fn scope(text: &str) -> Result<Scope, String> {
    let names = || Scope::ALL.map(Scope::name).join(", ");
    Scope::ALL.into_iter().find(|scope| scope.name() == text).ok_or_else(|| format!("there are {}", names()))
}
