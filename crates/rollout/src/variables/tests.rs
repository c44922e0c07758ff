//! Layers in, values and findings out.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use invar_syntax::Severity;
use invar_syntax::value::Value;
use proptest::prelude::*;

use super::*;
use crate::compose::ComposedFile;

fn layers(files: &[(&str, &[u8])]) -> VariableLayers {
    let file = |(path, content): &(&str, &[u8])| ComposedFile {
        name: (*path).to_owned(),
        source: "fleet".to_owned(),
        path: (*path).to_owned(),
        content: Bytes::copy_from_slice(content),
    };
    VariableLayers {
        files: files.iter().map(file).collect(),
        searched: files.iter().map(|(path, _)| (*path).to_owned()).collect(),
    }
}

fn read(files: &[(&str, &str)]) -> Variables {
    let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
    let (variables, diagnostics) = read_variables(&layers(&files));
    assert!(diagnostics.is_empty(), "{diagnostics}");
    variables
}

fn findings(files: &[(&str, &[u8])]) -> Vec<String> {
    let (_, diagnostics) = read_variables(&layers(files));
    diagnostics.iter().map(|diagnostic| format!("{} {diagnostic}", diagnostic.code)).collect()
}

fn value(variables: &Variables, path: &str) -> Value {
    variables.get(&path.split('.').collect::<Vec<_>>()).unwrap()
}

const BASE: &str = "base/variables.toml";
const TOP: &str = "environments/production/variables.toml";

#[test]
fn types_are_kept() {
    let text = "text = '1'\nwhole = 9007199254740993\nlarge = 18_446_744_073_709_551_615\nhexadecimal = 0xFF\n\
                real = 1.5\nflag = true\nlist = [1, 'a', [true]]\n[table]\n\"app.name\" = 'x'\ninline = { a = 1 }\n";
    let variables = read(&[(BASE, text)]);
    assert_eq!(value(&variables, "text"), Value::from("1"));
    assert_eq!(value(&variables, "whole"), Value::from(9_007_199_254_740_993_i64));
    assert_eq!(value(&variables, "large"), Value::Number(u64::MAX.into()));
    assert_eq!(value(&variables, "hexadecimal"), Value::from(255));
    assert_eq!(value(&variables, "real"), Value::from(1.5));
    assert_eq!(value(&variables, "flag"), Value::from(true));
    let inner = Value::array([Value::from(true)]);
    assert_eq!(value(&variables, "list"), Value::array([Value::from(1), Value::from("a"), inner]));
    assert_eq!(variables.get(&["table", "app.name"]), Some(Value::from("x")));
    assert_eq!(value(&variables, "table.inline.a"), Value::from(1));
}

#[test]
fn later_layers_override_by_key() {
    let variables = read(&[
        (BASE, "interval = '60s'\nlist = [1, 2]\n[labels]\nteam = 'a'\nzone = 'x'\n"),
        (TOP, "interval = '15s'\nlist = [3]\n[labels]\nzone = 'y'\nnew = 'z'\n"),
    ]);
    assert_eq!(value(&variables, "interval"), Value::from("15s"));
    assert_eq!(value(&variables, "list"), Value::array([Value::from(3)]));
    let labels = [("new", "z"), ("team", "a"), ("zone", "y")];
    assert_eq!(
        value(&variables, "labels"),
        Value::object(labels.map(|(name, text)| (name, Value::from(text))))
    );
}

#[test]
fn every_value_knows_where_it_was_written() {
    let variables =
        read(&[(BASE, "\ninterval = '60s'\n[db]\nhost = 'a'\n"), (TOP, "db.host = 'b'\ninterval = '15s'\n")]);
    let told = |path: &[&str]| -> Vec<String> {
        let definitions = variables.definitions(path).iter();
        definitions.map(|place| format!("{} {} {}", place.layer, place.location(), place.text())).collect()
    };
    assert_eq!(
        told(&["interval"]),
        [
            "base base/variables.toml:2:1 '60s'",
            "environments/production environments/production/variables.toml:2:1 '15s'"
        ]
    );
    assert_eq!(
        told(&["db", "host"]),
        [
            "base base/variables.toml:4:1 'a'",
            "environments/production environments/production/variables.toml:1:4 'b'"
        ]
    );
    assert_eq!(variables.definitions(&["db"]).len(), 2);
    assert_eq!(variables.definitions(&["nothing"]), []);
}

#[test]
fn a_byte_order_mark_moves_nothing() {
    let variables = read(&[(BASE, "\u{feff}a = 'x'\nb = 'y'\r\n")]);
    assert_eq!(variables.definitions(&["a"])[0].text(), "'x'");
    assert_eq!(variables.definitions(&["b"])[0].text(), "'y'");
}

#[test]
fn bad_files_are_told_with_their_places() {
    let cases: [(&[u8], &str); 12] = [
        (b"a = 1\nb = = 2\n", "E301 base/variables.toml:2:5: this is not TOML"),
        (b"a = 1\na = 2\n", "E301 base/variables.toml:2:1: this is not TOML: duplicate key"),
        (b"a = 'x", "E301 base/variables.toml:1:"),
        (b"a = 'x'\nb = '\xff'\n", "E009 base/variables.toml:2:6: invalid UTF-8"),
        (b"\xff\xfea", "E009 base/variables.toml:1:1: configuration is encoded with UTF-16LE"),
        (
            b"scrape-interval = 1\n",
            "E302 base/variables.toml:1:1: \"scrape-interval\" cannot be used as var.NAME",
        ),
        (b"true = 1\n", "E302 base/variables.toml:1:1: \"true\" cannot be used"),
        (b"[append]\nx = [1]\n", "E302 base/variables.toml:1:2: the name \"append\" is reserved"),
        (b"a = [1979-05-27T07:32:00Z]\n", "E303 base/variables.toml:1:6: the language has no type for dates"),
        (
            b"a = 99999999999999999999\n",
            "E303 base/variables.toml:1:5: 99999999999999999999 does not fit 64 bits",
        ),
        (b"a = inf\n", "E303 base/variables.toml:1:5: inf is not a number"),
        (
            b"x.y = 'hunter2'\nx.password = 'hunter2'\n",
            "E401 base/variables.toml:2:3: the value of password looks like",
        ),
    ];
    for (text, wanted) in cases {
        let found = findings(&[(BASE, text)]);
        assert!(found.iter().any(|finding| finding.starts_with(wanted)), "{wanted}: {found:#?}");
    }
    let huge = vec![b'#'; layer::SIZE_LIMIT + 1];
    assert_eq!(
        findings(&[(BASE, &huge)]),
        [
            "E010 base/variables.toml:1:1: the file has 1048577 bytes, more than the 1048576 that variables may have"
        ]
    );
}

#[test]
fn all_faults_of_all_layers_are_told() {
    let found = findings(&[(BASE, b"a-b = 1\nc = inf\n[t]\nd = 1979-05-27\n"), (TOP, b"x =\n")]);
    assert_eq!(found.len(), 4, "{found:#?}");
}

#[test]
fn a_table_stays_a_table() {
    for (below, above) in [("x = 1\n", "[x]\ny = 1\n"), ("[x]\ny = 1\n", "x = 1\n")] {
        let found = findings(&[(BASE, below.as_bytes()), (TOP, above.as_bytes())]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("E304 environments/production/variables.toml:1:"), "{found:?}");
    }
    let (variables, diagnostics) =
        read_variables(&layers(&[(BASE, b"x = 1\ny = 1\n"), (TOP, b"x = '1'\ny = 1.5\n")]));
    assert_eq!(value(&variables, "x"), Value::from("1"));
    assert_eq!(diagnostics.len(), 1, "{diagnostics}");
    assert_eq!((diagnostics.0[0].severity, diagnostics.0[0].labels.len()), (Severity::Warning, 2));
}

#[test]
fn ten_thousand_variables_are_no_burden() {
    use std::fmt::Write as _;
    let mut text = String::new();
    for number in 0..10_000 {
        writeln!(text, "name_{number} = {{ host = \"host-{number}\", port = {number} }}").unwrap();
    }
    let start = std::time::Instant::now();
    let variables = read(&[(BASE, &text), (TOP, &text)]);
    assert_eq!(value(&variables, "name_9999.port"), Value::from(9999));
    // Two orders of magnitude above what it takes: only something quadratic gets there.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

/// Trees whose tables are under other names than their leaves, so that no layer contradicts another.
fn tree(depth: u32) -> BoxedStrategy<Tree> {
    let leaf = (0..4_u8, any::<i64>()).prop_map(|(name, number)| {
        (Arc::from(format!("leaf{name}")), node(merge::Content::Leaf(Value::from(number))))
    });
    let entry = if depth == 0 {
        leaf.boxed()
    } else {
        let table = (0..3_u8, tree(depth - 1)).prop_map(|(name, fields)| {
            (Arc::from(format!("table{name}")), node(merge::Content::Table(fields)))
        });
        prop_oneof![leaf, table].boxed()
    };
    proptest::collection::vec(entry, 0..6).prop_map(|entries| entries.into_iter().collect()).boxed()
}

/// A node that stands at a place of its own, by which it is told from others.
fn node(content: merge::Content) -> merge::Node {
    use invar_syntax::source::Source;
    use invar_syntax::span::Span;
    let source = Arc::new(Source::new("layer", ""));
    let place = invar_engine::Definition {
        source,
        key: Span::default(),
        value: Span::default(),
        origin: Arc::from(""),
        layer: Arc::from(""),
    };
    merge::Node { content, definitions: vec![place] }
}

fn over(lower: &Tree, upper: &Tree) -> Tree {
    let mut diagnostics = Diagnostics::new();
    let mut result = lower.clone();
    merge(&mut result, upper.clone(), &mut diagnostics);
    assert!(diagnostics.is_empty(), "{diagnostics}");
    result
}

/// Every leaf with the path to it.
fn leaves(tree: &Tree, path: &str, found: &mut BTreeMap<String, Value>) {
    for (name, node) in tree {
        let path = format!("{path}.{name}");
        match &node.content {
            merge::Content::Leaf(value) => drop(found.insert(path, value.clone())),
            merge::Content::Table(fields) => leaves(fields, &path, found),
        }
    }
}

proptest! {
    #[test]
    fn merging_is_associative(a in tree(2), b in tree(2), c in tree(2)) {
        prop_assert_eq!(over(&over(&a, &b), &c), over(&a, &over(&b, &c)));
    }

    #[test]
    fn the_last_layer_that_has_a_leaf_decides_it(layers in proptest::collection::vec(tree(2), 1..5)) {
        let merged = layers.iter().fold(Tree::new(), |lower, upper| over(&lower, upper));
        let (mut found, mut wanted) = (BTreeMap::new(), BTreeMap::new());
        leaves(&merged, "", &mut found);
        layers.iter().for_each(|layer| leaves(layer, "", &mut wanted));
        prop_assert_eq!(found, wanted);
    }

    #[test]
    fn any_bytes_are_read_or_refused(content in proptest::collection::vec(any::<u8>(), 0..200), text in "[a-c\\[\\]{}=.,'\"0-9 \n#-]{0,60}") {
        for bytes in [content.as_slice(), text.as_bytes()] {
            let (variables, diagnostics) = read_variables(&layers(&[(BASE, bytes)]));
            prop_assert!(diagnostics.iter().all(|diagnostic| diagnostic.primary().is_some()));
            for path in variables.paths() {
                prop_assert!(variables.get(path).is_some());
            }
        }
    }

    #[test]
    fn whole_numbers_stay_exact(number in any::<i64>()) {
        let variables = read(&[(BASE, &format!("x = {number}\n"))]);
        prop_assert_eq!(value(&variables, "x"), Value::from(number));
    }
}
