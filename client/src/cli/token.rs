//! `parlor token`: tokens made by hand, and what is in one.

use std::io::{Read, Write};
use std::path::Path;
use std::time::SystemTime;

use parlor_transport::token::Token;
use parlor_transport::token::claims::{Claims, Date};
use parlor_transport::token::keys::{self, Algorithm, Head, SigningKey, VerifyError, VerifyingKey};
use parlor_transport::units::UnixTime;
use serde_json::json;

use super::args::{Token as Command, TokenCreate, TokenInspect};
use super::{Failure, read};

/// Makes a token, or looks into one.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    let text = match command {
        Command::Create(args) => format!("{}\n", create(*args, today())?.as_str()),
        Command::Inspect(args) => return inspect(&args, today()),
    };
    print(&text)
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::call)
}

fn today() -> UnixTime {
    #[expect(clippy::disallowed_methods, reason = "tokens are dated by the system's date")]
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_secs(since.as_secs())
}

fn create(args: TokenCreate, now: UnixTime) -> Result<Token, Failure> {
    let key = match (&args.secret_file, &args.private_key) {
        (Some(path), _) => named(path, SigningKey::from_secret(read(path)?.trim_end()))?,
        (None, Some(path)) => named(path, SigningKey::from_private_pem(&read(path)?))?,
        // The group in the arguments asks for one of them.
        (None, None) => return Err(Failure::usage("give --secret-file or --private-key to sign with")),
    };
    let mut claims = Claims::new(args.app, args.user, args.room, now + args.expires);
    claims.publish = args.publish || !args.streams.is_empty();
    claims.moderate = args.moderate;
    claims.nbf = args.not_before.map(|wait| Date(now + wait));
    // Listed streams are for those who may not publish any.
    claims.streams = Some(args.streams).filter(|streams| !streams.is_empty() && !args.publish);
    if claims.nbf.is_some_and(|begins| begins.0 >= claims.exp.0) {
        return Err(Failure::usage(
            "it would expire before it counts; give a later --expires or a sooner --not-before",
        ));
    }
    key.named(args.kid).sign(&claims).map_err(Failure::usage)
}

/// The key in the file, or what is wrong with it.
fn named<T>(path: &Path, key: Result<T, keys::KeyError>) -> Result<T, Failure> {
    key.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

fn inspect(args: &TokenInspect, now: UnixTime) -> Result<(), Failure> {
    let text = match &args.file {
        Some(path) if path.as_os_str() != "-" => read(path)?,
        _ => {
            let mut text = String::new();
            // Enough to tell that it is too long.
            let mut input = std::io::stdin().take(2 * Token::BYTES_MAX as u64);
            input.read_to_string(&mut text).map_err(Failure::call)?;
            text
        }
    };
    let token = Token::new(text).map_err(Failure::usage)?;
    let unreadable =
        |error: VerifyError| Failure::call(format!("{error}; get it anew from the app's server"));
    let (head, claims) =
        (keys::head(&token).map_err(unreadable)?, keys::inspect(&token).map_err(unreadable)?);
    let verified = match (&args.secret_file, &args.public_key) {
        (Some(path), _) => {
            Some(named(path, VerifyingKey::from_secret(read(path)?.trim_end()))?.verify(&token))
        }
        (None, Some(path)) => Some(public_key(path)?.verify(&token)),
        (None, None) => None,
    };
    let verified = verified.map(|verified| verified.map(|_| ()));
    print(&if args.json {
        in_json(&head, &claims, now, &verified)
    } else {
        in_words(&head, &claims, now, &verified)
    })?;
    match verified {
        Some(Err(error)) => Err(Failure::call(format!("the key does not vouch for this token: {error}"))),
        _ => Ok(()),
    }
}

/// A public key of whichever algorithm it is.
fn public_key(path: &Path) -> Result<VerifyingKey, Failure> {
    let pem = read(path)?;
    let found = VerifyingKey::from_public_pem(Algorithm::EdDsa, &pem);
    named(path, found.or_else(|_| VerifyingKey::from_public_pem(Algorithm::Es256, &pem)))
}

/// Whether it counts now, by its dates alone.
fn state(claims: &Claims, now: UnixTime) -> &'static str {
    if now >= claims.exp.0 {
        "expired"
    } else if claims.nbf.is_some_and(|begins| now < begins.0) {
        "not yet valid"
    } else {
        "valid now"
    }
}

fn in_json(
    head: &Head,
    claims: &Claims,
    now: UnixTime,
    verified: &Option<Result<(), VerifyError>>,
) -> String {
    let json = json!({
        "algorithm": head.algorithm.map(|algorithm| algorithm.name()),
        "kid": head.key,
        "claims": claims,
        "state": state(claims, now),
        "signature": verified.as_ref().map(|verified| if verified.is_ok() { "good" } else { "wrong" }),
    });
    format!("{json:#}\n")
}

fn in_words(
    head: &Head,
    claims: &Claims,
    now: UnixTime,
    verified: &Option<Result<(), VerifyError>>,
) -> String {
    let streams = match &claims.streams {
        _ if !claims.publish => "no stream".to_owned(),
        None => "any stream".to_owned(),
        Some(streams) => streams.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", "),
    };
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let signed = match (&head.algorithm, &head.key) {
        (None, _) => "in a way that no relay takes".to_owned(),
        (Some(algorithm), None) => format!("{algorithm}, no kid"),
        (Some(algorithm), Some(key)) => format!("{algorithm}, kid {key:?}"),
    };
    let signature = match verified {
        None => "not verified; give --secret-file or --public-key",
        Some(Ok(())) => "good",
        Some(Err(_)) => "WRONG",
    };
    let mut lines = vec![
        ("app", claims.app.0.to_string()),
        ("user", claims.user.0.to_string()),
        ("room", claims.room.to_string()),
        ("join", yes(claims.join)),
        ("publish", streams),
        ("moderate", yes(claims.moderate)),
    ];
    lines.extend(claims.nbf.map(|begins| ("begins", date(begins.0))));
    lines.extend([
        ("expires", date(claims.exp.0)),
        ("state", state(claims, now).to_owned()),
        ("signed", signed),
        ("signature", signature.to_owned()),
    ]);
    lines.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect()
}

/// A date as people write it.
fn date(time: UnixTime) -> String {
    let seconds = time.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years of 400 years' cycles that begin in March, so that the leap day is the last of its year.
    let day = days + 719_468;
    let (cycle, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = cycle * 400 + year + carry;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_078_012_799, "2004-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (1_795_694_400, "2026-11-26 12:00:00 UTC"),
        ] {
            assert_eq!(date(UnixTime::from_secs(seconds)), text);
        }
        assert!(date(UnixTime::from_secs(u64::MAX)).ends_with("UTC"));
    }
}
