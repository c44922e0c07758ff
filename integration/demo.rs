//! The demo plays its whole story by itself, and every step of it holds.

use std::process::Command;

#[test]
fn the_demo_plays_its_story() {
    // Cargo builds the examples of a package with its tests, beside the binary's folder.
    let invar = std::path::Path::new(env!("CARGO_BIN_EXE_invar"));
    let demo = invar.with_file_name("examples").join("demo");
    assert!(demo.is_file(), "{} is not built; run `cargo test --all-targets`", demo.display());
    let output =
        Command::new(demo).arg("--invar").arg(invar).arg("--auto").output().expect("the demo starts");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("All of it held"), "{text}");
    println!("{text}");
}
