//! Single points of the language that the recorded expressions do not cover.

use std::cell::RefCell;
use std::time::Duration;

use invar_syntax::duration::{format_duration, parse_duration};
use invar_syntax::{
    ByteSize, EmptyScope, FromValue, MapScope, Number, Scope, Span, Type, Value, evaluate, evaluate_body,
    parse_expression, references,
};
use proptest::prelude::*;

use crate::conformance::run;
use crate::shapes::parse;

fn text(expression: &str) -> String {
    match run(expression) {
        Ok(Value::String(text)) => text.to_string(),
        other => panic!("{expression} is {other:?}"),
    }
}

fn expression(text: &str) -> invar_syntax::Expr {
    parse_expression(std::sync::Arc::new(invar_syntax::Source::new("expression", text))).unwrap()
}

#[test]
fn formats_like_go() {
    for (pattern, expected) in [
        ("\"%d\", \"x\"", "%!d(string=x)"),
        ("\"%s\", 3", "%!s(int=3)"),
        ("\"%s %s\", \"a\"", "a %!s(MISSING)"),
        ("\"a\", 1, \"b\", null", "a%!(EXTRA int=1, string=b, <nil>)"),
        ("\"%v %s\", null, null", "<nil> %!s(<nil>)"),
        ("\"%q %q\", \"a\\n\\\"\", 65", "\"a\\n\\\"\" 'A'"),
        ("\"%x %X %x\", \"hi\", 255, -255", "6869 FF -ff"),
        ("\"%t %v %d\", true, false, true", "true false %!d(bool=true)"),
        ("\"%v %v %v\", 1e6, 123456789.0, 0.00001", "1e+06 1.23456789e+08 1e-05"),
        ("\"%f %.1f %e %G\", 1.5, 2.25, 1500.0, 1e-10", "1.500000 2.2 1.500000e+03 1E-10"),
        ("\"%6.2f|%-8s|%8s|%08.3f\", 3.14159, \"a\", \"b\", -3.14159", "  3.14|a       |       b|-003.142"),
        ("\"%v %v\", [1, \"a\", [true]], {b = 1, a = [null]}", "[1 a [true]] map[a:[<nil>] b:1]"),
        ("\"%%|%c|%U|%b|%o|%O|%#o\", 9731, 9731, 5, 8, 8, 8", "%|☃|U+2603|101|10|0o10|010"),
        ("\"%T %T %T\", 1, 1.5, \"a\"", "int float64 string"),
        ("\"%*d|%-*d|\", 5, 1, 4, 2", "    1|2   |"),
        ("\"%[3]*.[2]*[1]f|\", 12.0, 2, 6", " 12.00|"),
        ("\"%\"", "%!(NOVERB)"),
        ("\"%[5]d\", 1", "%!d(BADINDEX)"),
        ("\"%.3s|%5.1s|\", \"abcdef\", \"xyz\"", "abc|    x|"),
        ("\"%x %X %b\", 1.5, -0.1, 1.5", "0x1.8p+00 -0X1.999999999999AP-04 6755399441055744p-52"),
        (
            "\"%#v %#v\", [1, \"a\", null], {k = [1.5]}",
            "[]interface {}{1, \"a\", interface {}(nil)} map[string]interface {}{\"k\":[]interface {}{1.5}}",
        ),
        ("\"%+d % d %+.1f\", 1, 2, 3.0", "+1  2 +3.0"),
    ] {
        assert_eq!(text(&format!("string.format({pattern})")), expected, "{pattern}");
    }
}

#[test]
fn reads_yaml_like_go() {
    let json = |yaml: &str| {
        let value = evaluate(
            &expression("encoding.from_yaml(text)"),
            &MapScope::new().with("text", Value::string(yaml)),
        );
        value.map(|value| invar_syntax::value_to_expression(&value)).map_err(|error| error.message)
    };
    for (yaml, expected) in [
        ("a: yes\nb: no\nc: on", "{a = \"yes\", b = \"no\", c = \"on\"}"),
        ("[010, 0o10, 0x1F, 0b11, 1_000, +5, -3]", "[8, 8, 31, 3, 1000, 5, -3]"),
        ("[1.5, .5, 1., 1e3, 12e03, \"1\", '2']", "[1.5, 0.5, 1, 1000, 12000, \"1\", \"2\"]"),
        ("[~, null, Null, nULL, '']", "[null, null, null, \"nULL\", \"\"]"),
        ("[1:30, 08, 0x, 1.2.3, --1]", "[\"1:30\", 8, \"0x\", \"1.2.3\", \"--1\"]"),
        ("- 2001-12-14t21:59:43.10-05:00\n- 2001-13-01", "[\"2001-12-14T21:59:43.1-05:00\", \"2001-13-01\"]"),
        ("base: &b {x: 1, y: 2}\nd:\n  <<: *b\n  y: 3", "{base = {x = 1, y = 2}, d = {x = 1, y = 3}}"),
        ("<<: [{a: 1}, {a: 2, b: 2}]", "{a = 1, b = 2}"),
        ("a: !!str 1\nb: !!float 2\nc: !!int \"3\"", "{a = \"1\", b = 2, c = 3}"),
        ("a: 1\n---\nb: 2", "{a = 1}"),
        ("a: |\n  x\n  y\nb: >\n  x\n  y", "{a = \"x\\ny\\n\", b = \"x y\\n\"}"),
    ] {
        assert_eq!(json(yaml).as_deref(), Ok(expected), "{yaml}");
    }
    for yaml in ["a: 1\na: 2", "1: a", "[a]: b", "a: *nope", "a: [", "&a [*a]", "a: !!int x"] {
        assert!(json(yaml).is_err(), "{yaml}: {:?}", json(yaml));
    }
}

#[test]
fn bounds_yaml_aliases_and_depth() {
    let mut laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12_u8 {
        let (name, before) = (char::from(b'a' + level), char::from(b'a' + level - 1));
        let aliases = vec![format!("*{before}"); 10].join(", ");
        laughs.push_str(&format!("{name}: &{name} [{aliases}]\n"));
    }
    let scope =
        MapScope::new().with("laughs", Value::string(laughs)).with("deep", Value::string("[".repeat(200)));
    let message = evaluate(&expression("encoding.from_yaml(laughs)"), &scope).unwrap_err().message;
    assert!(message.contains("more than 1000000 values"), "{message}");
    let message = evaluate(&expression("encoding.from_yaml(deep)"), &scope).unwrap_err().message;
    assert!(message.contains("nested"), "{message}");
}

#[test]
fn follows_json_paths() {
    let document = r#"{"a": [{"b": 1, "c": "x"}, {"b": 2, "c": "y"}], "d": {"e": null}, "k-k": 5}"#;
    let scope = MapScope::new().with("doc", Value::string(document));
    let found = |path: &str| {
        let call = format!("json_path(doc, {})", invar_syntax::expression_text::quote(path));
        invar_syntax::value_to_expression(&evaluate(&expression(&call), &scope).unwrap())
    };
    for (path, expected) in [
        ("$.a[*].b", "[1, 2]"),
        (".a[0].b", "[1]"),
        ("a[-1].c", "[\"y\"]"),
        ("$.a[0:1].b", "[1]"),
        ("$.a[::-1].b", "[]"),
        ("$.a[-1:-3:-1].b", "[2, 1]"),
        ("$.a[1:2:0].b", "[]"),
        ("$..b", "[1, 2]"),
        ("$.a[?(@.b > 1)].c", "[\"y\"]"),
        ("$.a[?(@.b == 1 || @.c == 'y')].b", "[1, 2]"),
        ("$.a[?(!(@.b == 1))].b", "[2]"),
        ("$.a[?(@.c =~ /^x$/)].b", "[1]"),
        ("$['k-k', 'd']", "[5, {e = null}]"),
        ("$.d.e", "[null]"),
        ("$.nope", "[]"),
        ("$.a[9]", "[]"),
    ] {
        assert_eq!(found(path), expected, "{path}");
    }
    for path in ["$.a[", "$.a[?(", "$x!", "$.a[?(@.b ==)]"] {
        let call = format!("json_path(doc, \"{path}\")");
        assert!(evaluate(&expression(&call), &scope).is_err(), "{path}");
    }
}

#[test]
fn reads_json_with_broken_surrogates() {
    let read = |json: &str| {
        let call = format!("encoding.from_json({})", invar_syntax::expression_text::quote(json));
        evaluate(&expression(&call), &EmptyScope)
    };
    assert_eq!(read(r#""\ud800x""#), Ok(Value::string("\u{fffd}x")));
    assert_eq!(read(r#""\ud83d\ude00\udc00""#), Ok(Value::string("😀\u{fffd}")));
    assert!(read(r#""\\ud800" 1"#).is_err());
}

#[test]
fn joins_only_by_simple_values() {
    assert!(run("array.combine_maps([{a = [1]}], [{a = [1]}], [\"a\"])").is_err());
    assert_eq!(
        run("array.combine_maps([{a = 1, b = 2}], [{a = 2}], [\"a\"], true)"),
        run("[{a = 1, b = 2}]")
    );
    assert_eq!(run("string.join(null, \"\")"), Ok(Value::string("")));
}

#[test]
fn integers_stay_exact_and_powers_end() {
    assert_eq!(run("9223372036854775807 + 1"), Ok(Value::Number(Number::Uint(1 << 63))));
    assert!(run("2 ^ 9223372036854775807").is_err());
    assert_eq!(run("1 ^ 9223372036854775807"), Ok(Value::from(1_i64)));
    assert!(i32::from_value(&Value::from(3_000_000_000_i64)).is_err());
    assert!(u32::from_value(&Value::from(-1_i64)).is_err());
    assert_eq!(i64::from_value(&Value::from(-1.9)), Ok(-1));
    assert_eq!(String::from_value(&Value::from(1e21)), Ok("1000000000000000000000".to_owned()));
}

#[test]
fn points_at_what_is_wrong() {
    let source = "1 + string.join([\"a\", true], 2 * nope)";
    let error = evaluate(&expression(source), &EmptyScope).unwrap_err();
    assert_eq!(&source[error.span.start as usize..error.span.end as usize], "nope");
    let error = evaluate(&expression("strin.join([], \"\")"), &EmptyScope).unwrap_err();
    assert_eq!(error.help.as_deref(), Some("did you mean \"string\"?"));
    let body = parse("a = nope\nb = 1\nc {\n  d = nope2\n}\n").body;
    assert_eq!(evaluate_body(&body, &EmptyScope).unwrap_err().len(), 2);
}

#[test]
fn unknown_values_make_unknown_results() {
    let scope = MapScope::new().with("u", Value::Unknown(Type::list(Type::String)));
    for (text, expected) in [
        ("u[0]", Type::String),
        ("u[0] + \"x\"", Type::Any),
        ("string.join(u, \",\")", Type::String),
        ("string.format(\"%v\", {a = [u]})", Type::String),
        ("u == []", Type::Bool),
        ("-u[0]", Type::Number),
        ("u.a", Type::Any),
    ] {
        assert_eq!(evaluate(&expression(text), &scope), Ok(Value::Unknown(expected)), "{text}");
    }
    assert!(evaluate_body(&parse("a = [1, u]\n").body, &scope).unwrap().has_unknown());
}

#[test]
fn tells_of_deprecated_functions() {
    struct Recorder(RefCell<Vec<String>>);
    impl Scope for Recorder {
        fn resolve(&self, _path: &[&str]) -> Option<(Value, usize)> {
            None
        }

        fn deprecated(&self, name: &str, instead: &str, _span: Span) {
            self.0.borrow_mut().push(format!("{name} {instead}"));
        }
    }
    let recorder = Recorder(RefCell::default());
    evaluate(&expression("join([to_upper(\"a\")], \"\") + string.trim(\"a\", \"\")"), &recorder).unwrap();
    assert_eq!(recorder.0.into_inner(), ["join string.join", "to_upper string.to_upper"]);
}

#[test]
fn finds_references() {
    let body = parse("a = [x.y.z, f(x.w)[i].k]\nb {\n  c = {d = -m || n.o}\n}\n").body;
    let found: Vec<String> = references(&body).iter().map(|reference| reference.path.join(".")).collect();
    assert_eq!(found, ["x.y.z", "f", "x.w", "i", "m", "n.o"]);
}

#[test]
fn evaluates_the_highest_trees() {
    let sum = format!("1{}", " + 1".repeat(490));
    assert_eq!(evaluate(&expression(&sum), &EmptyScope), Ok(Value::from(491_i64)));
    let nested = format!("{}1{}", "[".repeat(190), "]".repeat(190));
    evaluate(&expression(&nested), &EmptyScope).unwrap();
}

#[test]
fn reads_sizes() {
    for (text, bytes) in
        [("0", 0), ("10B", 10), ("1.5KiB", 1536), ("1MiB512KiB", 1_572_864), ("1KB", 1024), ("+2GB", 2 << 30)]
    {
        assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
    }
    for text in ["", "10", "1kB", "1KiB1KB", "-1B", "99999999EiB", "B", "1.2.3B"] {
        assert!(text.parse::<ByteSize>().is_err(), "{text}");
    }
    assert_eq!(ByteSize(1_572_864).to_string(), "1MiB512KiB");
}

#[test]
fn reads_durations() {
    for (text, nanoseconds) in [
        ("0", 0),
        ("1h30m", 5_400_000_000_000),
        ("1.5s", 1_500_000_000),
        (".5ms", 500_000),
        ("+1us", 1000),
        ("2µs", 2000),
    ] {
        assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
    }
    for text in ["", "1", "1d", "s", "-1s", "1s ", "1..s", "999999999h", "+-1s", ".s"] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
    for (nanoseconds, text) in
        [(0, "0s"), (60_000_000_000, "1m0s"), (1_500_000, "1.5ms"), (3_600_000_000_000, "1h0m0s")]
    {
        assert_eq!(format_duration(Duration::from_nanos(nanoseconds)), text);
    }
}

proptest! {
    #[test]
    fn durations_survive_printing(nanoseconds in 0..i64::MAX as u64) {
        let duration = Duration::from_nanos(nanoseconds);
        prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
    }

    #[test]
    fn sizes_survive_printing(bytes in 0..i64::MAX as u64) {
        prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
    }

    #[test]
    fn decoders_refuse_or_accept_any_text(input in ".{0,80}", path in ".{0,30}") {
        let scope = MapScope::new().with("input", Value::string(input)).with("path", Value::string(path));
        for text in [
            "encoding.from_yaml(input)", "encoding.from_json(input)", "json_path(\"{}\", path)", "string.format(input, 1, \"a\")",
            "encoding.url_decode(input)", "encoding.from_base64(input)", "file.path_join(input, path)", "sys.env(input)",
        ] {
            // Whatever the answer, there is one.
            let answer = evaluate(&expression(text), &scope);
            prop_assert!(answer.is_ok() || answer.is_err_and(|error| !error.message.is_empty()));
        }
    }

    #[test]
    fn expressions_read_back(input in ".{0,40}", number in any::<i64>(), float in -1e300..1e300_f64) {
        let value = Value::object([
            (input.clone(), Value::Null),
            ("n".to_owned(), Value::array([Value::from(number), Value::from(float), Value::string(input)])),
        ]);
        // Keys in quotes are not unescaped by the language, so only plain ones read back.
        if let Value::Object(object) = &value
            && object.keys().all(|key| invar_syntax::lexer::is_identifier(key))
        {
            let printed = invar_syntax::value_to_expression(&value);
            prop_assert_eq!(evaluate(&expression(&printed), &EmptyScope), Ok(value));
        }
    }
}
