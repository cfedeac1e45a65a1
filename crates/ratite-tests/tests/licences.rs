//! Proves that everything linked into ratite has a licence that `deny.toml` allows.
//!
//! `cargo deny` does the same and more, but has to be installed; this needs nothing.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use spdx::Expression;
use spdx::Licensee;
use spdx::ParseMode;

#[test]
fn every_dependency_has_an_allowed_licence() {
    let allowed = allowed_licences(&read("deny.toml"));

    let faults: Vec<String> = packages()
        .iter()
        .filter(|package| !package["source"].is_null())
        .filter_map(|package| fault(name(package), package["license"].as_str(), &allowed))
        .collect();

    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_crate_of_ours_is_mit_or_apache() {
    for package in packages().iter().filter(|package| package["source"].is_null()) {
        assert_eq!(package["license"], "MIT OR Apache-2.0", "the licence of {}", name(package));
    }
    assert!(read("LICENSE-MIT").contains("Permission is hereby granted, free of charge"));
    assert!(read("LICENSE-APACHE").contains("Version 2.0, January 2004"));
}

#[test]
fn one_allowed_licence_of_several_is_enough() {
    let allowed = allowed_licences(r#"licenses.allow = ["MIT", "Apache-2.0 WITH LLVM-exception"]"#);

    for licence in [
        "MIT",
        "MIT OR GPL-3.0-only",
        "GPL-3.0-only/MIT",
        "(GPL-3.0-only OR MIT) AND Apache-2.0 WITH LLVM-exception",
    ] {
        assert_eq!(fault("sample", Some(licence), &allowed), None);
    }
}

#[test]
fn a_licence_that_is_not_allowed_is_named_with_its_crate() {
    let allowed = allowed_licences(r#"licenses.allow = ["MIT", "Apache-2.0 WITH LLVM-exception"]"#);

    for licence in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "Apache-2.0"] {
        let fault = fault("sample", Some(licence), &allowed);

        assert_eq!(fault, Some(format!("sample: `{licence}` is not allowed by deny.toml")));
    }
    assert!(fault("sample", None, &allowed).is_some_and(|fault| fault.contains("states no licence")));
    assert!(fault("sample", Some("My Own"), &allowed).is_some_and(|fault| fault.contains("cannot be read")));
}

/// Says what is wrong with the licence of one crate, if anything is.
fn fault(name: &str, licence: Option<&str>, allowed: &[Licensee]) -> Option<String> {
    let Some(licence) = licence else {
        return Some(format!("{name}: states no licence"));
    };
    // Lax, because old crates write `MIT/Apache-2.0`.
    let expression = match Expression::parse_mode(licence, ParseMode::LAX) {
        Ok(expression) => expression,
        Err(error) => return Some(format!("{name}: `{licence}` cannot be read: {}", error.reason)),
    };
    let satisfied = expression.evaluate(|wanted| allowed.iter().any(|licensee| licensee.satisfies(wanted)));
    (!satisfied).then(|| format!("{name}: `{licence}` is not allowed by deny.toml"))
}

fn allowed_licences(deny_toml: &str) -> Vec<Licensee> {
    let deny: toml::Table = deny_toml.parse().expect("deny.toml is TOML");
    deny["licenses"]["allow"]
        .as_array()
        .expect("`licenses.allow` is an array")
        .iter()
        .map(|licence| licence.as_str().expect("a licence is a string"))
        .map(|licence| Licensee::parse(licence).expect("a licence is an SPDX identifier"))
        .collect()
}

/// Every package that is built for this system, ours and others'.
fn packages() -> Vec<Value> {
    // Without the filter, cargo would want the crates of systems that nobody builds for here.
    let output = cargo(&["metadata", "--format-version", "1", "--locked", "--filter-platform", &host()]);
    let mut metadata: Value = serde_json::from_str(&output).expect("cargo's metadata is JSON");
    match metadata["packages"].take() {
        Value::Array(packages) => packages,
        other => panic!("`packages` is an array, not {other}"),
    }
}

fn host() -> String {
    let version = cargo(&["--version", "--verbose"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("cargo names its host").to_owned()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo, which runs this test, can be run");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`cargo {}`: {}\n{errors}", arguments.join(" "), output.status);
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

fn name(package: &Value) -> &str {
    package["name"].as_str().expect("a package has a name")
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
