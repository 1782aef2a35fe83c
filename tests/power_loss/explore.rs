//! Trying the states of a recording: which, how many at once, and what came of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::disk::{Change, Disk, Image, Kept, Rules};
use crate::job::{Promises, Told, judge};
use crate::states::{Choices, Moment, Random, Recording, digest, materialise};

/// The life of the job that a state is judged by.
const JUDGING: u32 = 90;

/// So many failures are shown.
const SHOWN: usize = 12;

/// How many states a test is asked to try: `None` for its own number, the maximum for all.
pub fn asked() -> Option<usize> {
    let asked = std::env::var("MILLPOND_POWER_STATES").ok()?;
    Some(if asked == "all" {
        usize::MAX
    } else {
        asked.parse().expect("MILLPOND_POWER_STATES is a number or `all`")
    })
}

pub fn seed() -> u64 {
    match std::env::var("MILLPOND_POWER_SEED") {
        Ok(seed) => seed.parse().expect("MILLPOND_POWER_SEED is a number"),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64,
    }
}

/// A recording, the disk that it began on, and what had been told before it.
pub struct Scene<'a> {
    recording: &'a Recording,
    image: Image,
    told: Vec<Told>,
    rules: Rules,
    /// Syncs, by role and number, that do nothing.
    pub ignores: Box<dyn Fn(&str, usize) -> bool + Send + Sync>,
}

impl<'a> Scene<'a> {
    pub fn new(recording: &'a Recording, image: Image, told: Vec<Told>, rules: Rules) -> Self {
        Scene { recording, image, told, rules, ignores: Box::new(|_, _| false) }
    }

    fn play(&self, at: &mut dyn FnMut(Moment<'_>)) {
        self.recording.play(Disk::with(&self.image, self.rules), &self.ignores, at);
    }
}

/// A state among all: the moment and which of its choices.
type StateId = (usize, usize);

pub struct Exploration<'a> {
    scene: &'a Scene<'a>,
    limit: usize,
    choices: Choices,
    until_broken: bool,
}

/// A state to be judged.
struct Task {
    image: Image,
    promises: Promises,
    again: bool,
    /// What it is, for who has to find out why it is broken.
    story: Box<dyn Fn() -> String + Send>,
}

/// What came of it.
pub struct Tally {
    moments: usize,
    states: usize,
    distinct: usize,
    seed: u64,
    outcomes: BTreeMap<String, usize>,
    tried: usize,
    broken: Vec<String>,
}

impl<'a> Exploration<'a> {
    /// Tries at most `limit` states, or as many as the environment asks for.
    pub fn bounded(scene: &'a Scene<'a>, limit: usize) -> Self {
        let limit = asked().unwrap_or(limit);
        let choices =
            Choices { pairs: limit == usize::MAX, random: if limit > 2_000 { 8 } else { 2 }, seed: seed() };
        Exploration { scene, limit, choices, until_broken: false }
    }

    /// Ends with the first broken state.
    pub fn until_broken(mut self) -> Self {
        self.until_broken = true;
        self
    }

    /// All distinct states, each at the last moment at which power may be lost and leave it: that is when most was
    /// promised.
    fn enumerate(&self) -> (Tally, HashSet<StateId>) {
        let mut last: HashMap<u64, (StateId, bool)> = HashMap::new();
        let (mut moments, mut states) = (0, 0);
        self.scene.play(&mut |moment| {
            moments += 1;
            for (at, kept) in self.choices.at(&moment).iter().enumerate() {
                states += 1;
                let plain = at < 2;
                let entry = last.entry(digest(&moment.disk.after(kept))).or_insert(((0, 0), plain));
                *entry = ((moment.number, at), entry.1 || plain);
            }
        });
        let distinct = last.len();
        let (plain, mut others): (Vec<_>, Vec<_>) = last.into_values().partition(|(_, plain)| *plain);
        others.sort_unstable();
        let mut random = Random(self.choices.seed | 1);
        let room = self.limit.saturating_sub(plain.len());
        while others.len() > room {
            let at = random.next() as usize % others.len();
            others.swap_remove(at);
        }
        let chosen = plain.into_iter().chain(others).map(|(id, _)| id).collect();
        let (outcomes, broken) = (BTreeMap::new(), Vec::new());
        let tally = Tally { moments, states, distinct, seed: self.choices.seed, outcomes, tried: 0, broken };
        (tally, chosen)
    }

    /// One state, drawn by `random`, and what had been told.
    pub fn pick(&self, random: &mut Random) -> (Image, Vec<Told>) {
        let mut moments = 0;
        self.scene.play(&mut |_| moments += 1);
        let wanted = random.next() as usize % moments;
        let (mut at, mut picked) = (0, None);
        self.scene.play(&mut |moment| {
            if at == wanted {
                let choices = self.choices.at(&moment);
                let kept = &choices[random.next() as usize % choices.len()];
                let told = self.scene.told.iter().chain(moment.told).cloned().collect();
                picked = Some((moment.disk.after(kept), told));
            }
            at += 1;
        });
        picked.unwrap()
    }

    pub fn run(&self) -> Tally {
        let (tally, wanted) = self.enumerate();
        let tally = Mutex::new(tally);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (send, receive) = sync_channel::<Task>(8);
            let receive = Arc::new(Mutex::new(receive));
            for _ in 0..2 {
                let receive = receive.clone();
                let (tally, over) = (&tally, &over);
                scope.spawn(move || {
                    loop {
                        let Ok(task) = receive.lock().unwrap().recv() else { return };
                        if !over.load(Ordering::SeqCst) {
                            let is_sound = try_one(task, tally);
                            over.store(self.until_broken && !is_sound, Ordering::SeqCst);
                        }
                    }
                });
            }
            let mut sent = 0;
            self.scene.play(&mut |moment| {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                for (at, kept) in self.choices.at(&moment).into_iter().enumerate() {
                    if wanted.contains(&(moment.number, at)) {
                        sent += 1;
                        send.send(self.task(&moment, kept, sent % 4 == 0)).unwrap();
                    }
                }
            });
        });
        tally.into_inner().unwrap()
    }

    fn task(&self, moment: &Moment<'_>, kept: Vec<Kept>, again: bool) -> Task {
        let told = self.scene.told.iter().chain(moment.told);
        let (number, seen) = (moment.number, moment.told.last().cloned());
        let image = moment.disk.after(&kept);
        let pending: Vec<Change> = moment.disk.pending.iter().map(|pending| pending.change.clone()).collect();
        let story = move || {
            // What the other changes are seldom matters: those that differ from the most are shown.
            let whole = kept.iter().filter(|kept| **kept == Kept::Whole).count();
            let most = if whole * 2 > kept.len() { Kept::Whole } else { Kept::Nothing };
            let odd = pending.iter().zip(&kept).filter(|(_, kept)| **kept != most);
            let odd = odd.map(|(change, kept)| format!("\n    {kept:?}: {}", shown(change)));
            let odd = odd.collect::<String>();
            let seen: String = seen.as_ref().map(Told::line).unwrap_or_default().chars().take(60).collect();
            let count = pending.len();
            format!("moment {number}, last told `{}`; {most:?} of {count} changes but{odd}", seen.trim_end())
        };
        Task { image, promises: Promises::of(told), again, story: Box::new(story) }
    }
}

fn shown(change: &Change) -> String {
    match change {
        Change::Write { file, at, bytes } => format!("{} bytes at {at} of file {file}", bytes.len()),
        other => format!("{other:?}"),
    }
}

fn try_one(task: Task, tally: &Mutex<Tally>) -> bool {
    let dir = tempfile::tempdir().unwrap();
    materialise(&task.image, dir.path());
    let outcome = judge(&dir.path().join("store"), &task.promises, JUDGING, task.again);
    let mut tally = tally.lock().unwrap();
    tally.tried += 1;
    match outcome {
        Ok(outcome) => {
            *tally.outcomes.entry(outcome).or_default() += 1;
            true
        }
        Err(broken) => {
            let story = (task.story)();
            let files: Vec<_> = task
                .image
                .iter()
                .map(|(path, bytes)| format!("{path} {:?}", bytes.as_ref().map(|bytes| bytes.len())))
                .collect();
            tally.broken.push(format!("{broken}\n  {story}\n  on disk: {files:?}"));
            false
        }
    }
}

impl Tally {
    pub fn print(&self, name: &str) {
        eprintln!(
            "{name}: MILLPOND_POWER_SEED={}: {} moments, {} states, {} distinct, {} tried, {} broken",
            self.seed,
            self.moments,
            self.states,
            self.distinct,
            self.tried,
            self.broken.len()
        );
        for (outcome, count) in &self.outcomes {
            eprintln!("  {count:6} {outcome}");
        }
    }

    pub fn is_sound(&self) -> bool {
        self.broken.is_empty()
    }

    pub fn verdict(&self) -> String {
        match self.broken.first() {
            None => format!("not noticed in {} states", self.tried),
            Some(broken) => format!("noticed at state {}: {}", self.tried, broken.lines().next().unwrap()),
        }
    }

    pub fn assert_sound(&self) {
        let shown = &self.broken[..self.broken.len().min(SHOWN)];
        let report = shown.join("\n\n");
        assert!(self.is_sound(), "{} states are broken; the first of them:\n{report}", self.broken.len());
    }
}
