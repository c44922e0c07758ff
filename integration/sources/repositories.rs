//! What happens to repositories: a repository a case, behind the real `git http-backend`. Each is led to where its source
//! has to refuse what is there, or has to follow and say so, and is then put in order again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use invar_integration::{GitServer, http_backend};

use crate::matrix::{self, Case, Kind, Outcomes, Place, Trouble, play};
use crate::repository::TestRepository;
use crate::sshd::generate_key;

const PIPELINE: &str = "main.alloy";
const ADA: &str = "ada";
const EVE: &str = "eve";

/// A case, what its settings say, and what is done to its repository.
struct Edge {
    case: fn() -> Case,
    /// Further keys of `git`.
    git: &'static str,
    /// Further lines of the source; `KEYS` stands for the file of keys that are trusted.
    more: &'static str,
    spoil: fn(&Published),
    /// Makes the text the next revision, and undoes what was spoilt.
    mend: fn(&Published, &str),
}

const MAIN: &str = "branch = \"main\"";
const STRICT: &str = "history = \"fast-forward\"\n";

fn refused(name: &'static str, class: &'static str, says: &'static [&'static str]) -> Case {
    Case::new(name, Trouble::Content).fails(class, says)
}

fn followed(name: &'static str) -> Case {
    Case::new(name, Trouble::Content)
}

/// Every line of what is decided about repositories, as far as a repository alone can show it.
const EDGES: [Edge; 26] = [
    Edge {
        case: || refused("branch_deleted", "not_found", &["has no `main`", "last good"]).alarms(),
        git: MAIN,
        more: "",
        spoil: |at| {
            at.git(&["push", "-q", "origin", "HEAD:refs/heads/other"]);
            at.git(&["push", "-q", "origin", ":refs/heads/main"]);
        },
        mend: Published::publish,
    },
    Edge {
        case: || refused("repository_deleted", "not_found", &["404", "or it needs a credential"]).alarms(),
        git: MAIN,
        more: "",
        spoil: |at| fs::rename(at.repository.path(), at.aside()).unwrap(),
        mend: |at, text| {
            fs::rename(at.aside(), at.repository.path()).unwrap();
            at.publish(text);
        },
    },
    Edge {
        case: || refused("emptied", "rejected/empty_source", &["has no commits yet"]),
        git: MAIN,
        more: "",
        spoil: |at| drop(at.git(&["push", "-q", "origin", ":refs/heads/main"])),
        mend: Published::publish,
    },
    Edge {
        case: || refused("files_gone", "rejected/empty_source", &["the commit has no files at pipelines"]),
        git: MAIN,
        more: "path = \"pipelines\"\n",
        spoil: |at| {
            at.git(&["rm", "-q", "-r", "pipelines"]);
            at.push("Remove");
        },
        mend: Published::publish,
    },
    Edge {
        case: || {
            refused("force_pushed", "rejected/history", &["no longer contains", "invar accept-history"])
                .alarms()
        },
        git: MAIN,
        more: STRICT,
        spoil: |at| at.amend("// another history\n"),
        mend: Published::publish_from_before,
    },
    Edge {
        case: || followed("force_pushed_and_noticed").notes(&["history_rewritten", "no longer contains"]),
        git: MAIN,
        more: "",
        spoil: |_| {},
        mend: |at, text| at.amend(text),
    },
    Edge {
        case: || refused("rewound", "rejected/history", &["went back", "invar accept-history"]).alarms(),
        git: MAIN,
        more: STRICT,
        spoil: |at| {
            at.git(&["reset", "-q", "--hard", "HEAD~1"]);
            at.git(&["push", "-q", "--force", "origin", "HEAD"]);
        },
        mend: Published::publish_from_before,
    },
    Edge {
        case: || {
            refused("recreated", "rejected/history", &["no longer contains", "invar accept-history"]).alarms()
        },
        git: MAIN,
        more: STRICT,
        spoil: Published::recreate,
        mend: |at, text| {
            fs::remove_dir_all(at.repository.path()).unwrap();
            fs::rename(at.aside(), at.repository.path()).unwrap();
            at.publish(text);
        },
    },
    Edge {
        case: || followed("default_branch_changed").notes(&["default_branch_changed", "now `next`"]),
        git: "",
        more: "",
        spoil: |_| {},
        mend: |at, text| {
            at.git(&["checkout", "-q", "-b", "next"]);
            at.publish(text);
            let bare = at.repository.path().display().to_string();
            at.git(&["--git-dir", &bare, "symbolic-ref", "HEAD", "refs/heads/next"]);
        },
    },
    Edge {
        case: || refused("tag_moved", "rejected/tag_moved", &["v1.0.0", "git.allow_tag_move"]).alarms(),
        git: "semver = \"1.x\"",
        more: "",
        spoil: |at| {
            at.write("// another release of the same name\n");
            at.push("Again");
            at.tag("v1.0.0");
        },
        mend: |at, text| {
            at.git(&["reset", "-q", "--hard", "HEAD~1"]);
            at.tag("v1.0.0");
            at.publish(text);
            at.tag("v1.1.0");
        },
    },
    Edge {
        case: || refused("lfs_pointer", "rejected/lfs_pointer", &["LFS"]),
        git: MAIN,
        more: "",
        spoil: |at| {
            at.write("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
            at.push("A pointer");
        },
        mend: Published::publish,
    },
    Edge {
        case: || refused("link_out", "rejected/symlink_escape", &["leads out of the repository"]),
        git: MAIN,
        more: "",
        spoil: |at| at.link("/etc/passwd"),
        mend: Published::publish,
    },
    Edge {
        case: || refused("link_in_a_circle", "rejected/symlink_escape", &["in a circle"]),
        git: MAIN,
        more: "",
        spoil: |at| at.link("main.alloy"),
        mend: Published::publish,
    },
    Edge {
        case: || refused("link_to_nothing", "rejected/shape", &["leads nowhere"]),
        git: MAIN,
        more: "",
        spoil: |at| at.link("nothing.alloy"),
        mend: Published::publish,
    },
    Edge {
        case: || refused("unsafe_name", "rejected/name", &["slash.alloy", "give it another name"]),
        git: MAIN,
        more: "",
        spoil: |at| at.add("back\\slash.alloy", b""),
        mend: Published::publish,
    },
    Edge {
        case: || followed("names_that_differ_in_case").notes(&["case_collision"]),
        git: MAIN,
        more: "",
        spoil: |at| {
            at.write_to("Notes.md", b"one");
            at.write_to("notes.md", b"two");
        },
        mend: Published::publish,
    },
    Edge {
        case: || refused("large_file", "rejected/limits", &["64 KiB", "limits.file"]),
        git: MAIN,
        more: "limits = { file = \"64KiB\" }\n",
        spoil: |at| at.add("more.alloy", &[b'\n'; 100 << 10]),
        mend: Published::publish,
    },
    Edge {
        case: || refused("many_files", "rejected/limits", &["more than 3 files", "limits.files"]),
        git: MAIN,
        more: "limits = { files = 3 }\n",
        spoil: |at| {
            for name in ["1.md", "2.md", "3.md"] {
                at.write_to(name, b"more");
            }
            at.push("More");
        },
        mend: Published::publish,
    },
    Edge {
        case: || refused("many_bytes", "rejected/limits", &["more than 64 KiB", "limits.bytes"]),
        git: MAIN,
        more: "limits = { bytes = \"64KiB\" }\n",
        spoil: |at| {
            for name in ["1.md", "2.md"] {
                at.write_to(name, &[b'\n'; 40 << 10]);
            }
            at.push("More");
        },
        mend: Published::publish,
    },
    Edge {
        case: || refused("large_pack", "rejected/limits", &["32 KiB", "limits.pack"]),
        git: MAIN,
        more: "path = \"pipelines\"\nlimits = { pack = \"32KiB\" }\n",
        spoil: |at| at.add("noise", &noise(100 << 10)),
        mend: Published::publish,
    },
    Edge {
        case: || refused("submodule_not_pushed", "not_found", &["submodule `module`", "push the commit"]),
        git: "branch = \"main\", submodules = \"shallow\"",
        more: "",
        spoil: |at| at.submodule("../fleet-of-nobody.git"),
        mend: Published::publish,
    },
    Edge {
        case: || {
            let says = &["elsewhere.example", "which the settings do not allow", "submodule_hosts"];
            refused("submodule_elsewhere", "rejected/shape", says)
        },
        git: "branch = \"main\", submodules = \"shallow\"",
        more: "",
        spoil: |at| at.submodule("https://elsewhere.example/net.git"),
        mend: Published::publish,
    },
    Edge {
        case: || refused("incomplete", "transient", &["asked again by itself"]),
        git: MAIN,
        more: "",
        spoil: |at| {
            at.write("// an object that the server loses\n");
            at.git(&["add", "-A"]);
            at.git(&["commit", "-q", "-m", "Lose"]);
            // It is lost before anybody reads the branch.
            at.git(&["push", "-q", "origin", "HEAD:refs/heads/lost"]);
            let object = at.git(&["rev-parse", "HEAD:pipelines/main.alloy"]);
            let object = at.repository.path().join("objects").join(&object[..2]).join(&object[2..]);
            fs::remove_file(object).unwrap();
            let bare = at.repository.path().display().to_string();
            at.git(&["--git-dir", &bare, "update-ref", "refs/heads/main", "refs/heads/lost"]);
        },
        mend: Published::publish,
    },
    Edge {
        case: || refused("unsigned", "rejected/verification", &["is not signed", "git commit -S"]).alarms(),
        git: MAIN,
        more: "verify = { mode = \"head\", ssh = \"KEYS\" }\n",
        spoil: |at| {
            at.sign_as(None);
            at.amend("// whoever can push\n");
        },
        mend: Published::publish_signed,
    },
    Edge {
        case: || {
            let says = &["between", "is not signed", "git commit -S"];
            refused("unsigned_below_a_signed_one", "rejected/verification", says).alarms()
        },
        git: MAIN,
        more: "verify = { mode = \"range\", ssh = \"KEYS\" }\n",
        spoil: |at| {
            at.sign_as(None);
            at.write("// slipped in\n");
            at.push("Slip in");
            at.sign_as(Some(ADA));
            at.write_to("README.md", b"signed by somebody who did not look below");
            at.push("Look the other way");
        },
        mend: Published::publish_signed,
    },
    Edge {
        case: || {
            let says = &["SHA256:", "not among the trusted keys", "allowed_signers"];
            refused("signed_by_a_stranger", "rejected/verification", says).alarms()
        },
        git: MAIN,
        more: "verify = { mode = \"head\", ssh = \"KEYS\" }\n",
        spoil: |at| {
            at.sign_as(Some(EVE));
            at.write("// signed by a stranger\n");
            at.push("Sneak in");
        },
        mend: Published::publish_signed,
    },
];

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// The repository of a case.
struct Published {
    repository: TestRepository,
    keys: PathBuf,
}

impl Published {
    fn git(&self, arguments: &[&str]) -> String {
        self.repository.git(arguments)
    }

    /// Where the bare repository is while something else, or nothing, is in its place.
    fn aside(&self) -> PathBuf {
        self.repository.path().with_extension("aside")
    }

    fn write_to(&self, path: &str, content: &[u8]) {
        let path = self.repository.work().join(path);
        // What is there may be a link.
        drop(fs::remove_file(&path));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn write(&self, text: &str) {
        self.write_to(&format!("pipelines/{PIPELINE}"), text.as_bytes());
    }

    fn push(&self, subject: &str) {
        self.repository.commit_all(subject);
    }

    fn add(&self, path: &str, content: &[u8]) {
        self.write_to(path, content);
        self.push("Add");
    }

    /// Publishes a text on top of what is there, without anything that was added to it.
    fn publish(&self, text: &str) {
        let first = self.git(&["rev-list", "--max-parents=0", "HEAD"]);
        self.git(&["read-tree", "--reset", "-u", &first]);
        self.write(text);
        self.push("Publish");
    }

    /// As [`Self::publish`], on top of what was there before it was spoilt.
    fn publish_from_before(&self, text: &str) {
        self.git(&["reset", "-q", "--hard", "before"]);
        self.publish(text);
    }

    fn publish_signed(&self, text: &str) {
        self.sign_as(Some(ADA));
        self.publish_from_before(text);
    }

    /// Replaces the newest commit.
    fn amend(&self, text: &str) {
        self.write(text);
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--amend", "-m", "Amend"]);
        self.git(&["push", "-q", "--force", "origin", "HEAD"]);
    }

    fn tag(&self, name: &str) {
        self.git(&["tag", "-f", "-a", "-m", "Release", name]);
        self.git(&["push", "-q", "--force", "origin", name]);
    }

    /// Puts a link in the place of the pipeline.
    fn link(&self, target: &str) {
        let path = self.repository.work().join("pipelines").join(PIPELINE);
        fs::remove_file(&path).unwrap();
        symlink(target, &path).unwrap();
        self.push("Link");
    }

    fn submodule(&self, url: &str) {
        self.write_to(
            ".gitmodules",
            format!("[submodule \"m\"]\n\tpath = module\n\turl = {url}\n").as_bytes(),
        );
        fs::create_dir_all(self.repository.work().join("module")).unwrap();
        self.git(&["add", ".gitmodules"]);
        let entry = format!("160000,{},module", "1".repeat(40));
        self.git(&["update-index", "--add", "--cacheinfo", &entry]);
        self.git(&["commit", "-q", "-m", "Module"]);
        self.git(&["push", "-q", "origin", "HEAD"]);
    }

    /// Puts a repository in the place of this one that never had anything to do with it.
    fn recreate(&self) {
        fs::rename(self.repository.path(), self.aside()).unwrap();
        let root = self.repository.path().parent().unwrap();
        let name = self.repository.path().file_stem().unwrap().to_str().unwrap();
        let fresh = TestRepository::create(root, &format!("{name}-fresh.git"));
        fresh.commit("Fresh", &[("pipelines/main.alloy", "// another beginning\n")]);
        fs::rename(fresh.path(), self.repository.path()).unwrap();
    }

    /// Whose key signs the next commits.
    fn sign_as(&self, who: Option<&str>) {
        let Some(who) = who else {
            self.git(&["config", "commit.gpgsign", "false"]);
            return;
        };
        self.git(&["config", "gpg.format", "ssh"]);
        self.git(&["config", "user.signingkey", self.keys.join(who).to_str().unwrap()]);
        self.git(&["config", "commit.gpgsign", "true"]);
    }
}

struct Repositories {
    server: GitServer,
    published: BTreeMap<&'static str, Published>,
    /// What came while a case was spoilt: its text, or nothing yet.
    aside: RefCell<BTreeMap<String, Option<String>>>,
    directory: tempfile::TempDir,
}

impl Repositories {
    fn start() -> Option<Box<dyn Kind>> {
        if !http_backend::is_available() {
            matrix::skip("git with http-backend is not installed");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let (root, keys) = (directory.path().join("repositories"), directory.path().join("keys"));
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(&keys).unwrap();
        for who in [ADA, EVE] {
            generate_key(&keys.join(who), "ed25519", "");
        }
        let public = fs::read_to_string(keys.join(ADA).with_extension("pub")).unwrap();
        fs::write(keys.join("allowed_signers"), format!("ada@example.com {public}")).unwrap();
        let published = EDGES.iter().map(|edge| {
            let name = (edge.case)().name;
            let repository = TestRepository::create(&root, &format!("{name}.git"));
            repository.git(&["--git-dir", repository.path().to_str().unwrap(), "config", "gc.auto", "0"]);
            (name, Published { repository, keys: keys.clone() })
        });
        let published = published.collect();
        // A module that exists, so that only its commit is missing.
        TestRepository::create(&root, "fleet-of-nobody.git").commit("Begin", &[("a.alloy", "")]);
        let server = GitServer::start(&root).unwrap();
        Some(Box::new(Self { server, published, aside: RefCell::default(), directory }))
    }

    fn allowed_signers(&self) -> PathBuf {
        self.directory.path().join("keys/allowed_signers")
    }
}

fn edge(case: &str) -> &'static Edge {
    EDGES.iter().find(|edge| (edge.case)().name == case).unwrap()
}

impl Kind for Repositories {
    fn upstream(&self) -> Option<SocketAddr> {
        Some(self.server.address())
    }

    fn settings(&self, place: &Place<'_>) -> String {
        let (at, case, edge) = (place.address.unwrap(), place.case, edge(place.case));
        let separator = if edge.git.is_empty() { "" } else { ", " };
        let keys = self.allowed_signers().display().to_string();
        // Looking back along a history takes some requests more.
        format!(
            "git = {{ url = \"http://{at}/{case}.git\"{separator}{} }}\ntimeout = \"10s\"\n{}",
            edge.git,
            edge.more.replace("KEYS", &keys)
        )
    }

    fn publish(&self, texts: &[(&str, String)]) {
        for (case, text) in texts {
            let at = &self.published[*case];
            match self.aside.borrow_mut().get_mut(*case) {
                Some(aside) => *aside = Some(text.clone()),
                None if at.git(&["log", "--all", "--oneline"]).is_empty() => at.begin(edge(case), text),
                // Nothing of it does harm.
                None => (edge(case).mend)(at, text),
            }
        }
    }

    fn spoil(&self, case: &str) {
        let edge = edge(case);
        if (edge.case)().stands_still() {
            self.aside.borrow_mut().insert(case.to_owned(), None);
        }
        (edge.spoil)(&self.published[case]);
    }

    fn mend(&self, case: &str) {
        if let Some(text) = self.aside.borrow_mut().remove(case) {
            (edge(case).mend)(&self.published[case], &text.unwrap());
        }
    }
}

impl Published {
    /// Two commits, so that there is something to go back to, and a release.
    fn begin(&self, edge: &Edge, text: &str) {
        if edge.more.contains("verify") {
            self.sign_as(Some(ADA));
        }
        self.write("// nothing yet\n");
        self.push("Begin");
        self.publish(text);
        self.git(&["tag", "before"]);
        if edge.git.contains("semver") {
            self.tag("v1.0.0");
        }
    }
}

pub(crate) fn of_repositories() -> Option<Outcomes> {
    play("repositories", Repositories::start(), EDGES.iter().map(|edge| (edge.case)()).collect())
}
