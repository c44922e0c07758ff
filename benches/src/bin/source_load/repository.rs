//! Repositories and folders of any size, made in one go.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Files in a folder of the repository.
const FOLDER: usize = 100;

/// Makes a bare repository with one commit: so many files in folders of a hundred, of which some are in `selected/`.
pub(crate) fn make(path: &Path, files: usize, selected: usize) -> std::io::Result<()> {
    std::fs::create_dir_all(path)?;
    run(Command::new("git").args(["init", "-q", "--bare", "-b", "main"]).arg(path))?;
    let mut import = Command::new("git")
        .arg("--git-dir")
        .arg(path)
        .args(["fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()?;
    {
        let input = import.stdin.take().ok_or_else(|| std::io::Error::other("no input"))?;
        let mut input = BufWriter::new(input);
        write!(
            input,
            "commit refs/heads/main\ncommitter Ada <ada@example.com> 1700000000 +0000\ndata 5\nbegin\n"
        )?;
        for number in 0..files {
            let content = content(number);
            let folder = number.checked_sub(selected).map(|number| number / FOLDER);
            let folder = folder.map_or_else(|| "selected".to_owned(), |folder| format!("other/{folder}"));
            let length = content.len();
            write!(input, "M 100644 inline {folder}/{number}.alloy\ndata {length}\n{content}\n")?;
        }
        input.flush()?;
    }
    if import.wait()?.success() { Ok(()) } else { Err(std::io::Error::other("git fast-import failed")) }
}

/// Fills a folder with files.
pub(crate) fn fill(path: &Path, files: usize) -> std::io::Result<()> {
    std::fs::create_dir_all(path)?;
    for number in 0..files {
        std::fs::write(path.join(format!("{number}.alloy")), content(number))?;
    }
    Ok(())
}

/// What does not compress to nothing, some hundred bytes each.
pub(crate) fn content(number: usize) -> String {
    let mut seed = number as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut text = format!("// file {number}\n");
    for line in 0..8 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("setting_{line} = \"{seed:016x}\"\n"));
    }
    text
}

fn run(command: &mut Command) -> std::io::Result<()> {
    if command.status()?.success() { Ok(()) } else { Err(std::io::Error::other("git failed")) }
}
