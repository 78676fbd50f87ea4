#![no_main]

#[path = "../properties/native.rs"]
mod native;

libfuzzer_sys::fuzz_target!(|data: &[u8]| native::check(data));
