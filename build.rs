//! Tells the program its version, and prepares what it carries: the documents of its API, and the library that shows them.

#![allow(clippy::print_stdout, reason = "a build script speaks to cargo so")]

#[path = "build/version.rs"]
mod version;

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Cursor};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;
use zip::result::ZipError;

/// The committed documents, which a test holds to the code.
const DOCUMENTS: [&str; 4] = ["openapi.json", "openapi.yaml", "openapi-3.2.json", "asyncapi.json"];

/// The files of the API browser's library that its page uses: two of eight.
const LIBRARY: [&str; 2] = ["swagger-ui-bundle.js", "swagger-ui.css"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    version::tell();
    let folder = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    let folder = Path::new(&folder);
    unpack_library(folder)?;
    carry_documents(folder)
}

/// Writes each of [`DOCUMENTS`] to `folder`, compressed, and of each route what a running bridge checks requests by.
fn carry_documents(folder: &Path) -> Result<(), Box<dyn Error>> {
    for name in DOCUMENTS {
        let path = Path::new("openapi").join(name);
        println!("cargo::rerun-if-changed={}", path.display());
        let committed = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        compress(committed, &folder.join(format!("{name}.gz")))?;
    }
    let document: Value = serde_json::from_reader(io::BufReader::new(File::open("openapi/openapi.json")?))?;
    let paths = document.get("paths").and_then(Value::as_object).ok_or("openapi.json has no paths")?;
    let routes: BTreeMap<_, _> = paths.iter().map(|(path, item)| (path, methods(item))).collect();
    Ok(fs::write(folder.join("routes.json"), serde_json::to_string(&routes)?)?)
}

/// The methods of a path, each with the names that it takes in the query.
fn methods(item: &Value) -> BTreeMap<String, Vec<&str>> {
    let operations = item.as_object().into_iter().flatten().filter(|(_, value)| value.get("responses").is_some());
    operations.map(|(method, operation)| (method.to_uppercase(), query_names(operation))).collect()
}

fn query_names(operation: &Value) -> Vec<&str> {
    let parameters = operation.get("parameters").and_then(Value::as_array).into_iter().flatten();
    let of_query = parameters.filter(|parameter| parameter.get("in").is_some_and(|place| place == "query"));
    of_query.filter_map(|parameter| parameter.get("name")?.as_str()).collect()
}

/// Writes each file of [`LIBRARY`] to `folder`, compressed.
fn unpack_library(folder: &Path) -> Result<(), Box<dyn Error>> {
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))?;
    let paths = archive.file_names().map(|path| Ok(path?.into_owned())).collect::<Result<Vec<_>, ZipError>>()?;
    for name in LIBRARY {
        let file = format!("/dist/{name}");
        let path = paths.iter().find(|path| path.ends_with(&file)).ok_or(name)?;
        compress(archive.by_name(path)?, &folder.join(format!("{name}.gz")))?;
    }
    Ok(())
}

fn compress(mut plain: impl io::Read, path: &Path) -> io::Result<()> {
    let mut encoder = GzEncoder::new(File::create(path)?, Compression::best());
    io::copy(&mut plain, &mut encoder)?;
    encoder.finish()?;
    Ok(())
}
