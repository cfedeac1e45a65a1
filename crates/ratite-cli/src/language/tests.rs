//! The language as a whole, with a schema as QEMU writes them.

use proptest::prelude::*;
use ratite::qmp::Schema;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::language::Mistake;
use crate::language::Reader;
use crate::language::Request;
use crate::language::complete;
use crate::language::split;

fn schema() -> Schema {
    let object =
        |name: &str, members: Value| json!({ "name": name, "meta-type": "object", "members": members });
    let command = |name: &str, arguments: &str| json!({ "name": name, "meta-type": "command", "arg-type": arguments, "ret-type": "0" });
    serde_json::from_value(json!([
        command("query-status", "0"),
        command("query-stats", "0"),
        command("blockdev-add", "1"),
        command("device_add", "3"),
        command("qom-set", "6"),
        command("block-latency", "7"),
        command("transaction", "10"),
        object("0", json!([])),
        { "name": "1", "meta-type": "object", "tag": "driver", "members": [
            { "name": "driver", "type": "2" }, { "name": "node-name", "type": "str", "default": null },
            { "name": "read-only", "type": "bool", "default": null },
            { "name": "cache", "type": "8", "default": null } ],
          "variants": [ { "case": "file", "type": "4" }, { "case": "qcow2", "type": "9" },
                        { "case": "null-co", "type": "0" } ] },
        { "name": "2", "meta-type": "enum", "values": ["file", "null-co", "qcow2"] },
        object("3", json!([{ "name": "driver", "type": "str" }, { "name": "id", "type": "str", "default": null }])),
        object("4", json!([{ "name": "filename", "type": "str" }, { "name": "size", "type": "int", "default": null }])),
        { "name": "5", "meta-type": "alternate", "members": [{ "type": "1" }, { "type": "str" }, { "type": "null" }] },
        object("6", json!([{ "name": "path", "type": "str" }, { "name": "property", "type": "str" },
                           { "name": "value", "type": "any" }])),
        object("7", json!([{ "name": "id", "type": "str" }, { "name": "boundaries", "type": "[int]", "default": null },
                           { "name": "factor", "type": "number", "default": null },
                           { "name": "devices", "type": "[4]", "default": null }])),
        object("8", json!([{ "name": "direct", "type": "bool", "default": null }])),
        object("9", json!([{ "name": "file", "type": "5" }, { "name": "backing", "type": "5", "default": null }])),
        object("10", json!([{ "name": "actions", "type": "[11]" }])),
        { "name": "11", "meta-type": "object", "tag": "type", "members": [{ "name": "type", "type": "12" }],
          "variants": [{ "case": "abort", "type": "13" }, { "case": "blockdev-add", "type": "14" }] },
        { "name": "12", "meta-type": "enum", "values": ["abort", "blockdev-add"] },
        object("13", json!([{ "name": "data", "type": "0" }])),
        object("14", json!([{ "name": "data", "type": "4" }])),
        { "name": "[int]", "meta-type": "array", "element-type": "int" },
        { "name": "[4]", "meta-type": "array", "element-type": "4" },
        { "name": "[11]", "meta-type": "array", "element-type": "11" },
        { "name": "str", "meta-type": "builtin" }, { "name": "int", "meta-type": "builtin" },
        { "name": "number", "meta-type": "builtin" }, { "name": "bool", "meta-type": "builtin" },
        { "name": "null", "meta-type": "builtin" }, { "name": "any", "meta-type": "builtin" },
    ]))
    .unwrap()
}

fn read(line: &str, schema: Option<&Schema>, is_strict: bool) -> Result<Request, Mistake> {
    let words = split(line)?;
    let (name, arguments) = words.split_first().unwrap();
    Reader { schema, is_strict }.request(name, arguments)
}

#[track_caller]
fn check_guess(line: &str, expected: Value) {
    let request = read(line, None, true).unwrap();
    assert_eq!(Value::Object(request.arguments), expected, "{line}");
}

#[track_caller]
fn check(line: &str, expected: Value) {
    let schema = schema();
    let request = read(line, Some(&schema), true).unwrap();
    assert_eq!(Value::Object(request.arguments), expected, "{line}");
}

#[track_caller]
fn check_mistake(line: &str, expected: &str) {
    let schema = schema();
    assert_eq!(read(line, Some(&schema), true).unwrap_err().to_string(), expected, "{line}");
}

#[test]
fn without_a_schema_values_are_guessed() {
    check_guess("x", json!({}));
    check_guess("x a=5 b=-7 c=007", json!({"a": 5, "b": -7, "c": 7}));
    check_guess("x a=true b=FALSE c=True", json!({"a": true, "b": false, "c": true}));
    check_guess("x a=text b=", json!({"a": "text", "b": ""}));
    check_guess(r#"x a={"b":[1,"two"]} b=[1,2]"#, json!({"a": {"b": [1, "two"]}, "b": [1, 2]}));
    check_guess("x a={'b':True,'c':null,'d':'e'}", json!({"a": {"b": true, "c": null, "d": "e"}}));
    check_guess(r#"x {"a": 1}"#, json!({"a": 1}));
}

#[test]
fn null_fractions_and_hex_are_no_strings() {
    check_guess("x a=null b=1.5 c=0x10", json!({"a": null, "b": 1.5, "c": 16}));
}

#[test]
fn quotes_group_and_are_no_part_of_the_value() {
    check_guess(r#"x command-line="info version""#, json!({"command-line": "info version"}));
    check_guess("x a='5' b=\"true\" c='null'", json!({"a": "5", "b": "true", "c": "null"}));
    check_guess(r#"x a='{"b": 1}'"#, json!({"a": "{\"b\": 1}"}));
}

#[test]
fn dotted_keys_nest_where_they_say() {
    check_guess("x a.b.c=1 a.d=true", json!({"a": {"b": {"c": 1}, "d": true}}));
    check_guess("x a.b=1 c=2 a.d=3", json!({"a": {"b": 1, "d": 3}, "c": 2}));
    check_guess("x a.1.x=2 a.0.x=1", json!({"a": [{"x": 1}, {"x": 2}]}));
    check_guess(r#"x a={"0":1}"#, json!({"a": {"0": 1}}));
}

#[test]
fn keys_that_contradict_each_other_are_named() {
    check_mistake(
        "x a",
        "`a` has no `=`; an argument is written `key=value`, or all of them as one object in JSON",
    );
    check_mistake("x a=1 a=2", "`a=` is given twice");
    check_mistake("x a.b=1 a.b=2", "`a.b=` is given twice");
    check_mistake("x a.b=1 a=2", "`a=` is given, and `a.…=`, too");
    check_mistake("x a=1 a.b=2", "`a=` is given, and `a.b=`, too");
    check_mistake("x a.b=1 a.b.c=2", "`a.b=` is given, and `a.b.c=`, too");
    check_mistake("x a..b=1", "`a..b=` has an empty name");
    check_mistake("x =1", "`=` has an empty name");
    check_mistake(
        "qom-set value=[1,b]",
        "`[1,b]` for `value` is no JSON: expected a value at column 4, `b]`; in quotes it is text",
    );
}

#[test]
fn the_schema_says_what_a_value_is() {
    check("device_add driver=007 id=5", json!({"driver": "007", "id": "5"}));
    check(
        "qom-set path=/machine property=true value=true",
        json!({"path": "/machine", "property": "true", "value": true}),
    );
    check("block-latency id=[a] factor=2", json!({"id": "[a]", "factor": 2}));
    check(
        "block-latency id=x factor=0.5 boundaries=[1,0x10]",
        json!({"id": "x", "factor": 0.5, "boundaries": [1, 16]}),
    );
    check("block-latency id=x boundaries.1=7 boundaries.0=5", json!({"id": "x", "boundaries": [5, 7]}));
    check("block-latency id=x devices.0.filename=1", json!({"id": "x", "devices": [{"filename": "1"}]}));
    check(
        "blockdev-add filename=8 driver=file size=0x200",
        json!({"driver": "file", "filename": "8", "size": 512}),
    );
    check(
        "blockdev-add driver=null-co cache.direct=TRUE",
        json!({"driver": "null-co", "cache": {"direct": true}}),
    );
}

#[test]
fn an_alternate_takes_what_the_value_looks_like() {
    check(
        "blockdev-add driver=qcow2 file=a backing=null",
        json!({"driver": "qcow2", "file": "a", "backing": null}),
    );
    check("blockdev-add driver=qcow2 file='null'", json!({"driver": "qcow2", "file": "null"}));
    check(
        "blockdev-add driver=qcow2 file.driver=file file.filename=5",
        json!({"driver": "qcow2", "file": {"driver": "file", "filename": "5"}}),
    );
    check(
        r#"blockdev-add driver=qcow2 file={"driver": "null-co"}"#,
        json!({"driver": "qcow2", "file": {"driver": "null-co"}}),
    );
}

#[test]
fn devices_take_more_than_the_schema_tells() {
    check(
        "device_add driver=e1000 mac=52:54:00:12:34:56 addr=0x5 multifunction=true",
        json!({"driver": "e1000", "mac": "52:54:00:12:34:56", "addr": 5, "multifunction": true}),
    );
}

#[test]
fn what_this_qemu_does_not_know_is_named_with_the_nearest() {
    check_mistake("query-sttus", "this QEMU has no command `query-sttus`; did you mean `query-status`?");
    check_mistake("query-status x=1", "`query-status` takes no argument, and is given `x`");
    check_mistake("qom-set pth=1", "`qom-set` has no argument `pth`; did you mean `path`?");
    check_mistake("blockdev-add driver=fil", "`driver` has no value `fil`; did you mean `file`?");
    check_mistake("blockdev-add driver=x", "`driver` has no value `x`; there is `file`, `null-co`, `qcow2`");
    check_mistake(
        "blockdev-add driver=null-co filename=x",
        "`filename` does not go with `driver=null-co`; there is `cache`, `driver`, `node-name`, `read-only`",
    );
    check_mistake(
        "blockdev-add filenam=x",
        "`blockdev-add` has no argument `filenam`; did you mean `filename`?",
    );
    check_mistake(
        "blockdev-add driver=null-co cache.dirct=true",
        "`blockdev-add` has no argument `cache.dirct`; did you mean `direct`?",
    );
    check_mistake(
        r#"blockdev-add {"driver": "null-co", "cache": {"dirct": true}}"#,
        "`blockdev-add` has no argument `cache.dirct`; did you mean `direct`?",
    );
}

#[test]
fn what_is_missing_or_of_another_type_is_named() {
    check_mistake(
        "blockdev-add driver=file",
        "`blockdev-add` needs the argument `filename`; it takes string",
    );
    check_mistake(
        "blockdev-add filename=x",
        "`blockdev-add` needs the argument `driver`; it takes file | null-co | qcow2",
    );
    check_mistake(
        "blockdev-add driver=qcow2 file.driver=file",
        "`file.filename` is missing in `blockdev-add`; it takes string",
    );
    check_mistake("blockdev-add driver=file filename=x size=big", "`size` takes integer, not `big`");
    check_mistake(
        "blockdev-add driver=null-co cache=on",
        "`cache` takes object, not `on`; `cache.name=value` gives one of its members",
    );
    check_mistake(
        "block-latency id=x boundaries=5",
        "`boundaries` takes list of integer, not `5`; `boundaries=[…]` is a list in JSON",
    );
    check_mistake(r#"block-latency id=x boundaries=[1,"a"]"#, "`boundaries.1` takes integer, not `\"a\"`");
    check_mistake(r#"block-latency {"id": 5}"#, "`id` takes string, not `5`");
    check_mistake(
        "blockdev-add driver=null-co read-only=maybe",
        "`read-only` takes true | false, not `maybe`",
    );
}

#[test]
fn without_checks_the_schema_still_tells_the_types() {
    let schema = schema();
    let arguments = |line| Value::Object(read(line, Some(&schema), false).unwrap().arguments);

    assert_eq!(arguments("device_add id=5 x=5"), json!({"id": "5", "x": 5}));
    assert_eq!(arguments("blockdev-add driver=new filename=7"), json!({"driver": "new", "filename": 7}));
    assert_eq!(arguments("no-such a=1 b.c=x"), json!({"a": 1, "b": {"c": "x"}}));
}

#[test]
fn an_action_of_a_transaction_is_read_by_its_own_type() {
    let schema = schema();
    let reader = Reader { schema: Some(&schema), is_strict: true };
    let action = |line: &str| {
        let words = split(line).unwrap();
        reader.action(&words[0], &words[1..]).map(|request| Value::Object(request.arguments))
    };

    assert_eq!(action("blockdev-add filename=5 size=6"), Ok(json!({"filename": "5", "size": 6})));
    assert_eq!(action("abort"), Ok(json!({})));
    assert_eq!(
        action("abrt").unwrap_err().to_string(),
        "`abrt` cannot be a part of a transaction; did you mean `abort`?"
    );
    assert_eq!(action("blockdev-add").unwrap_err().what, "`blockdev-add` needs the argument `filename`");
}

#[track_caller]
fn check_completion(line: &str, start: usize, expected: &[&str]) {
    check_completion_in(line, false, start, expected);
}

#[track_caller]
fn check_completion_in(line: &str, in_transaction: bool, start: usize, expected: &[&str]) {
    let schema = schema();
    let completion = complete(line, Some(&schema), &[], in_transaction);
    let texts: Vec<_> = completion.candidates.iter().map(|candidate| candidate.text.as_str()).collect();
    assert_eq!((completion.start, texts.as_slice()), (start, expected), "{line}");
}

#[test]
fn commands_arguments_and_values_are_completed() {
    check_completion("query", 0, &["query-stats ", "query-status "]);
    check_completion("  qom", 2, &["qom-set "]);
    check_completion("help block", 5, &["block-latency ", "blockdev-add "]);
    check_completion("ex", 0, &["exit "]);
    check_completion("blockdev-add ", 13, &["driver=", "cache.", "node-name=", "read-only="]);
    check_completion("blockdev-add driver=", 20, &["file ", "null-co ", "qcow2 "]);
    check_completion("blockdev-add driver=n", 20, &["null-co "]);
    check_completion("blockdev-add driver=file f", 25, &["filename="]);
    check_completion("blockdev-add driver=null-co f", 28, &[]);
    check_completion("blockdev-add read-only=", 23, &["true ", "false "]);
    check_completion("blockdev-add cache.", 19, &["direct="]);
    check_completion("blockdev-add cache.direct=t", 26, &["true "]);
    check_completion("blockdev-add driver=qcow2 file.driver=file file.fi", 48, &["filename="]);
    check_completion("blockdev-add driver=qcow2 backing=", 34, &["null "]);
    check_completion("block-latency id='a b' bo", 23, &["boundaries="]);
}

#[test]
fn a_transaction_completes_its_actions() {
    check_completion_in("", true, 0, &["abort ", "blockdev-add ", ") "]);
    check_completion_in("blockdev-add f", true, 13, &["filename="]);
    check_completion("transaction( ab", 13, &["abort "]);
}

#[test]
fn where_nothing_is_known_nothing_is_offered() {
    check_completion("no-such x", 0, &[]);
    check_completion("block-latency id='a ", 0, &[]);
    check_completion("block-latency boundaries=[1, ", 0, &[]);
    let names = ["guest-ping".to_owned()];
    assert_eq!(complete("guest-p", None, &names, false).candidates[0].text, "guest-ping ");
}

/// How somebody could have written these arguments.
fn written(name: &str, arguments: &Map<String, Value>) -> String {
    let words = arguments.iter().flat_map(|(key, value)| written_value(key, value));
    [name.to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

fn written_value(key: &str, value: &Value) -> Vec<String> {
    match value {
        Value::Object(members) if !members.is_empty() => {
            members.iter().flat_map(|(name, value)| written_value(&format!("{key}.{name}"), value)).collect()
        }
        Value::String(text) => {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            vec![format!("{key}=\"{escaped}\"")]
        }
        value => vec![format!("{key}={value}")],
    }
}

fn values() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e6..1e6_f64).prop_map(Value::from),
        "[^\\x00]{0,12}".prop_map(Value::String),
    ];
    scalar.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            members(inner).prop_map(Value::Object),
        ]
    })
}

fn members(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map("[a-z][a-z0-9-]{0,8}", value, 0..4)
        .prop_map(|members| members.into_iter().collect())
}

proptest! {
    #[test]
    fn what_is_written_out_is_read_back(arguments in members(values())) {
        let line = written("x", &arguments);

        let request = read(&line, None, true).unwrap();

        prop_assert_eq!(request.name, "x");
        prop_assert_eq!(request.arguments, arguments, "{}", line);
    }

    #[test]
    fn no_line_makes_it_panic(line in "\\PC{0,60}|[a-c=.{}\\[\\]\"'\\\\ ,:0-9]{0,40}") {
        let schema = schema();
        let _completion = complete(&line, Some(&schema), &[], false);
        let Ok(words) = split(&line) else { return Ok(()) };
        if let Some((name, arguments)) = words.split_first() {
            let _read = Reader { schema: None, is_strict: true }.request(name, arguments);
            let _read = Reader { schema: Some(&schema), is_strict: true }.request(name, arguments);
        }
    }
}
