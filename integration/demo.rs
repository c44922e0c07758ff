//! The demo plays its whole story by itself, and every step of it holds.

#[allow(dead_code, reason = "the way in from the command line is not the test's")]
#[path = "../examples/demo/main.rs"]
mod demo;

#[test]
fn the_demo_plays_its_story() {
    let arguments = demo::Arguments {
        invar: env!("CARGO_BIN_EXE_invar").into(),
        auto: true,
        directory: None,
        builtin_receiver: true,
    };
    demo::play(&arguments).unwrap_or_else(|problem| panic!("{problem}"));
}
