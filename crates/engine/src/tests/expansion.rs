//! Where values decide what there is: `foreach` over running values, modules that components give.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::components::{Recorder, Sink, Values};
use super::modules::with_modules;
use super::{Rig, configuration, until};
use crate::PrepareMode;
use crate::health::HealthState;

impl Rig {
    fn set_value(&self, node: &str, value: &str) {
        self.instance_of::<Values>(node).tell(value);
    }

    fn has(&self, node: &str) -> bool {
        self.engine.component(node).is_some()
    }

    fn nodes(&self, part: &str) -> Vec<String> {
        let components = self.engine.components();
        components.iter().map(|component| component.id.to_string()).filter(|id| id.contains(part)).collect()
    }

    fn sink(&self, node: &str) -> Arc<Recorder> {
        self.instance_of::<Sink>(node)
    }
}

fn over(collection: &str) -> String {
    format!(
        "foreach \"each\" {{
            collection = {collection}
            var = \"item\"
            template {{
                test.consumer \"c\" {{ input = item }}
            }}
        }}"
    )
}

fn at(item: &str) -> String {
    format!("foreach.each/foreach_{item}/test.consumer.c")
}

#[tokio::test]
async fn items_come_change_and_go_and_the_others_keep_their_instances() {
    let rig = Rig::new();
    rig.apply(&over("[\"a\", \"b.b\", \"a\"]")).await;
    assert_eq!(rig.nodes("consumer"), [at("a_1"), at("a_2"), at("b_b_1")]);
    let (first, second) = (rig.instance_number(&at("a_1")), rig.instance_number(&at("b_b_1")));
    let report = rig.candidate(&over("[\"c\", \"b.b\", \"a\"]")).await;
    assert_eq!(report.started, [at("c_1").as_str().into()]);
    assert_eq!(report.parked, [at("a_2").as_str().into()]);
    assert!(report.updated.is_empty());
    assert_eq!(rig.instance_number(&at("a_1")), first);
    assert_eq!(rig.instance_number(&at("b_b_1")), second);
    rig.engine.rollback();
    assert_eq!(rig.nodes("consumer"), [at("a_1"), at("a_2"), at("b_b_1")]);
    rig.shutdown().await;
}

#[tokio::test]
async fn an_item_that_is_known_by_a_field_keeps_its_instance_when_another_field_changes() {
    let over = |tags: [&str; 2]| {
        format!(
            "foreach \"each\" {{
                collection = [{{ name = \"x\", tag = \"{}\" }}, {{ name = \"y\", tag = \"{}\" }}]
                var = \"item\"
                id = \"name\"
                template {{ test.consumer \"c\" {{ input = item.tag }} }}
            }}",
            tags[0], tags[1]
        )
    };
    let rig = Rig::new();
    rig.apply(&over(["one", "two"])).await;
    let (x, y) = (at("x_1"), at("y_1"));
    let before = rig.instance_number(&x);
    let report = rig.candidate(&over(["three", "two"])).await;
    assert_eq!(report.updated, [x.as_str().into()]);
    assert_eq!(report.kept, [y.as_str().into()]);
    assert_eq!((rig.instance_number(&x), rig.value_seen(&x)), (before, "three".to_owned()));
    rig.shutdown().await;
}

#[tokio::test]
async fn a_template_sees_what_is_around_it() {
    let rig = Rig::new();
    rig.apply(
        "declare \"shout\" {
            argument \"text\" { }
            test.consumer \"c\" { input = argument.text.value }
            export \"loud\" { value = test.consumer.c.value }
        }
        declare \"all\" {
            argument \"names\" { }
            test.values \"v\" { initial = \"!\" }
            foreach \"outer\" {
                collection = argument.names.value
                var = \"name\"
                template {
                    shout \"s\" { text = name + test.values.v.value }
                    foreach \"inner\" {
                        collection = [1, 2]
                        var = \"number\"
                        template {
                            test.consumer \"c\" { input = string.format(\"%s%d%s\", name, number, shout.s.loud) }
                        }
                    }
                }
            }
        }
        all \"x\" { names = [\"a\", \"b\"] }",
    )
    .await;
    assert_eq!(
        rig.value_seen("all.x/foreach.outer/foreach_b_1/foreach.inner/foreach_2_1/test.consumer.c"),
        "b2B!"
    );
    assert_eq!(rig.nodes("inner/foreach").len(), 4);
    rig.shutdown().await;
}

#[tokio::test]
async fn items_that_components_give_come_and_go_in_waves() {
    let rig = Rig::new();
    let text = format!(
        "test.values \"v\" {{ initial = \"a,b\" }}\n{}",
        over("string.split(test.values.v.value, \",\")")
    );
    rig.apply(&text).await;
    assert_eq!(rig.nodes("consumer"), [at("a_1"), at("b_1")], "settled before it ran");
    let kept = rig.instance_number(&at("b_1"));
    rig.set_value("test.values.v", "b,c");
    until("the new item runs", || rig.has(&at("c_1"))).await;
    assert_eq!(rig.nodes("consumer"), [at("b_1"), at("c_1")]);
    assert_eq!(rig.instance_number(&at("b_1")), kept);
    assert_eq!(rig.engine.generation().id, 1, "an epoch of the same configuration");
    // One bad item does not keep the others out.
    rig.set_value("test.values.v", "b,bad,d");
    until("the good item runs", || rig.has(&at("d_1"))).await;
    assert_eq!(rig.health(&at("bad_1")).0, HealthState::Unhealthy);
    assert_eq!(rig.health("foreach.each").0, HealthState::Unhealthy, "and shows on the whole");
    assert_eq!(rig.instance_number(&at("b_1")), kept);
    rig.set_value("test.values.v", "b");
    until("the others are gone", || rig.nodes("consumer").len() == 1).await;
    rig.engine.drained().await;
    rig.shutdown().await;
}

#[tokio::test]
async fn during_probation_both_configurations_follow_and_a_rollback_starts_what_is_due() {
    let rig = Rig::new();
    let text = |tag: &str| {
        format!(
            "test.values \"v\" {{ initial = \"a\" }}
            foreach \"each\" {{
                collection = string.split(test.values.v.value, \",\")
                var = \"item\"
                template {{ test.sink \"s\" {{ tag = item + \"{tag}\" }} }}
            }}"
        )
    };
    let at = |item: &str| format!("foreach.each/foreach_{item}_1/test.sink.s");
    rig.apply(&text("old")).await;
    let gone = rig.sink(&at("a"));
    // The candidate has no items at all.
    rig.candidate("test.values \"v\" { initial = \"a\" }").await;
    rig.set_value("test.values.v", "b,c");
    let retained = || {
        let (_, retained) = rig.engine.shared().base();
        retained.unwrap().graph.nodes.iter().filter(|node| node.id.as_str().contains("test.sink")).count()
    };
    until("the retained side has followed", || retained() == 2).await;
    assert!(!rig.has(&at("b")), "it does not run");
    until("what the retained side no longer has is retired", || gone.ended.load(Ordering::SeqCst) == 1).await;
    let report = rig.engine.rollback();
    assert!(report.restored.contains(&at("b").as_str().into()), "{report:?}");
    until("it runs now", || rig.sink(&at("b")).started.load(Ordering::SeqCst) == 1).await;
    rig.engine.drained().await;
    rig.shutdown().await;
}

const CALLER: &str = "test.values \"content\" { }
test.values \"v\" { initial = \"x\" }
import.string \"lib\" { content = test.values.content.value }
lib.thing \"a\" { text = test.values.v.value }
test.consumer \"end\" { input = lib.thing.a.result }
test.consumer \"aside\" { input = \"aside\" }
";

/// A module whose component puts something behind its argument.
fn module(suffix: &str) -> String {
    format!(
        "declare \"thing\" {{
            argument \"text\" {{ }}
            test.consumer \"c\" {{ input = argument.text.value + \"{suffix}\" }}
            export \"result\" {{ value = test.consumer.c.value }}
        }}"
    )
}

fn caller(content: &str) -> String {
    CALLER.replacen("{ }", &format!("{{ initial = `{content}` }}"), 1)
}

#[tokio::test]
async fn a_module_that_a_component_gives_follows_its_content() {
    let rig = Rig::new();
    let found = crate::validate(&super::registry(), &configuration(&caller("")));
    assert!(found.is_empty(), "what is not known is taken on trust: {found}");
    rig.apply(&caller(&module("1"))).await;
    assert_eq!(rig.value_seen("test.consumer.end"), "X1");
    let (inner, aside) = ("lib.thing.a/test.consumer.c", "test.consumer.aside");
    let (instance, untouched) =
        (rig.instance_number(inner), rig.state_of::<super::components::Consumer>(aside));
    rig.set_value("test.values.content", &module("2"));
    until("the new content has arrived", || rig.value_seen("test.consumer.end") == "X2").await;
    assert_eq!(rig.instance_number(inner), instance);
    assert!(Arc::ptr_eq(&untouched, &rig.state_of::<super::components::Consumer>(aside)));
    rig.set_value("test.values.v", "y");
    until("values flow through it", || rig.value_seen("test.consumer.end") == "Y2").await;
    rig.shutdown().await;
}

#[tokio::test]
async fn bad_content_leaves_the_old_content_running_and_says_why() {
    let rig = Rig::new();
    rig.apply(&caller(&module("1"))).await;
    let bad = [
        ("declare {", "expected"),
        ("test.sink \"s\" { }", "only declare and import blocks are allowed"),
        ("declare \"thing\" { test.sinc \"s\" { } }", "test.sinc"),
        ("declare \"other\" { }", "custom component config not found"),
        ("declare \"thing\" { }", "not defined in the module"),
        (&*module("\" + 1 + \""), "1 should be"),
    ];
    let import = "import.string.lib";
    for (content, wanted) in bad {
        rig.set_value("test.values.content", content);
        until(content, || rig.health(import).1.contains(wanted)).await;
        assert_eq!(rig.health(import).0, HealthState::Unhealthy);
        assert_eq!(rig.health("lib.thing.a").1, rig.health(import).1, "whoever uses it shows it too");
        assert_eq!(rig.value_seen("test.consumer.end"), "X1");
    }
    // The next reload finds the last good content as well.
    let again = caller(&module("1")).replace("\"aside\" }", "\"changed\" }");
    rig.apply(&again).await;
    assert_eq!(rig.value_seen("test.consumer.end"), "X1");
    assert_eq!(rig.value_seen("test.consumer.aside"), "changed");
    rig.set_value("test.values.content", &module("3"));
    until("good content is taken", || rig.value_seen("test.consumer.end") == "X3").await;
    assert_eq!(rig.health("lib.thing.a").0, HealthState::Healthy);
    rig.shutdown().await;
}

#[tokio::test]
async fn content_from_another_place_has_to_be_good_by_itself() {
    let rig = Rig::new();
    rig.apply(&caller(&module("1"))).await;
    let elsewhere = caller(&module("1")).replace("content = test.values.content", "content = test.values.v");
    let found = rig.prepare(&elsewhere).await.err().unwrap().to_string();
    assert!(found.starts_with("import.string.lib:1:"), "{found}");
    rig.shutdown().await;
}

#[tokio::test]
async fn what_a_change_of_items_does_not_concern_is_not_even_evaluated() {
    let rig = Rig::new();
    let text = format!(
        "test.values \"v\" {{ initial = \"a\" }}\n{}\ntest.consumer \"aside\" {{ input = test.values.v.value }}",
        over("string.split(test.values.v.value, \",\")")
    );
    rig.apply(&text).await;
    // Told to both: the one aside changes, the item that stays does not.
    let states = rig.instance_of::<super::components::Consumer>(&at("a_1"));
    rig.set_value("test.values.v", "a,b");
    until("the new item runs", || rig.has(&at("b_1"))).await;
    assert_eq!(rig.value_seen("test.consumer.aside"), "a,b");
    assert_eq!(states.states.load(Ordering::SeqCst), 1);
    rig.shutdown().await;
}

#[tokio::test]
async fn a_plan_is_another_one_when_running_values_decide_otherwise_what_there_is() {
    let rig = Rig::new();
    rig.apply("test.values \"v\" { initial = \"a\" }").await;
    let next = format!(
        "test.values \"v\" {{ initial = \"a\" }}\ntest.consumer \"u\" {{ input = test.values.v.value }}\n{}",
        over("[test.values.v.value]")
    );
    let plan = || rig.engine.plan(&configuration(&next)).unwrap();
    let before = plan();
    assert!(before.changes.iter().any(|change| change.node.as_str() == at("a_1")), "{before:#?}");
    assert_eq!(plan().hash, before.hash);
    rig.set_value("test.values.v", "b");
    until("it is exported", || plan().hash != before.hash).await;
    assert!(plan().changes.iter().any(|change| change.node.as_str() == at("b_1")));
    // A value that decides nothing but values is none of the plan's business.
    let only = configuration(
        "test.values \"v\" { initial = \"a\" }\ntest.consumer \"u\" { input = test.values.v.value }",
    );
    let hash = rig.engine.plan(&only).unwrap().hash;
    rig.set_value("test.values.v", "c");
    until("it is exported", || plan().changes.iter().any(|change| change.node.as_str() == at("c_1"))).await;
    assert_eq!(rig.engine.plan(&only).unwrap().hash, hash);
    // What is applied is what is so then.
    let prepared = rig.prepare(&next).await.unwrap();
    rig.set_value("test.values.v", "d");
    until("it is exported", || plan().changes.iter().any(|change| change.node.as_str() == at("d_1"))).await;
    rig.cut(prepared).await.unwrap();
    assert!(rig.has(&at("d_1")) && !rig.has(&at("c_1")));
    rig.shutdown().await;
}

#[tokio::test]
async fn a_request_finds_a_component_within_a_module() {
    let rig = Rig::new();
    rig.apply("declare \"m\" { test.sink \"s\" { } }\nm \"a\" { }").await;
    let engine = &rig.engine;
    assert_eq!(engine.split_component_path("m.a/test.sink.s/x/y"), Some(("m.a/test.sink.s", "/x/y")));
    assert_eq!(engine.split_component_path("m.a/test.sink.s"), Some(("m.a/test.sink.s", "")));
    assert_eq!(engine.split_component_path("m.a/x"), None);
    rig.shutdown().await;
}

#[tokio::test]
async fn bad_content_at_the_start_refuses_the_configuration() {
    let rig = Rig::new();
    let found = rig.prepare(&caller("declare {")).await.err().unwrap().to_string();
    assert!(found.contains("import.string.lib:1:10: expected }"), "{found}");
    // At boot the rest runs, and the module is taken once it is there.
    let prepared =
        rig.engine.prepare(configuration(&caller("declare {")), PrepareMode::BestEffort).await.unwrap();
    rig.cut(prepared).await.unwrap();
    assert_eq!(rig.value_seen("test.consumer.aside"), "aside");
    assert_eq!(rig.health("import.string.lib").0, HealthState::Unhealthy);
    rig.set_value("test.values.content", &module("1"));
    until("it runs", || rig.has("lib.thing.a/test.consumer.c")).await;
    until("and is used", || rig.value_seen("test.consumer.end") == "X1").await;
    rig.shutdown().await;
}

#[tokio::test]
async fn many_dynamic_nodes_settle_together() {
    let rig = Rig::new();
    let mut text = String::new();
    for level in 0..crate::prepare::MOST_ROUNDS + 6 {
        text += &format!(
            "test.values \"v{level}\" {{ initial = \"{level}\" }}
             foreach \"g{level}\" {{ collection = [test.values.v{level}.value]\nvar = \"i\"\ntemplate {{ }} }}\n"
        );
    }
    assert!(rig.prepare(&text).await.is_ok(), "in one round, not in one each");
    rig.shutdown().await;
}

#[tokio::test]
async fn secret_content_is_never_shown() {
    let rig = Rig::new();
    let mut inputs = crate::Inputs::default();
    let secret = invar_syntax::value::Value::Secret(invar_syntax::secret::Secret::new(
        "declare \"thing\" { test.consumer \"c\" { input = \"hunter2\" + 1 } }",
    ));
    inputs.variables = invar_syntax::value::Object::from_iter([("module", secret)]).into();
    let parsed = crate::Configuration::builder(inputs, "test")
        .files([("main.alloy", "import.string \"lib\" { content = var.module }\nlib.thing \"a\" { }")])
        .parse()
        .unwrap();
    let error = rig.try_configuration(parsed).await.unwrap_err();
    for diagnostic in &error.diagnostics {
        for label in &diagnostic.labels {
            assert!(!label.source.text.contains("hunter2"), "{diagnostic}");
        }
    }
    rig.shutdown().await;
}

/// A thousand updates of a module under load, good ones and bad ones mixed: nothing is lost and no task stays behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_module_updates_lose_nothing_and_leave_nothing_behind() {
    let rig = Rig::new();
    let text = "import.file \"lib\" { filename = \"lib.alloy\" }
        test.sink \"out\" { tag = \"t\" }
        lib.stage \"one\" { next = [test.sink.out.receiver] }
        test.source \"in\" { forward_to = [lib.stage.one.receiver]
            tag = \"t\" }";
    let stage = |passes: u64, wrong: &str| {
        let mut module = "declare \"stage\" {\n argument \"next\" { }\n".to_owned();
        let mut next = "argument.next.value".to_owned();
        for pass in 0..passes {
            module += &format!("test.pass \"p{pass}\" {{ forward_to = {next}\n tag = \"t\" }}\n");
            next = format!("[test.pass.p{pass}.receiver]");
        }
        module + &format!("export \"receiver\" {{ value = {next}[0] }}\n{wrong} }}")
    };
    let load = |module: &str| with_modules(text, &[("lib.alloy", module)]);
    rig.apply_configuration(load(&stage(1, ""))).await;
    let source = rig.instance_of::<super::components::Source>("test.source.in");
    let mut refused = 0;
    for update in 0..1_000_u64 {
        let wrong = match update % 5 {
            1 => "test.sinc \"s\" { }",
            3 => "test.consumer \"c\" { input = \"bad\" }",
            _ => "",
        };
        match rig.try_configuration(load(&stage(update % 3, wrong))).await {
            Ok(_) if update % 7 == 0 => drop(rig.engine.rollback()),
            Ok(_) => rig.engine.commit().await,
            Err(_) => refused += 1,
        }
    }
    assert_eq!(refused, 400);
    let soon = source.accepted.load(Ordering::SeqCst) + 10;
    until("batches flow on", || source.accepted.load(Ordering::SeqCst) >= soon).await;
    let book = Arc::clone(&rig.book);
    rig.engine.drained().await;
    let shared = Arc::clone(rig.engine.shared());
    rig.engine.shutdown(Duration::from_secs(10)).await;
    assert!(shared.retirements.is_empty() && shared.tasks.is_empty(), "no task is left");
    let accepted = source.accepted.load(Ordering::SeqCst);
    let delivered = book.delivered();
    for number in 1..=accepted {
        assert_eq!(delivered.get(&number).map(Vec::len), Some(1), "batch {number} of {accepted}");
    }
    assert!(accepted > 100, "the load was no load: {accepted} batches");
}
