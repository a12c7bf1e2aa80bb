//! Progress, drawn while a command waits.
//!
//! The service measures: what it says of tasks, bytes and rate is in the operation log while the
//! operation runs. Here it is only read and drawn, and only on a terminal.

use std::time::Duration;

use indicatif::{
    HumanBytes, HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle,
};
use karbor_model::{RunProgress, RunReport, visible};
use serde_json::Value;

/// At most this many resources get a line.
const LINES: usize = 8;
/// Names are cut to this many characters.
const NAME: usize = 24;

/// How far an operation is, as its log says.
pub(crate) struct Progress(RunProgress);

impl Progress {
    /// Out of the `extra_info` of an operation log; `None` when it has none.
    pub(crate) fn of(log: &Value) -> Option<Self> {
        RunReport::read(log.get("extra_info")).progress.map(Self)
    }

    /// Bytes moved, and to move.
    fn bytes(&self) -> (u64, u64) {
        (self.0.bytes_done, self.0.bytes_expected)
    }

    /// Tasks that ended, and all of them.
    fn tasks(&self) -> (u64, u64) {
        (self.0.tasks_done as u64, self.0.tasks_total as u64)
    }

    /// Parts in a thousand. Bytes when there are any, for they are the better measure of time;
    /// never whole while tasks remain.
    fn permille(&self) -> u64 {
        let (done, total) = if is_estimate(self.bytes()) {
            self.bytes()
        } else {
            self.tasks()
        };
        let part = part(done, total);
        if self.0.tasks_done < self.0.tasks_total {
            part.min(999)
        } else {
            part
        }
    }

    fn headline(&self) -> String {
        let (done, total) = self.tasks();
        let mut text = format!("{done}/{total} steps");
        if self.0.undoing {
            text = format!("undoing, {text}");
        }
        if self.0.bytes_expected > 0 {
            text.push_str(&format!("  {}", of_bytes(self.bytes())));
        }
        if self.0.bytes_per_second >= 1.0 {
            text.push_str(&format!(
                "  {}/s",
                HumanBytes(self.0.bytes_per_second as u64)
            ));
        }
        match self.eta() {
            Some(eta) => format!("{text}  ETA {}", HumanDuration(eta)),
            None => text,
        }
    }

    /// Of what is known to be left.
    fn eta(&self) -> Option<Duration> {
        let left = self.0.bytes_expected.checked_sub(self.0.bytes_done)?;
        (left > 0 && self.0.bytes_per_second >= 1.0)
            .then(|| left as f64 / self.0.bytes_per_second)
            .filter(|seconds| *seconds < 1e7)
            .map(|seconds| Duration::from_secs(seconds.ceil() as u64))
    }

    /// A line for each resource at work: name, what is done to it, how far.
    fn lines(&self) -> Vec<(String, u64)> {
        let at_work = self.0.resources.iter().filter_map(|resource| {
            let hook = resource.hook.as_deref()?;
            Some((resource, hook))
        });
        let shown = at_work.clone().take(LINES).map(|(resource, hook)| {
            let name = match resource.name.as_str() {
                "" => &resource.key,
                _ => &resource.name,
            };
            let moved = (resource.bytes_done, resource.bytes_expected);
            let bytes = match moved.1 {
                0 => String::new(),
                _ => of_bytes(moved),
            };
            let text = format!(
                "{:<NAME$}  {:<14}  {bytes}",
                cut(&visible(name).replace('\n', " ")),
                visible(hook),
            );
            let part = match is_estimate(moved) {
                true => part(moved.0, moved.1),
                false => 0,
            };
            (text.trim_end().to_owned(), part)
        });
        let mut lines: Vec<_> = shown.collect();
        let more = at_work.count().saturating_sub(LINES);
        if more > 0 {
            lines.push((format!("and {more} more"), 0));
        }
        lines
    }
}

fn part(done: u64, total: u64) -> u64 {
    if total == 0 {
        return 0;
    }
    let part = u128::from(done.min(total)) * 1000 / u128::from(total);
    u64::try_from(part).unwrap_or(1000)
}

/// Is more expected than was moved? Hooks that cannot say beforehand how much it will be are expected
/// to move what they have moved.
fn is_estimate((done, total): (u64, u64)) -> bool {
    total > done
}

fn of_bytes(bytes: (u64, u64)) -> String {
    let (done, total) = bytes;
    if is_estimate(bytes) {
        format!("{} of {}", HumanBytes(done), HumanBytes(total))
    } else {
        HumanBytes(done).to_string()
    }
}

fn cut(name: &str) -> String {
    if name.chars().count() <= NAME {
        return name.to_owned();
    }
    let mut cut: String = name.chars().take(NAME - 1).collect();
    cut.push('…');
    cut
}

/// The bars. Without a terminal nothing is drawn.
pub(crate) struct Bars {
    all: MultiProgress,
    head: ProgressBar,
    lines: Vec<ProgressBar>,
}

impl Bars {
    pub(crate) fn new(label: &str, terminal: bool) -> Self {
        let target = if terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let all = MultiProgress::with_draw_target(target);
        let head = all.add(ProgressBar::new(1000));
        head.set_style(style("{prefix} [{bar:24}] {percent:>3}%  {msg}"));
        head.set_prefix(visible(label).replace('\n', " "));
        Self {
            all,
            head,
            lines: Vec::new(),
        }
    }

    pub(crate) fn show(&mut self, progress: &Progress) {
        self.head.set_position(progress.permille());
        self.head.set_message(progress.headline());
        let lines = progress.lines();
        while self.lines.len() > lines.len() {
            if let Some(line) = self.lines.pop() {
                self.all.remove(&line);
            }
        }
        while self.lines.len() < lines.len() {
            let line = self.all.add(ProgressBar::new(1000));
            line.set_style(style("  [{bar:12}] {msg}"));
            self.lines.push(line);
        }
        for (bar, (text, position)) in self.lines.iter().zip(lines) {
            bar.set_position(position);
            bar.set_message(text);
        }
    }

    /// Says in place of the figures what is waited for.
    pub(crate) fn wait(&mut self, reason: &str) {
        for line in self.lines.drain(..) {
            self.all.remove(&line);
        }
        self.head.set_position(0);
        self.head.set_message(visible(reason).replace('\n', " "));
        // Nothing else draws it.
        self.head.tick();
    }

    /// Takes the bars off the screen.
    pub(crate) fn clear(self) {
        // A terminal that cannot be cleared is no reason to fail.
        let _ = self.all.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("#>-")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn drawn(progress: Value) -> String {
        let log = json!({"extra_info": json!({"progress": progress}).to_string()});
        let progress = Progress::of(&log).unwrap();
        let mut text = format!("{}‰ {}", progress.permille(), progress.headline());
        for (line, position) in progress.lines() {
            text.push_str(&format!("\n{position}‰ {line}"));
        }
        text
    }

    #[test]
    fn names_rate_eta_and_every_resource_at_work() {
        let text = drawn(json!({
            "tasks_done": 5, "tasks_total": 12, "bytes_done": 3_145_728, "bytes_expected": 12_582_912,
            "bytes_per_second": 1_048_576.0,
            "resources": [
                {"key": "T#1", "name": "uploads", "hook": "main", "bytes_done": 1, "bytes_expected": 4},
                {"key": "T#2", "name": "\u{1b}[31ma-very-long-name-of-a-database", "hook": "prepare_begin",
                 "bytes_done": 0, "bytes_expected": 0},
                {"key": "T#3", "name": "done", "hook": null, "bytes_done": 9, "bytes_expected": 9},
            ],
        }));
        insta::assert_snapshot!(text, @r"
        250‰ 5/12 steps  3.00 MiB of 12.00 MiB  1.00 MiB/s  ETA 9 seconds
        250‰ uploads                   main            1 B of 4 B
        0‰ \u{1b}[31ma-very-long-n…  prepare_begin
        ");
    }

    #[test]
    fn counts_steps_when_no_bytes_are_known() {
        insta::assert_snapshot!(
            drawn(json!({"undoing": true, "tasks_done": 1, "tasks_total": 4})),
            @"250‰ undoing, 1/4 steps"
        );
    }

    #[test]
    fn odd_numbers_do_no_harm() {
        let odd = json!({"tasks_done": -1, "tasks_total": "x", "bytes_done": u64::MAX,
            "bytes_expected": 1, "bytes_per_second": 1e300, "resources": [null, 3, {}]});
        assert!(!drawn(odd).is_empty());
        assert!(Progress::of(&json!({"extra_info": "not json"})).is_none());
        assert!(Progress::of(&json!({"extra_info": null})).is_none());
    }

    #[test]
    fn bytes_that_nobody_announced_are_no_measure() {
        insta::assert_snapshot!(
            drawn(json!({"tasks_done": 1, "tasks_total": 4, "bytes_done": 2048, "bytes_expected": 2048})),
            @"250‰ 1/4 steps  2.00 KiB"
        );
    }

    #[test]
    fn not_whole_while_steps_remain() {
        let text = drawn(
            json!({"tasks_done": 4, "tasks_total": 5, "bytes_done": 99_999, "bytes_expected": 100_000}),
        );
        assert!(text.starts_with("999‰"), "{text}");
    }
}
