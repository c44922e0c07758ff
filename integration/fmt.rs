//! `invar fmt` as it is used: on files, folders, patterns and standard input, by people and in CI.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const UNTIDY: &str = "a \"b\" {\nx = 1\nlong_name = [ 2,3 ] // kept\n}\n";
const TIDY: &str = "a \"b\" {\n\tx         = 1\n\tlong_name = [2, 3] // kept\n}\n";
const BROKEN: &str = "a \"b\" {\n\tx = 1 2\n}\n";

/// What a run of `invar fmt` says.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn fmt_with_input(folder: &Path, arguments: &[&str], input: &str) -> Said {
    let mut child = Command::new(env!("CARGO_BIN_EXE_invar"))
        .arg("fmt")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A run that is refused does not read.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap().into()
}

fn fmt(folder: &Path, arguments: &[&str]) -> Said {
    fmt_with_input(folder, arguments, "")
}

/// A folder with the given files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

#[test]
fn standard_input_goes_to_standard_output() {
    let folder = folder(&[]);
    for arguments in [&[][..], &["-"]] {
        let said = fmt_with_input(folder.path(), arguments, UNTIDY);
        assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, TIDY, ""));
    }
    assert_eq!(fmt_with_input(folder.path(), &["-t"], TIDY).code, 0);
    let said = fmt_with_input(folder.path(), &["-t"], UNTIDY);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert_eq!(said.err, "file <stdin> is not formatted correctly\n");
    // There is no file to write to.
    assert_eq!(fmt_with_input(folder.path(), &["-w"], UNTIDY).code, 64);
}

#[test]
fn files_go_to_standard_output_and_stay_as_they_are() {
    let folder = folder(&[("one.alloy", UNTIDY), ("other.river", UNTIDY)]);
    let said = fmt(folder.path(), &["one.alloy", "other.river"]);
    assert_eq!((said.code, said.out), (0, TIDY.repeat(2)));
    assert_eq!(fs::read_to_string(folder.path().join("one.alloy")).unwrap(), UNTIDY);
}

#[test]
fn files_are_written_in_place_only_when_they_change() {
    let folder = folder(&[("untidy.alloy", UNTIDY), ("tidy.alloy", TIDY)]);
    let path = |name: &str| folder.path().join(name);
    fs::set_permissions(path("untidy.alloy"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("untidy.alloy", path("link.alloy")).unwrap();
    let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path(name)).unwrap());
    let before = inode("tidy.alloy");

    let said = fmt(folder.path(), &["-w", "link.alloy", "tidy.alloy"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "", ""));
    assert_eq!(fs::read_to_string(path("untidy.alloy")).unwrap(), TIDY);
    assert_eq!(fs::metadata(path("untidy.alloy")).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(fs::symlink_metadata(path("link.alloy")).unwrap().is_symlink());
    assert_eq!(inode("tidy.alloy"), before, "a tidy file is not written again");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "nothing is left over");
}

#[test]
fn a_check_names_every_file_and_changes_none() {
    let folder = folder(&[
        ("a.alloy", UNTIDY),
        ("sub/b.alloy", UNTIDY),
        ("sub/tidy.alloy", TIDY),
        ("sub/.hidden/c.alloy", UNTIDY),
        ("sub/note.txt", UNTIDY),
    ]);
    for flag in ["-t", "--check", "--test"] {
        let said = fmt(folder.path(), &[flag, "."]);
        assert_eq!(said.code, 1);
        let expected =
            "file ./a.alloy is not formatted correctly\nfile ./sub/b.alloy is not formatted correctly\n";
        assert_eq!((said.err.as_str(), said.out.as_str()), (expected, ""));
    }
    assert_eq!(fmt(folder.path(), &["-w", "."]).code, 0);
    assert_eq!(fmt(folder.path(), &["-t", "."]).code, 0);
    assert_eq!(fs::read_to_string(folder.path().join("sub/.hidden/c.alloy")).unwrap(), UNTIDY);
    assert_eq!(fs::read_to_string(folder.path().join("sub/note.txt")).unwrap(), UNTIDY);
    assert_eq!(fmt(folder.path(), &["-w", "-t", "."]).code, 64, "one or the other");
}

#[test]
fn patterns_are_expanded() {
    let folder = folder(&[("a/x.alloy", UNTIDY), ("b/x.alloy", UNTIDY), ("b/y.alloy", TIDY)]);
    // The second naming of a file is not a second file.
    let said = fmt(folder.path(), &["-t", "*/x.alloy", "a/x.alloy"]);
    assert_eq!(said.err.lines().count(), 2, "{}", said.err);
    let said = fmt(folder.path(), &["-t", "**/y.alloy"]);
    assert_eq!(said.code, 0);
    let said = fmt(folder.path(), &["-t", "*/none.alloy"]);
    assert_eq!((said.code, said.err.as_str()), (1, "invar: */none.alloy: nothing matches this pattern\n"));
}

#[test]
fn a_difference_is_shown() {
    let folder = folder(&[("a.alloy", UNTIDY), ("tidy.alloy", TIDY)]);
    let said = fmt(folder.path(), &["--diff", "a.alloy", "tidy.alloy"]);
    let expected = "\
--- a.alloy.orig
+++ a.alloy
@@ -1,4 +1,4 @@
 a \"b\" {
-x = 1
-long_name = [ 2,3 ] // kept
+\tx         = 1
+\tlong_name = [2, 3] // kept
 }
";
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, expected, ""));
    let said = fmt(folder.path(), &["--diff", "-t", "a.alloy"]);
    assert_eq!((said.code, said.out.as_str()), (1, expected));
    let said = fmt(folder.path(), &["--diff", "-w", "a.alloy"]);
    assert_eq!((said.code, said.out.as_str()), (0, expected));
    assert_eq!(fs::read_to_string(folder.path().join("a.alloy")).unwrap(), TIDY);
    let said = fmt(folder.path(), &["--color", "always", "--diff", "a.alloy"]);
    assert_eq!((said.code, said.out.as_str()), (0, ""), "nothing is left to change");
}

#[test]
fn errors_are_shown_and_do_not_stop_the_rest() {
    let folder = folder(&[("broken.alloy", BROKEN), ("untidy.alloy", UNTIDY)]);
    let said = fmt(folder.path(), &["-w", "broken.alloy", "missing.alloy", "untidy.alloy"]);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert!(said.err.contains("broken.alloy:2:8"), "{}", said.err);
    assert!(said.err.contains("expected TERMINATOR, got NUMBER"), "{}", said.err);
    assert!(said.err.contains('^') || said.err.contains('┬'), "a caret: {}", said.err);
    assert!(said.err.contains("invar: missing.alloy: "), "{}", said.err);
    assert_eq!(fs::read_to_string(folder.path().join("broken.alloy")).unwrap(), BROKEN);
    assert_eq!(fs::read_to_string(folder.path().join("untidy.alloy")).unwrap(), TIDY);
    let empty = self::folder(&[("note.txt", "")]);
    let said = fmt(empty.path(), &["-t", "."]);
    assert_eq!((said.code, said.err.as_str()), (1, "invar: .: no *.alloy file in this folder\n"));
}

#[test]
fn the_other_name_works() {
    let output = Command::new(env!("CARGO_BIN_EXE_invar")).args(["format", "--help"]).output().unwrap();
    assert!(output.status.success());
}
