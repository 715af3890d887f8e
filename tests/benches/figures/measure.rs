//! Measuring in turns: ours, the floor, ours, the floor… A figure is the median of its batches.
//!
//! What one thread computes is measured in its CPU time, which other work on the machine stretches little; services are measured
//! by the wall clock. A ratio compares medians of the same run and means more than either figure alone.

use std::hint::black_box;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Batches of each side.
const BATCHES: usize = 15;
/// What a batch lasts, at least.
const BATCH: Duration = Duration::from_millis(25);

/// A figure beside its floor.
pub struct Row {
    what: String,
    figure: String,
    floor_is: String,
    floor: String,
    ratio: String,
    goal: String,
}

/// Every figure, in order.
#[derive(Default)]
pub struct Table(Vec<Row>);

/// A goal beside what was measured. It is told, never asserted: the machine may be busy.
fn against(goal: f64, measured: f64, unit: &str) -> String {
    format!("≤ {goal}{unit}: {}", if measured <= goal { "met" } else { "missed" })
}

impl Table {
    /// Adds a row of durations that has a goal: at most so many times the floor's time.
    pub fn goal(&mut self, what: &str, ours: f64, floor_is: &str, floor: f64, most: f64) {
        let ratio = ours / floor;
        self.push(what, seconds(ours), floor_is, seconds(floor), format!("{ratio:.2}× its time"));
        self.told(against(most, ratio, "×"));
    }

    /// Says of the last row what was wanted of it, at most, in `unit`.
    pub fn wanted(&mut self, measured: f64, most: f64, unit: &str) {
        self.told(against(most, measured, unit));
    }

    fn told(&mut self, goal: String) {
        if let Some(row) = self.0.last_mut() {
            eprintln!("  {}, wanted {goal}", row.ratio);
            row.goal = goal;
        }
    }

    /// Adds a row of durations: the ratio says how many times the floor's time ours takes.
    pub fn times(&mut self, what: &str, ours: f64, floor_is: &str, floor: f64) {
        self.push(what, seconds(ours), floor_is, seconds(floor), format!("{:.2}× its time", ours / floor));
    }

    /// Adds a row of rates: the ratio says what part of the floor's rate ours is.
    pub fn rates(&mut self, what: &str, ours: f64, floor_is: &str, floor: f64) {
        let ratio = format!("{:.3}× its rate", ours / floor);
        self.push(what, format!("{ours:.0}/s"), floor_is, format!("{floor:.0}/s"), ratio);
    }

    /// Adds a row whose cells are made already.
    pub fn push(&mut self, what: &str, figure: String, floor_is: &str, floor: String, ratio: String) {
        eprintln!("{what}: {figure} ({floor_is}: {floor})");
        self.0.push(Row {
            what: what.to_owned(),
            figure,
            floor_is: floor_is.to_owned(),
            floor,
            ratio,
            goal: String::new(),
        });
    }

    /// Prints everything as a Markdown table.
    pub fn print(&self) {
        println!("| What | Figure | Floor | Its figure | Against it | Goal |\n|---|---:|---|---:|---:|---|");
        for row in &self.0 {
            let Row { what, figure, floor_is, floor, ratio, goal } = row;
            println!("| {what} | {figure} | {floor_is} | {floor} | {ratio} | {goal} |");
        }
    }
}

/// A duration with three digits.
pub fn seconds(value: f64) -> String {
    match value {
        v if v < 1e-6 => format!("{:.0} ns", v * 1e9),
        v if v < 1e-4 => format!("{:.1} µs", v * 1e6),
        v if v < 1e-3 => format!("{:.0} µs", v * 1e6),
        v if v < 1.0 => format!("{:.2} ms", v * 1e3),
        v => format!("{v:.2} s"),
    }
}

/// The middle value.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The value below which `part` of all lie.
pub fn quantile(values: &mut [Duration], part: f64) -> f64 {
    values.sort_unstable();
    let last = values.len() - 1;
    // Truncation cannot matter: the index is between 0 and `last`.
    let index = (0..=last).find(|index| *index as f64 >= last as f64 * part).unwrap_or(last);
    values[index].as_secs_f64()
}

/// Median CPU seconds of one call of each, from interleaved batches.
pub fn turns<A, B>(mut ours: impl FnMut() -> A, mut floor: impl FnMut() -> B) -> (f64, f64) {
    let (mine, theirs) = (calls(&mut ours), calls(&mut floor));
    let mut samples = (Vec::new(), Vec::new());
    for _ in 0..BATCHES {
        samples.0.push(batch(&mut ours, mine));
        samples.1.push(batch(&mut floor, theirs));
    }
    (median(samples.0), median(samples.1))
}

/// How many calls fill a batch.
fn calls<T>(work: &mut impl FnMut() -> T) -> u32 {
    let mut count = 1;
    loop {
        let started = Instant::now();
        batch(work, count);
        if started.elapsed() >= BATCH || count >= 1 << 24 {
            return count;
        }
        count *= 2;
    }
}

fn batch<T>(work: &mut impl FnMut() -> T, count: u32) -> f64 {
    let before = cpu();
    for _ in 0..count {
        black_box(work());
    }
    (cpu() - before).as_secs_f64() / f64::from(count)
}

/// CPU time of this thread.
fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}
