//! Prints what rate control reaches in the cases of its goals, on a model of a bottleneck in virtual
//! time: `cargo run -p parlor-transport --example rate_cases [SEEDS]`. The tests assert the same.

#[path = "../tests/rate_model/mod.rs"]
mod rate_model;

use rate_model::cases;

fn main() {
    let seeds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(5);
    let only = std::env::args().nth(2);
    println!("worst of {seeds} seeds\n\n| case | figure | value | goal | |\n|---|---|---|---|---|");
    for (name, case) in cases::ALL {
        if only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        for figure in cases::worst(*case, seeds) {
            println!("| {name} | {figure} |");
        }
    }
}
