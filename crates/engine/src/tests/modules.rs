//! Custom components and modules: what is in scope where, what is refused, and what an instance is.

use std::sync::Arc;

use invar_syntax::diagnostic::Diagnostics;

use super::components::Consumer;
use super::{Rig, configuration, registry};
use crate::codes;
use crate::configuration::{Configuration, Inputs};
use crate::graph::{Admission, Dynamics, Graph};
use crate::modules::{ModuleContent, ModuleFile, ModuleKind, ModuleSet};
use crate::validate::{check, validate};
use invar_syntax::schema::Stability;
use proptest::prelude::*;

/// A configuration whose imports are answered from named texts: `import.file` by its filename, others by their address.
pub(super) fn with_modules(text: &str, modules: &[(&str, &str)]) -> Configuration {
    let mut set = ModuleSet::new();
    loop {
        let parsed = Configuration::builder(Inputs::default(), "test")
            .files([("main.alloy", text)])
            .modules(set.clone())
            .parse()
            .unwrap();
        if parsed.missing_modules().is_empty() {
            return parsed;
        }
        for request in parsed.missing_modules() {
            let name = address(request);
            match modules.iter().find(|(known, _)| *known == name) {
                Some((name, content)) => {
                    let content = content.as_bytes().to_vec().into();
                    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                    set.insert(
                        request.key.clone(),
                        ModuleContent {
                            files: vec![ModuleFile { name: (*name).to_owned(), content }],
                            module_path: directory.to_owned(),
                            revision: String::new(),
                        },
                    );
                }
                None => set.fail(request.key.clone(), format!("there is no {name}")),
            }
        }
    }
}

fn address(request: &crate::modules::ImportRequest) -> String {
    use crate::modules::ImportArguments;
    match &request.arguments {
        ImportArguments::File(file) => file.filename.clone(),
        ImportArguments::Http { request, .. } => request.url.clone(),
        ImportArguments::Git(git) => format!("{}//{}", git.repository, git.path),
        ImportArguments::RemoteConfig(_) => request.kind().to_string(),
    }
}

/// The findings, but for what is unused.
fn lines(diagnostics: &Diagnostics) -> Vec<String> {
    let unused = [codes::UNUSED_DECLARE, codes::UNUSED_IMPORT, codes::UNUSED_ARGUMENT];
    diagnostics
        .iter()
        .filter(|diagnostic| !unused.contains(&diagnostic.code))
        .map(|diagnostic| match &diagnostic.help {
            Some(help) => format!("{diagnostic} ({help})"),
            None => diagnostic.to_string(),
        })
        .collect()
}

fn assert_finds(text: &str, wanted: &[&str]) {
    assert_eq!(lines(&validate(&registry(), &configuration(text))), wanted, "in:\n{text}");
}

fn assert_finds_with(text: &str, modules: &[(&str, &str)], wanted: &[&str]) {
    assert_eq!(lines(&validate(&registry(), &with_modules(text, modules))), wanted, "in:\n{text}");
}

impl Rig {
    pub(super) async fn apply_configuration(&self, configuration: Configuration) {
        self.try_configuration(configuration).await.unwrap();
        self.engine.commit().await;
    }

    /// Swaps, on probation.
    pub(super) async fn try_configuration(
        &self,
        configuration: Configuration,
    ) -> Result<crate::CutReport, crate::PrepareFailure> {
        let mode = crate::PrepareMode::AllOrNothing;
        let prepared = self.engine.prepare(Arc::new(configuration), mode).await?;
        Ok(self.cut(prepared).await.unwrap())
    }

    pub(super) fn value_seen(&self, node: &str) -> String {
        self.state_of::<Consumer>(node).to_string()
    }
}

/// A declare that hands its argument to a consumer and gives what that exports.
const UPPER: &str = "declare \"upper\" {
    argument \"text\" { }
    test.consumer \"c\" { input = argument.text.value }
    export \"result\" { value = test.consumer.c.value }
}
";

#[tokio::test]
async fn values_flow_through_a_custom_component() {
    let rig = Rig::new();
    let text = format!(
        "{UPPER}
        test.values \"v\" {{ initial = \"one\" }}
        upper \"a\" {{ text = test.values.v.value }}
        test.consumer \"end\" {{ input = upper.a.result }}"
    );
    assert_finds(&text, &[]);
    rig.apply(&text).await;
    assert_eq!(rig.value_seen("upper.a/test.consumer.c"), "one");
    assert_eq!(rig.value_seen("test.consumer.end"), "ONE");
    rig.instance_of::<super::components::Values>("test.values.v").tell("two");
    super::until("the wave went through", || rig.value_seen("test.consumer.end") == "TWO").await;
    let component = rig.engine.component("upper.a").unwrap();
    assert_eq!(component.name, "upper");
    assert_eq!(component.health.state, crate::HealthState::Healthy);
    assert!(component.exports.to_string().contains("TWO"), "{}", component.exports);
    assert!(component.arguments.to_string().contains("two"), "{}", component.arguments);
    rig.shutdown().await;
}

#[tokio::test]
async fn data_flows_into_and_out_of_a_custom_component() {
    let rig = Rig::new();
    rig.apply(
        "declare \"stage\" {
            argument \"next\" { }
            argument \"tag\" { optional = true
                default = \"t\" }
            test.pass \"p\" { forward_to = argument.next.value
                tag = argument.tag.value }
            export \"receiver\" { value = test.pass.p.receiver }
        }
        test.sink \"out\" { tag = \"t\" }
        stage \"one\" { next = [stage.two.receiver] }
        stage \"two\" { next = [test.sink.out.receiver] }",
    )
    .await;
    rig.offer("stage.one/test.pass.p", 7).await.unwrap();
    assert_eq!(rig.book.delivered().len(), 1, "through both stages");
    let graph = serde_json::to_string(&rig.engine.graph()).unwrap();
    assert!(graph.contains("stage.two/argument.next"), "{graph}");
    rig.shutdown().await;
}

#[tokio::test]
async fn a_declare_may_use_those_around_it_and_hide_them() {
    let rig = Rig::new();
    rig.apply(
        "declare \"inner\" { export \"who\" { value = \"the outer one\" } }
        declare \"hides\" {
            declare \"inner\" { export \"who\" { value = \"the inner one\" } }
            inner \"x\" { }
            export \"who\" { value = inner.x.who }
        }
        declare \"sees\" {
            declare \"deeper\" {
                inner \"x\" { }
                export \"who\" { value = inner.x.who }
            }
            deeper \"x\" { }
            export \"who\" { value = deeper.x.who }
        }
        hides \"a\" { }
        sees \"a\" { }
        test.consumer \"hides\" { input = hides.a.who }
        test.consumer \"sees\" { input = sees.a.who }",
    )
    .await;
    assert_eq!(rig.value_seen("test.consumer.hides"), "the inner one");
    assert_eq!(rig.value_seen("test.consumer.sees"), "the outer one");
    assert!(rig.engine.component("sees.a/deeper.x/inner.x").is_some(), "names tell the way");
    rig.shutdown().await;
}

#[test]
fn what_stands_around_a_declare_is_out_of_its_scope() {
    assert_finds(
        "test.values \"v\" { }
declare \"d\" {
  test.consumer \"c\" { input = test.values.v.value }
}",
        &[
            "main.alloy:3:31: component \"test.values.v.value\" does not exist or is out of scope (what stands around a \
           declare is not visible in it: pass it as an argument)",
        ],
    );
}

#[test]
fn a_body_is_checked_once_whether_it_is_used_or_not() {
    let declare = "declare \"d\" {
  argument \"text\" { optonal = true }
  test.sinc \"s\" { }
  test.consumer \"c\" { inptu = argument.tex.value }
  export \"e\" { }
}
";
    let wanted = [
        "main.alloy:2:21: unrecognized attribute name \"optonal\" (did you mean \"optional\"?)",
        "main.alloy:3:3: cannot find the definition of component name \"test.sinc\" (did you mean \"test.sink\"?)",
    ];
    let found = lines(&validate(&registry(), &configuration(declare)));
    assert!(wanted.iter().all(|wanted| found.iter().any(|found| found == wanted)), "all at once: {found:?}");
    let declare = declare.replace("test.sinc", "test.sink").replace("argument.tex.", "argument.text.");
    let instances = format!("{declare}d \"a\" {{ text = \"\" }}\nd \"b\" {{ text = \"\" }}\n");
    for text in [&declare, &instances] {
        let found = lines(&validate(&registry(), &configuration(text)));
        let wanted = [
            wanted[0],
            "main.alloy:4:23: unrecognized attribute name \"inptu\" (did you mean \"input\"?)",
            "main.alloy:5:3: missing required attribute \"value\" (add value = <any>)",
        ];
        assert_eq!(found, wanted, "in:\n{text}");
    }
}

#[test]
fn instances_have_to_fit_their_declare() {
    let text = "declare \"d\" {
  argument \"needed\" { }
  argument \"spare\" { optional = true }
  export \"given\" { value = argument.needed.value }
}
d \"a\" { }
d \"b\" { needed = 1
  spar = 2 }
d \"c\" { needed = 1
  block { } }
d \"c\" { needed = 1 }
test.consumer \"c\" { input = d.b.givn }
";
    assert_finds(
        text,
        &[
            "main.alloy:6:1: missing required argument \"needed\" to module (add needed = <any>)",
            "main.alloy:8:3: Provided argument \"spar\" is not defined in the module (did you mean \"spare\"?)",
            "main.alloy:10:3: nested blocks not supported here (custom components take attributes only)",
            "main.alloy:11:1: block d.c already declared at main.alloy:9:1",
            "main.alloy:12:29: component \"d.b\" has no export \"givn\" (did you mean \"given\"?)",
        ],
    );
    let text = text.replace("d \"a\" { }", "").replace("spar = 2", "spare = 2").replace("block { }", "");
    let text = text.replace("d \"c\" { needed = 1 }", "");
    assert_finds(
        &text,
        &["main.alloy:12:29: component \"d.b\" has no export \"givn\" (did you mean \"given\"?)"],
    );
}

#[test]
fn blocks_stand_where_they_belong() {
    assert_finds(
        "argument \"a\" { }
export \"e\" { value = 1 }
declare \"declare\" { }
declare { }
declare \"d\" {
  logging { }
  tracing { }
  http { }
}
declare \"d\" { }
",
        &[
            "main.alloy:1:1: argument blocks only allowed inside a module",
            "main.alloy:2:1: export blocks only allowed inside a module",
            "main.alloy:3:9: 'declare' is not a valid label for a declare block",
            "main.alloy:4:1: declare block must have a label",
            "main.alloy:6:3: logging block not allowed inside a module",
            "main.alloy:7:3: tracing block not allowed inside a module",
            "main.alloy:8:3: service blocks not allowed inside a module: \"http\"",
            "main.alloy:10:1: block declare.d already declared at main.alloy:5:1",
        ],
    );
}

#[tokio::test]
async fn nothing_is_part_of_itself() {
    let texts = [
        ("declare \"a\" {\n a \"x\" { }\n}\na \"y\" { }", "self reference: declare.a"),
        (
            "declare \"a\" {\n b \"x\" { }\n}\ndeclare \"b\" {\n a \"x\" { }\n}\na \"y\" { }",
            "cycle: declare.a, declare.b",
        ),
        (
            "declare \"a\" {
              foreach \"f\" {
                collection = [1]
                var = \"i\"
                template { a \"x\" { } }
              }
            }
            a \"y\" { }",
            "self reference: declare.a",
        ),
    ];
    let rig = Rig::new();
    for (text, wanted) in texts {
        let found = validate(&registry(), &configuration(text)).to_string();
        assert!(found.contains(wanted), "{found}");
        let found = rig.prepare(text).await.err().unwrap().to_string();
        assert!(found.contains(wanted), "prepared without a check: {found}");
    }
    rig.shutdown().await;
}

#[tokio::test]
async fn nesting_and_multiplying_have_limits() {
    let mut text = String::new();
    for level in 0..40 {
        text += &format!("declare \"d{level}\" {{ d{} \"x\" {{ }} }}\n", level + 1);
    }
    text += "declare \"d40\" { }\nd0 \"x\" { }\n";
    let rig = Rig::new();
    assert!(validate(&registry(), &configuration(&text)).is_empty(), "written, it is finite");
    let found = rig.prepare(&text).await.err().unwrap().to_string();
    assert!(found.contains("custom components are nested more than 32 deep"), "{found}");
    // Ten to the sixth components out of thirty lines.
    let mut text = "declare \"d6\" { test.sink \"s\" { } }\n".to_owned();
    for level in 0..6 {
        let instances: String = (0..10).map(|n| format!("  d{} \"x{n}\" {{ }}\n", level + 1)).collect();
        text += &format!("declare \"d{level}\" {{\n{instances}}}\n");
    }
    text += "d0 \"x\" { }\n";
    let found = rig.prepare(&text).await.err().unwrap().to_string();
    assert!(found.contains("expands to more than 250000 components"), "{found}");
    rig.shutdown().await;
}

#[tokio::test]
async fn modules_import_modules_three_deep_each_with_its_own_scope() {
    let modules = [
        (
            "lib/one.alloy",
            "import.file \"two\" { filename = file.path_join(module_path, \"two.alloy\") }
            declare \"outer\" {
                argument \"text\" { }
                two.middle \"m\" { text = argument.text.value }
                export \"result\" { value = two.middle.m.result }
            }",
        ),
        (
            "lib/two.alloy",
            "import.string \"three\" { content = `declare \"inner\" {
                argument \"text\" { }
                test.consumer \"c\" { input = argument.text.value + \" in \" + module_path }
                export \"result\" { value = test.consumer.c.value }
              }`
            }
            declare \"middle\" {
                argument \"text\" { }
                three.inner \"i\" { text = argument.text.value }
                export \"result\" { value = three.inner.i.result }
            }",
        ),
    ];
    let text = "import.file \"one\" { filename = \"lib/one.alloy\" }
        one.outer \"a\" { text = \"deep\" }
        test.consumer \"end\" { input = one.outer.a.result }";
    let rig = Rig::new();
    assert_finds_with(text, &modules, &[]);
    let parsed = with_modules(text, &modules);
    let names: Vec<_> = parsed.modules().iter().map(|request| request.namespace.as_str()).collect();
    assert_eq!(names, ["one", "one/two"]);
    assert!(parsed.modules().iter().all(|request| request.kind() == ModuleKind::File));
    rig.apply_configuration(parsed).await;
    assert_eq!(rig.value_seen("test.consumer.end"), "DEEP IN LIB");
    assert!(rig.engine.component("one.outer.a/two.middle.m/three.inner.i/test.consumer.c").is_some());
    // What a module imports is for itself.
    assert_finds_with(
        &text.replace("one.outer", "one.two"),
        &modules,
        &[
            "main.alloy:2:9: custom component config not found in the registry, namespace: \"one\", componentName: \"two\"",
        ],
    );
    rig.shutdown().await;
}

#[test]
fn a_module_that_cannot_be_used_is_an_error_where_it_is_or_where_it_is_imported() {
    let text = "import.file \"lib\" { filename = \"lib.alloy\" }\nlib.thing \"a\" { }\n";
    let parsed = configuration(text);
    assert_eq!(parsed.missing_modules().len(), 1);
    assert_eq!(parsed.missing_modules()[0].location(), "main.alloy:1:1");
    // Where the check runs, nothing of it need be at hand, and then nothing follows from it; what runs needs it.
    assert_eq!(lines(&validate(&registry(), &parsed)), [""; 0]);
    let admission = Admission { minimum_stability: Stability::Experimental, community: true };
    let (graph, found) = Graph::build(&registry(), &parsed, admission, &Dynamics::new());
    assert!(graph.is_none());
    assert_eq!(lines(&found), ["main.alloy:1:1: the content of module \"lib\" is not at hand"]);
    assert_finds_with(text, &[], &["main.alloy:1:1: cannot import module \"lib\": there is no lib.alloy"]);
    assert_finds_with(
        text,
        &[("lib.alloy", "declare \"thing\" {\n  x = }")],
        &["lib.alloy:2:7: expected expression, got }"],
    );
    assert_finds_with(
        text,
        &[("lib.alloy", "declare \"thing\" { }\ntest.sink \"s\" { }\nx = 1\ndeclare \"thing\" { }")],
        &[
            "lib.alloy:2:1: only declare and import blocks are allowed in a module, got test.sink",
            "lib.alloy:3:1: only declare and import blocks are allowed in a module, got x",
            "lib.alloy:4:1: block declare.thing already declared at lib.alloy:1:1",
        ],
    );
    assert_finds_with(
        text,
        &[(
            "lib.alloy",
            "declare \"thing\" {\n  test.sinc \"s\" { }\n}\ndeclare \"unused\" { test.sinc \"s\" { } }",
        )],
        &[
            "lib.alloy:2:3: cannot find the definition of component name \"test.sinc\" (did you mean \"test.sink\"?)",
        ],
    );
}

#[test]
fn imports_in_a_circle_are_refused() {
    let circle = [
        ("a.alloy", "import.file \"b\" { filename = \"b.alloy\" }\ndeclare \"x\" { }"),
        ("b.alloy", "import.file \"a\" { filename = \"a.alloy\" }\ndeclare \"x\" { }"),
    ];
    assert_finds_with(
        "import.file \"a\" { filename = \"a.alloy\" }\na.x \"y\" { }",
        &circle,
        &["b.alloy:1:1: import cycle: main.alloy:1:1 imports a.alloy:1:1 imports b.alloy:1:1"],
    );
}

#[test]
fn import_blocks_are_checked_like_any_block() {
    assert_finds(
        "import.file \"a\" { filenam = \"a.alloy\" }
import.git \"b\" { repository = \"r\"
  path = \"p\"
  revision = \"HEAD\" }
import.http \"c\" { url = test.values.v.value }
import.file { filename = \"x\" }
import.nothing \"d\" { }
import.git \"e\" { repository = \"r\"
  path = \"p\"
  basic_auth { username = \"u\" } }
test.values \"v\" { }
",
        &[
            "main.alloy:1:1: missing required attribute \"filename\" (add filename = <string>)",
            "main.alloy:1:19: unrecognized attribute name \"filenam\" (did you mean \"filename\"?)",
            "main.alloy:4:14: revision \"HEAD\" is not a branch, tag or commit",
            "main.alloy:5:25: the arguments of import.http must be known before anything runs, \"test.values.v.value\" is not \
             (use literals, the standard library, module_path, var.* and agent.*; import.string can take its content from a \
             component)",
            "main.alloy:6:1: import.file block must have a label",
            "main.alloy:7:1: cannot find the definition of component name \"import.nothing\"",
            "main.alloy:10:3: missing required attribute \"password\" (add password = <secret>)",
        ],
    );
}

#[test]
fn the_key_of_a_module_tells_contents_apart_and_hides_credentials() {
    let key = |text: &str| configuration(text).modules()[0].key.clone();
    let git = |rest: &str| key(&format!("import.git \"g\" {{ repository = \"r\"\npath = \"p\"\n{rest} }}"));
    assert_eq!(git(""), git("pull_frequency = \"5m\""));
    assert_eq!(git(""), git("basic_auth { username = \"u\"\npassword = \"hunter2\" }"));
    assert_ne!(git(""), git("revision = \"v1\""));
    let request = configuration(
        "import.git \"g\" { repository = \"r\"\npath = \"p\"\nbasic_auth { username = \"u\"\npassword = \"hunter2\" } }",
    );
    assert!(!format!("{:?} {:?}", request.modules()[0], request.modules()[0].arguments).contains("hunter2"));
    assert!(git("").as_str().starts_with("git-"));
}

#[test]
fn the_digest_covers_modules() {
    let text = "import.file \"a\" { filename = \"a.alloy\" }";
    let digest = |module: &str| with_modules(text, &[("a.alloy", module)]).digest;
    assert_eq!(digest("declare \"x\" { }"), digest("// a remark\ndeclare \"x\" { }"));
    assert_ne!(digest("declare \"x\" { }"), digest("declare \"y\" { }"));
}

#[test]
fn an_imports_label_hides_what_begins_alike() {
    assert_finds(
        "import.string \"test\" { content = \"declare \\\"mine\\\" { }\" }\ntest.mine \"a\" { }\ntest.sink \"b\" { }",
        &[
            "main.alloy:3:1: custom component config not found in the registry, namespace: \"test\", componentName: \"sink\"",
        ],
    );
}

#[test]
fn gates_hold_within_modules_too() {
    let text = "declare \"d\" {
  foreach \"f\" {
    collection = []
    var = \"i\"
    template { }
  }
}";
    let admission = Admission { minimum_stability: Stability::GenerallyAvailable, community: true };
    let found = check(&registry(), &configuration(text), admission);
    assert_eq!(
        lines(&found),
        [
            "main.alloy:2:3: block \"foreach\" is at stability level \"experimental\", which is below the minimum allowed \
             stability level \"generally-available\" (allow it with --stability.level=experimental)"
        ]
    );
}

#[tokio::test]
async fn roots_do_not_see_each_other() {
    let parse = |local: &str, remote: &str| {
        Configuration::builder(Inputs::default(), "test")
            .files([("main.alloy", local)])
            .root("remotecfg", [("remote.alloy", remote)])
            .parse()
            .unwrap()
    };
    let values = "test.values \"v\" { initial = \"mine\" }\n";
    let reader = "test.consumer \"c\" { input = test.values.v.value }\n";
    let rig = Rig::new();
    rig.apply_configuration(parse(values, &format!("{values}{reader}").replace("mine", "theirs"))).await;
    assert_eq!(rig.value_seen("remotecfg/test.consumer.c"), "theirs");
    for (local, remote) in [(values, reader), (reader, values)] {
        let found = validate(&registry(), &parse(local, remote));
        let wanted = "component \"test.values.v.value\" does not exist or is out of scope";
        assert!(found.to_string().contains(wanted), "{found}");
    }
    let found = validate(&registry(), &parse("logging { }", "logging { }"));
    assert_eq!(lines(&found), ["remote.alloy:1:1: logging block not allowed inside a module"]);
    rig.shutdown().await;
}

#[tokio::test]
async fn a_module_is_as_healthy_as_its_least_healthy_part() {
    let rig = Rig::new();
    rig.apply(
        "declare \"inner\" { test.sink \"s\" { ends = true } }
        declare \"outer\" { inner \"i\" { } }
        declare \"well\" { test.sink \"s\" { } }
        outer \"o\" { }
        well \"w\" { }",
    )
    .await;
    let state = |node: &str| rig.health(node).0;
    super::until("the part has ended", || state("outer.o") != crate::HealthState::Healthy).await;
    assert_eq!(rig.health("outer.o"), rig.health("outer.o/inner.i/test.sink.s"));
    assert_eq!(rig.health("outer.o/inner.i"), rig.health("outer.o"));
    super::until("the other has started", || state("well.w") == crate::HealthState::Healthy).await;
    rig.shutdown().await;
}

#[tokio::test]
async fn a_change_of_one_instance_or_module_leaves_the_others_alone() {
    let module = |tag: &str| format!("declare \"d\" {{\n test.consumer \"c\" {{ input = \"{tag}\" }}\n}}");
    let text = |argument: &str| {
        let mut text = format!(
            "{UPPER}upper \"changed\" {{ text = \"{argument}\" }}\nupper \"other\" {{ text = \"o\" }}\n"
        );
        for number in 0..50 {
            text += &format!(
                "import.file \"m{number}\" {{ filename = \"m{number}.alloy\" }}\nm{number}.d \"x\" {{ }}\n"
            );
        }
        text
    };
    let parsed = |argument: &str, seventh: &str| {
        let modules: Vec<(String, String)> = (0..50)
            .map(|number| (format!("m{number}.alloy"), module(if number == 7 { seventh } else { "same" })))
            .collect();
        let modules: Vec<_> = modules.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        with_modules(&text(argument), &modules)
    };
    let rig = Rig::new();
    rig.apply_configuration(parsed("one", "same")).await;
    let seventh = rig.instance_number("m7.d.x/test.consumer.c");
    let report = rig.try_configuration(parsed("two", "other")).await.unwrap();
    let mut updated: Vec<_> = report.updated.iter().map(ToString::to_string).collect();
    updated.sort();
    assert_eq!(updated, ["m7.d.x/test.consumer.c", "upper.changed/test.consumer.c"]);
    assert_eq!(report.kept.len(), 50);
    assert!(report.started.is_empty() && report.parked.is_empty());
    assert_eq!(rig.instance_number("m7.d.x/test.consumer.c"), seventh, "updated, not replaced");
    rig.engine.rollback();
    assert_eq!(rig.value_seen("m7.d.x/test.consumer.c"), "same");
    rig.shutdown().await;
}

#[tokio::test]
async fn a_plan_names_what_happens_within_modules() {
    let rig = Rig::new();
    rig.apply(&format!("{UPPER}upper \"a\" {{ text = \"one\" }}\nupper \"b\" {{ text = \"b\" }}")).await;
    let next = format!("{UPPER}upper \"a\" {{ text = \"two\" }}\nupper \"c\" {{ text = \"c\" }}");
    let plan = rig.engine.plan(&configuration(&next)).unwrap();
    let changes: Vec<_> =
        plan.changes.iter().map(|change| format!("{} {}", change.action.as_str(), change.node)).collect();
    assert_eq!(
        changes,
        [
            "update upper.a/test.consumer.c",
            "create upper.c/test.consumer.c",
            "destroy upper.b/test.consumer.c"
        ]
    );
    assert_eq!(plan.changes[0].arguments[0].new.as_deref(), Some("\"two\""));
    rig.shutdown().await;
}

#[derive(Clone, Debug)]
struct Shape {
    declares: Vec<(Vec<usize>, usize)>,
    instances: Vec<usize>,
}

/// Declares that use later ones, so that there are no circles, each with some components; and instances of them.
fn shapes() -> impl Strategy<Value = Shape> {
    let declare = |number: usize| (prop::collection::vec(number + 1..6, 0..3), 0..3_usize);
    let declares = (declare(0), declare(1), declare(2), declare(3), declare(4))
        .prop_map(|(a, b, c, d, e)| vec![a, b, c, d, e, (Vec::new(), 1)]);
    (declares, prop::collection::vec(0..6_usize, 1..6))
        .prop_map(|(declares, instances)| Shape { declares, instances })
}

fn text_of(shape: &Shape) -> String {
    let mut text = String::new();
    for (number, (uses, components)) in shape.declares.iter().enumerate() {
        text += &format!("declare \"d{number}\" {{\nargument \"a\" {{ optional = true }}\n");
        for (place, used) in uses.iter().enumerate() {
            text += &format!("d{used} \"u{place}\" {{ a = argument.a.value }}\n");
        }
        for component in 0..*components {
            text += &format!("test.consumer \"c{component}\" {{ tag = argument.a.value }}\n");
        }
        text += "}\n";
    }
    for (place, used) in shape.instances.iter().enumerate() {
        text += &format!("d{used} \"i{place}\" {{ a = \"{place}\" }}\n");
    }
    text
}

fn size(shape: &Shape, declare: usize) -> usize {
    let (uses, components) = &shape.declares[declare];
    components + uses.iter().map(|used| size(shape, *used)).sum::<usize>()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]
    #[test]
    fn flattening_is_complete_and_always_the_same(shape in shapes()) {
        let text = text_of(&shape);
        let admission = Admission { minimum_stability: Stability::Experimental, community: true };
        let flat = || {
            let (graph, diagnostics) =
                Graph::build(&registry(), &configuration(&text), admission, &Dynamics::new());
            let Some(graph) = graph else { panic!("{diagnostics}\n{text}") };
            let names: Vec<_> = graph.nodes.iter().map(|node| node.id.to_string()).collect();
            (names, graph.order().to_vec(), graph.nodes.iter().map(|node| node.references.clone()).collect::<Vec<_>>())
        };
        let first = flat();
        prop_assert_eq!(&first, &flat());
        let components = first.0.iter().filter(|name| name.contains("test.consumer")).count();
        let wanted: usize = shape.instances.iter().map(|used| size(&shape, *used)).sum();
        prop_assert_eq!(components, wanted);
    }
}
