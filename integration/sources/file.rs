//! Files of this host: a folder a case, and what becomes of folders when people and tools are careless.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::matrix::{Case, Kind, Outcomes, Place, Trouble, play};

/// What is done to a folder.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Careless {
    Delete,
    Empty,
    DanglingLink,
    CircularLink,
    Pipe,
    Enlarge,
    Restless,
    Permissions,
    /// The key is not on the server's list any more.
    LockOut,
}

struct Files {
    directory: tempfile::TempDir,
    settled: std::sync::Arc<AtomicBool>,
}

impl Files {
    fn folder(&self, case: &str) -> PathBuf {
        self.directory.path().join(case)
    }

    /// Where a folder is while something else is in its place.
    fn aside(&self, case: &str) -> PathBuf {
        self.directory.path().join(format!("{case}.aside"))
    }
}

/// Removes whatever is there.
fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim() == "0"
}

impl Kind for Files {
    fn settings(&self, place: &Place<'_>) -> String {
        let folder = self.folder(place.case);
        format!(
            "file = {{ path = \"{}\" }}\nlimits = {{ file = \"64KiB\" }}\ntimeout = \"10s\"\n",
            folder.display()
        )
    }

    fn publish(&self, texts: &[(&str, String)]) {
        for (case, text) in texts {
            // What is published while something else is in the folder's place is seen when the folder is back.
            let aside = self.aside(case);
            let folder = if aside.exists() { aside } else { self.folder(case) };
            if !folder.exists() {
                fs::create_dir(&folder).unwrap();
                set_mode(&folder, 0o755);
            }
            let (new, file) = (folder.join(".new"), folder.join("main.alloy"));
            fs::write(&new, text).unwrap();
            set_mode(&new, 0o644);
            fs::rename(&new, &file).unwrap();
        }
    }

    fn begin(&self, case: &str, careless: Careless) {
        let (folder, aside) = (self.folder(case), self.aside(case));
        match careless {
            Careless::Enlarge => {
                return fs::write(folder.join("more.alloy"), vec![b'\n'; 100 << 10]).unwrap();
            }
            Careless::Restless => {
                let settled = std::sync::Arc::clone(&self.settled);
                std::thread::spawn(move || {
                    let file = folder.join("restless.alloy");
                    for number in 0.. {
                        if settled.load(Ordering::SeqCst) {
                            break;
                        }
                        fs::write(&file, format!("// {number}\n")).unwrap();
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    fs::remove_file(&file).unwrap();
                });
                return;
            }
            // Root reads what nobody may list, and refuses what everybody may write.
            Careless::Permissions => return set_mode(&folder, if is_root() { 0o777 } else { 0o311 }),
            Careless::LockOut => return,
            _ => fs::rename(&folder, &aside).unwrap(),
        }
        match careless {
            Careless::Empty => fs::create_dir(&folder).unwrap(),
            Careless::DanglingLink => symlink(folder.with_extension("gone"), &folder).unwrap(),
            Careless::CircularLink => symlink(&folder, &folder).unwrap(),
            Careless::Pipe => assert!(Command::new("mkfifo").arg(&folder).status().unwrap().success()),
            _ => {}
        }
    }

    fn end(&self, case: &str, careless: Careless) {
        let (folder, aside) = (self.folder(case), self.aside(case));
        match careless {
            Careless::Enlarge => fs::remove_file(folder.join("more.alloy")).unwrap(),
            Careless::Restless => self.settled.store(true, Ordering::SeqCst),
            Careless::Permissions => set_mode(&folder, 0o755),
            Careless::LockOut => {}
            _ => {
                remove(&folder);
                fs::rename(&aside, &folder).unwrap();
            }
        }
    }
}

pub(crate) fn on_this_host() -> Option<Outcomes> {
    let case = |name, careless, class, says| Case::new(name, Trouble::Host(careless)).fails(class, says);
    let permissions: &[&str] = if is_root() { &["may write", "chmod go-w"] } else { &["may not read"] };
    let cases = vec![
        case("deleted", Careless::Delete, "not_found", &["does not exist"]),
        case("emptied", Careless::Empty, "rejected", &["no *.alloy files"]),
        case("dangling_link", Careless::DanglingLink, "not_found", &["does not exist"]),
        case("circular_link", Careless::CircularLink, "transient", &["cannot be read", "symbolic links"]),
        case("pipe_in_its_place", Careless::Pipe, "rejected", &["is not a file"]),
        case("too_large", Careless::Enlarge, "rejected", &["longer than 64 KiB"]),
        case("restless", Careless::Restless, "transient", &["does not hold still"]),
        case("insecure_permissions", Careless::Permissions, "forbidden", permissions),
    ];
    let directory = tempfile::tempdir().unwrap();
    set_mode(directory.path(), 0o755);
    let settled = std::sync::Arc::new(AtomicBool::new(false));
    play("files", Some(Box::new(Files { directory, settled })), cases)
}
