//! If this fails, the code no longer has the shape that `docs/architecture.md` promises: who may know whom,
//! where quinn, tokio and bincode may be named, and what a file may look like.
//!
//! Files are read as Rust tokens, so comments and strings may say anything.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use proc_macro2::{TokenStream, TokenTree};
use serde_json::Value;

/// Which of our crates each crate may depend on, in any way: normal, build and development dependencies.
/// [`TEST_EDGES`] adds to it.
const EDGES: &[(&str, &[&str])] = &[
    ("parlor-transport", &[]),
    ("parlor-media", &[]),
    ("parlor-relay", &["parlor-transport"]),
    ("parlor-client", &["parlor-transport", "parlor-media"]),
    ("parlor-tests", &["parlor-transport", "parlor-media", "parlor-relay", "parlor-client"]),
    ("parlor-benches", &["parlor-transport", "parlor-media", "parlor-relay", "parlor-client"]),
];

/// Further crates that only a crate's tests may depend on.
const TEST_EDGES: &[(&str, &[&str])] = &[
    // Cargo tells the path of a program to the tests of its own package only.
    ("parlor-client", &["parlor-relay"]),
];

/// The shells: files, without `.rs`, and folders that may name quinn and tokio. Every other file in the `src`
/// of a library crate is pure; examples and integration tests may use what they like.
const SHELLS: &[&str] = &[
    "transport/src/clock",
    "transport/src/quic",
    "transport/src/sim",
    "relay/src/connection",
    "relay/src/http/mod",
    "relay/src/http/webhooks",
    "relay/src/main",
    "relay/src/server",
    "client/src/cli",
    "client/src/engine",
    "client/src/main",
    "client/src/pipeline",
];

/// Where bincode may be named: `docs/decisions/0001-bincode-for-control-messages.md`.
const BINCODE: &[&str] = &["transport/src/wire/control"];

/// The folders whose files are pure unless they are in [`SHELLS`]. Media has no shell in this sense: its
/// devices run on threads of their own, and quinn and tokio are unknown to it.
const LIBRARIES: &[&str] = &["transport/src", "relay/src", "client/src", "media/src"];

const FOLDERS: &[&str] = &["transport", "relay", "client", "media", "tests", "benches"];

/// Past this a file has a second subject.
const LINES_MAX: usize = 800;

#[test]
fn crates_know_only_whom_the_picture_shows() {
    let packages = packages();
    let names: BTreeSet<_> = packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names, EDGES.iter().map(|(name, _)| *name).collect(), "the packages of the workspace");

    let mut wrong = Vec::new();
    for Package { name, dependencies } in &packages {
        let has = |edges: &[(&str, &[&str])], to: &str| {
            edges.iter().any(|(from, ends)| from == name && ends.contains(&to))
        };
        for Dependency { name: to, is_for_tests } in dependencies {
            let is_ours = names.contains(to.as_str()) && to != name;
            if is_ours && !has(EDGES, to) && !(*is_for_tests && has(TEST_EDGES, to)) {
                wrong.push(format!("{name} → {to}"));
            }
        }
    }
    assert!(wrong.is_empty(), "edges that the picture lacks: {wrong:#?}");
}

#[test]
fn outside_crates_stay_where_they_belong() {
    for Package { name, dependencies } in packages() {
        let depends_on = |crates: &[&str]| dependencies.iter().any(|d| crates.contains(&d.name.as_str()));
        assert!(!depends_on(&["bincode"]) || name == "parlor-transport", "{name} depends on bincode");
        assert!(
            !depends_on(&["jsonwebtoken"]) || name == "parlor-transport",
            "{name} depends on jsonwebtoken"
        );
        assert!(
            !depends_on(&["quinn", "tokio"]) || name != "parlor-media",
            "media works without any transport"
        );
    }
}

/// With two providers in the tree rustls cannot choose one, and panics at the first connection. Contenders of the
/// benchmark bring their own, which is why they are outside the default build.
#[test]
fn the_default_build_has_one_crypto_provider() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--workspace", "--edges", "normal,build", "--prefix", "none"])
        .current_dir(root())
        .output()
        .expect("cargo runs the tests, so it runs here");
    let tree = String::from_utf8(tree.stdout).unwrap();
    let has = |name: &str| tree.lines().any(|line| line.split(' ').next() == Some(name));
    assert!(has("rustls") && has("ring"), "ring is the provider:\n{tree}");
    for other in ["aws-lc-rs", "openssl-sys", "rsa", "p256", "ed25519-dalek"] {
        assert!(!has(other), "{other} came into the build: find out with `cargo tree -i {other}`");
    }
}

#[test]
fn pure_files_name_neither_quinn_nor_tokio() {
    let is_runtime = |ident: &str| ident.starts_with("quinn") || ident.starts_with("tokio");
    let found = files()
        .filter(|file| file.is_within(LIBRARIES) && !file.is_within(SHELLS))
        .flat_map(|file| file.places_of(is_runtime))
        .collect::<Vec<_>>();
    assert!(found.is_empty(), "only shells may (see SHELLS in this test): {found:#?}");
}

#[test]
fn only_the_control_codec_names_bincode() {
    let found = files()
        .filter(|file| !file.is_within(BINCODE))
        .flat_map(|file| file.places_of(|ident| ident.starts_with("bincode")))
        .collect::<Vec<_>>();
    assert!(found.is_empty(), "{found:#?}");
}

/// Clippy sees to this too, but only where clippy runs.
#[test]
fn maps_of_random_order_are_expected_by_name() {
    let found = files()
        .filter(|file| file.places_of(|ident| ident == "disallowed_types").is_empty())
        .flat_map(|file| file.places_of(|ident| ident == "HashMap" || ident == "HashSet"))
        .collect::<Vec<_>>();
    assert!(
        found.is_empty(),
        "use BTreeMap, IndexMap or FxHashMap, or #[expect] it with a reason: {found:#?}"
    );
}

#[test]
fn files_are_short_and_open_with_what_they_are_for() {
    let mut wrong = Vec::new();
    for file in files() {
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{} has {lines} lines: find its second subject", file.path));
        }
        let first = file.text.lines().find(|line| !line.is_empty() && !line.starts_with("#!["));
        if !first.is_some_and(|line| line.starts_with("//!")) {
            wrong.push(format!("{} does not open with `//!` and what it is for", file.path));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn decisions_are_numbered_once_and_say_something() {
    let mut numbers = BTreeSet::new();
    for path in entries(&root().join("docs/decisions")) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("file names are ASCII").to_owned();
        let number = name
            .split_once('-')
            .filter(|(number, title)| {
                number.len() == 4 && title.len() > ".md".len() && title.ends_with(".md")
            })
            .and_then(|(number, _)| number.parse::<u16>().ok());
        let number = number.unwrap_or_else(|| panic!("{name} is not called NNNN-title.md"));
        assert!(numbers.insert(number), "two decisions have the number of {name}");
        assert!(fs::read_to_string(&path).unwrap().lines().count() > 5, "{name} is all but empty");
    }
    assert!(!numbers.is_empty(), "docs/decisions is empty");
}

#[test]
fn this_test_sees_code_and_not_comments() {
    let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
    let quinn = |text: &str| file("relay/src/limits.rs", text).places_of(|ident| ident == "quinn").len();
    assert_eq!(quinn("//! As quinn does.\n/// Like quinn.\nconst A: &str = \"quinn\"; // quinn"), 0);
    assert_eq!(quinn("fn f() { g(quinn::Endpoint::client) }\nuse quinn as q;"), 2);

    let is_shell = |path| file(path, "").is_within(SHELLS);
    assert!(is_shell("transport/src/clock.rs") && is_shell("transport/src/quic/tls.rs"));
    assert!(!is_shell("transport/src/clocks.rs") && !is_shell("relay/src/room/server.rs"));
}

/// A Rust file of the workspace.
struct File {
    /// Its path from the workspace's root, with `/`.
    path: String,
    text: String,
}

impl File {
    /// Is it one of these files or folders?
    fn is_within(&self, places: &[&str]) -> bool {
        let is_at =
            |place| self.path.strip_prefix(place).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'));
        places.iter().copied().any(is_at)
    }

    /// Where it names an identifier that `wanted` accepts, as `path:line ident`.
    fn places_of(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let tokens =
            self.text.parse::<TokenStream>().unwrap_or_else(|error| panic!("{}: {error}", self.path));
        let mut places = Vec::new();
        let mut queue = vec![tokens];
        while let Some(tokens) = queue.pop() {
            for token in tokens {
                match token {
                    TokenTree::Group(group) => queue.push(group.stream()),
                    TokenTree::Ident(ident) if wanted(&ident.to_string()) => {
                        places.push(format!("{}:{} {ident}", self.path, ident.span().start().line));
                    }
                    _ => {}
                }
            }
        }
        places
    }
}

/// All Rust files of the workspace, in the order of their paths.
fn files() -> impl Iterator<Item = File> {
    let mut paths = Vec::new();
    let mut folders: Vec<_> = FOLDERS.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                paths.push(path);
            }
        }
    }
    paths.sort_unstable();
    paths.into_iter().map(|path| {
        let text = fs::read_to_string(&path).expect("Rust files are UTF-8");
        let parts = path
            .strip_prefix(root())
            .expect("found below the root")
            .iter()
            .map(|part| part.to_str().expect("paths are ASCII"));
        File { path: parts.collect::<Vec<_>>().join("/"), text }
    })
}

/// A package of the workspace.
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

struct Dependency {
    name: String,
    is_for_tests: bool,
}

/// The packages of the workspace, each with what it depends on in any way.
fn packages() -> Vec<Package> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--format-version=1", "--no-deps", "--offline"];
    let output = Command::new(cargo).args(arguments).current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let name =
        |value: &Value| value["name"].as_str().expect("packages and dependencies have a name").to_owned();
    let list = |value: &Value| value.as_array().expect("cargo metadata lists these").clone();
    let dependency =
        |value: &Value| Dependency { name: name(value), is_for_tests: value["kind"].as_str() == Some("dev") };
    list(&metadata["packages"])
        .iter()
        .map(|package| Package {
            name: name(package),
            dependencies: list(&package["dependencies"]).iter().map(dependency).collect(),
        })
        .collect()
}

/// What a folder holds, sorted.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let listing = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut entries: Vec<_> =
        listing.map(|entry| entry.expect("a folder can be read to its end").path()).collect();
    entries.sort_unstable();
    entries
}

/// The workspace's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}
