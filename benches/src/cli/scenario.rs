//! A scenario file: the options of `parlor-bench latency` or `live` as TOML, for measurements that are kept.

use std::path::Path;

use clap::Parser;

use super::{Failure, Measurement, Program};

/// Reads the options in `path`, and then those of `arguments` (the program's own name first), which win.
/// Gives what they mean together, and all of them.
pub(super) fn apply(path: &Path, arguments: &[String]) -> Result<(Measurement, Vec<String>), Failure> {
    let bad = |why: String| format!("--scenario {}: {why}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| bad(format!("cannot be read: {error}")))?;
    let file = options(&text, arguments).map_err(bad)?;
    let Some((name, given)) = arguments.split_first() else { return Err("no arguments".into()) };
    let (command, given) =
        given.split_first().map_or(("latency", given), |(first, rest)| (first.as_str(), rest));
    let all: Vec<String> = [name.as_str(), command]
        .map(str::to_owned)
        .into_iter()
        .chain(file)
        .chain(given.iter().cloned())
        .collect();
    Ok((Program::try_parse_from(&all)?.command, all))
}

/// The file as options; those that `arguments` has are left out.
fn options(text: &str, arguments: &[String]) -> Result<Vec<String>, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let mut options = Vec::new();
    for (key, value) in table {
        let option = format!("--{}", key.replace('_', "-"));
        let is_given = |given: &String| *given == option || given.starts_with(&format!("{option}="));
        if option == "--scenario" {
            return Err("a scenario cannot name another".to_owned());
        }
        if !arguments.iter().any(is_given) {
            options.push(format!("{option}={}", plain(&key, &value)?));
        }
    }
    Ok(options)
}

fn plain(key: &str, value: &toml::Value) -> Result<String, String> {
    Ok(match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Array(values) => {
            values.iter().map(|value| plain(key, value)).collect::<Result<Vec<_>, _>>()?.join(",")
        }
        _ => return Err(format!("{key} is neither a text, a number nor a list of them")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_options_and_the_command_line_wins() {
        let given = ["parlor-bench", "latency", "--loss=1"].map(str::to_owned);
        let text = "rtt = [20, 50]\nloss = 5\nlink_rate = \"5m\"\nmode = [\"adaptive\"]\n";
        let mut options = options(text, &given).unwrap();
        options.sort_unstable();
        assert_eq!(options, ["--link-rate=5m", "--mode=adaptive", "--rtt=20,50"]);
        assert!(super::options("rtt = true", &[]).unwrap_err().contains("rtt"));
        assert!(super::options("rtt", &[]).is_err());
    }
}
