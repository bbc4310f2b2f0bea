//! `parlor app`: an app and its keys, as a relay's configuration has them.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use parlor_transport::token::keys::{Algorithm, NewKey};

use super::Failure;
use super::args::{App, AppCreate};

/// Makes what was asked for.
pub(crate) fn run(app: App) -> Result<(), Failure> {
    let App::Create(args) = app;
    let snippet = create(&args)?;
    std::io::stdout().write_all(snippet.as_bytes()).map_err(Failure::call)
}

/// Writes the files of a new key; gives what belongs into the configuration.
fn create(args: &AppCreate) -> Result<String, Failure> {
    let AppCreate { name, algorithm, kid, directory, print_secret } = args;
    if *print_secret && *algorithm != Algorithm::Hs256 {
        return Err(Failure::usage(format!(
            "--print-secret is for HS256; the private key of {algorithm} goes into a file"
        )));
    }
    let stem = format!("{name}-{}", file_name(kid.as_str()));
    let (key, sign) = match NewKey::generate(*algorithm).map_err(Failure::call)? {
        NewKey::Secret(secret) if *print_secret => {
            (format!("secret = {}", quoted(&secret)), "--secret-file FILE".to_owned())
        }
        NewKey::Secret(secret) => {
            let path = write(directory, &format!("{stem}.secret"), &format!("{secret}\n"), Readers::Owner)?;
            (format!("secret_file = {}", quoted(&path)), format!("--secret-file '{path}'"))
        }
        NewKey::Pair { private, public } => {
            let private = write(directory, &format!("{stem}.private.pem"), &private, Readers::Owner)?;
            let public = write(directory, &format!("{stem}.public.pem"), &public, Readers::Everyone)?;
            (format!("public_key_file = {}", quoted(&public)), format!("--private-key '{private}'"))
        }
    };
    let kid = kid.as_str();
    Ok(format!(
        "# App {name}, key {kid}: for the configuration file of parlor-relay. If the app is there already, add the key\n\
         # to its keys. A token for its user ann:\n\
         #   parlor token create --app {name} --as ann --room standup --publish --kid '{kid}' {sign}\n\
         [[apps]]\n\
         name = {}\n\
         keys = [{{ kid = {}, algorithm = \"{algorithm}\", {key} }}]\n",
        quoted(name.as_str()),
        quoted(kid),
    ))
}

/// A key's id as part of a file's name.
fn file_name(kid: &str) -> String {
    kid.chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' })
        .collect()
}

/// A text as TOML writes it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

enum Readers {
    Owner,
    Everyone,
}

/// Writes a new file; gives its whole path, which is good wherever the relay is started.
fn write(directory: &Path, name: &str, text: &str, readers: Readers) -> Result<String, Failure> {
    let failed = |path: &Path, error: std::io::Error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "choose another --kid, or remove it",
            _ => "choose another --directory",
        };
        Failure::call(format!("cannot write {}: {error}; {remedy}", path.display()))
    };
    let folder = directory.canonicalize().map_err(|error| failed(directory, error))?;
    let path: PathBuf = folder.join(name);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(match readers {
            Readers::Owner => 0o600,
            Readers::Everyone => 0o644,
        });
    }
    #[cfg(not(unix))]
    let _ = readers;
    let written = options.open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| failed(&path, error))?;
    Ok(path.display().to_string())
}
