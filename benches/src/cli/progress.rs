//! Long work says how far it is, on a terminal.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Shows `text` in place of what was shown before; nothing clears it.
pub(super) fn show(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
        _ = std::io::stderr().flush();
    }
}

/// Does `work` for all `tasks`, as many at once as there are cores, and shows how far it is.
pub(super) fn side_by_side<T: Sync, R: Send>(tasks: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new((0, (0..tasks.len()).map(|_| None).collect::<Vec<Option<R>>>()));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(tasks.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(task) = tasks.get(at) else { break };
                    let result = work(task);
                    let mut done = done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    done.0 += 1;
                    done.1[at] = Some(result);
                    show(&format!("{} of {} runs", done.0, tasks.len()));
                }
            });
        }
    });
    show("");
    done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).1.into_iter().flatten().collect()
}
