//! Files: a folder with one file, which is replaced, and which goes away in various ways.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use invar_sources::{FileSource, Source, SourceSettings};

use super::Course;

pub(crate) struct Folder {
    source: Arc<FileSource>,
    step: usize,
    directory: tempfile::TempDir,
}

impl Folder {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("config");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let source = Arc::new(FileSource::open(&SourceSettings::for_file(folder)).unwrap());
        Self { source, step: 0, directory }
    }

    fn folder(&self) -> PathBuf {
        self.directory.path().join("config")
    }

    fn aside(&self) -> PathBuf {
        self.directory.path().join("aside")
    }
}

impl Course for Folder {
    fn source(&self) -> Arc<dyn Source> {
        Arc::clone(&self.source) as Arc<dyn Source>
    }

    fn change(&mut self) {
        self.step += 1;
        let new = self.directory.path().join("new");
        fs::write(&new, format!("// step {}\n", self.step)).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).unwrap();
        fs::rename(&new, self.folder().join("main.alloy")).unwrap();
    }

    fn begin(&mut self, number: usize) {
        let folder = self.folder();
        fs::rename(&folder, self.aside()).unwrap();
        match number % 4 {
            0 => {}
            1 => fs::create_dir(&folder).unwrap(),
            2 => symlink(&folder, &folder).unwrap(),
            _ => assert!(Command::new("mkfifo").arg(&folder).status().unwrap().success()),
        }
    }

    fn end(&mut self) {
        let folder = self.folder();
        match fs::symlink_metadata(&folder) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir(&folder).unwrap(),
            Ok(_) => fs::remove_file(&folder).unwrap(),
            Err(_) => {}
        }
        fs::rename(self.aside(), &folder).unwrap();
    }

    fn kept(&self) -> u64 {
        0
    }
}
