//! Sources in a world that misbehaves, as a whole agent meets it: one agent a kind of source, one source a fault, and a
//! proxy before each that stands between it and a real server.
//!
//! Each case shows the same story. The source brings a first revision, which runs. The fault begins, and a second revision
//! is published. What ran runs on: the same instances, and samples flow. The status says what is wrong and what next. The
//! fault ends, and the second revision runs without anybody's help.
//!
//! A further kind implements [`matrix::Kind`], gets a [`Suite`] here, and names its cases, most of which it finds in
//! [`faults`].
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../servers/http/nginx.rs"]
#[allow(dead_code, unreachable_pub)]
mod nginx;
#[path = "../servers/oci/publisher.rs"]
#[allow(dead_code, unreachable_pub)]
mod publisher;
#[path = "../servers/oci/registry.rs"]
#[allow(dead_code, unreachable_pub)]
mod registry;
#[path = "../servers/git/repository.rs"]
#[allow(unreachable_pub)]
mod repository;
#[path = "../servers/versitygw/writer.rs"]
#[allow(unreachable_pub)]
mod s3_writer;
#[path = "../servers/git/sshd.rs"]
#[allow(dead_code, unreachable_pub)]
mod sshd;
#[path = "../servers/versitygw/server.rs"]
#[allow(dead_code, missing_docs, unreachable_pub)]
mod versitygw;

mod canary;
mod certificates;
mod faults;
mod file;
mod git;
mod http;
mod matrix;
mod oci;
mod proxy;
mod repositories;
mod s3;
mod ssh;

use matrix::Suite;

/// A test a case, and the check that the suite has no case without one.
macro_rules! cases {
    ($suite:ident: $($case:ident)*) => {
        mod $suite {
            $(
                #[test]
                fn $case() {
                    super::$suite.shows(stringify!($case));
                }
            )*

            #[test]
            fn every_case_has_a_test() {
                super::$suite.has_exactly(&[$(stringify!($case)),*]);
            }
        }
    };
}

#[allow(non_upper_case_globals, reason = "the module of its tests has the name, too")]
static git_http: Suite = Suite::new(git::over_http);
#[allow(non_upper_case_globals, reason = "as above")]
static git_http_denied: Suite = Suite::new(git::over_http_denied);
#[allow(non_upper_case_globals, reason = "as above")]
static git_https: Suite = Suite::new(git::over_https);
#[allow(non_upper_case_globals, reason = "as above")]
static git_repositories: Suite = Suite::new(repositories::of_repositories);
#[allow(non_upper_case_globals, reason = "as above")]
static git_ssh: Suite = Suite::new(ssh::over_ssh);
#[allow(non_upper_case_globals, reason = "as above")]
static document_http: Suite = Suite::new(http::over_http);
#[allow(non_upper_case_globals, reason = "as above")]
static document_http_denied: Suite = Suite::new(http::over_http_denied);
#[allow(non_upper_case_globals, reason = "as above")]
static document_https: Suite = Suite::new(http::over_https);
#[allow(non_upper_case_globals, reason = "as above")]
static document_contents: Suite = Suite::new(http::of_contents);
#[allow(non_upper_case_globals, reason = "as above")]
static bucket: Suite = Suite::new(s3::of_a_bucket);
#[allow(non_upper_case_globals, reason = "as above")]
static bucket_denied: Suite = Suite::new(s3::of_a_bucket_denied);
#[allow(non_upper_case_globals, reason = "as above")]
static bucket_contents: Suite = Suite::new(s3::of_contents);
#[allow(non_upper_case_globals, reason = "as above")]
static bucket_https: Suite = Suite::new(s3::over_https);
#[allow(non_upper_case_globals, reason = "as above")]
static artifact: Suite = Suite::new(oci::of_a_registry);
#[allow(non_upper_case_globals, reason = "as above")]
static artifact_denied: Suite = Suite::new(oci::of_a_registry_denied);
#[allow(non_upper_case_globals, reason = "as above")]
static artifact_contents: Suite = Suite::new(oci::of_contents);
#[allow(non_upper_case_globals, reason = "as above")]
static artifact_https: Suite = Suite::new(oci::over_https);
#[allow(non_upper_case_globals, reason = "as above")]
static files: Suite = Suite::new(file::on_this_host);

/// All of them, in the order in which they are begun: first those that wait for a minute.
static SUITES: [&Suite; 18] = [
    &git_http_denied,
    &document_http_denied,
    &bucket_denied,
    &artifact_denied,
    &git_ssh,
    &git_http,
    &git_repositories,
    &git_https,
    &document_http,
    &document_https,
    &document_contents,
    &bucket,
    &bucket_contents,
    &bucket_https,
    &artifact,
    &artifact_contents,
    &artifact_https,
    &files,
];

cases! { git_http:
    refuse hang reset drip truncate half_open too_long too_short
    not_modified not_found request_timeout precondition_failed too_many_requests odd_status server_error unavailable
    unavailable_for_a_while page clock_ahead clock_behind
}

// A credential that is refused is not tried again for a minute, so these take as long.
cases! { git_http_denied:
    unauthorized forbidden too_many_requests_for_who_knows_how_long moved_to_another_host
}

cases! { git_https:
    expired_certificate certificate_for_another_name unknown_authority reset clock_ahead
}

cases! { git_repositories:
    branch_deleted repository_deleted emptied files_gone force_pushed force_pushed_and_noticed rewound recreated
    default_branch_changed tag_moved lfs_pointer link_out link_in_a_circle link_to_nothing unsafe_name
    names_that_differ_in_case large_file many_files many_bytes large_pack submodule_not_pushed submodule_elsewhere
    incomplete unsigned unsigned_below_a_signed_one signed_by_a_stranger
}

cases! { git_ssh:
    refuse hang reset drip truncate half_open reset_late truncate_late half_open_late locked_out
}

cases! { document_http:
    refuse hang reset drip truncate half_open too_long too_short
    not_modified not_modified_when_asked not_found request_timeout precondition_failed too_many_requests odd_status
    server_error unavailable unavailable_for_a_while page clock_ahead clock_behind
}

cases! { document_http_denied:
    unauthorized forbidden too_many_requests_for_who_knows_how_long sent_in_a_circle sent_to_metadata
    sent_out_of_http wrong_digest
}

cases! { document_https:
    expired_certificate certificate_for_another_name unknown_authority reset clock_ahead
}

cases! { document_contents:
    deleted empty blank no_text page_by_another_name large bomb signature_of_before accepted no_content part_of_it
    sent_nowhere
}

cases! { bucket:
    refuse hang reset drip truncate half_open too_long too_short
    not_modified request_timeout precondition_failed too_many_requests slow_down odd_status server_error unavailable
    unavailable_for_a_while page clock_ahead clock_refused no_such_bucket object_not_found object_page
    object_not_modified
}

cases! { bucket_denied:
    listing_forbidden object_forbidden unauthorized unknown_key expired manifest_that_lies
}

cases! { bucket_contents:
    emptied object_emptied object_deleted object_compressed large many manifest_of_before manifest_twice
    manifest_that_is_none manifest_without_objects unsafe_key
}

cases! { bucket_https:
    expired_certificate certificate_for_another_name unknown_authority reset
}

cases! { artifact:
    refuse hang reset drip truncate half_open too_long
    not_modified not_found request_timeout precondition_failed too_many_requests odd_status server_error unavailable
    unavailable_for_a_while page clock_ahead clock_behind
}

cases! { artifact_denied:
    unauthorized forbidden too_many_requests_for_who_knows_how_long too_short
}

cases! { artifact_contents:
    deleted no_files no_archive bomb large files_gone
}

cases! { artifact_https:
    expired_certificate certificate_for_another_name unknown_authority reset
}

cases! { files:
    deleted emptied dangling_link circular_link pipe_in_its_place too_large restless insecure_permissions
}
