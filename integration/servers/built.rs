//! Where servers that are built for tests are kept. Of the standard library alone, so that any test can include it by path.

use std::path::PathBuf;

/// `$INVAR_SERVERS`, or a folder below the user's cache folder.
pub fn built_servers() -> PathBuf {
    let cache = || {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from)
    };
    std::env::var_os("INVAR_SERVERS").map_or_else(|| cache().join("invar-servers"), PathBuf::from)
}

/// Whether this server is built. Says so on stderr where it is not; where servers are required, that is an error.
pub fn is_built(name: &str, binary: &str) -> bool {
    let built = built_servers().join(binary).is_file();
    if !built {
        assert!(std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(), "{name} is not built");
        let script = name.to_lowercase();
        eprintln!("skipped: {name} is not built; integration/servers/{script}/build builds it");
    }
    built
}
